"""The mask of one frame of a region: in pixels, scaled to the frame, and on the patch grid."""

from functools import lru_cache

import numpy as np

from transformers_videorefer.regions.form import RegionFrame
from transformers_videorefer.regions.pixels import draw_scribble, fill_box, fill_polygons, read_mask
from transformers_videorefer.regions.rle import decode_rle


# Two sizes of one picture differ by rounding only; beyond this share they show different pictures.
ASPECT_TOLERANCE = 0.02
# Boxes and scribbles may overshoot the frame by this many pixels, which rounding and detectors do.
MAX_PIXELS_OUTSIDE = 1
# Polygons may leave the frame (the published masks clip them), but not by more than this many frame sides: the outline
# is walked step by step, so that a coordinate of a million would cost gigabytes.
MAX_SIDES_OUTSIDE = 10
# On frames up to this many pixels a side, coordinates between 0 and 1 may well be pixels.
TINY_FRAME_SIDE = 8


def decode_mask(entry: RegionFrame, *, height: int, width: int) -> np.ndarray:
    """Make the mask of one frame in pixels.

    Args:
        entry (`RegionFrame`): The frame.
        height (`int`): Height of the video frame in pixels, as decoded, after rotation.
        width (`int`): Width of the video frame in pixels.

    Returns:
        `np.ndarray` of shape `(height, width)`, for "mask" and "rle" with a `size` of that size, and dtype bool.

    Raises:
        OSError: If a mask picture cannot be read.
        ValueError: If the mask does not fit the frame, or its values are broken.
    """
    if entry.form is None:
        return np.zeros((height, width), dtype=bool)
    if entry.form == "rle":
        _check_mask_size(entry.value["size"], entry.size, (height, width))
        return decode_rle(entry.value)
    if entry.form == "mask":
        mask = read_mask(entry.value, label=entry.label)
        _check_mask_size(mask.shape, entry.size, (height, width))
        return mask
    if entry.size is None:
        _refuse_fractions(entry, (height, width))
    scale = _scale_to_frame(entry.size, (height, width))
    if entry.form == "box":
        corners = entry.value.reshape(2, 2) * scale
        _check_inside(corners, MAX_PIXELS_OUTSIDE, (height, width), "box")
        return fill_box(corners.ravel().tolist(), height, width)
    if entry.form == "polygon":
        parts = [part.reshape(-1, 2) * scale for part in entry.value]
        for part in parts:
            _check_inside(part, MAX_SIDES_OUTSIDE * max(height, width), (height, width), "polygon")
        return fill_polygons([part.ravel() for part in parts], height, width)
    points, stroke_width = entry.value
    if entry.size == (1, 1):
        if stroke_width < 1:
            raise ValueError(
                f"`width` of `scribble` is {stroke_width:g}, but it is counted in pixels of the frame also "
                "with `size` [1, 1]. Pass pixels."
            )
    else:
        stroke_width *= float(np.sqrt(scale.prod()))
    points = points * scale
    _check_inside(points, MAX_PIXELS_OUTSIDE, (height, width), "scribble")
    return draw_scribble(points, stroke_width, height, width)


def _check_mask_size(own: tuple[int, int], stated: tuple[int, int] | None, frame: tuple[int, int]) -> None:
    """Accept a mask of the frame's size, or of the stated size where that shows the same picture."""
    if stated is None:
        if tuple(own) != frame:
            raise ValueError(
                f"the mask has height {own[0]} and width {own[1]} but the frame has {frame[0]} and {frame[1]}. "
                f'If both show the whole picture, say so with `"size": [{own[0]}, {own[1]}]`.'
            )
    elif tuple(own) != stated:
        raise ValueError(
            f"the mask has height {own[0]} and width {own[1]} but its `size` says {list(stated)}. "
            f"Pass the mask's own size [{own[0]}, {own[1]}], or leave `size` out."
        )
    else:
        _check_aspect(stated, frame)


def _check_aspect(stated: tuple[int, int], frame: tuple[int, int]) -> None:
    """Refuse a size whose aspect ratio is not that of the frame."""
    ratio = (stated[1] / stated[0]) / (frame[1] / frame[0])
    if max(ratio, 1 / ratio) > 1 + ASPECT_TOLERANCE:
        raise ValueError(
            f"`size` {list(stated)} and the frame {list(frame)} ([height, width]) differ in aspect ratio by "
            f"more than {ASPECT_TOLERANCE:.0%}, so they cannot show the same picture. Check the order of height and "
            "width and the rotation of the video, or crop and resize the region to the frame first."
        )


def _scale_to_frame(stated: tuple[int, int] | None, frame: tuple[int, int]) -> np.ndarray:
    """Return the factors for x and y that bring coordinates of a picture of the stated size to the frame."""
    if stated is None:
        return np.ones(2)
    if stated != (1, 1):
        _check_aspect(stated, frame)
    return np.array([frame[1] / stated[1], frame[0] / stated[0]])


def _refuse_fractions(entry: RegionFrame, frame: tuple[int, int]) -> None:
    """Refuse shapes whose numbers look like shares of the frame: as pixels they would mark its first pixel only."""
    if entry.form == "box":
        numbers = entry.value
    else:
        numbers = np.concatenate(entry.value) if entry.form == "polygon" else entry.value[0].ravel()
    if max(frame) <= TINY_FRAME_SIDE or (numbers < 0).any() or (numbers > 1).any():
        return
    # [0, 0, 1, 1] is the first pixel, and a single point of a scribble may be the centre of it.
    if (numbers == np.floor(numbers)).all() or numbers.size == 2:
        return
    raise ValueError(
        f"all numbers of `{entry.form}` lie between 0 and 1, which is the first pixel of a frame of height "
        f'{frame[0]} and width {frame[1]}. If they are fractions of the frame, say so with `"size": [1, 1]`; otherwise '
        "pass pixels."
    )


def _check_inside(points: np.ndarray, margin: float, frame: tuple[int, int], form: str) -> None:
    """Refuse x and y that lie more than `margin` pixels outside the frame."""
    highest = np.array([frame[1], frame[0]]) + margin
    outside = (points < -margin) | (points > highest)
    if outside.any():
        x, y = points[outside.any(axis=1)][0]
        raise ValueError(
            f"`{form}` reaches more than {margin:g} pixel{'s' if margin != 1 else ''} outside the frame of "
            f"height {frame[0]} and width {frame[1]}: x = {x:g}, y = {y:g}. Pass pixels of the decoded frame, or name "
            'the picture the numbers refer to with `"size": [height, width]` ([1, 1] for 0 to 1).'
        )


@lru_cache(maxsize=256)
def _bilinear_taps(size: int, num_cells: int) -> np.ndarray:
    """Find the pixels that bilinear resizing from `size` to `num_cells` reads with a weight above 0, along one axis.

    torch itself is asked, because its compiled arithmetic rounds differently from machine to machine: each pixel is
    painted with one of four colours in turn, so that the colours that reach a cell tell the two neighbours it read.

    Returns:
        `np.ndarray` of shape `(2 * num_cells,)`: the first pixel of each cell, then the second (the same one again
        where the cell reads a single pixel).
    """
    import torch  # here, because checking regions and drawing them in pixels needs no torch

    pixels = np.arange(size)
    colours = np.zeros((1, 1, size, 4), dtype=np.float32)
    colours[0, 0, pixels, pixels % 4] = 1
    weights = torch.nn.functional.interpolate(
        torch.from_numpy(colours), size=(num_cells, 4), mode="bilinear", align_corners=False
    )
    read = weights[0, 0].numpy() > 0  # (num_cells, 4)
    nearest = np.rint((np.arange(num_cells) + 0.5) * size / num_cells - 0.5).astype(np.int64)
    lowest = nearest[:, None] - 1
    pixel_of_colour = lowest + (np.arange(4) - lowest) % 4
    taps = np.concatenate(
        [np.where(read, pixel_of_colour, size).min(axis=1), np.where(read, pixel_of_colour, -1).max(axis=1)]
    )
    taps.setflags(write=False)  # shared by all callers through the cache
    return taps


def grid_mask(mask: np.ndarray, grid: tuple[int, int], *, keep_vanished: bool) -> np.ndarray:
    """Bring a mask to the patch grid: a cell counts when bilinear resizing (no antialias) gives it anything above 0.

    Only the pixels that the resizing reads are touched. An object between these pixels vanishes in the published code;
    here the cell under its centre of mass counts instead, unless `keep_vanished`.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): True inside the object.
        grid (`tuple[int, int]`): Rows and columns of the grid.
        keep_vanished (`bool`): Keep the published rule, by which a small object leaves no cell.

    Returns:
        `np.ndarray` of shape `(rows, columns)` and dtype bool; without a cell only if `mask` is empty or
        `keep_vanished`.
    """
    height, width = mask.shape
    taps = mask[np.ix_(_bilinear_taps(height, grid[0]), _bilinear_taps(width, grid[1]))]
    cells = taps.reshape(2, grid[0], 2, grid[1]).any(axis=(0, 2))
    if keep_vanished or cells.any() or not mask.any():
        return cells
    rows, columns = np.nonzero(mask)
    row = int((rows.mean() + 0.5) * grid[0] / height)
    column = int((columns.mean() + 0.5) * grid[1] / width)
    cells[row, column] = True
    return cells


__all__ = ["decode_mask", "grid_mask"]
