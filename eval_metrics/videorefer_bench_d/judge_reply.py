"""Reads scores out of a judge's reply: JSON, the published text form, and the published reader for old results."""

import contextlib
import json
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .judge_prompt import DIMENSIONS, MAX_SCORE


# What may stand before a heading: signs of Markdown and a number.
_LINE_START = r"^[ \t>#*-]*(?:\d[.)][ \t*]*)?"


class UnreadableReplyError(ValueError):
    """The reply of a judge does not hold four whole numbers from 0 to 5 that can be told apart."""


def read_reply(reply: str | Mapping[str, Any] | None, prediction: str | None = None) -> dict[str, int]:
    """Read the four scores of one reply.

    A reply that is nothing but a JSON object or the four lines of the published form is read as it stands. Any other is
    read without its quotations of `prediction` and without the thoughts it opens with: the one JSON object with scores,
    wherever it stands, else the four published headings at line starts. Scores outside 0 to 5 and fractions are never
    rounded or clipped.

    Args:
        reply (`str` or `Mapping`): The judge's reply, or the object it stands for.
        prediction (`str`, *optional*): The judged description. What a reply quotes of it word for word is not read.

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
    if not _is_bare(text):
        text = _without_thoughts(_without_quotations(text, prediction or "")).strip()
    objects, rest = _split_objects(text)
    if not objects:
        return _read_text(rest)
    readings = [_read_object(content) for content in objects]
    with contextlib.suppress(UnreadableReplyError):
        readings.append(_read_text(rest))
    if any(reading != readings[0] for reading in readings):
        raise UnreadableReplyError("the reply gives scores several times, and they differ")
    return readings[0]


def _is_bare(text: str) -> bool:
    """Whether a reply is one JSON object or the four lines alone, so that there is no room for a quotation."""
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    try:
        return isinstance(json.loads(text), dict)
    except (json.JSONDecodeError, RecursionError):
        lines = [line for line in text.splitlines() if line.strip()]
        return len(lines) == len(DIMENSIONS) and all(
            re.fullmatch(rf"{_LINE_START}{_heading(name)}[ \t]*\d[^\s*]*[\s*]*", line, flags=re.IGNORECASE)
            for name, line in zip(DIMENSIONS, lines, strict=True)
        )


def _without_quotations(text: str, prediction: str) -> str:
    """Take the prediction out of a reply: as it is, escaped as in JSON, and with other white space between words."""
    # A prediction that nobody could take for scores stays: removing "a" or "4" would tear up the reply itself.
    marks = "|".join([r"\{", r"</?think>", *(rf"{_heading(name)}\s*\S" for name in DIMENSIONS)])
    if not re.search(marks, prediction, flags=re.IGNORECASE):
        return text
    forms = {prediction, " ".join(prediction.split())}
    forms |= {json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in forms for ascii_only in (True, False)}
    for form in sorted(forms, key=len, reverse=True):
        words = r"\s+".join(re.escape(word) for word in form.split())
        text = re.sub(words, " ", text)
    return text


def _without_thoughts(text: str) -> str:
    """Take away the block of thoughts that a reasoning judge opens with."""
    if not re.match(r"\s*<think>", text):
        return text
    _, closed, rest = text.partition("</think>")
    if not closed:
        raise UnreadableReplyError("the reply ends within its thoughts")
    return rest


def _split_objects(text: str) -> tuple[list[dict[str, Any]], str]:
    """Return the JSON objects of a reply that hold scores, and the text around them.

    Scores in the remains of a broken object may be quoted ones, so such a reply is refused as a whole.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)
    objects, rest, position = [], "", 0
    while opening := re.compile(r'\{(?=\s*")').search(text, position):
        try:
            content, end = decoder.raw_decode(text, opening.start())
        except (json.JSONDecodeError, RecursionError) as error:
            raise UnreadableReplyError(f"the reply holds no valid JSON ({error})") from None
        rest += text[position : opening.start()]
        position = end
        if any(_dimension(key) for key in content):
            objects.append(content)
    return objects, rest + text[position:]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that gives a key twice: which one counts would be a guess."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise UnreadableReplyError("the reply gives a key twice")
    return content


def _read_object(content: Mapping[str, Any]) -> dict[str, int]:
    """Take scores by their short or full names, whatever the case and the signs between the words."""
    scores: dict[str, int] = {}
    for key, value in content.items():
        name = _dimension(key)
        if name is None:
            continue
        if name in scores:
            raise UnreadableReplyError(f"the reply gives {name} twice")
        if isinstance(value, Mapping) and "score" in value:  # {"score": 4, "explanation": "..."}
            value = value["score"]
        scores[name] = _whole_score(value, name)
    return _complete(scores)


def _dimension(key: Any) -> str | None:
    """Return the short name that a key stands for."""
    names = {_letters(alias): name for name, full in DIMENSIONS.items() for alias in (name, full)}
    return names.get(_letters(str(key)))


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _heading(name: str) -> str:
    """Return the pattern of a published heading, from its first word to the colon."""
    return rf"{DIMENSIONS[name]}(?:\s*\({name}\))?[ \t*]*:"


def _read_text(text: str) -> dict[str, int]:
    """Read "1. Subject Correspondence: 4" and its common variants; a dimension given twice must agree with itself."""
    flags = re.MULTILINE | re.IGNORECASE
    # The number may stand alone on a line below; "2." of the next heading is no number.
    value = r"[ \t*]*(?:\n\s*(?=[\d.]+[ \t]*$))?([^\s*]+(?:[ \t]*/[ \t]*\d+)?)"
    # All four may share one line, which then opens with the first heading.
    shared = "\n".join(re.findall(rf"{_LINE_START}{_heading('SC')}.*", text, flags=flags))
    scores = {}
    for name in DIMENSIONS:
        given = re.findall(rf"{_LINE_START}{_heading(name)}{value}", text, flags=flags)
        given = given or re.findall(rf"\b\d[.)][\s*]*{_heading(name)}{value}", shared, flags=flags)
        found = {_whole_score(word.rstrip(".,;"), name) for word in given}
        if len(found) > 1:
            raise UnreadableReplyError(f"the reply gives {name} several times with different scores")
        if found:
            scores[name] = found.pop()
    if not scores:
        raise UnreadableReplyError("the reply holds neither a JSON object with scores nor the published text form")
    return _complete(scores)


def _whole_score(value: Any, name: str) -> int:
    """Return a whole number from 0 to 5, given as number or digits, also as "4/5"."""
    if isinstance(value, str):
        digits = re.fullmatch(rf"\s*(\d+(?:\.0+)?)\s*(?:/\s*{MAX_SCORE}\s*)?", value)
        value = float(digits.group(1)) if digits else value
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
