"""Scores of finished runs, by the metric modules of this repository; a sample without an answer counts as wrong."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .benches import DESCRIPTION, OPEN_QUESTION, QUESTION
from .statistics import bootstrap_interval


DIMENSIONS = ("SC", "AD", "TD", "HD")
CAPTION_METRICS = ("BLEU@4", "METEOR", "ROUGE_L", "CIDEr", "SPICE")
_PACKAGE = Path(__file__).parents[1]
# In the wheel the modules lie in the package, in a checkout beside `src`.
_METRIC_FOLDERS = (_PACKAGE / "eval_metrics", _PACKAGE.parents[1] / "eval_metrics")
_METRICS_OF = {
    "bench-d": ("videorefer_bench_d",),
    "bench-q": ("videorefer_bench_q",),
    "hc-stvg": ("region_captioning",),
    "synthetic": ("videorefer_bench_q",),
}
_NO_OPTION = "(A)"

Line = Mapping[str, Any]


class JudgeError(OSError):
    """The judge can't be reached, refuses all requests, or scored none of the descriptions it was asked about."""


@dataclass
class Scores:
    """What a run scored.

    Attributes:
        values (`dict[str, dict]`): For each score its `value`, the 95 % `interval` (None where the metric is no mean
            over samples), `num_samples`, and `num_videos`, the number of independent draws behind the interval.
        samples (`list[dict[str, float]]`): For each line of the run the scores that belong to it alone.
        details (`dict[str, Any]`): Counts and whatever else the metrics tell.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: list[dict[str, float]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def load_metric(name: str) -> Any:
    """Load one of our metric modules.

    Args:
        name (`str`): Name of its folder.

    Returns:
        `evaluate.EvaluationModule`: The metric.

    Raises:
        ImportError: If the library `evaluate` is missing.
        OSError: If this installation lacks the modules.
    """
    try:
        import evaluate
    except ImportError as error:
        raise ImportError(
            "Scores need the library `evaluate`. Install it with `pip install transformers-videorefer[eval]`."
        ) from error
    for folder in _METRIC_FOLDERS:
        if (folder / name / f"{name}.py").is_file():
            # Names of its own, because runs that score at the same time would wait for each other's files.
            return evaluate.load(str(folder / name), experiment_id=uuid.uuid4().hex, keep_in_memory=True)
    raise FileNotFoundError(f"The metric module {name} is not installed. Install the package again from a wheel.")


def mend_text(text: str) -> str:
    """Replace half characters (lone surrogates), which broken texts hold and no file or metric takes.

    Args:
        text (`str`): A text.

    Returns:
        `str`: The text with U+FFFD in their place.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_metrics(bench: str, caption_metrics: Sequence[str] = CAPTION_METRICS, tokenizer: str = "ptb") -> None:
    """Find out whether a benchmark can be scored here, before hours are spent on answers.

    Args:
        bench (`str`): Name of the benchmark.
        caption_metrics (`Sequence[str]`, *optional*): Metrics of HC-STVG.
        tokenizer (`str`, *optional*, defaults to `"ptb"`): Their tokenizer.

    Raises:
        ImportError: If a library or program is missing; the message tells how to install it.
        OSError: If this installation lacks the metric modules.
    """
    for name in _METRICS_OF[bench]:
        metric = load_metric(name)
        if name == "region_captioning":  # it looks for its programs before it looks at captions
            metric.compute(predictions=[], references=[], metrics=list(caption_metrics), tokenizer=tokenizer)


def score_run(
    bench: str,
    lines: Sequence[Line],
    *,
    judge: Mapping[str, Any] | None = None,
    caption_metrics: Sequence[str] = CAPTION_METRICS,
    tokenizer: str = "ptb",
    seed: int = 0,
) -> Scores:
    """Score the lines of a finished run.

    Args:
        bench (`str`): Name of the benchmark.
        lines (`Sequence[Mapping]`): Its lines, see `BenchSamples.describe`, with `prediction` or `error`.
        judge (`Mapping[str, Any]`, *optional*): Keywords of the metric `videorefer_bench_d` that name the judge of
            descriptions (`judge`, or `model` and `base_url`). Without it descriptions of Bench-D stay unscored.
        caption_metrics (`Sequence[str]`, *optional*): Metrics of HC-STVG; all five by default.
        tokenizer (`str`, *optional*, defaults to `"ptb"`): Tokenizer of these metrics.
        seed (`int`, *optional*, defaults to 0): Seed of the intervals.

    Returns:
        [`Scores`]: Accuracies and caption metrics from 0 to 1 (CIDEr to 10), judge scores from 0 to 5.

    Raises:
        JudgeError: If the judge refuses all requests, or scored nothing at all.
    """
    scorer = _Scorer(lines, seed)
    if scorer.questions:
        scorer.score_questions()
    if bench == "hc-stvg":
        scorer.score_captions(caption_metrics, tokenizer)
        return scorer.scores
    if bench == "synthetic":
        scorer.score_exactly("exact_match", scorer.descriptions)
        scorer.score_exactly("exact_open", scorer.open_questions)
    if scorer.descriptions and judge is not None:
        scorer.judge_descriptions(judge)
    return scorer.scores


class _Scorer:
    """Collects the scores of one run."""

    def __init__(self, lines: Sequence[Line], seed: int):
        self.lines = lines
        self.questions = [number for number, line in enumerate(lines) if line["form"] == QUESTION]
        self.descriptions = [number for number, line in enumerate(lines) if line["form"] == DESCRIPTION]
        self.open_questions = [number for number, line in enumerate(lines) if line["form"] == OPEN_QUESTION]
        num_failed = sum(line.get("error") is not None for line in lines)
        details = {"num_samples": len(lines), "num_failed": num_failed}
        self.scores = Scores(samples=[{} for _ in lines], details=details)
        self._seed = seed

    def score_questions(self) -> None:
        """Score questions in both ways of reading letters; the published one is the main result."""
        metric = load_metric("videorefer_bench_q")
        types = [mend_text(self.lines[number]["type"]) for number in self.questions]
        predictions = [mend_text(self.lines[number].get("prediction") or "") for number in self.questions]
        for mode, suffix in (("published", ""), ("strict", "_strict")):
            references = [_reference(self.lines[number], mode) for number in self.questions]
            result = metric.compute(
                predictions=predictions, references=references, types=types, mode=mode, return_per_sample=True
            )
            for number, sample in zip(self.questions, result["per_sample"], strict=True):
                self._samples[number][f"accuracy{suffix}"] = float(sample["correct"])
            for count in ("num_unanswered", "num_ambiguous"):
                self.scores.details[f"{count}{suffix}"] = result[count]
            if mode == "published":
                for kind in result["accuracy_by_type"]:
                    of_kind = [number for number, one in zip(self.questions, types, strict=True) if one == kind]
                    self._add_mean(kind, of="accuracy", numbers=of_kind)
            self._add_mean(f"accuracy{suffix}", numbers=self.questions)

    def score_exactly(self, name: str, numbers: Sequence[int]) -> None:
        """Compare answers about the toy world, of which each question has exactly one, letter by letter."""
        for number in numbers:
            line = self.lines[number]
            self._samples[number][name] = float(line.get("prediction") == line["reference"])
        if numbers:
            self._add_mean(name, numbers=numbers)

    def judge_descriptions(self, judge: Mapping[str, Any]) -> None:
        """Have descriptions judged. Failed samples are not sent: an empty text invents nothing, HD might be high."""
        asked = [number for number in self.descriptions if self.lines[number].get("error") is None]
        of_sample: dict[int, Any] = {}
        unscored: list[dict[str, Any]] = []
        if asked:
            result = self._ask_judge(asked, judge)
            of_sample = {n: one["scores"] for n, one in zip(asked, result["per_sample"], strict=True) if one["scores"]}
            if not of_sample:
                # Zeros would look like a result, in a table beside the published ones.
                noun = "description" if len(asked) == 1 else "descriptions"
                raise JudgeError(
                    f"The judge scored none of {len(asked)} {noun}. "
                    f"The last reason: {result['unscored'][-1]['reason'].rstrip('.')}."
                )
            unscored = [{**entry, "index": self.lines[asked[entry["index"]]]["index"]} for entry in result["unscored"]]
            self.scores.details["usage"] = result["usage"]
        for number in self.descriptions:
            values = {name: float(of_sample[number][name]) if number in of_sample else 0.0 for name in DIMENSIONS}
            self._samples[number] |= values | {"average": sum(values.values()) / len(DIMENSIONS)}
        for name in (*DIMENSIONS, "average"):
            self._add_mean(name, numbers=self.descriptions)
        averages = [self._samples[number]["average"] for number in of_sample]
        self.scores.details |= {
            "judge": judge.get("model"),
            "average_scored": float(np.mean(averages)) if averages else None,
            "num_unscored": len(unscored),
            "unscored": unscored,
        }

    def _ask_judge(self, asked: Sequence[int], judge: Mapping[str, Any]) -> dict[str, Any]:
        metric = load_metric("videorefer_bench_d")
        try:
            return metric.compute(
                predictions=[mend_text(self.lines[number]["prediction"]) for number in asked],
                references=[mend_text(self.lines[number]["reference"] or "") for number in asked],
                return_per_sample=True,
                **judge,
            )
        except OSError as error:
            raise JudgeError(str(error)) from error

    def score_captions(self, metrics: Sequence[str], tokenizer: str) -> None:
        """Compare captions with the published ones by the standard caption metrics."""
        result = load_metric("region_captioning").compute(
            predictions=[mend_text(line.get("prediction") or "") for line in self.lines],
            references=[[mend_text(line["reference"] or "")] for line in self.lines],
            metrics=list(metrics),
            tokenizer=tokenizer,
            return_per_sample=True,
        )
        self.scores.details["tokenizer"] = result["tokenizer"]
        for name in metrics:
            if name in result["per_sample"]:
                for sample, value in zip(self._samples, result["per_sample"][name], strict=True):
                    sample[name] = value
                self._add_mean(name, numbers=self.descriptions)
            else:
                self.scores.values[name] = {
                    "value": result[name],
                    "interval": None,
                    "num_samples": len(self.lines),
                    "num_videos": len({line.get("video") for line in self.lines}),
                }

    @property
    def _samples(self) -> list[dict[str, float]]:
        return self.scores.samples

    def _add_mean(self, name: str, *, numbers: Sequence[int], of: str | None = None) -> None:
        """Add the mean of a score over some lines, with its interval over draws of their videos."""
        values = np.array([self._samples[number][of or name] for number in numbers])
        groups = [self.lines[number].get("video") for number in numbers]
        self.scores.values[name] = {
            "value": float(values.mean()),
            "interval": list(bootstrap_interval(values, groups, seed=self._seed)),
            "num_samples": len(values),
            "num_videos": len(set(groups)),
        }


def _reference(line: Line, mode: str) -> str:
    """Return the right answer. The strict mode refuses a record without one, whose sample is wrong in any case."""
    reference = mend_text(line["reference"] or "")
    return _NO_OPTION if mode == "strict" and line.get("error") is not None and not reference else reference
