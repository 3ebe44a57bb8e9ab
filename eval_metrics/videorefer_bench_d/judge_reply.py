"""Reads scores out of a judge's reply: JSON, the published text form, and the published reader for old results."""

import json
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .judge_prompt import DIMENSIONS, MAX_SCORE


class UnreadableReplyError(ValueError):
    """The reply of a judge does not hold four whole numbers from 0 to 5 that can be told apart."""


def read_reply(reply: str | Mapping[str, Any] | None) -> dict[str, int]:
    """Read the four scores of one reply.

    A reply that opens with a brace or a code fence must be JSON; any other must open with the first line of the
    published text form. So scores that a judge merely quotes, in broken JSON or in a refusal, are never read as its own.
    Scores outside 0 to 5 and fractions are never rounded or clipped.

    Args:
        reply (`str` or `Mapping`): The judge's reply, or the object it stands for.

    Returns:
        `dict[str, int]`: Scores by `"SC"`, `"AD"`, `"TD"` and `"HD"`, each from 0 to 5.

    Raises:
        UnreadableReplyError: If a score is missing, doubtful or out of range.
        TypeError: If `reply` is neither text nor a mapping.
    """
    if isinstance(reply, Mapping):
        return _read_object(reply)
    if reply is None:
        raise UnreadableReplyError("the reply is empty")
    if not isinstance(reply, str):
        raise TypeError(f"A judge returned {type(reply).__name__}. Return its reply as text, or a dict of scores.")
    text = reply.strip()
    if not text:
        raise UnreadableReplyError("the reply is empty")
    if text.startswith(("{", "```")):
        fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, flags=re.DOTALL)
        return _read_json(fenced.group(1) if fenced else text)
    return _read_text(text)


def _read_json(text: str) -> dict[str, int]:
    try:
        content = json.loads(text, object_pairs_hook=_unique_keys)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnreadableReplyError(f"the reply is no valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UnreadableReplyError("the reply is JSON, but no object")
    return _read_object(content)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that gives a key twice: which one counts would be a guess."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise UnreadableReplyError("the reply gives a key twice")
    return content


def _read_object(content: Mapping[str, Any]) -> dict[str, int]:
    """Take scores by their short or full names, whatever the case and the signs between the words."""
    names = {_letters(alias): name for name, full in DIMENSIONS.items() for alias in (name, full)}
    scores: dict[str, int] = {}
    for key, value in content.items():
        name = names.get(_letters(str(key)))
        if name is None:
            continue
        if name in scores:
            raise UnreadableReplyError(f"the reply gives {name} twice")
        if isinstance(value, Mapping) and "score" in value:  # {"score": 4, "explanation": "..."}
            value = value["score"]
        scores[name] = _whole_score(value, name)
    return _complete(scores)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _read_text(text: str) -> dict[str, int]:
    """Read "1. Subject Correspondence: 4" and its common variants; a dimension given twice must agree with itself."""
    if not re.match(rf"[\s>#*-]*(?:1[.)])?[\s*]*{DIMENSIONS['SC']}", text, flags=re.IGNORECASE):
        raise UnreadableReplyError("the reply is neither JSON nor the published text form")
    scores = {}
    for name, full in DIMENSIONS.items():
        # The number may stand alone on a line below; "2." of the next heading is no number.
        value = r"[ \t*]*(?:\n\s*(?=[\d.]+[ \t]*$))?([^\s*]+)"
        pattern = rf"(?:^[\s>#*-]*|\b\d[.)][\s*]*){full}(?:\s*\({name}\))?[ \t*]*:{value}"
        found = {
            _whole_score(re.sub(r"/5$", "", value.rstrip(".,;")), name)
            for value in re.findall(pattern, text, flags=re.MULTILINE | re.IGNORECASE)
        }
        if len(found) > 1:
            raise UnreadableReplyError(f"the reply gives {name} several times with different scores")
        if found:
            scores[name] = found.pop()
    return _complete(scores)


def _whole_score(value: Any, name: str) -> int:
    """Return a whole number from 0 to 5, given as number or digits."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(?:\.0+)?\s*", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or value not in range(MAX_SCORE + 1):
        raise UnreadableReplyError(f"{name} is {value!r}, which is no whole number from 0 to {MAX_SCORE}")
    return int(value)


def _complete(scores: dict[str, int]) -> dict[str, int]:
    missing = [name for name in DIMENSIONS if name not in scores]
    if missing:
        raise UnreadableReplyError(f"the reply gives no {', '.join(missing)}")
    return {name: scores[name] for name in DIMENSIONS}


def published_scores(reply: str | None) -> dict[str, float] | None:
    """Read a reply as the released script does, to count results of others again.

    It takes every "number, dot, blank, name, colon, blank, number": any name, any number, the last one where a name
    comes twice. Not used for scores of this metric.

    Args:
        reply (`str`, *optional*): The reply of a judge.

    Returns:
        `dict[str, float]`: Numbers by name; None for a reply that the released script drops (missing, or with a number
        that is none, such as "4.5.1").
    """
    if reply is None:
        return None
    try:
        return {name: float(number) for name, number in re.findall(r"\d+\.\s+([^:\d]+?):\s+([\d.]+)", reply)}
    except ValueError:
        return None


def published_summary(replies: Sequence[str | None]) -> dict[str, Any]:
    """Average replies as the released script does: each dimension over the replies that have it.

    Args:
        replies (`Sequence[str | None]`): The replies of a judge.

    Returns:
        `dict[str, Any]`: For each of `"SC"`, `"AD"`, `"TD"` and `"HD"` its `mean` and `num_replies`; `average`, the sum
        of the four means / 4; `num_dropped`. Where nobody has a dimension, the released script stops with an error;
        here its mean and the average are None.
    """
    read = [published_scores(reply) for reply in replies]
    summary: dict[str, Any] = {"num_dropped": sum(scores is None for scores in read)}
    for name, full in DIMENSIONS.items():
        values = [scores[full] for scores in read if scores and full in scores]
        summary[name] = {"mean": sum(values) / len(values) if values else None, "num_replies": len(values)}
    means = [summary[name]["mean"] for name in DIMENSIONS]
    summary["average"] = None if None in means else sum(means) / len(means)
    return summary
