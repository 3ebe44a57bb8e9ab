"""Tells what a judge's reply repeats of the description it judges, so that imitated scores are not read as its own."""

import json
import re
from typing import Any

from .judge_prompt import DIMENSIONS


# Signs that come and go when a text is quoted: white space, and the marks of Markdown's quotations, bold type and code.
_LOOSE = re.compile(r"[\s>*`]+")
# How many letters beside a repeated answer must be those of the prediction for it to be a piece cut out of it.
_NUM_NEIGHBOURS = 4
_MAX_OCCURRENCES = 50


def squash(text: str) -> str:
    """Drop signs that come and go when a text is quoted.

    Args:
        text (`str`): A text.

    Returns:
        `str`: Its other signs.
    """
    return _LOOSE.sub("", text)


class Quotations:
    """What a prediction holds that may turn up again in a reply about it.

    Args:
        prediction (`str`): The judged description.
    """

    def __init__(self, prediction: str) -> None:
        self._prediction = prediction
        self._squashed = squash(prediction)
        self._without_fences = squash(_drop_fences(prediction))
        self.claims = _claims(prediction)

    def are_claimed(self, scores: dict[str, Any]) -> bool:
        """Tell whether the prediction gives itself all of these scores, in whatever form.

        Args:
            scores (`dict[str, Any]`): Scores by short name.

        Returns:
            `bool`: True for scores that a reply may have from the prediction.
        """
        return all((name, str(score)) in self.claims for name, score in scores.items())

    def remove_whole(self, text: str) -> str:
        """Take the whole prediction out of a reply: as it is, escaped as in JSON, and with other white space.

        Args:
            text (`str`): A reply.

        Returns:
            `str`: The reply with a blank for each quotation.
        """
        # A prediction that nobody could take for scores stays: removing "a" or "4" would tear up the reply itself.
        if not (self.claims or "{" in self._prediction):
            return text
        forms = {self._prediction, " ".join(self._prediction.split())}
        forms |= {json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in forms for ascii_only in (True, False)}
        for form in sorted({squash(form) for form in forms} - {""}, key=len, reverse=True):
            kept = [index for index, sign in enumerate(text) if not (sign.isspace() or sign in ">*`")]
            squashed = "".join(text[index] for index in kept)
            pieces, position, found = [], 0, squashed.find(form)
            while found >= 0:
                pieces.append(text[position : kept[found]])
                position = kept[found + len(form) - 1] + 1
                found = squashed.find(form, found + len(form))
            text = " ".join([*pieces, text[position:]])
        return text

    def has_piece(self, text: str, start: int, end: int) -> bool:
        """Tell whether a claimed answer is cut out of the prediction, by what stands beside it.

        Args:
            text (`str`): A reply.
            start (`int`): Where the answer starts in it.
            end (`int`): Where it ends.

        Returns:
            `bool`: True where the letters before or after it are those of the prediction too.
        """
        before = squash(_drop_fences(text[max(0, start - 100) : start]))[-_NUM_NEIGHBOURS:]
        after = squash(_drop_fences(text[end : end + 100]))[:_NUM_NEIGHBOURS]
        answer = squash(text[start:end])
        found = self._without_fences.find(answer)
        for _ in range(_MAX_OCCURRENCES):
            if found < 0:
                break
            if len(before) == _NUM_NEIGHBOURS and self._without_fences[max(0, found - len(before)) : found] == before:
                return True
            if len(after) == _NUM_NEIGHBOURS and self._without_fences.startswith(after, found + len(answer)):
                return True
            found = self._without_fences.find(answer, found + 1)
        return False

    def has_fragment(self, text: str, start: int, least: int) -> bool:
        """Tell whether a broken JSON object is one of the prediction, quoted up to some place.

        Args:
            text (`str`): A reply.
            start (`int`): Where the object starts in it.
            least (`int`): Letters that must agree.

        Returns:
            `bool`: True where the prediction has its beginning.
        """
        return squash(text[start : start + least]) in self._squashed

    def has_closing_tag(self, text: str, position: int) -> bool:
        """Tell whether `</think>` stands in a reply because the prediction has it.

        Args:
            text (`str`): A reply.
            position (`int`): Where the tag starts in it.

        Returns:
            `bool`: True where the letters before it are those of the prediction too.
        """
        before = squash(text[max(0, position - 100) : position])[-_NUM_NEIGHBOURS:]
        return len(before) == _NUM_NEIGHBOURS and before + squash("</think>") in self._squashed


def _drop_fences(text: str) -> str:
    """Drop the lines that open a block of JSON in Markdown."""
    return text.replace("```json", "")


def _claims(prediction: str) -> set[tuple[str, str]]:
    """Find every score that a text gives under the short or full name of a dimension."""
    text = " ".join(prediction.split())
    found = set()
    for name, full in DIMENSIONS.items():
        words = r"[\W_]{0,3}".join(full.split())
        pattern = rf"\b(?:{name}|{words}(?:[\W_]{{0,4}}{name}\b)?)[\W_]{{0,12}}(?:score[\W_]{{0,6}})?(\d{{1,20}})"
        scores = {str(int(digits)) for digits in re.findall(pattern, text, flags=re.IGNORECASE)}
        # None: its quotation may end before the score.
        found |= {(name, score) for score in scores | ({"None"} if scores else set())}
    return found
