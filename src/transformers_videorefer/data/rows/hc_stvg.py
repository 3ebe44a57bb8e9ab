"""Published HC-STVG annotations as rows: a person's tube of boxes and the sentence that describes what the person does.

A file is one JSON object with an entry for each video. Both versions have `bbox` (one [x, y, width, height] for each
frame of the tube, in pixels), `st_frame` (the first of these frames, counted from 1) and `img_num` (frames of the
video). Version 1 has `caption`, `height` and `width`, version 2 `English` and `img_size` ([height, width]).
"""

import math
from typing import Any

from transformers_videorefer.data.defects import Defect, FrameError, describe, make_defect
from transformers_videorefer.data.frames import null_frame
from transformers_videorefer.data.paths import is_unsafe_path
from transformers_videorefer.data.segmentations import read_size

from .record_masks import MAX_FRAME_NUMBER


# So far a box may reach outside the picture, in pixels: rounding of the tool that drew it.
MAX_OVERHANG = 1.0


def salvage_hc_stvg(name: Any, entry: Any, *, edit_list: str = "ignore") -> tuple[dict[str, Any] | None, list[Defect]]:
    """Turn as much of an entry into a row as can be told for sure.

    The published frames are counted from 1 over the pictures that ffmpeg extracts; ours are counted from 0, so the
    boxes belong to the frames `st_frame - 1`, `st_frame` and so on. `frame_index`, the frame of the single-frame mode,
    is the middle of the tube: at its ends people often enter, leave or are hidden.

    Args:
        name (`str`): Name of the video file, the key of the entry; also becomes the `id`.
        entry (`dict`): The entry.
        edit_list (`str`, *optional*, defaults to `"ignore"`): What the column `edit_list` says.

    Returns:
        The row, with broken boxes null, or `None` where nothing can be kept; and what is wrong with the entry.
    """
    defects: list[Defect] = []
    if not isinstance(entry, dict):
        return None, [make_defect("wrong_type", f"an entry is a dict, got {describe(entry)}")]
    size = _read_size(entry, defects)
    first = entry.get("st_frame")
    boxes = entry.get("bbox")
    frames: list[dict[str, Any]] = []
    if not isinstance(boxes, list) or not boxes:
        kind = "missing_field" if boxes is None else "wrong_type"
        defects.append(make_defect(kind, f"`bbox` must be a list of boxes, got {describe(boxes)}"))
    elif type(first) is not int or not 1 <= first <= MAX_FRAME_NUMBER - len(boxes):
        message = f"`st_frame` must be a whole number from 1 on, got {describe(first)}"
        defects.append(make_defect("broken_frame_number", message))
    else:
        frames = [
            {**null_frame(first - 1 + step), "box": _read_box(box, size, step, defects), "size": size}
            for step, box in enumerate(boxes)
        ]
    num_frames = entry.get("img_num")
    if frames and type(num_frames) is int and frames[-1]["frame_index"] >= num_frames:
        message = f"the tube ends with frame {frames[-1]['frame_index']}, but the video has {num_frames} frames"
        defects.append(make_defect("frame_outside_video", message))
    row = {
        "id": _read_text("name", name, defects),
        "video": None,
        "caption": _read_caption(entry, defects),
        "frame_index": frames[len(frames) // 2]["frame_index"] if frames else None,
        "regions": [{"object_id": "0", "media": 0, "frames": frames}],
        "edit_list": edit_list,
    }
    if row["id"] is not None and is_unsafe_path(row["id"]):
        defects.append(make_defect("unsafe_path", f"{describe(name)} is no path inside the data folder"))
    else:
        row["video"] = row["id"]
    return row, defects


def _read_text(name: str, value: Any, defects: list[Defect]) -> str | None:
    if value is None:
        defects.append(make_defect("missing_field", f"the entry has no {name}"))
    elif not isinstance(value, str):
        defects.append(make_defect("wrong_type", f"the {name} must be text, got {describe(value)}"))
    else:
        try:
            value.encode("utf-8")
            return value
        except UnicodeEncodeError:
            defects.append(make_defect("broken_text", f"the {name} {describe(value)} holds half a character"))
    return None


def _read_caption(entry: dict[str, Any], defects: list[Defect]) -> str | None:
    """Read the sentence; version 2 also has a Chinese one, under `Chinese`."""
    caption = entry.get("English")
    return _read_text("caption", entry.get("caption") if caption is None else caption, defects)


def _read_size(entry: dict[str, Any], defects: list[Defect]) -> list[int] | None:
    """Read the size of the picture, [height, width]; None where the entry does not say it."""
    size = entry.get("img_size")
    if size is None and entry.get("height") is not None and entry.get("width") is not None:
        size = [entry["height"], entry["width"]]
    if size is None:
        return None
    try:
        return read_size(size, where="the entry")
    except FrameError as error:
        defects.append(error.defect)
        return None


def _read_box(box: Any, size: list[int] | None, step: int, defects: list[Defect]) -> list[float] | None:
    """Turn [x, y, width, height] into [x0, y0, x1, y1]; None where it is no box of the picture."""
    is_box = isinstance(box, list) and len(box) == 4 and all(type(number) in (int, float) for number in box)
    if not is_box or not all(-(2**31) < number < 2**31 for number in box) or not all(map(math.isfinite, box)):
        defects.append(make_defect("broken_box", f"box {step} must be [x, y, width, height], got {describe(box)}"))
        return None
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        defects.append(make_defect("broken_box", f"box {step} is {width:g} wide and {height:g} high"))
        return None
    corners = [x, y, x + width, y + height]
    if size is None:
        return corners
    limits = (size[1], size[0], size[1], size[0])
    inside = [min(max(corner, 0.0), float(limit)) for corner, limit in zip(corners, limits, strict=True)]
    overhang = max(abs(one - other) for one, other in zip(corners, inside, strict=True))
    if overhang > MAX_OVERHANG or inside[0] >= inside[2] or inside[1] >= inside[3]:
        message = f"box {step} reaches {overhang:g} pixels out of the picture of {size}"
        defects.append(make_defect("broken_box", message))
        return None
    if overhang > 0:
        defects.append(make_defect("box_clipped", f"box {step} was clipped by {overhang:g} pixels"))
    return inside
