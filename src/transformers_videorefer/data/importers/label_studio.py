"""Label Studio: the JSON export of video object tracking (`VideoRectangle`).

Rules and where they come from (the export and its region code in `web/libs/editor/src/regions/VideoRectangleRegion.js`,
`VideoRegion.js`, `utils/props.ts` and `components/VideoCanvas` of https://github.com/HumanSignal/label-studio; tag
reference https://labelstud.io/tags/videorectangle):

- A task holds `data` (the video's address) and `annotations`, each with a `result`: `videorectangle` results have a
  `sequence` of key frames. `x`, `y`, `width`, `height` are percent of the frame; `frame` counts from 1.
- Between two key frames all numbers are interpolated linearly, `rotation` along the shorter way. A key frame with
  `enabled: false` is the last frame that is shown until the next enabled one; an enabled last key frame holds to the
  end of the video. Nothing is shown before the first one.
- `rotation` is in degrees, clockwise, about the top left corner of the box; it turns pixels, not percent. A rotated
  box becomes a mask.
- The editor does not know the frames of the video: it cuts time into frames of the rate that the project states
  (`frameRate`, 24 unless it says otherwise), and frame f begins at (f - 1) / rate seconds. Where `framesCount` is that
  of the video, or off by one (it is rounded up), frame f is frame f - 1 of the video. Otherwise the project had another
  rate, and each frame of the video takes the frame of the export that is nearest in time. (Old editors sought to f / rate,
  one frame later; an export does not say which editor made it.)
- Texts of a region (`textarea`, `choices` and the like with the same id) are answers by the name of their tag.
"""

import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from transformers_videorefer.data.defects import Defect

from .common import (
    Candidate,
    ImportOptions,
    Shape,
    TrackedObject,
    fail,
    find_video,
    object_row,
)
from .geometry import interpolate_angle, rotated_box
from .loose_json import as_list, as_mapping, load_json
from .videos import VIDEO_SUFFIXES, VideoFolder, VideoInfo


SOURCE = "label-studio"
_NUMBERS = ("x", "y", "width", "height")
# Uploaded files get eight hexadecimal digits in front of their name.
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")
# `framesCount` is the duration times the rate, rounded up, and containers round durations.
_MAX_COUNT_DIFFERENCE = 1
# Far more key frames than anybody sets: a frame number above it is broken where the video is missing.
_MAX_FRAMES = 1_000_000


def read_label_studio(path: Path, videos: VideoFolder, options: ImportOptions) -> Iterator[Candidate]:
    """Read a JSON export of Label Studio.

    Args:
        path (`Path`): The JSON file. It is read as a whole.
        videos ([`VideoFolder`]): Where the videos are; they are looked for by the address in `data`, also without the
            digits that an upload puts in front of a name.
        options ([`ImportOptions`]): Question, answer and stride. An answer field is the name of a tag of the region,
            `meta` (the note of a region), or a key of the task's `data`.

    Yields:
        [`Candidate`]: One for each region of each annotation that was not cancelled.

    Raises:
        ValueError: If the file is no such JSON.
    """
    tasks = load_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
        raise ValueError(f"{path.name}: an export of Label Studio is a list of tasks. Export it as JSON.")
    if tasks and not any("annotations" in task for task in tasks):
        raise ValueError(
            f"{path.name}: the tasks have no `annotations`. Export as JSON; JSON-MIN leaves out what is needed."
        )
    for number, task in enumerate(tasks):
        for place, annotation in enumerate(as_list(task.get("annotations"))):
            if not isinstance(annotation, Mapping) or annotation.get("was_cancelled"):
                continue
            results = [result for result in as_list(annotation.get("result")) if isinstance(result, Mapping)]
            for position, result in enumerate(results):
                if result.get("type") != "videorectangle":
                    continue
                region = str(result.get("id", position))
                row_id = "-".join((str(task.get("id", number)), str(annotation.get("id", place)), region))
                where = f"{path.name}, task {task.get('id', number)}, region {region}"
                yield Candidate(where, row_id, partial(_row, task, results, result, row_id, videos, options))


def _row(
    task: Mapping[str, Any],
    results: list[Mapping[str, Any]],
    result: Mapping[str, Any],
    row_id: str,
    videos: VideoFolder,
    options: ImportOptions,
) -> tuple[dict[str, Any] | None, list[Defect]]:
    value = result.get("value")
    sequence = value.get("sequence") if isinstance(value, Mapping) else None
    if not isinstance(sequence, list) or not all(isinstance(key, Mapping) for key in sequence):
        raise fail("missing_field", "the region has no `sequence` of key frames.")
    defects: list[Defect] = []
    video = find_video(videos, _video_names(task), defects, keep=options.bad_rows == "keep")
    keys = sorted((_read_key(key) for key in sequence), key=lambda key: key["frame"])
    for key, following in zip(keys, keys[1:], strict=False):
        if key["frame"] == following["frame"]:
            raise fail("duplicate_frame", f"frame {key['frame']} of the export is set twice.")
    shapes = _shapes(keys, value, video)
    labels = value.get("labels")
    label = ", ".join(map(str, labels)) if isinstance(labels, list) and labels else None
    texts = _texts(task, results, result)
    found = TrackedObject(row_id, str(result.get("id")), video, shapes, label, texts, defects)
    return object_row(found, options, source=SOURCE)


def _video_names(task: Mapping[str, Any]) -> list[str]:
    """List what the file of the task's video may be called below the folder of videos."""
    content = as_mapping(task.get("data"))
    addresses = [content.get("video"), *content.values()]
    paths = [_path_of(address) for address in addresses if isinstance(address, str)]
    if not isinstance(content.get("video"), str):
        paths = [path for path in paths if path.lower().endswith(VIDEO_SUFFIXES)]
    if not paths:
        raise fail("missing_video", "the `data` of the task name no video.")
    last = paths[0].rsplit("/", 1)[-1]
    return [paths[0], last, _UPLOAD_PREFIX.sub("", last)]


def _path_of(address: str) -> str:
    """Return the path that an address names, without host and leading slash."""
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that are no IPv6 address
        return address
    served = parse_qs(parts.query).get("d")  # /data/local-files/?d=folder/video.mp4
    return (served[0] if served else unquote(parts.path)).lstrip("/")


def _read_key(key: Mapping[str, Any]) -> dict[str, Any]:
    """Check the numbers of a key frame."""
    frame = key.get("frame")
    if not isinstance(frame, int) or isinstance(frame, bool) or not 1 <= frame <= _MAX_FRAMES:
        raise fail("broken_frame_number", f"frames of the export count from 1, got {frame!r}.")
    numbers = {name: key.get(name) for name in _NUMBERS} | {"rotation": key.get("rotation") or 0}
    for name, number in numbers.items():
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not math.isfinite(number):
            raise fail("broken_box", f"frame {frame} of the export needs a number in `{name}`, got {number!r}.")
    time = key.get("time")
    is_time = isinstance(time, (int, float)) and not isinstance(time, bool) and time > 0
    return {**numbers, "frame": frame, "enabled": bool(key.get("enabled", True)), "time": time if is_time else None}


def _shapes(keys: list[dict[str, Any]], value: Mapping[str, Any], video: VideoInfo) -> list[Shape]:
    """List the frames of the video in which a region is shown."""
    if not keys:
        return []
    if video.num_frames is None:
        # Without the video its frames cannot be told from those of the export.
        count = value.get("framesCount")
        last = count if isinstance(count, int) and 0 < count <= _MAX_FRAMES else keys[-1]["frame"]
        frames = list(range(1, last + 1))
    else:
        frames = _frames_of_export(keys, value, video)
        if keys[-1]["frame"] > max(*frames, len(frames)) + _MAX_COUNT_DIFFERENCE:
            raise fail(
                "frame_outside_video",
                f"frame {keys[-1]['frame']} of the export lies outside the video, which ends with frame {frames[-1]} "
                "of the export. Pass the video that was annotated.",
            )
    shapes, place = [], -1
    for index, frame in enumerate(frames):
        while place + 1 < len(keys) and keys[place + 1]["frame"] <= frame:
            place += 1
        if place < 0:
            continue
        key = keys[place]
        if key["frame"] != frame and not key["enabled"]:
            continue
        following = keys[place + 1] if place + 1 < len(keys) else None
        shapes.append(_shape(index, _between(key, following, frame), video))
    return shapes


def _frames_of_export(keys: list[dict[str, Any]], value: Mapping[str, Any], video: VideoInfo) -> list[int]:
    """Give each frame of the video the number that the export has for it."""
    count, duration = value.get("framesCount"), value.get("duration")
    plain = list(range(1, video.num_frames + 1))
    if not isinstance(count, int) or abs(count - video.num_frames) <= _MAX_COUNT_DIFFERENCE:
        return plain
    rate = next((key["frame"] / key["time"] for key in keys if key["time"]), None)
    if rate is None and isinstance(duration, (int, float)) and duration > 0:
        rate = count / duration
    if rate is None or video.frame_times is None:
        raise fail(
            "frame_outside_video",
            f"the export counts {count} frames and the video has {video.num_frames}, and the export has no times to "
            "tell which ones are meant. Pass the video that was annotated.",
        )
    return [1 + round(seconds * rate) for seconds in video.frame_times.tolist()]


def _between(key: Mapping[str, Any], following: Mapping[str, Any] | None, frame: int) -> dict[str, float]:
    """Interpolate the box of a frame."""
    if following is None or key["frame"] == frame:
        return {name: float(key[name]) for name in (*_NUMBERS, "rotation")}
    share = (frame - key["frame"]) / (following["frame"] - key["frame"])
    box = {name: key[name] + (following[name] - key[name]) * share for name in _NUMBERS}
    return {**box, "rotation": interpolate_angle(key["rotation"], following["rotation"], share)}


def _shape(index: int, box: Mapping[str, float], video: VideoInfo) -> Shape:
    """Bring a box from percent to pixels; without the video, to shares of the frame."""
    height, width = video.size or (1, 1)
    left, top = box["x"] * width / 100, box["y"] * height / 100
    corners = [left, top, left + box["width"] * width / 100, top + box["height"] * height / 100]
    if box["rotation"] % 360 == 0:
        return Shape(index, "box", corners, (height, width))
    if video.size is None:
        raise fail("broken_box", "a rotated box needs the pixels of its video, which is missing. Pass the video.")
    return Shape(index, "polygon", [rotated_box(corners, box["rotation"], pivot=(left, top))], (height, width))


def _texts(task: Mapping[str, Any], results: list[Mapping[str, Any]], result: Mapping[str, Any]) -> dict[str, str]:
    """Collect the texts that answers can be taken from; those of the region win over those of the task."""
    texts = {key: text for key, text in as_mapping(task.get("data")).items() if isinstance(text, str)}
    note = as_mapping(result.get("meta")).get("text")
    if note:
        texts["meta"] = " ".join(map(str, note)) if isinstance(note, list) else str(note)
    for other in results:
        value = other.get("value")
        if other is result or other.get("id") != result.get("id") or not isinstance(value, Mapping):
            continue
        kind, name = str(other.get("type")), other.get("from_name")
        found = value.get("text") if kind == "textarea" else value.get(kind)
        if isinstance(name, str) and found:
            texts[name] = " ".join(map(str, found)) if isinstance(found, list) else str(found)
    return texts


__all__ = ["read_label_studio"]
