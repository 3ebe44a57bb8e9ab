"""Videos, images and regions as the user wrote them, dealt out to the samples of a batch. Nothing is opened here."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from transformers_videorefer.regions.errors import MediaError, MediaTypeError
from transformers_videorefer.video.options import spread_option
from transformers_videorefer.video.pictures import is_frame


MARKS = {"video": "<video>", "image": "<image>", "region": "<region>"}
MARKS_PATTERN = re.compile("|".join(f"(?P<{kind}>{re.escape(mark)})" for kind, mark in MARKS.items()))

# Axes of an array that holds several videos or images.
_STACK_AXES = {"video": 5, "image": 4}


@dataclass(frozen=True)
class VideoItem:
    """One video of a sample, not opened.

    Args:
        source (`Any`): Path, URL, bytes, binary file object, folder, list of pictures or array.
        options (`dict[str, Any]`): Those of `edit_list`, `start_seconds`, `end_seconds` and `fps` given with it.
    """

    source: Any
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleMedia:
    """Media and regions of one sample, each in the order of their marks.

    Args:
        kinds (`tuple[str, ...]`): `"video"` or `"image"` for every media mark in the order of the text.
        videos (`tuple[VideoItem, ...]`): The videos.
        images (`tuple[Any, ...]`): The images.
        regions (`tuple[Mapping, ...]`): The regions, as the user wrote them.
    """

    kinds: tuple[str, ...] = ()
    videos: tuple[VideoItem, ...] = ()
    images: tuple[Any, ...] = ()
    regions: tuple[Mapping[str, Any], ...] = ()

    def place(self, position: int) -> tuple[str, int]:
        """Tell what stands at a position among all media marks.

        Args:
            position (`int`): Position among the videos and images of the sample.

        Returns:
            `tuple[str, int]`: `"video"` or `"image"`, and the position among those of its kind.
        """
        kind = self.kinds[position]
        return kind, self.kinds[:position].count(kind)


def _is_file(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or callable(
        getattr(value, "read", None)
    )


def _is_video(value: Any) -> bool:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.ndim == 4
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(is_frame(frame) for frame in value)
    return _is_file(value)


def _is_list(value: Any) -> bool:
    """Whether `value` is a list; columns of tables come as numpy arrays of objects."""
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object)


def _is_image(value: Any) -> bool:
    return is_frame(value) or _is_file(value)


_IS_ITEM: dict[str, Callable[[Any], bool]] = {
    "video": _is_video,
    "image": _is_image,
    "region": lambda value: isinstance(value, Mapping),
}


def find_marks(text: str, *, unmarked_prefix: str = "") -> list[re.Match]:
    """Find the `<video>`, `<image>` and `<region>` marks of a text.

    Args:
        text (`str`): The text.
        unmarked_prefix (`str`, *optional*, defaults to `""`): Regular expression that must match before a mark.

    Returns:
        `list[re.Match]`: The marks in order; `lastgroup` of each is its kind.
    """
    pattern = MARKS_PATTERN
    if unmarked_prefix:
        pattern = re.compile(f"{unmarked_prefix}(?:{MARKS_PATTERN.pattern})")
    return list(pattern.finditer(text))


def _check_count(num_items: int, num_marks: int, *, kind: str, sample: int, marks: str = "mark(s)") -> None:
    """Compare the items of one sample with its marks.

    Args:
        num_items (`int`): Items of this kind.
        num_marks (`int`): Marks of this kind.
        kind (`str`): `"video"`, `"image"` or `"region"`.
        sample (`int`): Position of the sample in the batch.
        marks (`str`, *optional*, defaults to `"mark(s)"`): What the message calls the marks.

    Raises:
        ValueError: If the numbers differ; it names both.
    """
    if num_items != num_marks:
        raise MediaError(
            f"Sample {sample} has {num_items} {kind}(s) but {num_marks} `{MARKS[kind]}` {marks}. Pass one {kind} per "
            "mark, in the order of the marks.",
            is_named=True,
            sample=sample,
        )


def check_counts(media: Sequence[SampleMedia], marks: Sequence[Sequence[re.Match]]) -> None:
    """Compare media and marks: a template of the user may print fewer or more marks than there are parts.

    Args:
        media (`Sequence[SampleMedia]`): Media of each sample.
        marks (`Sequence[Sequence[re.Match]]`): What `find_marks` found in each text.

    Raises:
        ValueError: If they differ in number.
    """
    if len(media) != len(marks):
        raise ValueError(f"`media` has {len(media)} entries for {len(marks)} texts. Pass one per text.")
    for sample, (one, found) in enumerate(zip(media, marks, strict=True)):
        for kind, items in (("video", one.videos), ("image", one.images), ("region", one.regions)):
            _check_count(len(items), [match.lastgroup for match in found].count(kind), kind=kind, sample=sample)


def group_by_sample(
    values: Any, num_marks: Sequence[int], *, kind: str, is_batch: bool, marks: str = "mark(s)"
) -> list[list[Any]]:
    """Bring `videos=`, `images=` or `regions=` into one list per sample.

    Args:
        values (`Any`): One item; a flat list in the order of the marks (of regions only for a single text); or one
            entry per sample, each a list, an item or `None`. `None` for none.
        num_marks (`Sequence[int]`): Marks of this kind in each sample.
        kind (`str`): `"video"`, `"image"` or `"region"`.
        is_batch (`bool`): Whether the text came as a list.
        marks (`str`, *optional*, defaults to `"mark(s)"`): What a message calls the marks.

    Returns:
        `list[list[Any]]`: Items of each sample.

    Raises:
        ValueError: If the items cannot be matched to the marks; it names the sample.
        TypeError: If something is no item of this kind.
    """
    is_item = _IS_ITEM[kind]
    is_stack = isinstance(values, (np.ndarray, torch.Tensor)) and values.ndim == _STACK_AXES.get(kind)
    if is_stack or (_is_list(values) and not is_item(values)):
        values = list(values)
    if values is None:
        groups: list[list[Any]] = [[] for _ in num_marks]
    elif is_item(values):
        groups = _deal([values], num_marks, kind, marks)
    elif not isinstance(values, list):
        raise MediaTypeError(f"`{kind}s`: {_no_item_message(values, kind)}", argument=f"{kind}s")
    elif any(value is None or (_is_list(value) and not is_item(value)) for value in values):
        groups = _one_entry_per_sample(values, len(num_marks), kind)
    elif kind == "region" and is_batch and values:
        raise ValueError(
            f"`regions` must be one list per text when `text` is a list ({len(num_marks)} texts), got a flat list. "
            "Write `regions=[[...], [...]]`; `[]` or `None` for a text without."
        )
    else:
        groups = _deal(values, num_marks, kind, marks)
    for sample, (group, expected) in enumerate(zip(groups, num_marks, strict=True)):
        for position, value in enumerate(group):
            if not is_item(value):
                raise MediaTypeError(_no_item_message(value, kind), sample=sample, **{kind: position})
        _check_count(len(group), expected, kind=kind, sample=sample, marks=marks)
    return groups


def _one_entry_per_sample(values: Sequence[Any], num_samples: int, kind: str) -> list[list[Any]]:
    """Read a list whose entries are lists, `None` or, for a sample with a single one, an item."""
    if len(values) != num_samples:
        raise ValueError(
            f"`{kind}s` has {len(values)} entries for {num_samples} text(s). Pass one list per text; `[]` or `None` "
            "for a text without."
        )
    is_item = _IS_ITEM[kind]
    groups = []
    for value in values:
        is_several = _is_list(value) and not is_item(value)
        groups.append([] if value is None else list(value) if is_several else [value])
    return groups


def _deal(values: list[Any], num_marks: Sequence[int], kind: str, marks: str) -> list[list[Any]]:
    """Hand out a flat list in the order of the marks."""
    if len(num_marks) == 1:
        return [values]
    if len(values) != sum(num_marks):
        raise ValueError(
            f"`{kind}s` has {len(values)} entries, but the {len(num_marks)} texts have {sum(num_marks)} "
            f"`{MARKS[kind]}` {marks} ({', '.join(map(str, num_marks))}). Pass one {kind} per mark, in order."
        )
    iterator = iter(values)
    return [[next(iterator) for _ in range(count)] for count in num_marks]


def _no_item_message(value: Any, kind: str) -> str:
    """Word the error for something that is no video, image or region."""
    hints = {
        "video": "Pass a path, an address, bytes, a file object, a list of pictures or a (T, H, W, 3) array, or a list "
        "of such.",
        "image": "Pass a path, an address, bytes, a PIL picture or an (H, W, 3) array, or a list of such.",
        "region": 'Pass a list. A region is a dictionary such as {"frames": [{"frame_index": 0, "box": [x0, y0, x1, y1]}]}.',
    }
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, (np.ndarray, torch.Tensor)) else ""
    return f"{type(value).__name__}{shape} is no {kind}. {hints[kind]}"


def media_from_lists(
    marks: Sequence[Sequence[re.Match]], *, videos: Any, images: Any, regions: Any, is_batch: bool
) -> list[SampleMedia]:
    """Distribute `videos=`, `images=` and `regions=` over the samples of a batch.

    Args:
        marks (`Sequence[Sequence[re.Match]]`): What `find_marks` found in each text.
        videos (`Any`): As in `group_by_sample`.
        images (`Any`): Likewise.
        regions (`Any`): Likewise.
        is_batch (`bool`): Whether the text came as a list.

    Returns:
        `list[SampleMedia]`: Media and regions of each sample.

    Raises:
        ValueError: If items and marks differ in number.
        TypeError: If something is no item of its kind.
    """
    kinds = [[match.lastgroup for match in found] for found in marks]
    groups = {
        kind: group_by_sample(values, [found.count(kind) for found in kinds], kind=kind, is_batch=is_batch)
        for kind, values in (("video", videos), ("image", images), ("region", regions))
    }
    return [
        SampleMedia(
            kinds=tuple(kind for kind in found if kind != "region"),
            videos=tuple(VideoItem(video) for video in groups["video"][sample]),
            images=tuple(groups["image"][sample]),
            regions=tuple(groups["region"][sample]),
        )
        for sample, found in enumerate(kinds)
    ]


def with_video_options(media: Sequence[SampleMedia], options: Mapping[str, Any]) -> list[SampleMedia]:
    """Give every video the options of the call that it does not bring itself.

    Args:
        media (`Sequence[SampleMedia]`): Media of each sample.
        options (`Mapping[str, Any]`): For each option one value, or a list with one per video of the batch.

    Returns:
        `list[SampleMedia]`: The same, with complete options.

    Raises:
        ValueError: If there are more or fewer values than videos.
    """
    num_videos = sum(len(one.videos) for one in media)
    spread = {name: iter(spread_option(name, value, num_videos)) for name, value in options.items()}
    return [replace(one, videos=tuple(_with_options(item, spread) for item in one.videos)) for one in media]


def _with_options(item: VideoItem, spread: Mapping[str, Any]) -> VideoItem:
    given = {name: next(values) for name, values in spread.items()}
    given = {name: value for name, value in given.items() if value is not None}
    return VideoItem(item.source, {**given, **item.options})


def expand_marks(text: str, marks: Sequence[re.Match], counts: Sequence[int]) -> tuple[str, list[dict[str, Any]]]:
    """Repeat each mark as often as it has tokens.

    Args:
        text (`str`): The text.
        marks (`Sequence[re.Match]`): What `find_marks` found in it.
        counts (`Sequence[int]`): Tokens of each mark.

    Returns:
        `tuple[str, list[dict[str, Any]]]`: The text, and where each mark was and is, in characters, in the form of
        `ProcessorMixin.get_text_with_replacements`.
    """
    pieces, offsets, last, gained = [], [], 0, 0
    for match, count in zip(marks, counts, strict=True):
        start, end = match.span()
        replacement = match.group() * count
        offsets.append(
            {
                "type": match.lastgroup,
                "span": (start, end),
                "new_span": (start + gained, start + gained + len(replacement)),
                "text": match.group(),
                "replacement": replacement,
            }
        )
        pieces += [text[last:start], replacement]
        gained += len(replacement) - (end - start)
        last = end
    return "".join([*pieces, text[last:]]), offsets


__all__ = [
    "MARKS",
    "MARKS_PATTERN",
    "SampleMedia",
    "VideoItem",
    "check_counts",
    "expand_marks",
    "find_marks",
    "group_by_sample",
    "media_from_lists",
    "with_video_options",
]
