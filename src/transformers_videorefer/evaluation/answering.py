"""What answers rows: the form that the runner takes every model in, and VideoRefer in that form."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from transformers_videorefer.data.batches.collator import VideoReferDataCollator
from transformers_videorefer.regions.values import DEFAULT


MODES = ("single", "multi")
DEFAULT_MAX_NEW_TOKENS = 512

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


def check_max_new_tokens(max_new_tokens: int) -> None:
    """Find an impossible length of answers.

    Args:
        max_new_tokens (`int`): Longest answer.

    Raises:
        ValueError: If it is below 1.
    """
    if max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` is {max_new_tokens}. Pass at least 1.")


def generate_greedily(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: BatchFeature,
    *,
    max_new_tokens: int,
    repetition_penalty: float | None = None,
) -> list[str]:
    """Take the most likely token each time, whatever the checkpoint's `generation_config` says of sampling and beams.

    Args:
        model (`PreTrainedModel`): The model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        inputs (`BatchFeature`): Inputs of some rows, padded on the left, where and as the model wants them.
        max_new_tokens (`int`): Longest answer.
        repetition_penalty (`float`, *optional*): Penalty on repeated tokens; the checkpoint's by default.

    Returns:
        `list[str]`: The answers without special tokens and space around them, one for each row.
    """
    penalty = {} if repetition_penalty is None else {"repetition_penalty": repetition_penalty}
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, **penalty)
    new_ids = output[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new_ids, skip_special_tokens=True)]


class VideoReferAnswerer:
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
        if edit_list not in ("apply", "ignore", None):
            raise ValueError(f'`edit_list` must be "apply", "ignore" or None, got {edit_list!r}.')
        check_max_new_tokens(max_new_tokens)
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
        self.model = model
        self.processor = processor
        self.prepare = _Preparation(collator, edit_list)
        self.max_new_tokens = max_new_tokens
        self.repetition_penalty = repetition_penalty

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        """Answer rows.

        Args:
            rows (`Sequence[Mapping]`): Rows of any of our sets.

        Returns:
            `list[str]`: The answers, one for each row.

        Raises:
            ValueError: If a row does not fit the model's inputs; it names the row.
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
        return generate_greedily(
            self.model,
            self.processor.tokenizer,
            inputs.to(self.model.device),
            max_new_tokens=self.max_new_tokens,
            repetition_penalty=self.repetition_penalty,
        )


class _Preparation:
    """Makes inputs of rows; goes to loader workers, so it holds no model."""

    def __init__(self, collator: VideoReferDataCollator, edit_list: str | None):
        self._collator = collator
        self._edit_list = edit_list

    def __call__(self, rows: Sequence[Row]) -> BatchFeature:
        if self._edit_list is not None:
            rows = [{**row, "edit_list": self._edit_list} for row in rows]
        return self._collator(rows)
