"""Chat template, and how media and regions are collected from the parts of a conversation."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image


MARKS = {"video": "<video>", "image": "<image>", "region": "<region>"}
MARKS_PATTERN = re.compile("|".join(f"(?P<{kind}>{re.escape(mark)})" for kind, mark in MARKS.items()))

VIDEO_OPTIONS = ("edit_list", "start_seconds", "end_seconds", "fps")
_PAYLOAD_KEYS = {"video": ("video", "url", "path"), "image": ("image", "url", "path", "base64")}

# Qwen2's ChatML with its default system turn. The supervised span of a turn is the answer, its end token and the
# newline behind it, as in the published training.
CHAT_TEMPLATE = (
    "{%- macro render(content) -%}"
    "{%- if content is string -%}{{ content }}"
    "{%- else -%}{%- for part in content -%}"
    "{%- if part['type'] == 'text' -%}{{ part['text'] }}"
    "{%- elif part['type'] == 'video' -%}{{ '<video>\\n' }}"
    "{%- elif part['type'] == 'image' -%}{{ '<image>\\n' }}"
    "{%- elif part['type'] == 'region' -%}{{ '<region>' }}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{ render(message['content']) + '<|im_end|>\\n' }}{%- endgeneration -%}"
    "{%- else -%}{{ render(message['content']) + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


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


def is_video(value: Any) -> bool:
    """Whether `value` is one video: a path, bytes, a file object, a `(T, H, W, 3)` array or a list of pictures."""
    if isinstance(value, (str, os.PathLike, bytes)) or hasattr(value, "read"):
        return True
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.ndim == 4
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(_is_frame(frame) for frame in value)


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or (isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim in (2, 3))


def is_image(value: Any) -> bool:
    """Whether `value` is one image: a path, URL, bytes, base64 text, a PIL image or an `(H, W, 3)` array."""
    return isinstance(value, (str, os.PathLike, bytes)) or hasattr(value, "read") or _is_frame(value)


def is_region(value: Any) -> bool:
    """Whether `value` is one region."""
    return isinstance(value, Mapping)


_IS_ITEM: dict[str, Callable[[Any], bool]] = {"video": is_video, "image": is_image, "region": is_region}


def is_item(value: Any, kind: str) -> bool:
    """Whether `value` is one video, image or region, and not a list of them."""
    return _IS_ITEM[kind](value)


def group_by_sample(values: Any, num_marks: Sequence[int], *, kind: str, is_batch: bool) -> list[list[Any]]:
    """Bring `videos=`, `images=` or `regions=` into one list per sample.

    Args:
        values (`Any`): One item, a list of items, or a list of lists; `None` for none.
        num_marks (`Sequence[int]`): Marks of this kind in each sample.
        kind (`str`): `"video"`, `"image"` or `"region"`.
        is_batch (`bool`): Whether the text came as a list.

    Returns:
        `list[list[Any]]`: Items of each sample.

    Raises:
        ValueError: If the items cannot be matched to the marks; it names the sample.
        TypeError: If something is no item of this kind.
    """
    num_samples = len(num_marks)
    if values is None:
        groups: list[list[Any]] = [[] for _ in num_marks]
    elif is_item(values, kind):
        groups = _deal([values], num_marks, kind)
    elif not isinstance(values, (list, tuple)):
        raise TypeError(f"`{kind}s` must be a list, got {type(values).__name__}.")
    elif (
        all(value is None or (isinstance(value, (list, tuple)) and not is_item(value, kind)) for value in values)
        and values
    ):
        if len(values) != num_samples:
            raise ValueError(
                f"`{kind}s` has {len(values)} lists for {num_samples} texts. Pass one list per text; `[]` or `None` for "
                "a text without."
            )
        groups = [list(value or []) for value in values]
    elif kind == "region" and is_batch and values:
        raise ValueError(
            f"`regions` must be one list per text when `text` is a list ({num_samples} texts), got a flat list. "
            "Write `regions=[[...], [...]]`; `[]` or `None` for a text without."
        )
    else:
        groups = _deal(list(values), num_marks, kind)
    for sample, (group, expected) in enumerate(zip(groups, num_marks, strict=True)):
        for value in group:
            if not is_item(value, kind):
                hint = (
                    ' A region is a dictionary such as {"frames": [{"frame_index": 0, "box": [x0, y0, x1, y1]}]}.'
                    if kind == "region"
                    else ""
                )
                raise TypeError(f"Sample {sample}: {type(value).__name__} is no {kind}.{hint}")
        check_count(len(group), expected, kind=kind, sample=sample)
    return groups


def _deal(values: list[Any], num_marks: Sequence[int], kind: str) -> list[list[Any]]:
    """Hand out a flat list in the order of the marks."""
    if len(values) != sum(num_marks):
        if len(num_marks) == 1:
            check_count(len(values), num_marks[0], kind=kind, sample=0)
        raise ValueError(
            f"`{kind}s` has {len(values)} entries, but the {len(num_marks)} texts have {sum(num_marks)} "
            f"`{MARKS[kind]}` marks ({', '.join(map(str, num_marks))}). Pass one {kind} per mark, in order."
        )
    iterator = iter(values)
    return [[next(iterator) for _ in range(count)] for count in num_marks]


def check_count(num_items: int, num_marks: int, *, kind: str, sample: int) -> None:
    """Raise a `ValueError` that names both numbers when items and marks of one sample differ in number."""
    if num_items != num_marks:
        raise ValueError(
            f"Sample {sample} has {num_items} {kind}(s) but {num_marks} `{MARKS[kind]}` mark(s). Pass one {kind} per "
            "mark, in the order of the marks."
        )


def find_marks(text: str, *, unmarked_prefix: str = "") -> list[re.Match]:
    """Find the `<video>`, `<image>` and `<region>` marks of a text; `lastgroup` of each match is its kind."""
    pattern = MARKS_PATTERN
    if unmarked_prefix:
        pattern = re.compile(f"{unmarked_prefix}(?:{MARKS_PATTERN.pattern})")
    return list(pattern.finditer(text))


class _Supply:
    """Payloads from `videos=`, `images=` or `regions=`, handed out in order to marks that bring none."""

    def __init__(self, values: list[Any], kind: str, sample: int):
        self._values, self._kind, self._sample, self._used = values, kind, sample, 0

    def take(self) -> Any:
        if self._used == len(self._values):
            raise ValueError(
                f"Sample {self._sample}: a {self._kind} mark has no payload and `{self._kind}s=` has only "
                f"{len(self._values)} entries left to give. Put the {self._kind} into its part or pass more."
            )
        self._used += 1
        return self._values[self._used - 1]

    def check_all_used(self) -> None:
        if self._used < len(self._values):
            raise ValueError(
                f"Sample {self._sample}: `{self._kind}s=` has {len(self._values)} entries, but only {self._used} marks "
                f"without payload. Pass one {self._kind} per such mark."
            )


def collect_media(
    conversation: Sequence[Mapping[str, Any]],
    *,
    sample: int,
    videos: list[Any],
    images: list[Any],
    regions: list[Any],
    allow_marks_in_text: bool = False,
) -> SampleMedia:
    """Collect videos, images and regions of a conversation, over all its turns.

    Args:
        conversation (`Sequence[Mapping[str, Any]]`): Messages with `role` and `content`, a string with marks or parts.
        sample (`int`): Position in the batch, for messages.
        videos (`list[Any]`): Payloads for video marks and parts that bring none.
        images (`list[Any]`): Payloads for images, likewise.
        regions (`list[Any]`): Payloads for regions, likewise.
        allow_marks_in_text (`bool`, *optional*, defaults to `False`): Whether text parts may spell marks, because they
            will be encoded as plain text.

    Returns:
        [`SampleMedia`].

    Raises:
        ValueError: If a payload is missing or left over, a part is malformed, or a text part spells a mark.
    """
    supplies = {
        "video": _Supply(videos, "video", sample),
        "image": _Supply(images, "image", sample),
        "region": _Supply(regions, "region", sample),
    }
    found: dict[str, list[Any]] = {"video": [], "image": [], "region": []}
    kinds = []
    for kind, part in _media_parts(conversation, sample, allow_marks_in_text):
        payload = None if part is None else _payload(kind, part, sample)
        if payload is None:
            payload = supplies[kind].take()
            if kind == "video":
                payload = VideoItem(payload, {} if part is None else _video_options(part))
        found[kind].append(payload)
        if kind != "region":
            kinds.append(kind)
    for supply in supplies.values():
        supply.check_all_used()
    return SampleMedia(tuple(kinds), tuple(found["video"]), tuple(found["image"]), tuple(found["region"]))


def _media_parts(
    conversation: Sequence[Mapping[str, Any]], sample: int, allow_marks_in_text: bool
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yield kind and part of every mark in order; the part is `None` for a mark in a string content."""
    for turn, message in enumerate(conversation):
        content = message.get("content") or ""
        where = f"Sample {sample}, message {turn}"
        if isinstance(content, str):
            kinds = [(match.lastgroup, None) for match in find_marks(content) if not allow_marks_in_text]
        else:
            kinds = [
                (part["type"], part)
                for part in content
                if not _is_text(part, where=where, allow_marks=allow_marks_in_text)
            ]
        for kind, part in kinds:
            if kind == "region" and message.get("role") != "user":
                raise ValueError(
                    f"{where}: a region in a {message.get('role')!r} turn. Regions belong into user turns; an answer "
                    "can only speak of them."
                )
            yield kind, part


def _is_text(part: Any, *, where: str, allow_marks: bool) -> bool:
    """Whether a part is text; check that it is well-formed on the way."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in MARKS:
        return False
    if kind != "text":
        raise ValueError(
            f'{where}: unknown part {part!r:.80}. Use {{"type": ...}} with "text", "video", "image" or "region".'
        )
    if not isinstance(part.get("text"), str):
        raise ValueError(f'{where}: a text part needs a string under "text", got {part.get("text")!r:.80}.')
    spelled = None if allow_marks else MARKS_PATTERN.search(part["text"])
    if spelled:
        raise ValueError(
            f'{where}: a text part spells the mark `{spelled.group()}`. Use a part {{"type": "{spelled.lastgroup}", '
            "...}, or one string with marks as the whole content."
        )
    return True


def _payload(kind: str, part: Mapping[str, Any], sample: int) -> Any:
    """Return what a part brings, or `None` when it takes its payload from the lists."""
    given = {key: value for key, value in part.items() if key != "type" and value is not None}
    if kind == "region":
        return given or None
    allowed = _PAYLOAD_KEYS[kind] + (VIDEO_OPTIONS if kind == "video" else ())
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise ValueError(
            f"Sample {sample}: unknown key(s) {', '.join(f'`{key}`' for key in unknown)} in a {kind} part. It takes "
            f"{', '.join(f'`{key}`' for key in allowed)}."
        )
    payloads = [given[key] for key in _PAYLOAD_KEYS[kind] if key in given]
    if len(payloads) > 1:
        raise ValueError(
            f"Sample {sample}: a {kind} part with several sources ({', '.join(_PAYLOAD_KEYS[kind])}). Keep one."
        )
    if not payloads:
        return None
    return VideoItem(payloads[0], _video_options(part)) if kind == "video" else payloads[0]


def _video_options(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part[key] for key in VIDEO_OPTIONS if part.get(key) is not None}
