"""The same questions without the picture or without the regions: a benchmark that can be answered blind shows itself."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers_videorefer.data.batches.chat import MEDIA_KINDS, parts_of, to_chat

from .answering import Answerer, PreparingAnswerer, Row
from .outlines import OutlineAnswerer
from .phrasing import write_text


class _Control:
    """Gives an answerer other rows than it is asked about."""

    def __init__(self, answerer: Answerer, change: Callable[[Row], Row]):
        self._answerer = answerer
        self._makes_inputs = isinstance(answerer, PreparingAnswerer)
        self.prepare = _ChangedPreparation(change, answerer.prepare if self._makes_inputs else list)

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        """Answer rows.

        Args:
            rows (`Sequence[Mapping]`): Rows of any of our sets.

        Returns:
            `list[str]`: The answers, one for each row.

        Raises:
            ValueError: If a row does not fit the model's inputs.
            TypeError: If something in a row is of a wrong kind.
            OSError: If a file cannot be read.
        """
        return self.answer(self.prepare(rows))

    def answer(self, inputs: Any) -> list[str]:
        """Answer what `prepare` returned.

        Args:
            inputs (`Any`): Inputs of the answerer; rows, where it makes its inputs itself.

        Returns:
            `list[str]`: The answers, one for each row.
        """
        return self._answerer.answer(inputs) if self._makes_inputs else self._answerer(inputs)


class _ChangedPreparation:
    """Changes rows before their inputs are made; goes to loader workers, so it holds no model."""

    def __init__(self, change: Callable[[Row], Row], prepare: Callable[[Sequence[Row]], Any]):
        self._change = change
        self._prepare = prepare

    def __call__(self, rows: Sequence[Row]) -> Any:
        return self._prepare([self._change(row) for row in rows])


class TextOnly(_Control):
    """Asks any answerer the questions alone, without video, image and regions; `<region>` becomes "the object".

    Args:
        answerer ([`Answerer`]): What answers: VideoRefer, another model, or any callable.
    """

    def __init__(self, answerer: Answerer):
        super().__init__(answerer, text_only_row)


class NoRegion(_Control):
    """Shows any answerer what it would see, but without the regions; `<region>` becomes "the object".

    VideoRefer gets the scene frames and no object tokens. Other models get the same frames as with
    [`OutlineAnswerer`], without outlines.

    Args:
        answerer ([`Answerer`]): What answers: VideoRefer, another model, or any callable.
    """

    def __init__(self, answerer: Answerer):
        if isinstance(answerer, OutlineAnswerer):
            # The regions decide which frames it shows, so they stay in the rows.
            super().__init__(answerer.without_marks(), dict)
        else:
            super().__init__(answerer, no_region_row)


CONTROLS: dict[str, type[TextOnly] | type[NoRegion]] = {"text-only": TextOnly, "no-region": NoRegion}


def text_only_row(row: Row) -> dict[str, Any]:
    """Leave nothing of a row but its question.

    Args:
        row (`Mapping[str, Any]`): Row of any of our sets.

    Returns:
        `dict[str, Any]`: The row with `messages` of text, and without video, image and regions.

    Raises:
        ValueError: If regions or media and their marks differ in number; the message names the row.
        TypeError: If the row holds something of a wrong kind.
    """
    return _rewrite(row, keeps_media=False)


def no_region_row(row: Row) -> dict[str, Any]:
    """Leave the regions of a row out.

    Args:
        row (`Mapping[str, Any]`): Row of any of our sets.

    Returns:
        `dict[str, Any]`: The row with `messages` that hold its video or image and the question, and without regions.

    Raises:
        ValueError: If regions or media and their marks differ in number; the message names the row.
        TypeError: If the row holds something of a wrong kind.
    """
    return _rewrite(row, keeps_media=True)


def _rewrite(row: Row, *, keeps_media: bool) -> dict[str, Any]:
    """Write a row as a conversation whose parts bring their media themselves."""
    messages = []
    for message in to_chat(row):
        media = parts_of([message], *MEDIA_KINDS) if keeps_media else []
        text = write_text(message["content"], [None] * len(parts_of([message], "region")))
        messages.append({"role": message["role"], "content": [*media, {"type": "text", "text": text}]})
    elsewhere = dict.fromkeys((*MEDIA_KINDS, *(f"{kind}s" for kind in MEDIA_KINDS)))
    return {**row, **elsewhere, "regions": [], "messages": messages}
