"""Pixel masks: read from pictures and arrays, or filled from polygons, boxes and scribbles.

Coordinates are continuous pixels: pixel i covers [i, i + 1), so its centre is at i + 0.5. All masks are
`np.ndarray` of shape `(height, width)` and dtype bool.
"""

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from transformers_videorefer.regions.rle import spread_runs
from transformers_videorefer.video.reader import is_tensor


try:
    from pycocotools import mask as coco_mask
except ImportError:  # optional: the numpy code below gives the same bits
    coco_mask = None

# COCO fills polygons on a grid that is this much finer than the pixels.
_POLYGON_SCALE = 5
# Spans end on pixel centres; this keeps a centre that lies exactly on the border of a scribble inside it.
_ROUNDING_SLACK = 1e-9


def read_mask(value: Any, *, label: int | None) -> np.ndarray:
    """Turn a mask of any kind into True (object) and False.

    Args:
        value (`np.ndarray`, `torch.Tensor`, `PIL.Image.Image`, `str`, `os.PathLike` or `bytes`): A mask of shape
            `(height, width)`, or a single-channel picture, its path or its encoded bytes (usually PNG).
        label (`int`, *optional*): The value of the object, for palette pictures the position in the palette. Without
            it the values must be {0, 1}, {0, 255} or bool.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool.

    Raises:
        FileNotFoundError: If the path does not exist.
        OSError: If the picture cannot be read.
        ValueError: If the picture has several channels, the values are not those of a mask, or `label` is missing.
    """
    palette = False
    if is_tensor(value):
        value = value.detach().cpu()
        values = (value.float() if value.is_floating_point() else value).numpy()  # numpy has no bfloat16
    elif isinstance(value, np.ndarray):
        values = value
    else:
        picture = _open_picture(value)
        palette = picture.mode == "P"
        values = np.asarray(picture)
    if label is not None:
        return values == label
    if values.dtype == bool:
        return values
    top = values.max()
    inside = values == top if top != 0 else np.zeros(values.shape, dtype=bool)
    if not palette and top in (0, 1, 255) and np.count_nonzero(inside) == np.count_nonzero(values):
        return inside
    found = np.unique(values)
    listed = ", ".join(str(number) for number in found[:8]) + (", ..." if len(found) > 8 else "")
    kind = "is a palette picture with the" if palette else "must hold {0, 1}, {0, 255} or bool, but it has the"
    raise ValueError(
        f'`mask` {kind} values {listed}. Name the value of the object with `"label": int`, '
        "or pass a bool mask such as `mask > 0`."
    )


def _open_picture(source: Any) -> Image.Image:
    """Load a single-channel picture from a path, from bytes or as it is, with the path in every error."""
    name = "the given picture"
    try:
        if isinstance(source, Image.Image):
            picture = source
        elif isinstance(source, bytes):
            name = f"{len(source)} bytes"
            picture = Image.open(io.BytesIO(source))
        else:
            name = f"'{os.fspath(source)}'"
            picture = Image.open(source)
        picture.load()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"`mask` file {name} does not exist.") from error
    except (OSError, SyntaxError, ValueError) as error:  # broken files make PIL raise any of the three
        raise OSError(f"`mask` picture ({name}) cannot be read: {error}. Write it again as PNG.") from error
    if len(picture.getbands()) != 1:
        raise ValueError(
            f"`mask` picture ({name}) has mode {picture.mode}. Pass a single-channel picture, "
            'e.g. `picture.convert("L")`.'
        )
    return picture


def fill_box(box: Sequence[float], height: int, width: int) -> np.ndarray:
    """Fill a box: a pixel belongs to it when its centre lies in [x0, x1) and [y0, y1).

    Args:
        box (`Sequence[float]`): [x0, y0, x1, y1] in pixels.
        height (`int`): Height of the mask in pixels.
        width (`int`): Width of the mask in pixels.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool; empty if the box holds no pixel centre.
    """
    left, top, right, bottom = (max(0, int(np.ceil(edge - 0.5))) for edge in box)
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def fill_polygons(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Fill polygons as the COCO tools do and unite them.

    Args:
        polygons (`Sequence[np.ndarray]`): Flat arrays [x0, y0, x1, y1, ...] in pixels, at least three points each.
        height (`int`): Height of the mask in pixels.
        width (`int`): Width of the mask in pixels.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool.
    """
    if coco_mask is not None:
        parts = coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
        return coco_mask.decode(coco_mask.merge(parts)).astype(bool)
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        crossings = np.sort(_polygon_crossings(polygon, height, width))
        mask |= spread_runs(np.diff(crossings, prepend=0, append=height * width), height, width)
    return mask


def _polygon_crossings(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Find the column-major positions at which the outline of a polygon switches between outside and inside.

    COCO walks the outline on a grid five times finer than the pixels, one step along the longer side of an edge at a
    time, and takes the steps that cross the centre of a pixel column.
    """
    x, y = np.trunc(polygon.reshape(-1, 2).T * _POLYGON_SCALE + 0.5).astype(np.int64)
    step_x, step_y = np.roll(x, -1) - x, np.roll(y, -1) - y
    steep = np.abs(step_x) < np.abs(step_y)
    along, across = np.where(steep, step_y, step_x), np.where(steep, step_x, step_y)
    backward = along < 0
    num_steps = np.abs(along)
    # Each edge is walked from its end with the smaller coordinate, so that both directions round alike.
    slope = np.where(backward, -across, across) / np.maximum(num_steps, 1)
    start_along = np.where(steep, y, x) + np.where(backward, along, 0)
    start_across = np.where(steep, x, y) + np.where(backward, across, 0)

    num_points = num_steps + 1
    edge = np.repeat(np.arange(len(x)), num_points)
    offset = np.arange(len(edge)) - np.repeat(np.cumsum(num_points) - num_points, num_points)
    offset = np.where(backward[edge], num_steps[edge] - offset, offset)
    fine_along = start_along[edge] + offset
    fine_across = np.trunc(start_across[edge] + slope[edge] * offset + 0.5).astype(np.int64)
    fine_x = np.where(steep[edge], fine_across, fine_along)
    fine_y = np.where(steep[edge], fine_along, fine_across)

    # A column is crossed between the fine positions 5 * column + 2 and + 3; the crossing's row is the upper one of
    # the two points, rounded up to the next pixel centre.
    before, after = fine_x[:-1], fine_x[1:]
    crossed = np.where(after < before, after, after - 1) - _POLYGON_SCALE // 2
    column, rest = np.divmod(crossed, _POLYGON_SCALE)
    kept = (before != after) & (rest == 0) & (column >= 0) & (column < width)
    upper = np.minimum(fine_y[:-1], fine_y[1:])[kept]
    row = np.clip(-((_POLYGON_SCALE // 2 - upper) // _POLYGON_SCALE), 0, height)
    return column[kept] * height + row


def draw_scribble(points: np.ndarray, stroke_width: float, height: int, width: int) -> np.ndarray:
    """Draw a polyline with round ends and joints.

    A pixel belongs to it when its centre is at most half a stroke width away from the line; the pixel under each
    point always belongs to it. Memory is that of the mask, however long the line is.

    Args:
        points (`np.ndarray` of shape `(num_points, 2)`): x and y in pixels; a single point gives a disc.
        stroke_width (`float`): Width of the line in pixels.
        height (`int`): Height of the mask in pixels.
        width (`int`): Width of the mask in pixels.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool.
    """
    radius = stroke_width / 2
    changes = np.zeros((height, width + 1), dtype=np.int32)  # +1 where a span of a row starts, -1 behind its end
    ends = points[1:] if len(points) > 1 else points
    for start, end in zip(points, ends, strict=False):
        top = max(0, int(np.ceil(min(start[1], end[1]) - radius - 0.5 - _ROUNDING_SLACK)))
        bottom = min(height, int(np.floor(max(start[1], end[1]) + radius - 0.5 + _ROUNDING_SLACK)) + 1)
        rows = np.arange(top, bottom)
        left, right = _stroke_spans(rows + 0.5, start, end, radius)
        first = np.clip(np.ceil(left - 0.5 - _ROUNDING_SLACK), 0, width).astype(np.int64)
        behind = np.clip(np.floor(right - 0.5 + _ROUNDING_SLACK) + 1, 0, width).astype(np.int64)
        kept = first < behind
        changes[rows[kept], first[kept]] += 1
        changes[rows[kept], behind[kept]] -= 1
    mask = np.cumsum(changes, axis=1, dtype=np.int32)[:, :-1] > 0
    column = np.clip(np.floor(points[:, 0]), 0, width - 1).astype(np.int64)
    row = np.clip(np.floor(points[:, 1]), 0, height - 1).astype(np.int64)
    mask[row, column] = True
    return mask


def _stroke_spans(y: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut a stroke (two discs and the band between them: convex, so one span a row) with the lines at heights `y`.

    Returns the left and right ends as x in pixels; infinite with left > right where a line misses the stroke.
    """
    left, right = np.full(y.shape, np.inf), np.full(y.shape, -np.inf)
    for centre in (start, end):
        squared = radius**2 - (y - centre[1]) ** 2
        half = np.sqrt(np.where(squared >= 0, squared, np.nan))
        left = np.fmin(left, centre[0] - half)
        right = np.fmax(right, centre[0] + half)
    length = float(np.hypot(*(end - start)))
    if length == 0:
        return left, right
    direction_x, direction_y = (end - start) / length
    below = y - start[1]
    along = _solve_between(direction_x, below * direction_y, 0.0, length)
    across = _solve_between(-direction_y, below * direction_x, -radius, radius)
    band_left, band_right = np.maximum(along[0], across[0]), np.minimum(along[1], across[1])
    hit = band_left <= band_right
    left = np.where(hit, np.minimum(left, start[0] + band_left), left)
    right = np.where(hit, np.maximum(right, start[0] + band_right), right)
    return left, right


def _solve_between(slope: float, offset: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Solve `low <= slope * x + offset <= high` for x, elementwise; an empty solution has left > right."""
    if slope == 0:
        inside = (offset >= low) & (offset <= high)
        return np.where(inside, -np.inf, np.inf), np.where(inside, np.inf, -np.inf)
    one, other = (low - offset) / slope, (high - offset) / slope
    return np.minimum(one, other), np.maximum(one, other)


__all__ = ["draw_scribble", "fill_box", "fill_polygons", "read_mask"]
