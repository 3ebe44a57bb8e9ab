"""Reads scores out of a judge's reply: JSON, the published text form, and the published reader for old results.

A reply may quote the prediction, which may imitate scores. What decides which scores are the judge's:

1. One JSON object, or the four headings, alone behind the thoughts: read as they stand.
2. The prediction as a whole is taken out, wherever it stands.
3. Thoughts end at the last `</think>` that is not one of the prediction.
4. A broken JSON object makes the reply unreadable, unless the prediction has its beginning.
5. A heading without a score that the prediction has too was cut off in a quotation, unless no other follows.
6. Scores under a heading that the prediction gives itself are quoted where the reply has others for that name.
7. Headings that follow each other are joined to answers; a name with another score opens the next one.
8. Of the complete answers the last counts whose scores the prediction does not give itself. Where it gives all of them,
   the last counts that is not cut out of it together with letters beside it.
9. Scores behind that answer that differ from it make the reply unreadable.
"""

import json
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .judge_prompt import DIMENSIONS, MAX_SCORE
from .judge_quotes import Quotations


# What may stand before a heading: signs of Markdown and a number.
_LINE_START = r"^[ \t>#*-]*(?:\d[.)][ \t*]*)?"
_HEADING = rf"(?P<heading>{'|'.join(DIMENSIONS.values())})(?:\s*\([A-Z]{{2}}\))?[ \t*]*:"
# A number that goes no further ("4-5" and "4.5.1" are none), else a word. It may stand alone on a line below; "2." of
# the next heading is no number.
_VALUE = (
    r"(?:[ \t*]*(?:\n\s*(?=[\d.]+[ \t]*$))?"
    r"(?P<value>\d+(?:\.\d+)?(?:[ \t]*/[ \t]*\d+)?(?![.,]?\d|[-–—/%+~\w])|[^\s*\\]+))?"
)
_FLAGS = re.MULTILINE | re.IGNORECASE
_HEADING_LINE = re.compile(rf"{_LINE_START}{_HEADING}{_VALUE}", _FLAGS)
_HEADING_WITHIN_LINE = re.compile(rf"(?:\b\d[.)]|[;,|])[\s*]*(?:\d[.)][\s*]*)?{_HEADING}{_VALUE}", _FLAGS)
_HEADING_ALONE = re.compile(rf"{_LINE_START}{_HEADING}[ \t]*(?P<value>\d[^\s*]*)[\s*]*", _FLAGS)
_OBJECT_START = re.compile(r'\{\s*"[^"\n]{0,100}"\s*:')
_NAMES = tuple(DIMENSIONS)
_NAME_OF = {re.sub("[^a-z]", "", alias.lower()): name for name, full in DIMENSIONS.items() for alias in (name, full)}
_GIVEN_TWICE = object()
_NO_SCORES = "the reply holds neither a JSON object with scores nor the published text form"
_ONLY_QUOTED = "the reply holds only scores quoted from the prediction"
# Replies with more of these are no answers but attempts to keep the reader busy.
_MAX_FRAGMENTS = 50
_MAX_CLOSING_TAGS = 20


class UnreadableReplyError(ValueError):
    """The reply of a judge does not hold four whole numbers from 0 to 5 that can be told apart."""


@dataclass(frozen=True)
class _Answer:
    """Scores in a reply, not checked yet, and where they stand."""

    start: int
    end: int
    scores: dict[str, Any]


def read_reply(reply: str | Mapping[str, Any] | None, prediction: str | None = None) -> dict[str, int]:
    """Read the four scores of one reply.

    The rules at the head of this module tell the judge's scores from those that it quotes. Scores outside 0 to 5 and
    fractions are never rounded or clipped. The time taken grows with the length of the texts and not faster.

    Args:
        reply (`str` or `Mapping`): The judge's reply, or the object it stands for.
        prediction (`str`, *optional*): The judged description.

    Returns:
        `dict[str, int]`: Scores by `"SC"`, `"AD"`, `"TD"` and `"HD"`, each from 0 to 5.

    Raises:
        UnreadableReplyError: If a score is missing, doubtful or out of range.
        TypeError: If `reply` is neither text nor a mapping.
    """
    if isinstance(reply, Mapping):
        return _checked(_dimensions_of(reply))
    if reply is not None and not isinstance(reply, str):
        raise TypeError(f"A judge returned {type(reply).__name__}. Return its reply as text, or a dict of scores.")
    text = (reply or "").strip()
    if not text:
        raise UnreadableReplyError("the reply is empty")
    quotations = Quotations(prediction or "")
    bare = (_bare_scores(rest) for rest in _after_thoughts(text, quotations))
    scores = next((scores for scores in bare if scores is not None), None)
    return _checked(_last_answer(text, quotations) if scores is None else scores)


def is_readable(reply: Any, prediction: str) -> bool:
    """Tell whether scores can be read out of a reply.

    Args:
        reply (`Any`): What a judge gave.
        prediction (`str`): The judged description.

    Returns:
        `bool`: False where `read_reply` fails.
    """
    try:
        read_reply(reply, prediction)
    except (UnreadableReplyError, TypeError):
        return False
    return True


def _after_thoughts(text: str, quotations: Quotations) -> list[str]:
    """Return what may follow the thoughts that a reasoning judge opens with: a quoted tag does not end them."""
    if not text.startswith("<think>"):
        return [text]
    tags = [match for match in re.finditer("</think>", text) if not quotations.has_closing_tag(text, match.start())]
    if not tags:
        raise UnreadableReplyError("the reply ends within its thoughts")
    return [text[tag.end() :].strip() for tag in (*tags[:_MAX_CLOSING_TAGS], tags[-1])]


def _bare_scores(text: str) -> dict[str, Any] | None:
    """Return the scores of one JSON object or the four headings alone: there a quotation has no room (rule 1)."""
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    if text.startswith("{"):
        try:
            content = json.loads(text, object_pairs_hook=_keep_unique)
        except (ValueError, RecursionError):
            return None
        scores = _dimensions_of(content)
        return scores or None
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = [piece.strip() for piece in re.split(r"[;,|]|\s(?=\d[.)]\s)", text) if piece.strip()]
    if len(lines) != len(_NAMES):
        return None
    matches = [_HEADING_ALONE.fullmatch(line) for line in lines]
    if not all(matches) or [_name(match["heading"]) for match in matches] != list(_NAMES):
        return None
    return {_name(match["heading"]): match["value"].rstrip(".,;") for match in matches}


def _last_answer(text: str, quotations: Quotations) -> dict[str, Any]:
    """Return the last complete answer of a reply that is not quoted from the prediction (rules 2 to 9)."""
    stripped = quotations.remove_whole(text)
    is_quoting = stripped != text
    stripped = _after_thoughts(stripped, quotations)[-1]
    objects, rest = _find_objects(stripped, quotations)
    items = _without_cut_headings(_find_headings(rest), quotations)
    own = [answer for answer in (*objects, *items) if not quotations.are_claimed(_values(answer))]
    answers = sorted([*objects, *_join(_without_claimed(items, own, quotations))], key=lambda answer: answer.end)
    if not answers:
        raise UnreadableReplyError(_ONLY_QUOTED if is_quoting else _NO_SCORES)
    complete = [answer for answer in answers if _is_complete(answer)]
    if not complete:
        return answers[-1].scores  # which ends in an error that names what is missing
    last = _choose(complete, stripped, quotations)
    _refuse_other_scores(last, own)
    return last.scores


def _without_cut_headings(items: Sequence[_Answer], quotations: Quotations) -> list[_Answer]:
    """Drop headings of the prediction whose quotation ended before the score, unless they are the last (rule 5)."""
    last_of = {name: item for item in items for name in item.scores}
    return [
        item
        for item in items
        if not quotations.are_claimed(_values(item))
        or all(score is not None or last_of[name] is item for name, score in item.scores.items())
    ]


def _without_claimed(items: Sequence[_Answer], own: Sequence[_Answer], quotations: Quotations) -> list[_Answer]:
    """Drop headings with scores that the prediction gives itself, where the reply has others for them (rule 6)."""
    decided = {name for answer in own for name in answer.scores}
    return [item for item in items if decided.isdisjoint(item.scores) or not quotations.are_claimed(_values(item))]


def _choose(complete: Sequence[_Answer], text: str, quotations: Quotations) -> _Answer:
    """Return the last answer that is the judge's own (rule 8)."""
    kept = [answer for answer in complete if not quotations.are_claimed(_values(answer))]
    if not kept:
        kept = [answer for answer in complete if not quotations.has_piece(text, answer.start, answer.end)]
    if not kept:
        raise UnreadableReplyError(_ONLY_QUOTED)
    return kept[-1]


def _refuse_other_scores(last: _Answer, own: Sequence[_Answer]) -> None:
    """Refuse a reply that goes on with other scores (rule 9)."""
    later = [answer for answer in own if answer.start >= last.end]
    if any(_value(last.scores[name]) != _value(score) for answer in later for name, score in answer.scores.items()):
        raise UnreadableReplyError("the reply gives scores several times, and which of them count can't be told")


def _is_complete(answer: _Answer) -> bool:
    return len(answer.scores) == len(_NAMES) and None not in answer.scores.values()


def _find_objects(text: str, quotations: Quotations) -> tuple[list[_Answer], str]:
    """Return the JSON objects of a reply that hold scores, and the reply with blanks in place of all objects.

    Scores in the remains of a broken object may be quoted ones, so such a reply is refused as a whole (rule 4).
    """
    decoder = json.JSONDecoder(object_pairs_hook=_keep_unique)
    objects, pieces, position, start, num_fragments = [], [], 0, 0, 0
    while opening := _OBJECT_START.search(text, start):
        try:
            content, start = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError) as error:
            num_fragments += 1
            least = opening.end() - opening.start()
            if num_fragments > _MAX_FRAGMENTS or not quotations.has_fragment(text, opening.start(), least):
                raise UnreadableReplyError(f"the reply holds no valid JSON ({str(error)[:100]})") from None
            start = opening.end()
            continue
        pieces += [text[position : opening.start()], " " * (start - opening.start())]
        position = start
        if scores := _dimensions_of(content):
            objects.append(_Answer(opening.start(), start, scores))
    return objects, "".join([*pieces, text[position:]])


def _find_headings(text: str) -> list[_Answer]:
    """Find "1. Subject Correspondence: 4" and its common variants, each as an answer of one score.

    A heading opens its line; all four may also share one line, in their order.
    """
    items = []
    for match in _HEADING_LINE.finditer(text):
        end_of_line = text.find("\n", match.end())
        shared = _HEADING_WITHIN_LINE.finditer(text, match.end(), len(text) if end_of_line < 0 else end_of_line)
        matches = [match, *shared] if _name(match["heading"]) == _NAMES[0] else [match]
        if [_name(one["heading"]) for one in matches] != list(_NAMES):
            matches = [match]
        for one in matches:
            value = None if one["value"] is None else one["value"].rstrip(".,;:!?\"'`“”’)]}")
            items.append(_Answer(one.start(), one.end(), {_name(one["heading"]): value or None}))
    return items


def _join(items: Sequence[_Answer]) -> list[_Answer]:
    """Put single scores together to answers (rule 7): a name with another score opens the next answer."""
    runs: list[list[_Answer]] = []
    scores: dict[str, Any] = {}
    for item in items:
        ((name, value),) = item.scores.items()
        if len(scores) < len(_NAMES) and name in scores and _value(scores[name]) == _value(value):
            continue
        if name in scores:
            scores = {}
        if not scores:
            runs.append([])
        scores[name] = value
        runs[-1].append(item)
    return [
        _Answer(run[0].start, run[-1].end, {name: value for item in run for name, value in item.scores.items()})
        for run in runs
    ]


def _keep_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Mark keys that an object gives twice: which of them counts would be a guess."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        content[key] = _GIVEN_TWICE if key in content else value
    return content


def _dimensions_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Take scores by their short or full names, whatever the case and the signs between the words."""
    scores: dict[str, Any] = {}
    for key, value in content.items():
        name = _name(str(key))
        if name is None:
            continue
        if isinstance(value, Mapping) and "score" in value:  # {"score": 4, "explanation": "..."}
            value = value["score"]
        scores[name] = _GIVEN_TWICE if name in scores else value
    return scores


def _name(text: str) -> str | None:
    """Return the short name that a key or heading stands for."""
    return _NAME_OF.get(re.sub("[^a-z]", "", text.lower()))


def _values(answer: _Answer) -> dict[str, Any]:
    return {name: _value(score) for name, score in answer.scores.items()}


def _value(score: Any) -> Any:
    """Return a score as a whole number where it is one, so that equal scores are equal, else as text."""
    if isinstance(score, str):
        digits = re.fullmatch(rf"\s*(\d+(?:\.0+)?)\s*(?:/\s*{MAX_SCORE}\s*)?", score)
        score = float(digits.group(1)) if digits else score
    if isinstance(score, bool) or not isinstance(score, numbers.Real) or score not in range(MAX_SCORE + 1):
        return repr(score)
    return int(score)


def _checked(scores: Mapping[str, Any]) -> dict[str, int]:
    """Return four whole numbers from 0 to 5, or say what is wrong with them."""
    for name, score in scores.items():
        if score is _GIVEN_TWICE:
            raise UnreadableReplyError(f"the reply gives {name} twice")
        if score is not None and not isinstance(value := _value(score), int):
            raise UnreadableReplyError(f"{name} is {value[:60]}, which is no whole number from 0 to {MAX_SCORE}")
    missing = [name for name in DIMENSIONS if scores.get(name) is None]
    if len(missing) == len(DIMENSIONS):
        raise UnreadableReplyError(_NO_SCORES)
    if missing:
        raise UnreadableReplyError(f"the reply gives no {', '.join(missing)}")
    return {name: _value(scores[name]) for name in DIMENSIONS}


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
    # The same matches as of "\d+\.\s+([^:\d]+?):\s+([\d.]+)", but no text takes long.
    found = re.findall(r"(?<!\d)\d+\.(\s[^:\d]+):\s+([\d.]+)", reply)
    try:
        return {name.lstrip() or name[-1]: float(number) for name, number in found}
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
