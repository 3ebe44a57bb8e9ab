"""The typed form of a region, "this object in these frames", and the check of its keys. No mask is decoded here."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.pixels import read_mask
from transformers_videorefer.regions.rle import rle_is_empty
from transformers_videorefer.regions.values import (
    parse_index,
    parse_number,
    parse_size,
    parse_value,
    parse_whole,
    shorten,
)
from transformers_videorefer.video.reader import is_array, is_tensor


FORMS = ("mask", "rle", "polygon", "box", "scribble")
# "type" is what marks a region among the parts of a chat message.
REGION_KEYS = ("object_id", "media", "frames", "masks", "frame_indices", "size", "label", "type")
FRAME_KEYS = ("frame_index", "time_seconds", *FORMS, "size", "label")

_EXAMPLE = '{"frames": [{"frame_index": 0, "box": [x0, y0, x1, y1]}]}'
_MASKLET_EXAMPLE = '{"masks": masks, "frame_indices": [...]}'
_POINTS_HINT = "Points are not offered: segment them first, e.g. with SAM 2, and pass the result as `mask`."
_KEY_HINTS = {
    "bbox": "Pass `box`: [x0, y0, x1, y1]; a COCO bbox [x, y, width, height] becomes [x, y, x + width, y + height].",
    "segmentation": "Pass it as `rle` (a dict of `size` and `counts`) or as `polygon` (a list of flat lists).",
    "point": _POINTS_HINT,
    "points": _POINTS_HINT,
}


@dataclass(frozen=True, eq=False)
class RegionFrame:
    """One frame of a region, checked but not decoded.

    Attributes:
        frame_index (`int`, *optional*): Position of the frame in its video.
        time_seconds (`float`, *optional*): Time of the frame in seconds, instead of `frame_index`.
        form (`str`, *optional*): One of `FORMS`; None for an explicitly null mask, which is empty.
        value (`Any`): What `form` holds, as `parse_value` returns it.
        label (`int`, *optional*): Value of the object in the pixels of a `mask`.
        size (`tuple[int, int]`, *optional*): [height, width] of the picture that the numbers refer to; (1, 1) for
            coordinates from 0 to 1.
    """

    frame_index: int | None
    time_seconds: float | None
    form: str | None
    value: Any = field(repr=False)
    label: int | None = None
    size: tuple[int, int] | None = None

    def is_empty(self) -> bool | None:
        """Tell whether the mask has no pixel, as far as that needs neither a picture opened nor a shape drawn.

        Returns:
            `bool`, *optional*: None where only decoding would tell (pictures, polygons, boxes, scribbles).

        Raises:
            ValueError: If the counts of an RLE are broken.
        """
        if self.form is None:
            return True
        if self.form == "rle":
            return rle_is_empty(self.value)
        if self.form == "mask" and is_array(self.value):
            inside = self.value if self.label is None else self.value == self.label
            return not bool(inside.any())
        return None

    def picture_is_empty(self) -> bool:
        """Open a mask picture to tell whether it shows nothing; other forms count as showing something.

        Returns:
            `bool`: True if no pixel of the picture belongs to the object.

        Raises:
            OSError: If the picture cannot be read.
            ValueError: If its values are not those of a mask.
        """
        if self.form != "mask":
            return False
        return not read_mask(self.value, label=self.label).any()


@dataclass(frozen=True, eq=False)
class Region:
    """One object in one or more frames of one video or image.

    Attributes:
        object_id (`str`, *optional*): Name of the object; never shown to the model.
        media (`int`, *optional*): Position of the video or image among all those of the sample.
        frames (`tuple[RegionFrame, ...]`): Frames in the order given.
        from_masklet (`bool`): The region came as `masks`: empty entries mean "not visible".
        positional (`bool`): `masks` without `frame_indices`: one entry for every frame of the video.
    """

    object_id: str | None
    media: int | None
    frames: tuple[RegionFrame, ...]
    from_masklet: bool
    positional: bool


def parse_region(region: Mapping[str, Any]) -> Region:
    """Check the form of a region. Keys whose value is None count as absent.

    Args:
        region (`Mapping`): `{"object_id"?, "media"?, "size"?}` with either `"frames"`, a list of
            `{"frame_index" | "time_seconds", one of FORMS, "size"?, "label"?}`, or `"masks"` of shape
            `(num_frames, height, width)` or `(num_frames, 1, height, width)` or a list of masks, RLE dicts and None,
            with `"frame_indices"` and, where the masks hold labels, `"label"`. A frame whose only form is None
            (`{"frame_index": 0, "rle": None}`) has an empty mask, as null segmentations in the published data.

    Returns:
        `Region`: The same, checked; masks are neither copied nor decoded.

    Raises:
        TypeError: If the region, or one of its values, is of a wrong kind.
        ValueError: If keys are unknown, missing or contradict each other, or a value is out of range.
    """
    if not isinstance(region, Mapping):
        raise TypeError(
            f"a region is a dict such as {_EXAMPLE}, got {shorten(region)}. "
            f"Pass the masks of one object over several frames as {_MASKLET_EXAMPLE}."
        )
    given = {key: value for key, value in region.items() if value is not None}
    _check_keys(given, REGION_KEYS)
    if given.get("type", "region") != "region":
        raise ValueError(f'`type` of a region must be "region", got {given["type"]!r}. Leave it out.')
    object_id = given.get("object_id")
    if object_id is not None and not isinstance(object_id, str):
        raise TypeError(f"`object_id` must be a string, got {object_id!r}. Pass str(...) of it.")
    media = None if "media" not in given else parse_index(given["media"], "media")
    if ("frames" in given) == ("masks" in given):
        found = "both" if "frames" in given else f"only {sorted(given)}" if given else "nothing"
        raise ValueError(
            f"a region needs exactly one of `frames` and `masks`, got {found}. Pass for example {_EXAMPLE}."
        )
    size = None if "size" not in given else parse_size(given["size"])
    if "masks" in given:
        frames = _parse_masklet(given, size)
        return Region(object_id, media, frames, from_masklet=True, positional="frame_indices" not in given)
    if "frame_indices" in given:
        raise ValueError("`frame_indices` goes with `masks`. Give each of the `frames` its `frame_index`.")
    if "label" in given:
        raise ValueError("`label` goes with `masks`. In `frames` put it beside the `mask` it is for.")
    frames = _parse_frames(given["frames"], size)
    return Region(object_id, media, frames, from_masklet=False, positional=False)


def _check_keys(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse unknown keys and say which key is meant."""
    for key in given:
        if key in known:
            continue
        lowered = str(key).lower()
        near = difflib.get_close_matches(lowered, known, n=1, cutoff=0.5)
        if lowered in _KEY_HINTS:
            hint = _KEY_HINTS[lowered]
        elif known is REGION_KEYS and key in FRAME_KEYS:
            hint = f"It belongs to an entry of `frames`: {_EXAMPLE}."
        elif known is FRAME_KEYS and key in REGION_KEYS:
            hint = "It belongs to the region, beside `frames`, not to one of its frames."
        elif lowered.isdigit():
            hint = f"Frames keyed by their number (the published annotations) become a list: {_EXAMPLE}."
        elif near:
            hint = f"Did you mean `{near[0]}`?"
        else:
            hint = f"Known keys are {', '.join(f'`{name}`' for name in known)}."
        raise ValueError(f"unknown key `{key}`. {hint}")


def _parse_frames(entries: Any, size: tuple[int, int] | None) -> tuple[RegionFrame, ...]:
    """Check the entries of `frames`."""
    if isinstance(entries, (str, bytes)) or not isinstance(entries, (Sequence, np.ndarray)):
        raise TypeError(f"`frames` must be a list of dicts such as {_EXAMPLE}, got {shorten(entries)}.")
    if len(entries) == 0:
        raise ValueError("`frames` is empty. Pass at least one frame, or leave region and mark out.")
    frames = []
    with located() as place:
        for position, entry in enumerate(entries):
            place["entry"] = f"frames[{position}]"
            frames.append(_parse_frame(entry, size))
    return tuple(frames)


def _parse_frame(entry: Any, default_size: tuple[int, int] | None) -> RegionFrame:
    """Check one entry of `frames`."""
    if not isinstance(entry, Mapping):
        raise TypeError(
            f'a frame is a dict such as {{"frame_index": 0, "box": [x0, y0, x1, y1]}}, got {shorten(entry)}.'
        )
    given = {key: value for key, value in entry.items() if value is not None}
    _check_keys(given, FRAME_KEYS)
    index, time_seconds = None, None
    if "frame_index" in given:
        index = parse_index(given["frame_index"], "frame_index")
    if "time_seconds" in given:
        time_seconds = parse_number(given["time_seconds"], "time_seconds")
    if index is not None and time_seconds is not None:
        raise ValueError("both `frame_index` and `time_seconds` are given. Keep one of them.")
    with located(frame=index):
        forms = [form for form in FORMS if form in given]
        if len(forms) > 1:
            raise ValueError(f"got {' and '.join(f'`{form}`' for form in forms)}. Keep exactly one of them.")
        if not any(form in entry for form in FORMS):
            raise ValueError(f"the frame has no mask. Pass exactly one of {', '.join(f'`{form}`' for form in FORMS)}.")
        form = forms[0] if forms else None
        label = None if "label" not in given else parse_whole(given["label"], "label")
        size = default_size if "size" not in given else parse_size(given["size"])
        return _make_frame(index, time_seconds, form, given.get(form), label, size)


def _make_frame(
    index: int | None,
    time_seconds: float | None,
    form: str | None,
    value: Any,
    label: int | None,
    size: tuple[int, int] | None,
) -> RegionFrame:
    """Check the value of a frame against its label and size."""
    if label is not None and form not in ("mask", None):
        raise ValueError(
            f"`label` says which value of a `mask` is the object, but a `{form}` has no values. Leave it out."
        )
    if form is not None:
        value = parse_value(form, value, size)
    return RegionFrame(index, time_seconds, form, value, label, size)


def _parse_masklet(given: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[RegionFrame, ...]:
    """Check the masks of a tracked object and the frames they belong to."""
    entries = _masklet_entries(given["masks"])
    label = None if "label" not in given else parse_whole(given["label"], "label")
    indices = given.get("frame_indices", range(len(entries)))
    if is_array(indices):
        indices = indices.tolist()
    if isinstance(indices, (str, bytes)) or not isinstance(indices, Sequence):
        raise TypeError(f"`frame_indices` must be a list of frame numbers, got {shorten(indices)}.")
    if len(indices) != len(entries):
        raise ValueError(
            f"`masks` has {len(entries)} masks but `frame_indices` has {len(indices)} numbers. "
            "Pass one frame number for each mask."
        )
    indices = [parse_index(number, f"frame_indices[{position}]") for position, number in enumerate(indices)]
    frames = []
    with located() as place:
        for position, (entry, index) in enumerate(zip(entries, indices, strict=True)):
            place.update(entry=f"masks[{position}]", frame=index)
            form = None if entry is None else "rle" if isinstance(entry, Mapping) else "mask"
            frames.append(_make_frame(index, None, form, entry, label, size))
    return tuple(frames)


def _masklet_entries(masks: Any) -> Sequence[Any]:
    """Split `masks` into one entry for each frame."""
    if is_tensor(masks) or (isinstance(masks, np.ndarray) and masks.dtype != object):
        shape = tuple(masks.shape)
        if len(shape) == 4 and shape[1] == 1:
            masks = masks[:, 0]
        if masks.ndim != 3 or 0 in shape:
            raise ValueError(
                f"`masks` must have shape (num_frames, height, width) or (num_frames, 1, height, width), got {shape}. "
                "Pass masks[None] for a single frame."
            )
        return list(masks)
    if isinstance(masks, (str, bytes)) or not isinstance(masks, (Sequence, np.ndarray)):
        raise TypeError(
            f"`masks` must be an array, a tensor or a list of masks, RLE dicts or None, got {shorten(masks)}. "
            f"Pass {_MASKLET_EXAMPLE}."
        )
    if len(masks) == 0:
        raise ValueError("`masks` is empty. Pass at least one mask, or leave region and mark out.")
    return masks


__all__ = ["FORMS", "FRAME_KEYS", "REGION_KEYS", "Region", "RegionFrame", "parse_region"]
