"""CVAT for video 1.1: an XML file of tracks.

Rules and where they come from (https://docs.cvat.ai/docs/other/xml_format, and the exporter and interpolation in
`cvat/apps/dataset_manager` of https://github.com/cvat-ai/cvat):

- `frame` counts the frames of the source video from 0, also where a task starts later (`start_frame`) or takes every
  N-th frame (`frame_filter` "step=N"). In the export of a whole project it is raised by the frames of all tasks before
  it in the same subset; `task_id` of a track says which task it belongs to.
- `outside="1"` ends a visible stretch: the object is not visible from that frame on. `occluded` says that something
  covers it; it is kept.
- `keyframe="0"` marks frames that CVAT interpolated. A track that has some is written in full and taken as it is.
  Otherwise boxes are interpolated between key frames, linearly in all four numbers and along the shorter way for
  `rotation`; polygons are held, and the last key frame is held to the end of the task, unless it is outside.
- `rotation` turns a box about its centre, in degrees, clockwise.
- A `mask` covers `width` x `height` pixels at `left`, `top`; `rle` holds its run lengths row by row, background first.
  CVAT has no mask tracks: a mask is held to the next key frame and never beyond its last one.
- Other shapes (points, polylines, cuboids, ellipses, skeletons) are no regions: their tracks are bad rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from transformers_videorefer.data.defects import Defect
from transformers_videorefer.data.segmentations import MAX_POLYGON_PIXELS
from transformers_videorefer.regions.rle import encode_rle

from .common import Candidate, ImportOptions, Shape, TrackedObject, fail, find_video, object_row
from .cvat_xml import CvatShape, CvatTask, CvatTrack, read_tracks
from .geometry import interpolate_angle, rotated_box
from .videos import VideoFolder, VideoInfo


SOURCE = "cvat-video"
# Nine hours at 30 frames per second: how far key frames are spread where the video is missing.
MAX_FRAMES = 1_000_000


def read_cvat_video(path: Path, videos: VideoFolder, options: ImportOptions) -> Iterator[Candidate]:
    """Read an export "CVAT for video 1.1", track by track.

    Args:
        path (`Path`): The XML file.
        videos ([`VideoFolder`]): Where the videos are. They are looked for by the `source` of their task, then by its
            name; the export of a single job names none, so the folder must then hold one video only.
        options ([`ImportOptions`]): Question, answer and stride. An answer field is the name of an attribute.

    Yields:
        [`Candidate`]: One for each track.

    Raises:
        ValueError: If the file is no such XML; the message names line and column.
    """
    for track, task in read_tracks(path):
        where = f"{path.name}, line {track.line}, track {track.track_id}"
        row_id = f"{task.task_id}-{track.track_id}" if task.task_id else track.track_id
        yield Candidate(where, row_id, partial(_row, track, task, row_id, videos, options))


def _row(
    track: CvatTrack, task: CvatTask, row_id: str, videos: VideoFolder, options: ImportOptions
) -> tuple[dict[str, Any] | None, list[Defect]]:
    defects: list[Defect] = []
    names = [name for name in (task.source, task.name) if name] if task.source else videos.only_video() or [task.name]
    video = find_video(videos, names, defects, keep=options.bad_rows == "keep")
    keys = [_key_shape(shape, task) for shape in track.shapes]
    shapes = _shapes(keys, task, video, is_full=any(not shape.is_key_frame for shape in track.shapes))
    texts: dict[str, str] = {}
    for shape in track.shapes:  # attributes may change over time: the first value stands
        for name, text in shape.attributes.items():
            texts.setdefault(name, text)
    found = TrackedObject(row_id, track.track_id, video, shapes, track.label or None, texts, defects)
    return object_row(found, options, source=SOURCE)


@dataclass(frozen=True)
class _Key:
    """One element of a track with its numbers read."""

    frame: int
    kind: str
    is_outside: bool
    value: Any = field(repr=False)
    rotation: float = 0.0


def _key_shape(shape: CvatShape, task: CvatTask) -> _Key:
    where = f"line {shape.line}: `{shape.kind}`"
    number = partial(_number, shape.attrs, where)
    frame = int(number("frame")) - task.frame_offset
    is_outside = shape.attrs.get("outside", "0") == "1"
    if shape.kind == "box":
        value = np.array([number("xtl"), number("ytl"), number("xbr"), number("ybr")])
        return _Key(frame, "box", is_outside, value, number("rotation", 0.0))
    if shape.kind == "polygon":
        return _Key(frame, "polygon", is_outside, _points(shape.attrs.get("points", ""), where))
    if shape.kind == "mask":
        return _Key(frame, "mask", is_outside, _mask_part(shape.attrs, where))
    raise fail(
        "wrong_type",
        f"{where} is no region; boxes, polygons and masks are. Redraw it in CVAT, or leave the track out.",
    )


def _shapes(keys: list[_Key], task: CvatTask, video: VideoInfo, *, is_full: bool) -> list[Shape]:
    """List the frames in which a track is visible."""
    keys = sorted(keys, key=lambda key: key.frame)
    for key, following in zip(keys, keys[1:], strict=False):
        if key.frame == following.frame:
            raise fail("wrong_type", f"frame {key.frame} stands twice in the track. Keep one of the two.")
        if key.kind != following.kind:
            raise fail("wrong_type", f"the track mixes `{key.kind}` and `{following.kind}`. Split it in CVAT.")
    # Frames between two key frames exist only as far as the video does; key frames behind it are refused later.
    num_frames = MAX_FRAMES if video.num_frames is None else video.num_frames
    shapes = []
    for place, key in enumerate(keys):
        if key.is_outside:
            continue
        shapes.append(_shape(key.frame, key.kind, key.value, key.rotation, task, video))
        if is_full:
            continue
        following = keys[place + 1] if place + 1 < len(keys) else None
        end = following.frame if following else _end_of_hold(keys, key, task, video)
        for frame in range(key.frame + task.step, min(end, num_frames), task.step):
            value, rotation = key.value, key.rotation
            if following and key.kind == "box":
                share = (frame - key.frame) / (following.frame - key.frame)
                value = key.value + (following.value - key.value) * share
                rotation = interpolate_angle(key.rotation, following.rotation, share)
            shapes.append(_shape(frame, key.kind, value, rotation, task, video))
    return shapes


def _end_of_hold(keys: list[_Key], last: _Key, task: CvatTask, video: VideoInfo) -> int:
    """Say before which frame the last key frame of a track ends."""
    ends = [
        end for end in (task.stop_frame, None if video.num_frames is None else video.num_frames - 1) if end is not None
    ]
    last_frame = min(ends, default=last.frame)
    # A single shape that is no track is written with an end behind it, except in the last two frames of a task.
    is_single_shape = len(keys) == 1 and last.frame + task.step >= last_frame
    return last.frame if last.kind == "mask" or is_single_shape else last_frame + 1


def _shape(frame: int, kind: str, value: Any, rotation: float, task: CvatTask, video: VideoInfo) -> Shape:
    size = task.size or video.size
    if kind == "mask":
        return Shape(frame, "rle", _place_mask(value, size), size)
    if kind == "polygon":
        return Shape(frame, "polygon", [value], size)
    if rotation % 360 == 0:
        return Shape(frame, "box", value.tolist(), size)
    x0, y0, x1, y1 = value.tolist()
    return Shape(
        frame, "polygon", [rotated_box([x0, y0, x1, y1], rotation, pivot=((x0 + x1) / 2, (y0 + y1) / 2))], size
    )


def _number(attrs: Mapping[str, str], where: str, name: str, default: float | None = None) -> float:
    text = attrs.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text) if text is not None else None
    except ValueError:
        value = None
    if value is None or not np.isfinite(value):
        raise fail("wrong_type", f"{where} needs a number in `{name}`, got {text!r}.")
    return value


def _points(text: str, where: str) -> list[float]:
    """Read "x0,y0;x1,y1;..."."""
    try:
        points = [[float(number) for number in pair.split(",")] for pair in text.split(";")]
    except ValueError as error:
        raise fail("broken_polygon", f"{where} needs points as x,y;x,y;..., got {text[:60]!r}.") from error
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise fail("broken_polygon", f"{where} needs at least three points x,y, got {text[:60]!r}.")
    return [number for point in points for number in point]


def _mask_part(attrs: Mapping[str, str], where: str) -> tuple[int, int, int, int, np.ndarray]:
    """Read place, size and run lengths of a mask."""
    left, top, width, height = (int(_number(attrs, where, name)) for name in ("left", "top", "width", "height"))
    try:
        runs = np.array([int(run) for run in attrs.get("rle", "").split(",")], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise fail("broken_rle", f"{where} needs whole numbers in `rle`, separated by commas.") from error
    if width < 1 or height < 1 or (runs < 0).any() or runs.sum() != width * height:
        raise fail(
            "broken_rle", f"{where}: its runs cover {runs.sum()} pixels, but {width} x {height} are {width * height}."
        )
    return left, top, width, height, runs


def _place_mask(part: tuple[int, int, int, int, np.ndarray], size: tuple[int, int] | None) -> dict[str, Any]:
    """Put the pixels of a mask into the picture."""
    if size is None:
        raise fail("broken_size", "the export states no `original_size` and the video is missing. Pass the video.")
    left, top, width, height, runs = part
    if (
        left < 0
        or top < 0
        or left + width > size[1]
        or top + height > size[0]
        or size[0] * size[1] > MAX_POLYGON_PIXELS
    ):
        raise fail(
            "broken_rle",
            f"a mask of {width} x {height} pixels at {left}, {top} reaches out of the picture of {size[1]} x {size[0]}.",
        )
    mask = np.zeros(size, dtype=bool)
    inside = np.arange(len(runs)) % 2 == 1
    mask[top : top + height, left : left + width] = np.repeat(inside, runs).reshape(height, width)
    return encode_rle(mask)


__all__ = ["read_cvat_video"]
