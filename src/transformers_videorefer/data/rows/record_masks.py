"""The annotation of a published record: objects, frame numbers and masks in both namings, read as regions."""

import math
from typing import Any

from transformers_videorefer.data.defects import Defect, FrameError, describe, make_defect
from transformers_videorefer.data.frames import null_frame, read_frame
from transformers_videorefer.data.json_files.json_window import RepeatedKeys
from transformers_videorefer.data.rle_checks import broken_rles
from transformers_videorefer.data.segmentations import MAX_PIXELS, MAX_SIDE, read_size


MAX_FRAME_NUMBER = 2**31 - 1


def parse_frame_number(value: Any) -> int | None:
    """Read the number of a frame.

    Args:
        value (`Any`): A whole number from 0 to 2147483647, or its decimal text.

    Returns:
        `int` or `None`: The number; `None` if it is something else.
    """
    if type(value) is str:
        if not value.isdecimal() or not value.isascii() or len(value) > 10:
            return None
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_FRAME_NUMBER else None


def read_regions(
    record: dict[str, Any], video_size: tuple[int, int] | None, *, media: int | None
) -> tuple[list[dict[str, Any]], list[Defect]]:
    """Read the objects of a record.

    Args:
        record (`dict`): The record, with `annotation` or `masks`, or neither.
        video_size (`tuple[int, int]`, *optional*): Height and width for polygons, if the record has none.
        media (`int`, *optional*): What the regions say as `media`.

    Returns:
        The regions, one for each object, in order, and what is wrong. Compressed masks are not read here.
    """
    defects: list[Defect] = []
    given = {name: record[name] for name in ("annotation", "masks") if record.get(name) is not None}
    if len(given) > 1:
        return [], [make_defect("ambiguous_annotation", "the record has both `annotation` and `masks`")]
    objects = next(iter(given.values()), [])
    if not isinstance(objects, list):
        name = next(iter(given))
        return [], [make_defect("wrong_type", f"`{name}` must be a list of objects, got {describe(objects)}")]
    size = _record_size(record, defects) or video_size
    regions = []
    for position, frames in enumerate(objects):
        regions.append({"object_id": str(position), "media": media, "frames": []})
        if isinstance(frames, dict):
            regions[-1]["frames"] = _read_frames(frames, position, size, defects)
        else:
            message = f"object {position} must be a dict of frames, got {describe(frames)}"
            defects.append(make_defect("wrong_type", message))
    _compare_sizes(regions, size, defects)
    return regions, defects


def _record_size(record: dict[str, Any], defects: list[Defect]) -> tuple[int, int] | None:
    """Read `height` and `width` of a record, which may be missing."""
    height, width = record.get("height"), record.get("width")
    if height is None or width is None:
        return None
    try:
        read_size([height, width], where="record")
    except FrameError as error:
        defects.append(error.defect)
        return None
    return height, width


def _compare_sizes(regions: list[dict[str, Any]], size: tuple[int, int] | None, defects: list[Defect]) -> None:
    """Report masks of several sizes; where the sizes have the same number of pixels, one may be another in disguise.

    Run lengths fit every size of their number of pixels: [height, width] swapped gives a mask of other bits and no
    error. So of such sizes only that of the record is believed.
    """
    sizes = {tuple(frame["rle"]["size"]) for region in regions for frame in region["frames"] if frame["rle"]}
    named = sizes if size is None else sizes | {tuple(size)}
    if len(named) < 2:
        return
    listed = ", ".join(str(list(one)) for one in sorted(named)[:4])
    defects.append(make_defect("mask_size_differs", f"masks and record name several sizes: {listed}"))
    doubtful = {
        one
        for one in sizes
        if one != size and any(one != other and math.prod(one) == math.prod(other) for other in named)
    }
    for position, region in enumerate(regions if doubtful else ()):
        for frame in region["frames"]:
            if frame["rle"] and tuple(frame["rle"]["size"]) in doubtful:
                message = (
                    f"object {position}, frame {frame['frame_index']}: `size` {frame['rle']['size']} has as many pixels "
                    f"as another size of the record ({listed})"
                )
                defects.append(make_defect("broken_size", message))
                frame["rle"] = None


def _read_frames(
    frames: dict[Any, Any], position: int, size: tuple[int, int] | None, defects: list[Defect]
) -> list[dict[str, Any]]:
    """Read the frames of one object, in their order."""
    read: dict[int, dict[str, Any]] = {}
    repeated = frames.repeated if isinstance(frames, RepeatedKeys) else ()
    for key, value in frames.items():
        index = parse_frame_number(key)
        if index is None:
            message = f"object {position}: {describe(key)} is no frame number"
            defects.append(make_defect("broken_frame_number", message))
            continue
        if index in read:  # "7" and "07": nobody knows which mask is meant
            message = f"object {position}: frame {index} is listed twice"
            defects.append(make_defect("duplicate_frame", message))
            read[index]["rle"] = None
            continue
        if key in repeated:
            defects.append(make_defect("duplicate_frame", f"object {position}: frame {index} is listed twice"))
            read[index] = null_frame(index)
            continue
        plain = _plain_rle(value)
        if plain is None:
            read[index] = _read_frame(value, position, index, size, defects)
        else:
            read[index] = null_frame(index)
            read[index]["rle"] = plain
    return list(read.values())


def _read_frame(
    value: Any, position: int, index: int, size: tuple[int, int] | None, defects: list[Defect]
) -> dict[str, Any]:
    """Read the mask of one object in one frame, null where it is null or broken."""
    if isinstance(value, dict) and "counts" not in value:
        if "segmentation" not in value and value.keys() != {"size"}:
            message = f"object {position}, frame {index}: there is no `segmentation`"
            defects.append(make_defect("missing_segmentation", message))
            return null_frame(index)
        value = value.get("segmentation", value)
    if value is None:
        message = f"object {position}, frame {index}: the segmentation is null"
        defects.append(make_defect("null_segmentation", message))
        return null_frame(index)
    try:
        return read_frame(index, mask=value, picture=size, where=f"object {position}, frame {index}", check=False)
    except FrameError as error:
        defects.append(error.defect)
        return null_frame(index)


def _plain_rle(value: Any) -> dict[str, Any] | None:
    """Return a mask in the form that nearly all of them have, without detours; None for everything else."""
    if type(value) is dict and len(value) == 1:
        value = value.get("segmentation")
    if type(value) is not dict or len(value) != 2:
        return None
    counts, size = value.get("counts"), value.get("size")
    if type(counts) is not str or not counts or not counts.isascii() or type(size) is not list or len(size) != 2:
        return None
    height, width = size
    if type(height) is not int or type(width) is not int or not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        return None
    return {"size": [height, width], "counts": counts} if height * width <= MAX_PIXELS else None


def mask_frames(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the frames of a row that carry a mask.

    Args:
        row (`dict`): The row.

    Returns:
        `list[dict]`: The frames themselves, over all regions, in order.
    """
    return [
        frame
        for region in row["regions"] or ()
        for frame in region["frames"] or ()
        if frame is not None and frame["rle"] is not None
    ]


def has_polygons(record: dict[str, Any]) -> bool:
    """Tell whether a mask of a record is given as polygons.

    Args:
        record (`dict`): The record, whatever it holds.

    Returns:
        `bool`: True if there is one.
    """
    for objects in (record.get("annotation"), record.get("masks")):
        for frames in objects if isinstance(objects, list) else ():
            for value in frames.values() if isinstance(frames, dict) else ():
                if isinstance(value.get("segmentation") if isinstance(value, dict) else value, list):
                    return True
    return False


def drop_broken_masks(row: dict[str, Any]) -> list[Defect]:
    """Check the run lengths of the masks of a row and set broken masks to null.

    Args:
        row (`dict`): The row; changed in place.

    Returns:
        `list[Defect]`: One for each broken mask.
    """
    frames = mask_frames(row)
    broken = broken_rles([frame["rle"] for frame in frames])
    return drop_masks(row, {id(frames[index]): reason for index, reason in broken}) if broken else []


def drop_masks(row: dict[str, Any], broken: dict[int, str]) -> list[Defect]:
    """Set those masks of a row to null that are known to be broken.

    Args:
        row (`dict`): The row; changed in place.
        broken (`dict[int, str]`): `id` of a frame's dict -> what is wrong with its mask.

    Returns:
        `list[Defect]`: One for each broken mask.
    """
    defects = []
    for position, region in enumerate(row["regions"]):
        for frame in region["frames"]:
            if id(frame) in broken:
                message = f"object {position}, frame {frame['frame_index']}: {broken[id(frame)]}"
                defects.append(make_defect("broken_rle", message))
                frame["rle"] = None
    return defects
