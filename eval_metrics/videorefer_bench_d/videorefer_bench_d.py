"""Scores of object descriptions on VideoRefer-Bench-D, given by a judge: subject, appearance, time and invention."""

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate

from .judge_cache import ReplyCache
from .judge_client import ENDPOINT_OPTIONS, EndpointJudge, Reply
from .judge_prompt import DIMENSIONS, VERSION, judge_messages
from .judge_quotes import Quotations
from .judge_reply import UnreadableReplyError, is_readable, published_scores, published_summary, read_reply


# All siblings are named here: the library copies only files that this one imports.
__all__ = ["Quotations", "VideoReferBenchD", "judge_messages", "published_scores", "published_summary", "read_reply"]

logger = logging.getLogger(__name__)

_DESCRIPTION = """
VideoRefer-Bench-D compares a description of an object in a video with a checked one. A judge gives whole numbers from 0
to 5 for Subject Correspondence, Appearance Description, Temporal Description and Hallucination Detection. The judge is
a callable, or a model behind an OpenAI-compatible endpoint.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[str]`): Descriptions by the model.
    references (`list[str]`): The checked descriptions (`caption` of the benchmark).
    judge (`Callable`, *optional*): Takes chat messages, a list of {"role": str, "content": str}, and returns its reply:
        text (JSON or the published form) or a dict of scores. The last message is a JSON object with the strings
        "reference" and "prediction".
    base_url (`str`, *optional*): Address of an OpenAI-compatible endpoint. Default: the hosted one.
    model (`str`, *optional*): Dated id of the judge behind the endpoint. With `judge`: a name for the cache.
    cache_dir (`str`, *optional*): Folder that keeps replies, so that a further run asks for nothing twice.
    api_key (`str`, *optional*): Default: the environment variable OPENAI_API_KEY.
    concurrency (`int`, *optional*, defaults to 8): Requests under way at a time.
    max_retries (`int`, *optional*, defaults to 5): How often a request is repeated after a passing fault.
    retry_delay_seconds (`float`, *optional*, defaults to 0.5): First pause; it doubles, and Retry-After goes before it.
    timeout_seconds (`float`, *optional*, defaults to 60.0): Time for one request.
    max_tokens (`int`, *optional*, defaults to 1024): Longest reply.
    prices (`tuple[float, float]`, *optional*): Price of a million tokens read and written, for `cost`.
    max_cost (`float`, *optional*): Stop before the first request when the estimate is above this. Needs `prices`.
    return_per_sample (`bool`, *optional*, defaults to `False`): Whether to add `per_sample`.
Returns:
    SC, AD, TD, HD (`float`): Mean score of each dimension, 0 to 5, over ALL samples; an unscored one counts 0.
    average (`float`): Mean of the four.
    average_scored (`float`): The same over scored samples alone; 0.0 where none is.
    num_unscored (`int`): Samples without four readable scores.
    num_samples (`int`): Number of samples.
    unscored (`list[dict]`): For each unscored sample `index`, `reason` and the start of the `reply`.
    usage (`dict`): `num_requests`, `num_cached`, `prompt_tokens`, `completion_tokens`, `models`, `cost` and `estimate`.
    per_sample (`list[dict]`): On request, for each sample `scores` (None where unscored), `reply` and `error`.
Examples:
    >>> bench_d = evaluate.load("eval_metrics/videorefer_bench_d")
    >>> judge = lambda messages: {"SC": 5, "AD": 4, "TD": 3, "HD": 4}
    >>> bench_d.compute(predictions=["A dog."], references=["A brown dog."], judge=judge)["average"]
    4.0
"""

_CITATION = """
@inproceedings{yuan2025videorefer,
  title     = {VideoRefer Suite: Advancing Spatial-Temporal Object Understanding with Video LLM},
  author    = {Yuan, Yuqian and Zhang, Hang and Li, Wentong and Cheng, Zesen and Zhang, Boqiang and Li, Long and
               Li, Xin and Zhao, Deli and Zhang, Wenqiao and Zhuang, Yueting and others},
  booktitle = {CVPR},
  year      = {2025},
  url       = {https://arxiv.org/abs/2501.00599}
}
"""

Judge = Callable[[list[dict[str, str]]], Any]
# Rough sizes for the estimate: letters of English text per token, and a short graded reply.
LETTERS_PER_TOKEN = 4
ESTIMATED_REPLY_TOKENS = 120


def _check_callable(judge: Any) -> None:
    """Refuse what can't be called with the messages alone, before anything is asked."""
    if not callable(judge):
        raise TypeError(f"`judge` is {type(judge).__name__}. Pass a callable `judge(messages) -> str | dict`.")
    try:
        signature = inspect.signature(judge)
    except (TypeError, ValueError):  # some callables written in C tell no signature
        return
    try:
        signature.bind([])
    except TypeError as error:
        raise TypeError(
            f"`judge` can't be called with chat messages alone ({error}). Pass a callable `judge(messages) -> str | dict`."
        ) from None


def _call(judge: Judge, messages: list[dict[str, str]], name: str | None) -> Reply:
    """Ask a callable once. Where it raises an error its sample has no reply; stopping by hand still ends the run."""
    try:
        content = judge(messages)
    except Exception as error:  # noqa: BLE001 - a judge is code of the caller and may raise anything
        logger.debug("The judge raised an error.", exc_info=True)
        reason = f"the judge raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Reply(error=reason, num_requests=1, model=name)
    if inspect.isawaitable(content):
        if inspect.iscoroutine(content):
            content.close()  # else Python warns that nobody awaited it
        raise TypeError(f"`judge` returned {type(content).__name__}. Pass a synchronous callable.")
    return Reply(content, num_requests=1, model=name)


def _ask_callable(judge: Judge, pairs: Sequence[tuple[str, str]], name: str | None, cache: ReplyCache) -> list[Reply]:
    """Ask a callable for every pair; with a name for it, replies are kept like those of an endpoint."""
    _check_callable(judge)
    if name is None:
        if cache.folder is not None:
            logger.warning(
                "Replies of this `judge` are not kept: name it with `model`, so that they can be told apart."
            )
        return [_call(judge, judge_messages(*pair), None) for pair in pairs]
    replies = []
    for pair in pairs:
        request = {"version": VERSION, "model": name, "judge": "callable", "messages": judge_messages(*pair)}
        entry = cache.get(request)
        if entry is not None and is_readable(entry["content"], pair[0]):
            reply = Reply(entry["content"], is_cached=True, model=name)
        else:
            reply = _call(judge, request["messages"], name)
            # A reply without scores is asked for again on the next run.
            if reply.error is None and is_readable(reply.content, pair[0]):
                cache.put(request, {"content": reply.content})
        replies.append(reply)
    return replies


def _cost(num_read: int, num_written: int, prices: tuple[float, float] | None) -> float | None:
    return None if prices is None else (num_read * prices[0] + num_written * prices[1]) / 1e6


def _estimate(pairs: Sequence[tuple[str, str]], prices: tuple[float, float] | None) -> dict[str, Any]:
    """Guess from the length of the texts what asking for these pairs takes."""
    num_letters = sum(len(message["content"]) for pair in pairs for message in judge_messages(*pair))
    num_read, num_written = -(-num_letters // LETTERS_PER_TOKEN), ESTIMATED_REPLY_TOKENS * len(pairs)
    cost = _cost(num_read, num_written, prices)
    return {"num_requests": len(pairs), "prompt_tokens": num_read, "completion_tokens": num_written, "cost": cost}


def _usage(replies: Sequence[Reply], prices: tuple[float, float] | None, estimate: dict[str, Any]) -> dict[str, Any]:
    """Add up what was really used."""
    num_read, num_written = sum(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies)
    return {
        "num_requests": sum(reply.num_requests for reply in replies),
        "num_cached": sum(reply.is_cached for reply in replies),
        "prompt_tokens": num_read,
        "completion_tokens": num_written,
        "models": sorted({reply.model for reply in replies if reply.model}),
        "cost": _cost(num_read, num_written, prices),
        "estimate": estimate,
    }


def _read(reply: Reply, prediction: str) -> dict[str, Any]:
    """Read the scores of one reply, or say why there are none."""
    scores, error = None, reply.error
    if error is None:
        try:
            scores = read_reply(reply.content, prediction)
        except (UnreadableReplyError, TypeError) as unreadable:
            error = str(unreadable)
    return {"scores": scores, "reply": reply.content, "error": error}


def _summary(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average over all samples, an unscored one counting 0, and over the scored ones."""
    scored = [sample["scores"] for sample in samples if sample["scores"] is not None]
    totals = {name: sum(scores[name] for scores in scored) for name in DIMENSIONS}
    result = {name: total / len(samples) if samples else 0.0 for name, total in totals.items()}
    total = sum(totals.values()) / len(DIMENSIONS)
    return result | {
        "average": total / len(samples) if samples else 0.0,
        "average_scored": total / len(scored) if scored else 0.0,
        "num_unscored": len(samples) - len(scored),
        "num_samples": len(samples),
        "unscored": [
            {"index": index, "reason": sample["error"], "reply": str(sample["reply"] or "")[:200]}
            for index, sample in enumerate(samples)
            if sample["scores"] is None
        ],
    }


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class VideoReferBenchD(evaluate.Metric):
    """Judge scores on VideoRefer-Bench-D."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://arxiv.org/abs/2501.00599"],
        )

    def estimate_cost(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        prices: tuple[float, float] | None = None,
    ) -> dict[str, Any]:
        """Guess what a judge behind an endpoint will use, before anything is sent.

        Args:
            predictions (`Sequence[str]`): Descriptions by the model.
            references (`Sequence[str]`): The checked descriptions.
            prices (`tuple[float, float]`, *optional*): Price of a million tokens read and written.

        Returns:
            `dict[str, Any]`: `num_requests`, `prompt_tokens`, `completion_tokens` and `cost` (None without prices), from
            the length of the texts and without regard to the cache.
        """
        return _estimate(list(dict.fromkeys(zip(predictions, references, strict=True))), prices)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        judge: Judge | None = None,
        base_url: str | None = None,
        model: str | None = None,
        cache_dir: str | os.PathLike | None = None,
        prices: tuple[float, float] | None = None,
        max_cost: float | None = None,
        return_per_sample: bool = False,
        **endpoint_options: Any,
    ) -> dict[str, Any]:
        pairs = [
            (prediction or "", reference or "") for prediction, reference in zip(predictions, references, strict=True)
        ]
        cache = ReplyCache(cache_dir)
        if unknown := sorted(set(endpoint_options) - set(ENDPOINT_OPTIONS)):
            raise TypeError(
                f"`{unknown[0]}` is no option of this metric. An endpoint takes {', '.join(ENDPOINT_OPTIONS)}."
            )
        if judge is not None:
            if base_url is not None or endpoint_options:
                given = ", ".join(["base_url"] * (base_url is not None) + list(endpoint_options))
                raise ValueError(f"`judge` is given together with {given}. Pass a callable or an endpoint, not both.")
            replies, estimate = _ask_callable(judge, pairs, model, cache), _estimate([], prices)
        elif model is None:
            raise ValueError(
                "There is no judge. Pass `judge`, a callable, or `model`, the dated id behind `base_url`."
            )
        else:
            endpoint = EndpointJudge(model, base_url, cache=cache, **endpoint_options)
            estimate = self._announce(endpoint, pairs, prices, max_cost)
            replies = endpoint.ask_all(pairs)
        samples = [_read(reply, prediction) for reply, (prediction, _) in zip(replies, pairs, strict=True)]
        result = _summary(samples) | {"usage": _usage(replies, prices, estimate)}
        for entry in result["unscored"][:5]:
            logger.warning("Sample %(index)d has no score: %(reason)s. Reply: %(reply)r", entry)
        if result["num_unscored"]:
            logger.warning(
                "%d of %d samples have no score: each counts 0 in SC, AD, TD, HD and `average`, and is left out of "
                "`average_scored`.",
                result["num_unscored"],
                len(samples),
            )
        if samples and result["num_unscored"] == len(samples):
            logger.error("The judge scored no sample at all: averages of 0 tell nothing about the descriptions.")
        return result | {"per_sample": samples} if return_per_sample else result

    def _announce(
        self,
        endpoint: EndpointJudge,
        pairs: Sequence[tuple[str, str]],
        prices: tuple[float, float] | None,
        max_cost: float | None,
    ) -> dict[str, Any]:
        """Tell what the open requests will take, and stop where that is more than allowed."""
        open_pairs = [pair for pair in dict.fromkeys(pairs) if endpoint.cached(pair) is None]
        estimate = _estimate(open_pairs, prices)
        logger.info("Estimate before asking %s: %s", endpoint.model, estimate)
        if max_cost is not None:
            if prices is None:
                raise ValueError(
                    "`max_cost` is given without `prices`. Pass the price of a million tokens read and written."
                )
            if estimate["cost"] > max_cost:
                raise ValueError(
                    f"The estimate of {estimate['cost']} for {len(open_pairs)} requests is above `max_cost` ({max_cost})."
                    " Raise it, or judge fewer samples."
                )
        return estimate
