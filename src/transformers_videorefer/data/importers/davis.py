"""DAVIS: folders of label pictures, one for each annotated frame, in which the value of a pixel is the object's number.

Rules and where they come from (DAVIS 2017, https://arxiv.org/abs/1704.00675 and https://davischallenge.org; the same
folders in YouTube-VOS, https://youtube-vos.org/dataset/vos):

- `Annotations/<resolution>/<video>/00000.png` lie beside `JPEGImages/<resolution>/<video>/00000.jpg`; YouTube-VOS has
  no folder for the resolution. Objects are numbered from 1, 0 is background and 255 is void, which belongs to nothing.
- DAVIS 2016 has one object, painted 255 on black in pictures without a palette; there 255 is the object.
- A frame's number is the position of its picture in the sorted folder of frames, not the number in its name: the picture
  with the name of the label picture, of whatever file type. Beside a video file, or pictures with other names, there
  must be a label picture for every frame, and the first one is that of frame 0.
- Labels come from a file beside `Annotations`: `davis_semantics.json` (video -> object -> label, DAVIS 2017
  unsupervised) or `meta.json` (`videos` -> video -> `objects` -> object -> `category`, YouTube-VOS).
"""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transformers_videorefer.data.defects import Defect
from transformers_videorefer.data.segmentations import MAX_POLYGON_PIXELS
from transformers_videorefer.regions.rle import encode_rle

from .common import Candidate, ImportOptions, Shape, TrackedObject, fail, find_video, object_row
from .loose_json import load_json
from .videos import VideoFolder, VideoInfo


SOURCE = "davis"
VOID = 255
_LABEL_SUFFIX = ".png"
_ANNOTATIONS, _PICTURES = "Annotations", "JPEGImages"
_LABEL_FILES = ("davis_semantics.json", "meta.json")


def read_davis(path: Path, videos: VideoFolder, options: ImportOptions) -> Iterator[Candidate]:
    """Read folders of label pictures.

    Args:
        path (`Path`): The root with `Annotations`, the folder `Annotations` itself, or the folder of one video.
        videos ([`VideoFolder`]): Where the frames are: the root, or its `JPEGImages`.
        options ([`ImportOptions`]): Question, answer and stride. An answer field is a key of `meta.json`.

    Yields:
        [`Candidate`]: One for each object of each video, videos and objects in order.

    Raises:
        ValueError: If the folder holds no label picture.
        OSError: If the folder cannot be read.
    """
    if not path.is_dir():
        raise NotADirectoryError(f"{path.name} is no folder. Pass the folder with {_ANNOTATIONS}/<video>/00000.png.")
    root = path / _ANNOTATIONS if (path / _ANNOTATIONS).is_dir() else path
    folders = [Path(folder) for folder, _, files in os.walk(root) if any(map(_is_label_picture, files))]
    if not folders:
        raise ValueError(f"{path.name} holds no {_LABEL_SUFFIX} picture. Pass the folder with {_ANNOTATIONS}/<video>.")
    labels = _read_labels(root.parent)
    for folder in sorted(folders):
        name = folder.relative_to(root).as_posix() if folder != root else folder.name
        try:
            masks = _read_masks(folder)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what PIL raises
            # Reports lie beside the rows and name no folder of this machine.
            reason = str(error).replace(f"{folder}{os.sep}", "")
            defect = fail("broken_rle", f"the label pictures cannot be read: {reason}. Write them again as PNG.")
            yield Candidate(f"{path.name}, {name}", name, partial(_raise, defect))
            continue
        for number in sorted(masks):
            row_id = f"{name}-{number}"
            told = labels.get(folder.name, {}).get(str(number), {})
            build = partial(_row, folder, name, number, masks[number], told, row_id, videos, options)
            yield Candidate(f"{path.name}, {name}, object {number}", row_id, build)


def _raise(error: Exception) -> tuple[None, list[Defect]]:
    raise error


def _is_label_picture(name: str) -> bool:
    return name.lower().endswith(_LABEL_SUFFIX) and not name.startswith(".")


def _label_pictures(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if _is_label_picture(name))


def _read_masks(folder: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """Read all label pictures of a video: object -> stem of the picture -> run lengths."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    has_palette = False
    for name in _label_pictures(folder):
        with Image.open(folder / name) as picture:
            if picture.mode not in ("P", "L", "1") or picture.width * picture.height > MAX_POLYGON_PIXELS:
                raise ValueError(f"{name} has mode {picture.mode} and size {picture.size}; P or L is needed.")
            has_palette = has_palette or picture.mode == "P"
            values = np.asarray(picture).astype(np.uint8) * np.uint8(VOID if picture.mode == "1" else 1)
        for value in np.unique(values).tolist():
            if value:
                found.setdefault(value, {})[Path(name).stem] = encode_rle(values == value)
    if not has_palette and set(found) == {VOID}:
        return {1: found[VOID]}
    found.pop(VOID, None)
    return found


def _row(
    folder: Path,
    name: str,
    number: int,
    masks: Mapping[str, dict[str, Any]],
    told: Mapping[str, str],
    row_id: str,
    videos: VideoFolder,
    options: ImportOptions,
) -> tuple[dict[str, Any] | None, list[Defect]]:
    defects: list[Defect] = []
    names = [f"{_PICTURES}/{name}", name, folder.name]
    # Label pictures may themselves be all the pictures there are: they are no frames.
    video = find_video(videos, names, defects, keep=options.bad_rows == "keep")
    if (videos.root / video.name).resolve() == folder.resolve():
        raise fail("missing_video", f"only label pictures were found for {name!r}. Pass the folder with {_PICTURES}.")
    places = _frame_places(folder, video)
    shapes = [Shape(places[stem], "rle", mask, tuple(mask["size"])) for stem, mask in masks.items()]
    label = told.get("label")
    found = TrackedObject(row_id, str(number), video, shapes, label, told, defects)
    return object_row(found, options, source=SOURCE)


def _frame_places(folder: Path, video: VideoInfo) -> dict[str, int]:
    """Find the frame of each label picture."""
    stems = [Path(name).stem for name in _label_pictures(folder)]
    if video.file_names is not None:
        places = {Path(name).stem: place for place, name in enumerate(video.file_names)}
        if all(stem in places for stem in stems):
            return places
    if video.num_frames is not None and video.num_frames != len(stems):
        raise fail(
            "frame_outside_video",
            f"there are {len(stems)} label pictures for {video.num_frames} frames, and they have other names. Pass the "
            "folder of frames whose names are those of the label pictures.",
        )
    return {stem: place for place, stem in enumerate(stems)}


def _read_labels(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Read what is known of the objects: video -> object -> texts, with the class under `label`."""
    for name in _LABEL_FILES:
        if not (root / name).is_file():
            continue
        content = load_json(root / name)
        videos = content.get("videos", content) if isinstance(content, Mapping) else {}
        return {video: _read_objects(objects) for video, objects in videos.items() if isinstance(objects, Mapping)}
    return {}


def _read_objects(entry: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    objects = entry.get("objects", entry)
    labels: dict[str, dict[str, str]] = {}
    for number, value in objects.items() if isinstance(objects, Mapping) else ():
        texts = {"category": value} if isinstance(value, str) else value
        if isinstance(texts, Mapping):
            labels[str(number)] = {key: text for key, text in texts.items() if isinstance(text, str)}
            if "category" in labels[str(number)]:
                labels[str(number)]["label"] = labels[str(number)]["category"]
    return labels


__all__ = ["read_davis"]
