"""COCO for video: one JSON file, as YouTube-VIS, OVIS and LV-VIS use it, and its variant with one entry per image.

Rules and where they come from:

- `videos` hold `id`, `width`, `height`, `length` and `file_names`; an annotation is one object of one video, with
  `segmentations` (run lengths, polygons, or null where the object is not visible) and `bboxes` ([x, y, width, height]
  or null; taken where the mask is null), one for each file name (label format of YouTube-VIS,
  https://competitions.codalab.org/competitions/20128#participate-get-data).
- In the other variant `images` name their `video_id` and their place (`frame_id`, from 0, in CocoVID of MMTracking;
  `frame_index` in TAO), and an annotation is one object in one image; `instance_id` or `track_id` ties them together
  (TAO, https://github.com/TAO-Dataset/tao/blob/master/tao/toolkit/tao/tao.py).
- The frame number of a file name is its position among the pictures of the folder, sorted by number: the folder may hold
  more pictures than are annotated. In a video file it is the position in the list, which must then name every frame.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

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
from .loose_json import as_list, as_mapping, load_json
from .videos import VideoFolder, VideoInfo


SOURCE = "coco-video"
_TRACK_KEYS = ("instance_id", "track_id")
_PLACE_KEYS = ("frame_id", "frame_index")
_PICTURE_ROOTS = ("JPEGImages",)


def read_coco_video(path: Path, videos: VideoFolder, options: ImportOptions) -> Iterator[Candidate]:
    """Read a COCO file of videos.

    Args:
        path (`Path`): The JSON file. It is read as a whole.
        videos ([`VideoFolder`]): Where the videos, or folders of frames, are.
        options ([`ImportOptions`]): Question, answer and stride. An answer field is looked for in the annotation, then
            in its `attributes`, then in its category.

    Yields:
        [`Candidate`]: One for each object, in the order of the annotations.

    Raises:
        ValueError: If the file is no JSON or lacks the lists of the format.
    """
    content = load_json(path)
    known = isinstance(content, Mapping) and isinstance(content.get("annotations"), list)
    if not known or not isinstance(content.get("videos"), list):
        raise ValueError(
            f"{path.name}: no COCO file of videos, which is a JSON object with the lists `videos` and `annotations`. "
            "Predictions and files of single images cannot be imported."
        )
    reader = _Reader(path.name, content, videos, options)
    yield from reader.image_level() if isinstance(content.get("images"), list) else reader.video_level()


class _Reader:
    """The tables of one file."""

    def __init__(self, name: str, content: Mapping[str, Any], videos: VideoFolder, options: ImportOptions) -> None:
        self.name, self.content, self.videos, self.options = name, content, videos, options
        self.video_entries = _by_id(content["videos"])
        self.categories = _by_id(as_list(content.get("categories")))

    def video_level(self) -> Iterator[Candidate]:
        """Yield the objects of a file in which an annotation is a whole track."""
        for position, annotation in enumerate(self.content["annotations"]):
            where = f"{self.name}, annotations[{position}]"
            row_id = str(annotation.get("id", position)) if isinstance(annotation, Mapping) else str(position)
            yield Candidate(where, row_id, partial(self._track, annotation, row_id))

    def image_level(self) -> Iterator[Candidate]:
        """Yield the objects of a file in which an annotation is an object in one image."""
        images = _by_id(self.content["images"])
        tracks: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
        places: dict[tuple[str, str], int] = {}
        for position, annotation in enumerate(self.content["annotations"]):
            image = images.get(_key(annotation.get("image_id"))) if isinstance(annotation, Mapping) else None
            if image is None or "video_id" not in image:
                key = ("", f"annotation {position}")
                image = {}
            else:
                key = (_key(image["video_id"]), _track_key(annotation))
            places.setdefault(key, position)
            tracks.setdefault(key, []).append((image, annotation))
        for key, parts in tracks.items():
            where = f"{self.name}, annotations[{places[key]}]"
            row_id = "-".join(part for part in key if part)
            yield Candidate(where, row_id, partial(self._image_track, parts, row_id, key))

    def _track(self, annotation: Any, row_id: str) -> tuple[dict[str, Any] | None, list[Defect]]:
        if not isinstance(annotation, Mapping):
            raise fail("wrong_type", "the annotation is no object. Write it as the format says.")
        entry = self.video_entries.get(_key(annotation.get("video_id")))
        if entry is None:
            raise fail("missing_video", f"its `video_id` {annotation.get('video_id')!r} is none of the `videos`.")
        defects: list[Defect] = []
        file_names = as_list(entry.get("file_names"))
        video = self._video(entry, file_names, defects)
        masks, boxes = annotation.get("segmentations"), annotation.get("bboxes")
        if masks is None and boxes is None:
            raise fail("missing_field", "neither `segmentations` nor `bboxes` are given.")
        num_frames = len(file_names) or entry.get("length") or len(as_list(masks or boxes))
        for values in (masks, boxes):
            if values is not None and (not isinstance(values, list) or len(values) != num_frames):
                count = len(values) if isinstance(values, list) else "no list of"
                raise fail("wrong_type", f"{count} frames are annotated, but its video lists {num_frames}.")
        size = _size(entry)
        shapes = []
        for place in range(num_frames):
            # The mask says more; a box stands alone where an object was only boxed.
            shape = _shape(place, masks[place] if masks else None, boxes[place] if boxes else None, size)
            if shape is not None:
                shapes.append((place, shape))
        indices = _frame_indices(video, file_names, [place for place, _ in shapes], num_frames)
        moved = [
            Shape(index, shape.form, shape.value, size) for index, (_, shape) in zip(indices, shapes, strict=True)
        ]
        return self._row(annotation, row_id, row_id, video, moved, defects)

    def _image_track(
        self, parts: Sequence[tuple[Mapping[str, Any], Any]], row_id: str, key: tuple[str, str]
    ) -> tuple[dict[str, Any] | None, list[Defect]]:
        image, annotation = parts[0]
        if not image:
            raise fail("missing_field", "its `image_id` is none of the `images`, or that image has no `video_id`.")
        entry = self.video_entries.get(key[0])
        if entry is None:
            raise fail("missing_video", f"the `video_id` {image['video_id']!r} of its image is none of the `videos`.")
        defects: list[Defect] = []
        names = [str(part.get("file_name", "")) for part, _ in parts]
        video = self._video(entry, names if all(names) else [], defects)
        shapes = []
        for (part, found), name in zip(parts, names, strict=True):
            shape = _shape(0, found.get("segmentation"), found.get("bbox"), _size(part) or _size(entry))
            if shape is not None:
                index = _image_index(video, part, name)
                shapes.append(Shape(index, shape.form, shape.value, shape.size))
        return self._row(annotation, row_id, key[1], video, shapes, defects)

    def _video(self, entry: Mapping[str, Any], file_names: Sequence[str], defects: list[Defect]) -> VideoInfo:
        """Find the video of an entry: by the folder of its pictures, or by its name."""
        names = []
        if file_names:
            folder = PurePosixPath(str(file_names[0])).parent
            if folder.name:
                names += [str(folder), *(f"{root}/{folder}" for root in _PICTURE_ROOTS)]
        names += [str(entry[key]) for key in ("file_name", "name", "video_name") if entry.get(key)]
        return find_video(self.videos, names, defects, keep=self.options.bad_rows == "keep")

    def _row(
        self,
        annotation: Mapping[str, Any],
        row_id: str,
        object_id: str,
        video: VideoInfo,
        shapes: list[Shape],
        defects: list[Defect],
    ) -> tuple[dict[str, Any] | None, list[Defect]]:
        category = self.categories.get(_key(annotation.get("category_id")), {})
        texts = {
            key: str(value)
            for table in (category, as_mapping(annotation.get("attributes")), annotation)
            for key, value in table.items()
            if isinstance(value, (str, int, float))
        }
        label = str(category["name"]) if isinstance(category.get("name"), (str, int)) else None
        found = TrackedObject(row_id, object_id, video, shapes, label, texts, defects)
        return object_row(found, self.options, source=SOURCE)


def _by_id(entries: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    return {_key(entry.get("id")): entry for entry in entries if isinstance(entry, Mapping)}


def _key(value: Any) -> str:
    """Ids are numbers in some files and strings in others, sometimes both in one."""
    return str(value)


def _track_key(annotation: Mapping[str, Any]) -> str:
    """Name the track of an annotation; one without a track is an object of its own."""
    for table in (annotation, as_mapping(annotation.get("attributes"))):
        for key in _TRACK_KEYS:
            if table.get(key) is not None:
                return str(table[key])
    return f"annotation {annotation.get('id')}"


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (height, width))
    return (height, width) if whole else None


def _shape(index: int, mask: Any, box: Any, size: tuple[int, int] | None) -> Shape | None:
    """Read one frame of an object; None where it is not visible."""
    if mask:
        return Shape(index, "polygon" if isinstance(mask, list) else "rle", mask, size)
    if not box:
        return None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(number, (int, float)) for number in box):
        raise fail("wrong_type", f"a box is [x, y, width, height], got {box!r}.")
    x, y, width, height = box
    return Shape(index, "box", [x, y, x + width, y + height], size) if width > 0 and height > 0 else None


def _frame_indices(video: VideoInfo, file_names: Sequence[str], places: Sequence[int], num_frames: int) -> list[int]:
    """Turn places in the list of a video into frame numbers."""
    if video.file_names is not None and file_names:
        return [_place_of(video, str(file_names[place])) for place in places]
    if video.num_frames is not None and video.num_frames != num_frames:
        raise fail(
            "frame_outside_video",
            f"the export lists {num_frames} frames, but the video has {video.num_frames}, so it cannot be told which "
            "ones are meant. Pass the folder of frames.",
        )
    return list(places)


def _image_index(video: VideoInfo, image: Mapping[str, Any], name: str) -> int:
    if video.file_names is not None and name:
        return _place_of(video, name)
    for key in _PLACE_KEYS:
        place = image.get(key)
        if isinstance(place, int) and not isinstance(place, bool):
            return place
    raise fail(
        "missing_field", f"an image has none of {', '.join(_PLACE_KEYS)}, and its video is no folder of pictures."
    )


def _place_of(video: VideoInfo, file_name: str) -> int:
    """Find a picture in the folder of a video."""
    last = PurePosixPath(file_name).name
    if last not in video.file_names:
        raise fail(
            "frame_outside_video", f"the folder {video.name!r} has no picture {last!r}. Copy all frames into it."
        )
    return video.file_names.index(last)


__all__ = ["read_coco_video"]
