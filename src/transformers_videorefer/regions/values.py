"""Checks of the values in a region: numbers, sizes, masks, run lengths, polygons, boxes and scribbles.

Nothing is decoded here: pictures stay closed and run lengths stay compressed.
"""

import enum
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from transformers_videorefer.regions.errors import located
from transformers_videorefer.video.reader import is_array, is_tensor


def shorten(value: Any) -> str:
    """Quote a value in an error message without flooding it.

    Args:
        value (`Any`): The value.

    Returns:
        `str`: Its repr on one line of at most 80 characters; for larger arrays and tensors their shape.
    """
    if is_array(value) and np.prod(value.shape) > 16:
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


class Default(enum.Enum):
    """A value that stands for the default, where `None` means something of its own. There is one: `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return self.name


DEFAULT = Default.DEFAULT
# What files of settings and flags, which cannot tell `None` from nothing, write for all frames.
ALL_FRAMES = "all"


def parse_region_frames(value: Any, default: int | None = None) -> int | None:
    """Read `num_region_frames`, the most frames that are used of a region.

    Args:
        value (`int`, `str` or `None`): A number of at least 1; `None` or `"all"` for all frames; `DEFAULT`.
        default (`int`, *optional*): What `DEFAULT` stands for.

    Returns:
        `int` or `None`: The number; `None` for all frames.

    Raises:
        TypeError: If it is neither.
        ValueError: If the number is below 1.
    """
    if value is DEFAULT:
        return default
    if value is None or (isinstance(value, str) and value == ALL_FRAMES):
        return None
    return parse_whole(value, "num_region_frames", least=1)


def parse_whole(value: Any, name: str, *, least: int | None = None) -> int:
    """Read a whole number of Python, numpy or torch; True, 3.0 and "3" are none.

    Args:
        value (`Any`): The number.
        name (`str`): What the error message calls it.
        least (`int`, *optional*): Smallest value; any by default.

    Returns:
        `int`: The number.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is too small.
    """
    rule = f"`{name}` must be a whole number"
    if least is not None:
        rule += f" of at least {least}"
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
            raise TypeError("a truth value is no number")
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{rule}, got {shorten(value)}. Pass int(...) of it.") from error
    if least is not None and number < least:
        raise ValueError(f"{rule}, got {number}.")
    return number


def parse_index(value: Any, name: str) -> int:
    """Read a position, counted from 0.

    Args:
        value (`Any`): The position.
        name (`str`): What the error message calls it.

    Returns:
        `int`: The position.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is negative.
    """
    index = parse_whole(value, name)
    if index < 0:
        raise ValueError(f"`{name}` is {index}, but positions are counted from 0 upwards. Pass 0 or more.")
    return index


def parse_numbers(value: Any, name: str) -> np.ndarray:
    """Read finite numbers.

    Args:
        value (`Any`): A number, or a regular list, array or tensor of numbers.
        name (`str`): What the error message calls it.

    Returns:
        `np.ndarray` of dtype float64 and the shape of `value`.

    Raises:
        TypeError: If there is something other than numbers.
        ValueError: If a number is infinite or NaN.
    """
    try:
        array = np.asarray(value.tolist() if is_tensor(value) else value)
    except ValueError as error:  # lists of unequal length
        raise TypeError(f"`{name}` must be a regular list of numbers, got {shorten(value)}.") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"`{name}` must hold numbers only, got {shorten(value)}. Convert them to numbers.")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` holds NaN or infinity: {shorten(value)}. Pass finite numbers.")
    return array


def parse_number(value: Any, name: str) -> float:
    """Read one finite number.

    Args:
        value (`Any`): The number.
        name (`str`): What the error message calls it.

    Returns:
        `float`: The number.

    Raises:
        TypeError: If it is no number, or several.
        ValueError: If it is infinite or NaN.
    """
    number = parse_numbers(value, name)
    if number.ndim != 0:
        raise TypeError(f"`{name}` must be one number, got {shorten(value)}. Pass a single number.")
    return float(number)


def parse_size(value: Any, name: str = "`size`") -> tuple[int, int]:
    """Read [height, width].

    Args:
        value (`Any`): Two whole numbers of at least 1.
        name (`str`, *optional*, defaults to ``"`size`"``): What the error message calls it.

    Returns:
        `tuple[int, int]`: Height and width.

    Raises:
        TypeError: If there is something other than numbers.
        ValueError: If it is no pair of whole numbers of at least 1.
    """
    size = parse_numbers(value, "size")
    if size.shape != (2,) or (size < 1).any() or (size != np.floor(size)).any():
        raise ValueError(
            f"{name} must be [height, width] in whole pixels, got {shorten(value)}. Pass the height first; "
            "[1, 1] stands for coordinates from 0 to 1."
        )
    return int(size[0]), int(size[1])


def parse_value(form: str, value: Any, size: tuple[int, int] | None) -> Any:
    """Check what a form of a region's mask holds.

    Args:
        form (`str`): "mask", "rle", "polygon", "box" or "scribble".
        value (`Any`): What was given for it.
        size (`tuple[int, int]`, *optional*): [height, width] of the picture that its numbers refer to.

    Returns:
        `Any`: For "mask" the `(height, width)` array or tensor, or the picture, not opened; for "rle" a dict of
        `size` and `counts` (str, bytes or a sequence of integers); for "polygon" a tuple of flat float64 arrays; for "box"
        a float64 array of 4; for "scribble" a float64 array of shape `(num_points, 2)` and the stroke width.

    Raises:
        TypeError: If the value is of a wrong kind.
        ValueError: If it has a wrong shape, or numbers that make no sense.
    """
    if form in ("mask", "rle") and size == (1, 1):
        raise ValueError(
            f"`size` [1, 1] means coordinates from 0 to 1, but a `{form}` has pixels. Pass the mask's own "
            '`"size": [height, width]`.'
        )
    parse = {"mask": _parse_mask, "rle": _parse_rle, "polygon": _parse_polygon, "box": _parse_box}
    with located(argument=form):
        return parse.get(form, _parse_scribble)(value)


def _parse_mask(value: Any) -> Any:
    """Check the kind and the shape of a mask; pictures are opened later."""
    if isinstance(value, (str, bytes, os.PathLike, Image.Image)):
        return value
    if not is_array(value):
        raise TypeError(
            f"`mask` is an array, a tensor, a PIL image, a PNG path or PNG bytes, got {shorten(value)}. "
            "Pass np.asarray(...) of nested lists, and run-length dicts as `rle`."
        )
    if value.is_complex() if is_tensor(value) else value.dtype.kind not in "biuf":
        raise TypeError(f"`mask` must hold numbers or bool, got dtype {value.dtype}. Convert it to bool.")
    shape = tuple(value.shape)
    # A channel axis of length 1 is what tensors (in front) and pictures (behind) carry.
    if len(shape) == 3 and shape[0] == 1:
        value = value[0]
    elif len(shape) == 3 and shape[2] == 1:
        value = value[:, :, 0]
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(
            f"`mask` must have shape (height, width), got {shape}. Pass one mask a frame; the masks of "
            "several frames go into `masks` with `frame_indices`."
        )
    return value


def _parse_rle(value: Any) -> dict[str, Any]:
    """Check the form of a COCO run-length dict; its counts are checked when they are read."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f'`rle` is a dict {{"size": [height, width], "counts": ...}}, got {shorten(value)}. '
            "Lists of coordinates go into `polygon`."
        )
    given = {key: entry for key, entry in value.items() if entry is not None}
    if given.keys() != {"size", "counts"}:
        raise ValueError(
            f"`rle` needs exactly `size` [height, width] and `counts`, got the keys {sorted(map(str, given))}. "
            "Pass the dict that pycocotools wrote."
        )
    counts = given["counts"]
    if isinstance(counts, str) and not counts.isascii():
        raise ValueError(f"`rle` counts {shorten(counts)} are no COCO string. Pass them unchanged.")
    if is_tensor(counts):
        counts = counts.cpu().numpy()
    elif not isinstance(counts, (str, bytes, list, tuple, np.ndarray)):
        raise TypeError(f"`counts` of `rle` must be a string, bytes or a list of integers, got {shorten(counts)}.")
    return {"size": parse_size(given["size"], "`rle`: `size`"), "counts": counts}


def _parse_polygon(value: Any) -> tuple[np.ndarray, ...]:
    """Check a COCO list of flat coordinate lists."""
    example = "[[x0, y0, x1, y1, x2, y2, ...], ...]"
    if isinstance(value, (str, bytes)) or not (isinstance(value, Sequence) or is_array(value)):
        raise TypeError(f"`polygon` must be a list of flat lists {example}, got {shorten(value)}.")
    if len(value) == 0:
        raise ValueError(f"`polygon` is empty. Pass {example}, or None for an empty mask.")
    parts = []
    for position, part in enumerate(value):
        points = parse_numbers(part, f"polygon[{position}]")
        if points.ndim == 0:
            raise ValueError(
                "`polygon` is a flat list, but a region may have several parts. Pass a list of flat lists "
                f"{example}, here [polygon]."
            )
        if points.ndim != 1 or points.size == 2:
            raise ValueError(
                f"`polygon` holds points [x, y]. Pass {example}, one flat list for each part, "
                "for example [np.asarray(points).ravel()]."
            )
        if points.size < 6 or points.size % 2:
            raise ValueError(
                f"`polygon[{position}]` has {points.size} numbers; it needs an even count of at least 6 "
                "(three points). A rectangle given by two corners goes into `box`."
            )
        parts.append(points)
    return tuple(parts)


def _parse_box(value: Any) -> np.ndarray:
    """Check [x0, y0, x1, y1]."""
    box = parse_numbers(value, "box")
    if box.shape != (4,):
        raise ValueError(f"`box` must be four numbers [x0, y0, x1, y1], got {shorten(value)}.")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(
            f"`box` {shorten(value)} has x1 <= x0 or y1 <= y0. A box is [x0, y0, x1, y1]; "
            "a COCO [x, y, width, height] becomes [x, y, x + width, y + height]."
        )
    return box


def _parse_scribble(value: Any) -> tuple[np.ndarray, float]:
    """Check the points and the width of a scribble."""
    if not isinstance(value, Mapping) or value.keys() != {"points", "width"}:
        raise ValueError(f'`scribble` must be {{"points": [[x, y], ...], "width": pixels}}, got {shorten(value)}.')
    points = parse_numbers(value["points"], "points")
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(
            f"`points` of `scribble` must be [[x, y], ...], got {shorten(value['points'])}. "
            "Pass at least one point of two numbers."
        )
    stroke_width = parse_number(value["width"], "width")
    if stroke_width <= 0:
        raise ValueError(f"`width` of `scribble` is {stroke_width:g} pixels. Pass a width above 0.")
    return points, stroke_width


__all__ = [
    "ALL_FRAMES",
    "DEFAULT",
    "Default",
    "parse_index",
    "parse_number",
    "parse_numbers",
    "parse_region_frames",
    "parse_size",
    "parse_value",
    "parse_whole",
    "shorten",
]
