"""Frames of videos with outlined objects, for models that see nothing but pictures."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_utils import load_image

from transformers_videorefer.preview.drawing import choose_frames, draw_regions
from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.form import parse_region
from transformers_videorefer.regions.grid import decode_mask
from transformers_videorefer.regions.selection import select_frames
from transformers_videorefer.video.opening import open_video, source_key
from transformers_videorefer.video.reader import VideoReader
from transformers_videorefer.video.sampling import uniform_indices


# Colors that one word tells apart, strong on most photographs.
OUTLINE_COLORS = {
    "red": (235, 20, 20),
    "blue": (30, 80, 255),
    "green": (0, 190, 60),
    "yellow": (255, 225, 0),
    "magenta": (255, 0, 220),
    "cyan": (0, 230, 240),
    "orange": (255, 140, 0),
    "white": (255, 255, 255),
}
# Smaller frames are enlarged: a line of a few pixels would hide what it surrounds.
_MIN_LONGEST_SIDE = 448
_READER_OPTIONS = ("edit_list", "fps")


@dataclass(frozen=True, eq=False)
class Shown:
    """Frames that stand for the video or image of a row; empty for a row without.

    Attributes:
        pictures (`list[PIL.Image.Image]`): RGB pictures of one size, in the order of time.
        frame_indices (`list[int]`): Their numbers in the video.
        is_image (`bool`): Whether they are an image, and not a video.
        num_total (`int`): Frames of the video.
        fps (`float`, *optional*): Its frames per second, where they are known.
    """

    pictures: list[Image.Image] = field(default_factory=list)
    frame_indices: list[int] = field(default_factory=list)
    is_image: bool = False
    num_total: int = 0
    fps: float | None = None

    def metadata(self) -> dict[str, Any]:
        """Say where the frames come from, in the form that video processors of Transformers take.

        Returns:
            `dict[str, Any]`: Fields of `VideoMetadata`.
        """
        duration = self.num_total / self.fps if self.fps else None
        return {
            "total_num_frames": self.num_total,
            "fps": self.fps,
            "duration": duration,
            "frames_indices": self.frame_indices,
        }


@dataclass(frozen=True, eq=False)
class _Item:
    """The medium and the regions of one row."""

    where: str
    is_image: bool
    source: Any
    options: dict[str, Any]
    regions: list[Mapping[str, Any]]


def plan_frames(
    frames_of_region: Sequence[Sequence[int]], *, num_total: int, mode: str, num_frames: int
) -> tuple[list[int], list[int]]:
    """Choose which frames are shown and which of them get outlines.

    Args:
        frames_of_region (`Sequence[Sequence[int]]`): Frames on which each object is annotated.
        num_total (`int`): Frames of the video.
        mode (`str`): "single" marks the first frame that shows all objects (without such a frame, the first one of
            each), "multi" up to `num_frames` annotated frames, spread evenly.
        num_frames (`int`): Frames shown; scene frames are added where fewer are marked.

    Returns:
        Two `list[int]`, both rising: the frames shown, and those of them that are marked.

    Raises:
        ValueError: If `num_frames` is too small to show every object.
    """
    marked: list[int] = []
    if frames_of_region and mode == "single":
        shared = set(frames_of_region[0]).intersection(*frames_of_region[1:])
        marked = [min(shared)] if shared else sorted({min(frames) for frames in frames_of_region})
    elif frames_of_region:
        marked = candidates = sorted(set().union(*frames_of_region))
        if len(candidates) > num_frames:
            marked = [candidates[position] for position in uniform_indices(len(candidates), num_frames)]
        if any(set(marked).isdisjoint(frames) for frames in frames_of_region):
            marked = choose_frames(frames_of_region, num_frames)
    if any(set(marked).isdisjoint(frames) for frames in frames_of_region):
        raise ValueError(
            f"`num_frames` is {num_frames}, but {len(frames_of_region)} objects that are annotated on different frames "
            f"cannot all be shown on so few. Pass up to {len(frames_of_region)} frames."
        )
    num_scene_frames = num_frames - len(marked)
    scene = uniform_indices(num_total, num_scene_frames) if num_scene_frames > 0 else []
    return sorted({*marked, *scene}), marked


def show_frames(
    rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], *, mode: str, num_frames: int, draws_outlines: bool = True
) -> list[Shown]:
    """Read and draw the frames of several rows; a video that several rows share is read once.

    Args:
        rows (`Sequence[tuple[str, Sequence[Mapping]]]`): What errors call the row, and its media and region parts as
            [`~data.to_chat`] returns them.
        mode (`str`): "single" or "multi", see [`plan_frames`].
        num_frames (`int`): Frames shown of each.
        draws_outlines (`bool`, *optional*, defaults to `True`): Without it frames stay as they are.

    Returns:
        `list[Shown]`: One for each row. Outlines have the colors of `OUTLINE_COLORS`, in the order of the regions.

    Raises:
        ValueError: If a row has several media or too many regions, or a region does not fit.
        OSError: If a file cannot be read.
    """
    shown = [Shown() for _ in rows]
    items = [_read_parts(where, parts) for where, parts in rows]
    groups: dict[Any, list[int]] = {}
    for position, item in enumerate(items):
        if item is not None:
            key = (item.is_image, source_key(item.source), tuple(sorted(item.options.items())))
            groups.setdefault(key, []).append(position)
    for positions in groups.values():
        first = items[positions[0]]
        source = [load_image(first.source)] if first.is_image else first.source
        with open_video(source, **first.options, name=first.where) as reader:
            together = [items[position] for position in positions]
            for position, one in zip(
                positions, _show_group(reader, together, mode, num_frames, draws_outlines), strict=True
            ):
                shown[position] = one
    return shown


def _read_parts(where: str, parts: Sequence[Mapping[str, Any]]) -> _Item | None:
    """Find the one medium of a row; rows of text alone have none."""
    regions = [part for part in parts if part["type"] == "region"]
    media = [part for part in parts if part["type"] != "region"]
    if not media and not regions:
        return None
    if len(media) != 1:
        raise ValueError(
            f"{where} has {len(media)} videos and images. A model that sees outlines gets rows with exactly one; leave "
            "the others out."
        )
    if len(regions) > len(OUTLINE_COLORS):
        raise ValueError(
            f"{where} has {len(regions)} objects, but there are {len(OUTLINE_COLORS)} colors to tell them apart. Leave "
            "the row out."
        )
    (medium,) = media
    kind = medium["type"]
    source = next(medium[key] for key in ("path", "url", kind, "base64") if medium.get(key) is not None)
    options = {key: medium[key] for key in _READER_OPTIONS if medium.get(key) is not None and kind == "video"}
    return _Item(
        where, kind == "image", os.fspath(source) if isinstance(source, os.PathLike) else source, options, regions
    )


def _show_group(
    reader: VideoReader, items: Sequence[_Item], mode: str, num_frames: int, draws_outlines: bool
) -> list[Shown]:
    """Draw the frames of rows that share a video."""
    annotated = [_locate_regions(reader, item) for item in items]
    plans = []
    for item, entries in zip(items, annotated, strict=True):
        with located(origin=item.where):
            frames = [list(of_region) for of_region in entries]
            plans.append(plan_frames(frames, num_total=reader.num_frames, mode=mode, num_frames=num_frames))
    pictures: list[dict[int, Image.Image]] = [{} for _ in items]
    for index, frame in reader.read({index for indices, _ in plans for index in indices}):
        for item, entries, (indices, marked), drawn in zip(items, annotated, plans, pictures, strict=True):
            if index in indices:
                visible = entries if draws_outlines and index in marked else []
                with located(origin=item.where, frame=index):
                    drawn[index] = _draw(frame, [of_region.get(index) for of_region in visible])
    return [
        Shown([drawn[index] for index in indices], indices, item.is_image, num_total=reader.num_frames, fps=reader.fps)
        for item, (indices, _), drawn in zip(items, plans, pictures, strict=True)
    ]


def _locate_regions(reader: VideoReader, item: _Item) -> list[dict[int, Any]]:
    """Return the entry of every frame on which a region is annotated, for each region."""
    annotated = []
    for number, part in enumerate(item.regions):
        with located(origin=item.where, region=number):
            selected = select_frames(
                parse_region({key: value for key, value in part.items() if key not in ("type", "media")}),
                num_frames=reader.num_frames,
                frame_times=lambda: reader.frame_times,
                max_frames=None,
                empty_masks="drop",
                is_image=item.is_image,
            )
        annotated.append(dict(selected))
    return annotated


def _draw(frame: np.ndarray, entries: Sequence[Any]) -> Image.Image:
    """Outline the regions that have an entry, each in its own color."""
    height, width = frame.shape[:2]
    colors = dict(zip(map(str, range(len(entries))), OUTLINE_COLORS.values(), strict=False))
    masks = {}
    for number, (name, entry) in enumerate(zip(colors, entries, strict=True)):
        if entry is not None:
            with located(region=number):
                masks[name] = decode_mask(entry, height=height, width=width)
    enlarged = round(width * max(1.0, _MIN_LONGEST_SIDE / max(height, width)))
    return draw_regions(frame, masks, colors=colors, width=enlarged, outlines_only=True)
