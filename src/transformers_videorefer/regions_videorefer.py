"""Regions on their way to the model: which frames of an object are used, and their masks on the patch grid.

`parse_region` checks the form of a region, `select_frames` picks the frames to use before any mask is decoded,
`decode_mask` makes the mask of one frame in pixels, and `grid_mask` brings it to the patch grid. `region_to_grid`
does the last two for all frames of a region. Every error message starts with `where` ("sample 0, region 1").
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from .masks_videorefer import decode_rle, draw_scribble, fill_box, fill_polygons, read_mask
from .region_form_videorefer import FORMS, Region, RegionFrame, parse_region
from .sampling_videorefer import uniform_indices


__all__ = [
    "EMPTY_MASKS",
    "FORMS",
    "Region",
    "RegionFrame",
    "decode_mask",
    "grid_mask",
    "num_tokens",
    "parse_region",
    "region_to_grid",
    "select_frames",
    "uniform_indices",
]

EMPTY_MASKS = ("error", "drop", "keep")
# Two sizes of one picture differ by rounding only; beyond this share they show different pictures.
ASPECT_TOLERANCE = 0.02
# Boxes and scribbles may overshoot the frame by this many pixels, which rounding and detectors do.
MAX_PIXELS_OUTSIDE = 1
# Polygons may leave the frame (the published masks clip them), but not by more than this many frame sides: the outline
# is walked step by step, so that a coordinate of a million would cost gigabytes.
MAX_SIDES_OUTSIDE = 10
# Times in seconds are rounded on their way through JSON and division; frames lie milliseconds apart.
TIME_SLACK = 1e-6


def num_tokens(num_frames: int, num_region_tokens: int) -> int:
    """Count the tokens that a region gives.

    Args:
        num_frames (`int`): Frames of the region.
        num_region_tokens (`int`): Most tokens a region may give (u in the paper).

    Returns:
        `int`: The smaller of the two.
    """
    return min(num_frames, num_region_tokens)


def select_frames(
    region: Region,
    *,
    num_frames: int,
    frame_times: Callable[[], np.ndarray],
    max_frames: int | None,
    empty_masks: str,
    where: str,
    is_image: bool = False,
) -> list[tuple[int, RegionFrame]]:
    """Pick the frames of a region that are used, in the order given, before any mask is decoded.

    The visible frames are cut into `max_frames` equal parts and the midpoint of each part is taken. Mask pictures are
    opened only where there are more than `max_frames` of them and the empty ones have to be left out. Frames that
    turn out to be empty when they are drawn are treated in `region_to_grid`.

    Args:
        region (`Region`): What `parse_region` returned.
        num_frames (`int`): Number of frames of the video, 1 for an image.
        frame_times (`Callable`): Returns the presentation times of all frames in seconds, counted from the first;
            called only where a frame is given by `time_seconds`.
        max_frames (`int`, *optional*): Most frames to use; None keeps all.
        empty_masks (`str`): "error", "drop" or "keep": what an empty mask in `frames` does. Empty entries of `masks`
            mean "not visible" and are left out unless "keep".
        where (`str`): Start of every error message.
        is_image (`bool`, *optional*, defaults to `False`): The region lies on a still image, which has no times.

    Returns:
        `list[tuple[int, RegionFrame]]`: Position in the video and entry of each frame that is used.

    Raises:
        ValueError: If a frame lies outside the video, the number of masks does not fit it, a mask is empty and must
            not be, no mask is left, or an option has an unknown value.
    """
    if empty_masks not in EMPTY_MASKS:
        raise ValueError(f'`empty_masks` must be "error", "drop" or "keep", got {empty_masks!r}.')
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"`num_region_frames` is {max_frames}. Pass 1 or more, or None to keep all frames.")
    if region.positional and len(region.frames) != num_frames:
        raise ValueError(
            f"{where}: `masks` has {len(region.frames)} masks but the {'image' if is_image else 'video'} has "
            f"{num_frames} frame{'s' if num_frames != 1 else ''}. Pass `frame_indices` that say which frames they are."
        )
    indices = _resolve_indices(region, num_frames, frame_times, is_image, where)
    located = list(zip(indices, region.frames, strict=True))
    visible = _visible_frames(region, located, max_frames, empty_masks, where)
    if not visible:
        raise ValueError(_no_mask_left_message(where, len(located)))
    if max_frames is None or len(visible) <= max_frames:
        return visible
    return [visible[position] for position in uniform_indices(len(visible), max_frames)]


def _empty_message(where: str) -> str:
    return (
        f'{where}: the mask is empty. Leave the frame out, check the mask, or pass `empty_masks="drop"` (leaves such '
        'frames out) or "keep" (the published behaviour: an empty mask counts as a frame).'
    )


def _no_mask_left_message(where: str, num_given: int) -> str:
    return (
        f"{where}: no mask is left, all {num_given} given are empty. Pass a frame in which the object is visible, or "
        '`empty_masks="keep"` (the published behaviour).'
    )


def _visible_frames(
    region: Region,
    located: list[tuple[int, RegionFrame]],
    max_frames: int | None,
    empty_masks: str,
    where: str,
) -> list[tuple[int, RegionFrame]]:
    """Leave empty masks out, keep them, or raise, as `empty_masks` says."""
    if empty_masks == "keep":
        return located
    judged = [(index, frame, frame.is_empty(where=where)) for index, frame in located]
    if empty_masks == "error" and not region.from_masklet:
        for index, _, empty in judged:
            if empty:
                raise ValueError(_empty_message(f"{where}, frame {index}"))
        return located
    judged = [(index, frame, empty) for index, frame, empty in judged if not empty]
    if max_frames is not None and len(judged) > max_frames:
        # Which frames are the midpoints depends on which are visible, so pictures must be looked at now.
        judged = [entry for entry in judged if entry[2] is False or not entry[1].picture_is_empty(where=where)]
    return [(index, frame) for index, frame, _ in judged]


def _resolve_indices(
    region: Region, num_frames: int, frame_times: Callable[[], np.ndarray], is_image: bool, where: str
) -> list[int]:
    """Turn the frames of a region into positions within the video."""
    times = None
    if any(frame.time_seconds is not None for frame in region.frames):
        if is_image:
            raise ValueError(f"{where}: `time_seconds` is given, but an image has no times. Leave it out.")
        times = np.asarray(frame_times(), dtype=np.float64)
    indices = []
    for position, frame in enumerate(region.frames):
        if frame.time_seconds is not None:
            indices.append(_index_at(frame.time_seconds, times, f"{where}, frames[{position}]"))
            continue
        if frame.frame_index is None and num_frames > 1:
            raise ValueError(
                f"{where}, frames[{position}]: the video has {num_frames} frames, but neither `frame_index` nor "
                "`time_seconds` says which one is meant. Pass one of them."
            )
        index = frame.frame_index or 0
        if index >= num_frames:
            kind = (
                "an image, whose only frame is 0"
                if is_image
                else f"a video of {num_frames} frames (0 to {num_frames - 1})"
            )
            raise ValueError(
                f"{where}, frame {index}: the frame lies outside, the region belongs to {kind}. Frames are counted "
                "from 0 in the source video."
            )
        indices.append(index)
    return indices


def _index_at(time_seconds: float, times: np.ndarray, where: str) -> int:
    """Find the last frame that is shown at or before a time."""
    # The last frame stays on screen as long as the one before it; a lone frame for an unknown time, at most a second.
    end = times[-1] + (times[-1] - times[-2] if len(times) > 1 else 1.0)
    if time_seconds < 0 or time_seconds > end + TIME_SLACK:
        raise ValueError(
            f"{where}: `time_seconds` {time_seconds:g} lies outside the video, which shows frames from 0 to {end:g} "
            "seconds. Times are counted from the first frame shown."
        )
    return int(np.searchsorted(times, time_seconds + TIME_SLACK, side="right")) - 1


def decode_mask(entry: RegionFrame, *, height: int, width: int, where: str) -> np.ndarray:
    """Make the mask of one frame in pixels.

    Args:
        entry (`RegionFrame`): The frame.
        height (`int`): Height of the video frame in pixels, as decoded, after rotation.
        width (`int`): Width of the video frame in pixels.
        where (`str`): Start of every error message; the frame is added to it.

    Returns:
        `np.ndarray` of shape `(height, width)`, for "mask" and "rle" with a `size` of that size, and dtype bool.

    Raises:
        OSError: If a mask picture cannot be read.
        ValueError: If the mask does not fit the frame, or its values are broken.
    """
    where = entry.name(where)
    if entry.form is None:
        return np.zeros((height, width), dtype=bool)
    if entry.form == "rle":
        _check_mask_size(entry.value["size"], entry.size, (height, width), where)
        return decode_rle(entry.value, where=where)
    if entry.form == "mask":
        mask = read_mask(entry.value, label=entry.label, where=where)
        _check_mask_size(mask.shape, entry.size, (height, width), where)
        return mask
    scale = _scale_to_frame(entry.size, (height, width), where)
    if entry.form == "box":
        corners = entry.value.reshape(2, 2) * scale
        _check_inside(corners, MAX_PIXELS_OUTSIDE, (height, width), "box", where)
        return fill_box(corners.ravel().tolist(), height, width)
    if entry.form == "polygon":
        parts = [part.reshape(-1, 2) * scale for part in entry.value]
        for part in parts:
            _check_inside(part, MAX_SIDES_OUTSIDE * max(height, width), (height, width), "polygon", where)
        return fill_polygons([part.ravel() for part in parts], height, width)
    points, stroke_width = entry.value
    if entry.size == (1, 1):
        if stroke_width < 1:
            raise ValueError(
                f"{where}: `width` of `scribble` is {stroke_width:g}, but it is counted in pixels of the frame also "
                "with `size` [1, 1]. Pass pixels."
            )
    else:
        stroke_width *= float(np.sqrt(scale.prod()))
    points = points * scale
    _check_inside(points, MAX_PIXELS_OUTSIDE, (height, width), "scribble", where)
    return draw_scribble(points, stroke_width, height, width)


def _check_mask_size(own: tuple[int, int], stated: tuple[int, int] | None, frame: tuple[int, int], where: str) -> None:
    """Accept a mask of the frame's size, or of the stated size where that shows the same picture."""
    if stated is None:
        if tuple(own) != frame:
            raise ValueError(
                f"{where}: the mask has height {own[0]} and width {own[1]} but the frame has {frame[0]} and {frame[1]}. "
                f'If both show the whole picture, say so with `"size": [{own[0]}, {own[1]}]`.'
            )
    elif tuple(own) != stated:
        raise ValueError(
            f"{where}: the mask has height {own[0]} and width {own[1]} but its `size` says {list(stated)}. "
            f"Pass the mask's own size [{own[0]}, {own[1]}], or leave `size` out."
        )
    else:
        _check_aspect(stated, frame, where)


def _check_aspect(stated: tuple[int, int], frame: tuple[int, int], where: str) -> None:
    """Refuse a size whose aspect ratio is not that of the frame."""
    ratio = (stated[1] / stated[0]) / (frame[1] / frame[0])
    if max(ratio, 1 / ratio) > 1 + ASPECT_TOLERANCE:
        raise ValueError(
            f"{where}: `size` {list(stated)} and the frame {list(frame)} ([height, width]) differ in aspect ratio by "
            f"more than {ASPECT_TOLERANCE:.0%}, so they cannot show the same picture. Check the order of height and "
            "width and the rotation of the video, or crop and resize the region to the frame first."
        )


def _scale_to_frame(stated: tuple[int, int] | None, frame: tuple[int, int], where: str) -> np.ndarray:
    """Return the factors for x and y that bring coordinates of a picture of the stated size to the frame."""
    if stated is None:
        return np.ones(2)
    if stated != (1, 1):
        _check_aspect(stated, frame, where)
    return np.array([frame[1] / stated[1], frame[0] / stated[0]])


def _check_inside(points: np.ndarray, margin: float, frame: tuple[int, int], form: str, where: str) -> None:
    """Refuse x and y that lie more than `margin` pixels outside the frame."""
    highest = np.array([frame[1], frame[0]]) + margin
    outside = (points < -margin) | (points > highest)
    if outside.any():
        x, y = points[outside.any(axis=1)][0]
        raise ValueError(
            f"{where}: `{form}` reaches more than {margin:g} pixel{'s' if margin != 1 else ''} outside the frame of "
            f"height {frame[0]} and width {frame[1]}: x = {x:g}, y = {y:g}. Pass pixels of the decoded frame, or name "
            'the picture the numbers refer to with `"size": [height, width]` ([1, 1] for 0 to 1).'
        )


@lru_cache(maxsize=256)
def _bilinear_taps(size: int, grid_size: int) -> np.ndarray:
    """Find the pixels that bilinear resizing from `size` to `grid_size` reads with a weight above 0, along one axis.

    torch itself is asked, because its compiled arithmetic rounds differently from machine to machine: each pixel is
    painted with one of four colours in turn, so that the colours that reach a cell tell the two neighbours it read.

    Returns:
        `np.ndarray` of shape `(2 * grid_size,)`: the first pixel of each cell, then the second (the same one again
        where the cell reads a single pixel).
    """
    pixels = np.arange(size)
    colours = np.zeros((1, 1, size, 4), dtype=np.float32)
    colours[0, 0, pixels, pixels % 4] = 1
    weights = F.interpolate(torch.from_numpy(colours), size=(grid_size, 4), mode="bilinear", align_corners=False)
    read = weights[0, 0].numpy() > 0  # (grid_size, 4)
    nearest = np.rint((np.arange(grid_size) + 0.5) * size / grid_size - 0.5).astype(np.int64)
    lowest = nearest[:, None] - 1
    pixel_of_colour = lowest + (np.arange(4) - lowest) % 4
    taps = np.concatenate(
        [np.where(read, pixel_of_colour, size).min(axis=1), np.where(read, pixel_of_colour, -1).max(axis=1)]
    )
    taps.setflags(write=False)  # shared by all callers through the cache
    return taps


def grid_mask(mask: np.ndarray, grid_size: int, *, keep_vanished: bool) -> np.ndarray:
    """Bring a mask to the patch grid: a cell counts when bilinear resizing (no antialias) gives it anything above 0.

    Only the pixels that the resizing reads are touched. An object between these pixels vanishes in the published code;
    here the cell under its centre of mass counts instead, unless `keep_vanished`.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): True inside the object.
        grid_size (`int`): Cells of the grid along each side.
        keep_vanished (`bool`): Keep the published rule, by which a small object leaves no cell.

    Returns:
        `np.ndarray` of shape `(grid_size, grid_size)` and dtype bool; without a cell only if `mask` is empty or
        `keep_vanished`.
    """
    height, width = mask.shape
    taps = mask[np.ix_(_bilinear_taps(height, grid_size), _bilinear_taps(width, grid_size))]
    cells = taps.reshape(2, grid_size, 2, grid_size).any(axis=(0, 2))
    if keep_vanished or cells.any() or not mask.any():
        return cells
    rows, columns = np.nonzero(mask)
    row = int((rows.mean() + 0.5) * grid_size / height)
    column = int((columns.mean() + 0.5) * grid_size / width)
    cells[row, column] = True
    return cells


def region_to_grid(
    region: Region,
    selected: Sequence[tuple[int, RegionFrame]],
    *,
    height: int,
    width: int,
    grid_size: int,
    empty_masks: str,
    where: str,
) -> tuple[list[int], np.ndarray]:
    """Decode the selected frames of a region, one at a time, and bring their masks to the patch grid.

    Args:
        region (`Region`): What `parse_region` returned.
        selected (`Sequence[tuple[int, RegionFrame]]`): What `select_frames` returned.
        height (`int`): Height of the video's frames in pixels, as decoded, after rotation.
        width (`int`): Width of the video's frames in pixels.
        grid_size (`int`): Cells of the patch grid along each side.
        empty_masks (`str`): "error", "drop" or "keep", as in `select_frames`, for masks whose emptiness shows only now.
        where (`str`): Start of every error message.

    Returns:
        `tuple[list[int], np.ndarray]`: Position in the video of each frame used, and its masks of shape
        `(num_frames, grid_size, grid_size)` and dtype bool.

    Raises:
        OSError: If a mask picture cannot be read.
        ValueError: If a mask does not fit its frame, is empty and must not be, or no mask is left.
    """
    indices, grids = [], []
    for index, frame in selected:
        mask = decode_mask(frame, height=height, width=width, where=where)
        cells = grid_mask(mask, grid_size, keep_vanished=empty_masks == "keep")
        if empty_masks != "keep" and not cells.any():
            if empty_masks == "error" and not region.from_masklet:
                raise ValueError(_empty_message(f"{where}, frame {index}"))
            continue
        indices.append(index)
        grids.append(cells)
    if not grids:
        raise ValueError(_no_mask_left_message(where, len(selected)))
    return indices, np.stack(grids)
