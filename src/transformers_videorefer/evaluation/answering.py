"""What answers rows: the form that the runner takes every model in, and VideoRefer in that form."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from transformers_videorefer.data.batches.collator import VideoReferDataCollator
from transformers_videorefer.inference.generating import (
    DEFAULT_MAX_NEW_TOKENS,
    check_max_new_tokens,
    generate_answers,
)
from transformers_videorefer.regions.values import DEFAULT
from transformers_videorefer.video.options import check_edit_list


MODES = ("single", "multi")

Row = Mapping[str, Any]


class Answerer(Protocol):
    """Answers rows of our datasets, one answer for each row, in their order.

    A row that cannot be answered makes the whole call fail with a ValueError, TypeError or OSError; the runner then
    asks row by row and notes the error for the row that it belongs to.
    """

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        """Answer rows.

        Args:
            rows (`Sequence[Mapping]`): Rows of VideoRefer-Bench-D, VideoRefer-Bench-Q, HC-STVG, or conversations.

        Returns:
            `list[str]`: The answers.
        """
        ...


@runtime_checkable
class PreparingAnswerer(Answerer, Protocol):
    """An answerer in two steps, of which the first runs in loader workers while the model answers other rows.

    Attributes:
        prepare (`Callable`): Makes the model's inputs of rows: reads videos, draws, tokenizes. It is sent to the
            workers, so it must be picklable and hold no model.
    """

    prepare: Callable[[Sequence[Row]], Any]

    def answer(self, inputs: Any) -> list[str]:
        """Answer what `prepare` returned.

        Args:
            inputs (`Any`): Inputs of the model for some rows.

        Returns:
            `list[str]`: The answers, one for each row.
        """
        ...


class GeneratingAnswerer:
    """Answers rows with a model, greedily: takes the most likely token each time, whatever the checkpoint says.

    Args:
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its processor.
        prepare (`Callable`): Makes inputs of the model of rows, padded on the left.
        max_new_tokens (`int`): Longest answer.
        repetition_penalty (`float`, *optional*): Penalty on repeated tokens; the checkpoint's by default.

    Raises:
        ValueError: If `max_new_tokens` is below 1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        prepare: Callable[[Sequence[Row]], BatchFeature],
        max_new_tokens: int,
        repetition_penalty: float | None,
    ):
        check_max_new_tokens(max_new_tokens)
        self.model = model
        self.processor = processor
        self.prepare = prepare
        self.max_new_tokens = max_new_tokens
        self.repetition_penalty = repetition_penalty

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        """Answer rows.

        Args:
            rows (`Sequence[Mapping]`): Rows of any of our sets.

        Returns:
            `list[str]`: The answers, one for each row.

        Raises:
            ValueError: If a row does not fit, or cannot be shown; it names the row.
            TypeError: If something in a row is of a wrong kind.
            OSError: If a file cannot be read.
        """
        return self.answer(self.prepare(rows))

    def answer(self, inputs: BatchFeature) -> list[str]:
        """Generate.

        Args:
            inputs (`BatchFeature`): What `prepare` returned.

        Returns:
            `list[str]`: The answers, one for each row.
        """
        answers = generate_answers(
            self.model,
            self.processor,
            inputs,
            max_new_tokens=self.max_new_tokens,
            repetition_penalty=self.repetition_penalty,
        )
        return [answer.text for answer in answers]


class VideoReferAnswerer(GeneratingAnswerer):
    """Answers rows with VideoRefer, greedily.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model.
        processor ([`VideoReferProcessor`]): Its processor.
        data_root (`str` or `os.PathLike`, *optional*): Folder that paths in rows are relative to.
        mode (`str`, *optional*, defaults to `"multi"`): "single" keeps one frame of each region (the row's
            `frame_index`), "multi" all annotated frames.
        num_frames (`int`, *optional*): Scene frames per video; the processor's by default.
        num_region_tokens (`int`, *optional*): Most tokens of a region (u of the paper); the processor's by default.
        num_region_frames (`int` or `str`, *optional*): Most frames used of a region, "all" for all; the processor's by
            default.
        empty_masks (`str`, *optional*, defaults to `"drop"`): What to do with empty masks: "error", "drop", or "keep"
            (the published behaviour).
        edit_list (`str`, *optional*): How frames of videos are counted, "apply" or "ignore", whatever the rows say.
        max_new_tokens (`int`, *optional*, defaults to 512): Longest answer.
        repetition_penalty (`float`, *optional*): Penalty on tokens generated before; the checkpoint's by default.

    Raises:
        ValueError: If an option has an unknown or impossible value.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        *,
        data_root: str | os.PathLike | None = None,
        mode: str = "multi",
        num_frames: int | None = None,
        num_region_tokens: int | None = None,
        num_region_frames: int | str | None = None,
        empty_masks: str = "drop",
        edit_list: str | None = None,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        repetition_penalty: float | None = None,
    ):
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}.")
        if edit_list is not None:
            check_edit_list(edit_list)
        collator = VideoReferDataCollator(
            processor,
            data_root,
            multi_frame_ratio=0.0 if mode == "single" else None,
            generate=True,
            num_frames=num_frames,
            num_region_tokens=num_region_tokens,
            empty_masks=empty_masks,
            num_region_frames=DEFAULT if num_region_frames is None else num_region_frames,
        )
        super().__init__(model, processor, _Preparation(collator, edit_list), max_new_tokens, repetition_penalty)


class _Preparation:
    """Makes inputs of rows; goes to loader workers, so it holds no model."""

    def __init__(self, collator: VideoReferDataCollator, edit_list: str | None):
        self._collator = collator
        self._edit_list = edit_list

    def __call__(self, rows: Sequence[Row]) -> BatchFeature:
        if self._edit_list is not None:
            rows = [{**row, "edit_list": self._edit_list} for row in rows]
        return self._collator(rows)
