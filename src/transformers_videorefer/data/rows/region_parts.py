"""Regions of rows as parts of messages, and which of their frames are shown."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from transformers_videorefer.regions.form import FORMS
from transformers_videorefer.regions.rle import rle_is_empty


def region_part(region: Mapping[str, Any]) -> dict[str, Any]:
    """Write the region of a row as a part of a message that the processor takes.

    A frame without mask and box (a null segmentation of the published data) means that the object is not to be seen
    there. It becomes an entry `None` of `masks`, which the processor leaves out, or keeps as an empty mask with
    `empty_masks="keep"`, the published rule. `masks` cannot hold boxes; beside those the frame has an empty `rle`,
    which is an empty mask for the processor.

    Args:
        region (`Mapping[str, Any]`): `object_id`, `media` and `frames` of a row, or any form of a region that the
            processor takes. Columns of tables fill absent keys with None.

    Returns:
        `dict[str, Any]`: The part, of type "region".

    Raises:
        TypeError: If the region or one of its frames is no dictionary.
    """
    if not isinstance(region, Mapping):
        raise TypeError(f"A region must be a dictionary with `frames`, got {region!r:.80}.")
    given = {key: value for key, value in region.items() if value is not None and key != "type"}
    if "frames" not in given:
        return {"type": "region", **given}
    frames = [_frame(entry) for entry in given.pop("frames")]
    forms = [next((form for form in FORMS if frame.get(form) is not None), None) for frame in frames]
    sizes = {tuple(frame.get("size", ())) for frame, form in zip(frames, forms, strict=True) if form is not None}
    is_masklet = None in forms and set(forms) <= {"rle", None} and len(sizes) < 2
    if not is_masklet or any("frame_index" not in frame for frame in frames):
        return {"type": "region", **given, "frames": frames}
    if any(sizes):
        given["size"] = list(*sizes)
    masks = [frame.get("rle") for frame in frames]
    return {"type": "region", **given, "masks": masks, "frame_indices": [frame["frame_index"] for frame in frames]}


def _frame(entry: Any) -> dict[str, Any]:
    """Leave absent keys of a frame out; one without mask gets an empty `rle`."""
    if not isinstance(entry, Mapping):
        raise TypeError(
            f'A frame of a region must be a dictionary such as {{"frame_index": 0, ...}}, got {entry!r:.80}.'
        )
    frame = {key: value for key, value in entry.items() if not is_absent(value)}
    return frame if any(form in frame for form in FORMS) else {**frame, "rle": None}


def is_absent(value: Any) -> bool:
    """Tell whether a value stands for nothing, as tables write it.

    Args:
        value (`Any`): What a column holds.

    Returns:
        `bool`: True for None, and for a list or struct of nothing but None, also an empty one.
    """
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value]
    return all(one is None for one in values)


def frame_keys(part: Mapping[str, Any]) -> list[Hashable]:
    """List the frames of a region.

    Args:
        part (`Mapping[str, Any]`): What `region_part` returned.

    Returns:
        `list`: For each frame its number, or its time in seconds where that is given in place of it.
    """
    if "masks" in part:
        indices = part.get("frame_indices")
        return [int(index) for index in (range(len(part["masks"])) if indices is None else indices)]
    return [frame.get("frame_index", frame.get("time_seconds")) for frame in part["frames"]]


def keep_frame(part: Mapping[str, Any], position: int) -> dict[str, Any]:
    """Reduce a region to one of its frames.

    Args:
        part (`Mapping[str, Any]`): What `region_part` returned.
        position (`int`): Position of the frame among those of the region.

    Returns:
        `dict[str, Any]`: The part with that frame alone.
    """
    if "masks" in part:
        kept = part["masks"][position : position + 1]
        return {**part, "masks": kept, "frame_indices": [frame_keys(part)[position]]}
    return {**part, "frames": [part["frames"][position]]}


def draw_frames(parts: Sequence[Mapping[str, Any]], draw: Callable[[str], float]) -> list[int]:
    """Draw one frame for several regions of one video: a frame that shows them all, where there is one.

    Frames on which a region is empty are drawn only where it has no others.

    Args:
        parts (`Sequence[Mapping[str, Any]]`): What `region_part` returned for each.
        draw (`Callable[[str], float]`): Gives a number for a name, always the same one. The smallest wins.

    Returns:
        `list[int]`: For each region the position of its frame.
    """
    positions = [_first_positions(part) for part in parts]
    shared = set(positions[0]).intersection(*positions[1:]) if positions else set()
    for key in sorted(shared, key=lambda key: (draw(f"frame {key}"), str(key))):
        if all(_is_visible(part, found[key]) for part, found in zip(parts, positions, strict=True)):
            return [found[key] for found in positions]
    return [
        _draw_one(part, found, number, draw) for number, (part, found) in enumerate(zip(parts, positions, strict=True))
    ]


def _draw_one(
    part: Mapping[str, Any], positions: Mapping[Hashable, int], number: int, draw: Callable[[str], float]
) -> int:
    order = sorted(positions, key=lambda key: (draw(f"region {number}, frame {key}"), str(key)))
    return next((positions[key] for key in order if _is_visible(part, positions[key])), positions[order[0]])


def _first_positions(part: Mapping[str, Any]) -> dict[Hashable, int]:
    """Return where each frame of a region stands; of a frame that comes twice, the first one."""
    return {key: position for position, key in reversed(list(enumerate(frame_keys(part))))}


def _is_visible(part: Mapping[str, Any], position: int) -> bool:
    """Whether a region shows something on a frame. Only run-length masks are looked into, without drawing them."""
    entry = part["masks"][position] if "masks" in part else part["frames"][position]
    if entry is None:
        return False
    rle = entry if "masks" in part else entry["rle"] if "rle" in entry else {}
    if rle is None:
        return False
    if not isinstance(rle, Mapping) or "counts" not in rle:
        return True
    return not rle_is_empty(rle)
