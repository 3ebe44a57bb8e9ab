"""Asks a judge behind an OpenAI-compatible endpoint: hosted, vLLM, TGI, `transformers serve`."""

import email.utils
import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from .judge_cache import ReplyCache
from .judge_prompt import VERSION, judge_messages, request_settings
from .judge_reply import is_readable


try:
    import openai
except ImportError:  # a judge that is a callable needs no client
    openai = None

logger = logging.getLogger(__name__)

MAX_DELAY_SECONDS = 60.0
# A server that asks for more patience than this is given up on for the item.
MAX_RETRY_AFTER_SECONDS = 600.0
_SCHEMA_WORDS = re.compile("response_?format|schema", re.IGNORECASE)


class RequestFailedError(Exception):
    """A request for one description failed for good.

    Args:
        reason (`str`): What happened.
        status (`int`, *optional*): The HTTP status, if there was an answer.
        names_schema (`bool`, *optional*, defaults to `False`): Whether the server speaks of the schema of the reply.
    """

    def __init__(self, reason: str, status: int | None, *, names_schema: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.names_schema = names_schema


@dataclass
class Reply:
    """What came back for one description.

    Args:
        content (`str` or `dict`, *optional*): The judge's reply, None when there is none.
        error (`str`, *optional*): Why there is none.
        is_cached (`bool`): Whether it was read from the disk.
        num_requests (`int`): Requests sent for it, repeated ones included.
        prompt_tokens (`int`): Tokens read by the judge for it, as the server reports.
        completion_tokens (`int`): Tokens written, as the server reports.
        model (`str`, *optional*): The id under which the server answered.
    """

    content: Any = None
    error: str | None = None
    is_cached: bool = False
    num_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str | None = None


@dataclass
class EndpointJudge:
    """A judge behind a chat-completions endpoint.

    Args:
        model (`str`): Dated id of the judge, such as `"gpt-4o-2024-11-20"`.
        base_url (`str`, *optional*): Address of the endpoint. Default: the hosted one of the client.
        api_key (`str`, *optional*): Key. Default: the environment variable `OPENAI_API_KEY`.
        cache (`ReplyCache`): Replies kept so far.
        concurrency (`int`): Requests under way at a time.
        max_retries (`int`): How often a request is repeated.
        retry_delay_seconds (`float`): Pause before the first repetition; it doubles each time.
        timeout_seconds (`float`): How long one request may take.
        max_tokens (`int`): Longest answer.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    cache: ReplyCache = field(default_factory=lambda: ReplyCache(None))
    concurrency: int = 8
    max_retries: int = 5
    retry_delay_seconds: float = 0.5
    timeout_seconds: float = 60.0
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        if openai is None:
            raise ImportError("A judge behind an endpoint needs `openai`. Install it with `pip install openai`.")
        least_values = {"concurrency": 1, "max_retries": 0, "max_tokens": 1, "retry_delay_seconds": 0}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}. It must be at least {least}.")
        if self.timeout_seconds <= 0:
            raise ValueError(f"`timeout_seconds` is {self.timeout_seconds}. It must be above 0.")
        _check_address(self.base_url or os.environ.get("OPENAI_BASE_URL"))  # the client reads the variable too
        # Servers of one's own usually want no key, but the client insists on one.
        key = self.api_key or os.environ.get("OPENAI_API_KEY") or (None if self.base_url is None else "none")
        if key is None:
            raise ValueError("There is no `api_key`. Pass it or set the environment variable OPENAI_API_KEY.")
        self._client = openai.OpenAI(base_url=self.base_url, api_key=key, timeout=self.timeout_seconds, max_retries=0)
        self._address = str(self._client.base_url)
        if "api.openai.com" in self._address and not re.search(r"\d{4}-\d{2}-\d{2}|-\d{4}\b", self.model):
            raise ValueError(
                f"`model` is {self.model!r}, which may change its weights any day. Pass a dated id, such as "
                "'gpt-4o-2024-11-20'."
            )
        self._takes_schema, self._has_used_schema = True, False
        self._has_answered = self._seems_down = False
        self._is_over = threading.Event()

    def ask_all(self, pairs: Sequence[tuple[str, str]]) -> list[Reply]:
        """Get a reply for every pair, each distinct pair being asked once.

        Args:
            pairs (`Sequence[tuple[str, str]]`): Prediction and reference of each description.

        Returns:
            `list[Reply]`: In the order of `pairs`. A pair whose request failed for good has an `error`.

        Raises:
            OSError: If the endpoint refuses all requests (key, rights, quota or model id).
        """
        distinct = list(dict.fromkeys(pairs))
        self._is_over.clear()
        executor = ThreadPoolExecutor(self.concurrency)
        try:
            futures = [executor.submit(self._ask, pair) for pair in distinct]
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()  # raises what refuses all requests, while others still wait for their turn
            replies = {pair: future.result() for pair, future in zip(distinct, futures, strict=True)}
        finally:
            self._is_over.set()  # wakes the threads that pause
            executor.shutdown(cancel_futures=True)
        first = {pair: index for index, pair in reversed(list(enumerate(pairs)))}
        # A repeated pair costs nothing more.
        return [
            replies[pair]
            if first[pair] == index
            else Reply(replies[pair].content, replies[pair].error, is_cached=True)
            for index, pair in enumerate(pairs)
        ]

    def cached(self, pair: tuple[str, str]) -> Reply | None:
        """Look a reply up on the disk: with the JSON schema, and as text for servers that do not take it.

        Args:
            pair (`tuple[str, str]`): Prediction and reference.

        Returns:
            `Reply`: The reply, or None.
        """
        for structured in (True, False):
            entry = self.cache.get(self._request(pair, structured))
            if entry is not None and is_readable(entry["content"], pair[0]):
                return Reply(entry["content"], is_cached=True, model=entry["model"])
        return None

    def _request(self, pair: tuple[str, str], structured: bool) -> dict[str, Any]:
        """Return everything that decides the reply."""
        messages = judge_messages(*pair, structured=structured)
        settings = request_settings(self.model, self.max_tokens, structured=structured)
        return {"version": VERSION, "base_url": self._address, "messages": messages, **settings}

    def _ask(self, pair: tuple[str, str]) -> Reply:
        """Get the reply of one pair from the disk or the endpoint."""
        if (known := self.cached(pair)) is not None:
            return known
        reply, names_schema = Reply(), False
        for structured in (True, False) if self._takes_schema else (False,):
            try:
                completion = self._complete(pair, structured, reply)
            except RequestFailedError as failure:
                reply.error, names_schema = str(failure), failure.names_schema
                if failure.status in (400, 422) and structured:  # many servers know no JSON schema
                    continue
                return reply
            if structured:
                self._has_used_schema = True
            # One item may be refused for reasons of its own, such as its length.
            elif self._takes_schema and (names_schema or not self._has_used_schema):
                logger.warning("The judge takes no JSON schema (%s) and is asked for the text form.", reply.error)
                self._takes_schema = False
            # A reply without scores is asked for again on the next run.
            if is_readable(completion["content"], pair[0]):
                self.cache.put(self._request(pair, structured), completion)
            used = {name: completion[name] for name in ("content", "model", "prompt_tokens", "completion_tokens")}
            return replace(reply, error=None, **used)
        return reply

    def _complete(self, pair: tuple[str, str], structured: bool, reply: Reply) -> dict[str, Any]:
        """Send one request, again after passing faults, and return the parts of the answer that are kept."""
        request = self._request(pair, structured)
        arguments = {name: value for name, value in request.items() if name not in ("version", "base_url")}
        attempt = 0
        while True:
            reply.num_requests += 1
            try:
                completion = _read_completion(self._client.chat.completions.create(**arguments))
                self._has_answered = True
                return completion
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise self._refused(error) from error
            except (openai.APIError, json.JSONDecodeError) as error:
                # No status: no connection, a dropped one, a time-out, or an answer that is no completion.
                response = getattr(error, "response", None)
                status = None if response is None else response.status_code
                self._has_answered |= response is not None
                if getattr(error, "code", None) == "insufficient_quota":
                    raise self._refused(error) from error
                delay = self._delay(attempt, None if response is None else response.headers.get("retry-after"))
                is_passing = status is None or status in (408, 409, 429) or status >= 500
                # Where nobody ever answered, one description is patient for all: hundreds would take many minutes.
                num_retries = 0 if self._seems_down and not self._has_answered else self.max_retries
                if not is_passing or attempt >= num_retries or delay > MAX_RETRY_AFTER_SECONDS:
                    self._seems_down |= isinstance(error, openai.APIConnectionError)
                    names_schema = _SCHEMA_WORDS.search(str(error)) is not None
                    raise RequestFailedError(_short(error), status, names_schema=names_schema) from error
            if self._is_over.wait(delay):
                raise RequestFailedError("the run ended before this description was judged", status)
            attempt += 1

    def _refused(self, error: Exception) -> OSError:
        return OSError(
            f"The judge {self.model!r} at {self._address} refuses requests ({_short(error)}). "
            "Check `model`, `base_url`, `api_key` and the quota; replies so far stay in `cache_dir`."
        )

    def _delay(self, attempt: int, retry_after: str | None) -> float:
        """Return the seconds to wait: what the server asks for, else twice as long each time, with some scatter."""
        if (asked := _seconds_until(retry_after)) is not None:
            return asked
        return min(self.retry_delay_seconds * 2**attempt, MAX_DELAY_SECONDS) * random.uniform(0.75, 1.25)


# Settings that a run may give, beside the model, its address and the cache.
ENDPOINT_OPTIONS = tuple(one.name for one in fields(EndpointJudge) if one.name not in ("model", "base_url", "cache"))


def _check_address(base_url: str | None) -> None:
    """Refuse what names no server, and passwords: the address is kept with each reply."""
    is_address = not base_url or _is_address(base_url)
    if base_url and "@" in base_url and not (is_address and urlsplit(base_url).username is None):
        raise ValueError(
            "`base_url` holds a user name or password, which would get into cached replies and messages. Pass the "
            "address without it, and the key as `api_key` (or in the environment variable OPENAI_API_KEY)."
        )
    if not is_address:
        raise ValueError(
            f"`base_url` is {base_url!r}, which is no address of an endpoint. Pass one such as "
            "'http://localhost:8000/v1'."
        )


def _is_address(text: str) -> bool:
    """Whether a text names a server: anything else would be asked again and again like one that is down."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _seconds_until(retry_after: str | None) -> float | None:
    """Read the header Retry-After in both of its forms, seconds or a date."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", retry_after):
        return float(retry_after)
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _read_completion(completion: Any) -> dict[str, Any]:
    """Take what is kept out of a chat completion; a page of a proxy or an empty object is none."""
    choices = getattr(completion, "choices", None)
    message = getattr(choices[0], "message", None) if choices else None
    if message is None:
        raise openai.APIError("the answer is no chat completion", request=None, body=None)
    content, usage = message.content, completion.usage
    return {
        # Some servers send parsed JSON or a list of parts where text belongs.
        "content": content if content is None or isinstance(content, str) else json.dumps(content),
        "model": completion.model,
        "prompt_tokens": usage.prompt_tokens or 0 if usage else 0,
        "completion_tokens": usage.completion_tokens or 0 if usage else 0,
    }


def _short(error: Exception) -> str:
    """Name an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
