"""Segmentations of every published kind as compressed COCO run-length masks."""

from typing import Any

import numpy as np

from transformers_videorefer.regions.pixels import fill_polygons
from transformers_videorefer.regions.rle import decode_rle, encode_rle, encode_runs, rle_runs

from .defects import FrameError, describe


MAX_SIDE = 100_000
MAX_PIXELS = 2**31 - 1
# Polygons are rasterised, so their pictures are held in memory.
MAX_POLYGON_PIXELS = 2**27


def read_size(value: Any, *, where: str) -> list[int]:
    """Check [height, width] of a mask.

    Args:
        value (`Any`): Two whole numbers from 1 to 100,000.
        where (`str`): Start of every error message.

    Returns:
        `list[int]`: The same.

    Raises:
        FrameError: If it is something else, or too large a picture; of the kind "broken_size".
    """
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(type(side) is int for side in value):
        raise FrameError(
            "broken_size", f"{where}: `size` must be [height, width] in whole pixels, got {describe(value)}."
        )
    height, width = value
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise FrameError(
            "broken_size",
            f"{where}: `size` [{describe(height)}, {describe(width)}] is no size of a picture; sides are 1 to "
            f"{MAX_SIDE} pixels, and there are at most {MAX_PIXELS} of them.",
        )
    return [height, width]


def segmentation_to_rle(
    value: Any, *, height: int | None, width: int | None, where: str, check: bool = True
) -> dict[str, Any] | None:
    """Turn a published segmentation of any kind into a compressed COCO run-length mask.

    Args:
        value (`Any`): A run-length dict with `counts` as string, bytes or list, a list of polygons or of such dicts
            (their union), or None.
        height (`int`, *optional*): Height of the picture in pixels; needed for polygons.
        width (`int`, *optional*): Width of the picture in pixels; needed for polygons.
        where (`str`): Start of every error message.
        check (`bool`, *optional*, defaults to `True`): Read compressed counts. Pass `False` to have `broken_rles`
            check many masks at once later.

    Returns:
        `dict` or `None`: `size` [height, width] and `counts` as a string, unchanged where it is one; None for None.

    Raises:
        FrameError: If the value is no segmentation, the counts are broken, the picture is too large, or polygons come
            without height and width; its `kind` says which.
    """
    if value is None:
        return None
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return _unite_rles(value, where)
    if isinstance(value, list):
        return _polygons_to_rle(value, height, width, where)
    if not isinstance(value, dict):
        raise FrameError(
            "broken_rle", f"{where}: a segmentation is a run-length dict or a list of polygons, got {describe(value)}."
        )
    counts = value.get("counts")
    size = read_size(value.get("size"), where=where)
    if isinstance(counts, list):
        return _runs_to_rle(counts, size, where)
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if not isinstance(counts, str):
        raise FrameError("broken_rle", f"{where}: `counts` must be a string, bytes or a list, got {describe(counts)}.")
    if not counts or not counts.isascii():
        raise FrameError("broken_rle", f"{where}: `counts` {describe(counts)} are no COCO string.")
    if check:
        try:
            rle_runs({"size": size, "counts": counts})
        except ValueError as error:
            raise FrameError("broken_rle", f"{where}: {error}") from error
    return {"size": size, "counts": counts}


def _unite_rles(parts: list[dict[str, Any]], where: str) -> dict[str, Any]:
    """Unite several run-length masks of one object, as the COCO tools do."""
    rles = [
        segmentation_to_rle(part, height=None, width=None, where=f"{where}, part {i}") for i, part in enumerate(parts)
    ]
    sizes = {tuple(rle["size"]) for rle in rles}
    if len(sizes) > 1:
        raise FrameError("broken_size", f"{where}: the parts of one mask have several sizes: {sorted(sizes)}.")
    (size,) = sizes
    if size[0] * size[1] > MAX_POLYGON_PIXELS:
        raise FrameError("broken_size", f"{where}: a picture of {list(size)} is too large to unite masks in.")
    united = np.zeros(size, dtype=bool)
    for rle in rles:
        united |= decode_rle(rle)
    return encode_rle(united)


def _runs_to_rle(counts: list[Any], size: list[int], where: str) -> dict[str, Any]:
    """Check uncompressed counts and compress them."""
    if not counts or not all(type(count) is int for count in counts):
        raise FrameError("broken_rle", f"{where}: `counts` must be a list of whole numbers, got {describe(counts)}.")
    if min(counts) < 0 or sum(counts) != size[0] * size[1]:
        raise FrameError(
            "broken_rle",
            f"{where}: `counts` cover {describe(sum(counts))} pixels, the smallest run being {describe(min(counts))}, "
            f"but `size` {size} has {size[0] * size[1]}.",
        )
    return encode_runs(counts, size)


def _polygons_to_rle(value: list[Any], height: int | None, width: int | None, where: str) -> dict[str, Any]:
    """Check polygons, fill them as the COCO tools do, and encode the mask."""
    if height is None or width is None:
        raise FrameError("polygon_without_size", f"{where}: polygons need the `height` and `width` of their picture.")
    size = read_size([height, width], where=where)
    if height * width > MAX_POLYGON_PIXELS:
        raise FrameError("broken_size", f"{where}: a picture of {size} is too large to fill polygons in.")
    if not value:
        raise FrameError("broken_polygon", f"{where}: the list of polygons is empty.")
    parts = []
    for position, part in enumerate(value):
        if not isinstance(part, list) or not all(type(number) in (int, float) for number in part):
            raise FrameError(
                "broken_polygon", f"{where}: polygon {position} must be a list of numbers, got {describe(part)}."
            )
        if len(part) < 6 or len(part) % 2:
            raise FrameError(
                "broken_polygon", f"{where}: polygon {position} has {len(part)} numbers, not an even count from 6 on."
            )
        # Farther out than the picture is wide, numbers are no coordinates; NaN fails the comparison as well.
        reach = max(height, width)
        if not all(-reach <= number <= 2 * reach for number in part):
            raise FrameError(
                "broken_polygon", f"{where}: polygon {position} has points far outside the picture of {size}."
            )
        parts.append(np.array(part, dtype=np.float64))
    return encode_rle(fill_polygons(parts, height, width))
