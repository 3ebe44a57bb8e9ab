"""Any chat model of Transformers on our rows: objects are outlined on the frames and named by the color of the line.

The paper evaluates general models like this (section 4.2.1): single-frame mode shows the first frame that contains the
object, with its outline; multi-frame mode shows 16 frames spread evenly, with the outlines.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from transformers_videorefer.data.batches.chat import MEDIA_KINDS, name_of, parts_of, to_chat
from transformers_videorefer.video.options import check_edit_list

from .answering import DEFAULT_MAX_NEW_TOKENS, MODES, GeneratingAnswerer, Row
from .outlined_frames import OUTLINE_COLORS, Shown, show_frames
from .phrasing import write_text


# Of the paper's evaluation of general models.
DEFAULT_NUM_FRAMES = {"single": 1, "multi": 16}
FRAME_FORMS = ("auto", "images", "video")


class OutlineAnswerer(GeneratingAnswerer):
    """Answers rows with any chat model that sees pictures, greedily.

    Every row becomes a chat of the other model: frames of its video with the objects outlined in colors, then the
    question, in which each `<region>` is replaced by words such as "the object outlined in red". Otherwise prompts are
    the published ones.

    Args:
        model (`PreTrainedModel`): A model of `AutoModelForImageTextToText`.
        processor (`ProcessorMixin`): Its processor, with a chat template.
        data_root (`str` or `os.PathLike`, *optional*): Folder that paths in rows are relative to.
        mode (`str`, *optional*, defaults to `"multi"`): "single" outlines objects on the first frame that shows them
            all (without such a frame, each on its own first one), "multi" on annotated frames spread evenly.
        num_frames (`int`, *optional*): Frames shown, 1 in single mode and 16 in multi mode by default, as in the
            paper. Where there are fewer frames with outlines, scene frames without any are added up to this number.
            All frames stand in the order of time.
        show_as (`str`, *optional*, defaults to `"auto"`): "images" gives each frame as an image, "video" all of them
            as one video, "auto" one frame as an image and several as a video if the processor takes videos.
        mark_regions (`bool`, *optional*, defaults to `True`): Without it the same frames have no outlines, and
            `<region>` becomes "the object".
        edit_list (`str`, *optional*): How frames of videos are counted, "apply" or "ignore", whatever the rows say.
        max_new_tokens (`int`, *optional*, defaults to 512): Longest answer.
        repetition_penalty (`float`, *optional*): Penalty on tokens that the model has read or written; the
            checkpoint's by default.

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
        show_as: str = "auto",
        mark_regions: bool = True,
        edit_list: str | None = None,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        repetition_penalty: float | None = None,
    ):
        prepare = OutlinePreparation(
            processor,
            data_root=data_root,
            mode=mode,
            num_frames=num_frames,
            show_as=show_as,
            mark_regions=mark_regions,
            edit_list=edit_list,
        )
        super().__init__(model, prepare.processor, prepare, max_new_tokens, repetition_penalty)

    def without_marks(self) -> "OutlineAnswerer":
        """Make an answerer that shows the same frames without outlines.

        Returns:
            [`OutlineAnswerer`]: It shares model and processor with this one.
        """
        other = copy.copy(self)
        other.prepare = copy.copy(self.prepare)
        other.prepare.mark_regions = False
        return other


class OutlinePreparation:
    """Makes the inputs of another model of rows. It holds no model, so that loader workers can have it.

    Args:
        processor (`ProcessorMixin`): The processor of the other model.
        data_root (`str` or `os.PathLike`, *optional*): As in [`OutlineAnswerer`], like all that follow.
        mode (`str`, *optional*, defaults to `"multi"`): "single" or "multi".
        num_frames (`int`, *optional*): Frames shown.
        show_as (`str`, *optional*, defaults to `"auto"`): "auto", "images" or "video".
        mark_regions (`bool`, *optional*, defaults to `True`): Draw and name outlines.
        edit_list (`str`, *optional*): "apply" or "ignore".

    Raises:
        ValueError: If an option has an unknown or impossible value, or the processor has no chat template or takes no
            videos that it should get.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        *,
        data_root: str | os.PathLike | None = None,
        mode: str = "multi",
        num_frames: int | None = None,
        show_as: str = "auto",
        mark_regions: bool = True,
        edit_list: str | None = None,
    ):
        for name, value, choices in (
            ("mode", mode, MODES),
            ("show_as", show_as, FRAME_FORMS),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(map(str, choices))}, got {value!r}.")
        if edit_list is not None:
            check_edit_list(edit_list)
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"`num_frames` is {num_frames}. Pass at least 1.")
        name = type(processor).__name__
        if not getattr(processor, "chat_template", None):
            raise ValueError(f"{name} has no chat template. Use the chat version of the model, or set one.")
        takes_videos = getattr(processor, "video_processor", None) is not None
        if show_as == "video" and not takes_videos:
            raise ValueError(f'`show_as` is "video", but {name} takes no videos. Pass "images".')
        self.num_frames = DEFAULT_NUM_FRAMES[mode] if num_frames is None else num_frames
        self.show_as_video = show_as == "video" or (show_as == "auto" and takes_videos and self.num_frames > 1)
        self.processor = _with_padding(processor)
        self.data_root = data_root
        self.mode = mode
        self.mark_regions = mark_regions
        self.edit_list = edit_list

    def __call__(self, rows: Sequence[Row]) -> BatchFeature:
        """Make inputs, padded on the left.

        Args:
            rows (`Sequence[Mapping]`): Rows of any of our sets.

        Returns:
            `BatchFeature`: Inputs of the model's `generate`.

        Raises:
            ValueError: If a row cannot be shown; it names the row.
            TypeError: If something in a row is of a wrong kind.
            OSError: If a file cannot be read.
        """
        shown = self._show(rows)
        conversations = [self._write(messages, one) for messages, one in shown]
        options: dict[str, Any] = {"padding": True, "padding_side": "left"}
        if any(parts_of(messages, "video") for messages in conversations):
            options |= {
                "do_sample_frames": False,
                "video_metadata": [one.metadata() for _, one in shown if one.pictures and not one.is_image],
            }
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        )

    def to_chat(self, row: Row) -> list[dict[str, Any]]:
        """Write one row as the messages that the other model gets, for example to look at them.

        Args:
            row (`Mapping[str, Any]`): The row.

        Returns:
            `list[dict]`: Messages whose content is a list of parts: "image" with a `PIL.Image.Image`, or "video" with
            a uint8 array of shape `(num_frames, height, width, 3)`, and "text".

        Raises:
            ValueError: If the row cannot be shown; it names the row.
            TypeError: If something in the row is of a wrong kind.
            OSError: If a file cannot be read.
        """
        ((messages, shown),) = self._show([row])
        return self._write(messages, shown)

    def _show(self, rows: Sequence[Row]) -> list[tuple[list[dict[str, Any]], Shown]]:
        """Write rows as our messages and draw their frames."""
        if not len(rows):
            raise ValueError("`rows` is empty. Pass at least one row.")
        chats = []
        for row in rows:
            row = row if self.edit_list is None else {**row, "edit_list": self.edit_list}
            messages = to_chat(row, row.get("data_root") or self.data_root)
            # The answer of a training row is what the model is asked for.
            chats.append(messages[:-1] if messages[-1]["role"] == "assistant" else messages)
        shown = show_frames(
            [
                (name_of(row), parts_of(messages, *MEDIA_KINDS, "region"))
                for row, messages in zip(rows, chats, strict=True)
            ],
            mode=self.mode,
            num_frames=self.num_frames,
            draws_outlines=self.mark_regions,
        )
        return list(zip(chats, shown, strict=True))

    def _write(self, messages: Sequence[Mapping[str, Any]], shown: Shown) -> list[dict[str, Any]]:
        """Put pictures and words in the place of media and regions."""
        colors = iter(OUTLINE_COLORS)
        written = []
        for message in messages:
            content: list[dict[str, Any]] = []
            if any(part["type"] in MEDIA_KINDS for part in message["content"]):
                content += self._picture_parts(shown)
            outlines = [
                f"outlined in {next(colors)}" if self.mark_regions else None for _ in parts_of([message], "region")
            ]
            content.append({"type": "text", "text": write_text(message["content"], outlines)})
            written.append({"role": message["role"], "content": content})
        return written

    def _picture_parts(self, shown: Shown) -> list[dict[str, Any]]:
        if self.show_as_video and not shown.is_image:
            return [{"type": "video", "video": np.stack([np.asarray(picture) for picture in shown.pictures])}]
        return [{"type": "image", "image": picture} for picture in shown.pictures]


def _with_padding(processor: ProcessorMixin) -> ProcessorMixin:
    """Give a tokenizer without padding its end token for it; the mask hides what is padded."""
    if processor.tokenizer.pad_token is not None:
        return processor
    processor = copy.deepcopy(processor)  # the caller's stays as it is
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor
