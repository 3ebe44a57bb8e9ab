"""Masks as compressed COCO run-length dicts: made from every published kind, and checked in bulk without pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from transformers_videorefer.masks_videorefer import decode_rle, fill_polygons, rle_runs

from .defects import describe


MAX_SIDE = 100_000
MAX_PIXELS = 2**31 - 1
# Polygons are rasterised, so their pictures are held in memory.
MAX_POLYGON_PIXELS = 2**27
_MAX_CHARACTERS_PER_RUN = 7
# Bulk checks work on this many characters at a time, so that their arrays stay in the cache.
_CHUNK_CHARACTERS = 1 << 17
# Deltas of at most this many characters fit the 32-bit arithmetic of the bulk check.
_MAX_FAST_CHARACTERS = 6
_FIRST_CHARACTER = 48


class BrokenSizeError(ValueError):
    """The size of a mask is none, or too large."""


class BrokenPolygonError(ValueError):
    """A polygon cannot be filled."""


class MissingSizeError(ValueError):
    """A polygon comes without the size of its picture."""


def encode_runs(runs: Sequence[int] | np.ndarray, size: Sequence[int]) -> dict[str, Any]:
    """Write run lengths as a compressed COCO mask.

    Args:
        runs (`Sequence[int]` or `np.ndarray`): Lengths in pixels, column by column, background first.
        size (`Sequence[int]`): [height, width].

    Returns:
        `dict`: `size` [height, width] and `counts` as a string.
    """
    values = np.array(runs, dtype=np.int64)
    # From the fourth on, each run is stored as the difference to the run two before it.
    values[3:] -= np.asarray(runs, dtype=np.int64)[1:-2]
    codes = np.zeros((len(values), _MAX_CHARACTERS_PER_RUN), dtype=np.uint8)
    used = np.zeros(codes.shape, dtype=bool)
    is_open = np.ones(len(values), dtype=bool)
    for position in range(_MAX_CHARACTERS_PER_RUN):
        bits = values & 31
        values >>= 5
        is_last = values == np.where(bits & 16, -1, 0)
        codes[:, position] = bits + np.where(is_last, 0, 32) + _FIRST_CHARACTER
        used[:, position] = is_open
        is_open &= ~is_last
        if not is_open.any():
            break
    return {"size": [int(size[0]), int(size[1])], "counts": codes[used].tobytes().decode("ascii")}


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as a compressed COCO run-length mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): True inside the object.

    Returns:
        `dict`: `size` [height, width] and `counts` as a string.
    """
    flat = np.asarray(mask, dtype=bool).T.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    borders = np.concatenate([[0, 0] if flat[0] else [0], starts, [flat.size]])  # runs begin with background
    return encode_runs(np.diff(borders), mask.shape)


def read_size(value: Any, *, where: str) -> list[int]:
    """Check [height, width] of a mask.

    Args:
        value (`Any`): Two whole numbers from 1 to 100,000.
        where (`str`): Start of every error message.

    Returns:
        `list[int]`: The same.

    Raises:
        ValueError: If it is something else, or too large a picture.
    """
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(type(side) is int for side in value):
        raise BrokenSizeError(f"{where}: `size` must be [height, width] in whole pixels, got {describe(value)}.")
    height, width = value
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise BrokenSizeError(
            f"{where}: `size` [{describe(height)}, {describe(width)}] is no size of a picture; sides are 1 to "
            f"{MAX_SIDE} pixels, and there are at most {MAX_PIXELS} of them."
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
        ValueError: If the value is no segmentation, the counts are broken, the picture is too large, or polygons come
            without height and width.
    """
    if value is None:
        return None
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return _unite_rles(value, where)
    if isinstance(value, list):
        return _polygons_to_rle(value, height, width, where)
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a segmentation is a run-length dict or a list of polygons, got {describe(value)}.")
    counts = value.get("counts")
    size = read_size(value.get("size"), where=where)
    if isinstance(counts, list):
        return _runs_to_rle(counts, size, where)
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if not isinstance(counts, str):
        raise ValueError(f"{where}: `counts` must be a string, bytes or a list, got {describe(counts)}.")
    if not counts or not counts.isascii():
        raise ValueError(f"{where}: `counts` {describe(counts)} are no COCO string.")
    if check:
        rle_runs({"size": size, "counts": counts.encode("ascii")}, where=where)
    return {"size": size, "counts": counts}


def _unite_rles(parts: list[dict[str, Any]], where: str) -> dict[str, Any]:
    """Unite several run-length masks of one object, as the COCO tools do."""
    rles = [
        segmentation_to_rle(part, height=None, width=None, where=f"{where}, part {i}") for i, part in enumerate(parts)
    ]
    sizes = {tuple(rle["size"]) for rle in rles}
    if len(sizes) > 1:
        raise BrokenSizeError(f"{where}: the parts of one mask have several sizes: {sorted(sizes)}.")
    (size,) = sizes
    if size[0] * size[1] > MAX_POLYGON_PIXELS:
        raise BrokenSizeError(f"{where}: a picture of {list(size)} is too large to unite masks in.")
    united = np.zeros(size, dtype=bool)
    for rle in rles:
        united |= decode_rle({**rle, "counts": rle["counts"].encode("ascii")}, where=where)
    return encode_rle(united)


def _runs_to_rle(counts: list[Any], size: list[int], where: str) -> dict[str, Any]:
    """Check uncompressed counts and compress them."""
    if not counts or not all(type(count) is int for count in counts):
        raise ValueError(f"{where}: `counts` must be a list of whole numbers, got {describe(counts)}.")
    if min(counts) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(
            f"{where}: `counts` cover {describe(sum(counts))} pixels, the smallest run being {describe(min(counts))}, "
            f"but `size` {size} has {size[0] * size[1]}."
        )
    return encode_runs(counts, size)


def _polygons_to_rle(value: list[Any], height: int | None, width: int | None, where: str) -> dict[str, Any]:
    """Check polygons, fill them as the COCO tools do, and encode the mask."""
    if height is None or width is None:
        raise MissingSizeError(f"{where}: polygons need the `height` and `width` of their picture.")
    size = read_size([height, width], where=where)
    if height * width > MAX_POLYGON_PIXELS:
        raise BrokenSizeError(f"{where}: a picture of {size} is too large to fill polygons in.")
    if not value:
        raise BrokenPolygonError(f"{where}: the list of polygons is empty.")
    parts = []
    for position, part in enumerate(value):
        if not isinstance(part, list) or not all(type(number) in (int, float) for number in part):
            raise BrokenPolygonError(f"{where}: polygon {position} must be a list of numbers, got {describe(part)}.")
        if len(part) < 6 or len(part) % 2:
            raise BrokenPolygonError(
                f"{where}: polygon {position} has {len(part)} numbers, not an even count from 6 on."
            )
        # Farther out than the picture is wide, numbers are no coordinates; NaN fails the comparison as well.
        reach = max(height, width)
        if not all(-reach <= number <= 2 * reach for number in part):
            raise BrokenPolygonError(f"{where}: polygon {position} has points far outside the picture of {size}.")
        parts.append(np.array(part, dtype=np.float64))
    return encode_rle(fill_polygons(parts, height, width))


def broken_rles(rles: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    """Check many compressed masks at once: characters, complete and non-negative runs, and their sum.

    No mask is decoded and no pixel array made; thousands of masks share each step.

    Args:
        rles (`Sequence[dict]`): Masks with `size` [height, width], checked, and `counts` as a string.

    Returns:
        `list[tuple[int, str]]`: Position and reason of each broken mask, in order.
    """
    suspects: list[int] = []
    texts: list[str] = []
    positions: list[int] = []
    num_characters = 0
    for position, rle in enumerate(rles):
        text = rle["counts"]
        if len(text) < 3 * _MAX_CHARACTERS_PER_RUN:
            text = _pad_short(text)
        if not text or not text.isascii():
            suspects.append(position)
            continue
        texts.append(text)
        positions.append(position)
        num_characters += len(text)
        if num_characters >= _CHUNK_CHARACTERS:
            suspects.extend(_suspects_of_chunk(texts, positions, rles))
            texts, positions, num_characters = [], [], 0
    if texts:
        suspects.extend(_suspects_of_chunk(texts, positions, rles))
    # The bulk check only sorts out; the exact reader has the last word and gives the reason.
    found = ((position, _reason(rles[position])) for position in sorted(suspects))
    return [(position, reason) for position, reason in found if reason]


def _reason(rle: dict[str, Any]) -> str:
    """Say why a mask is broken; an empty text if it is not."""
    try:
        rle_runs({"size": rle["size"], "counts": rle["counts"].encode("ascii")}, where="")
    except UnicodeEncodeError:
        return f"`counts` {describe(rle['counts'])} are no COCO string."
    except ValueError as error:
        return str(error).removeprefix(": ")
    return ""


def _pad_short(text: str) -> str:
    """Give a mask of one or two runs three of them, the new ones empty; an incomplete text comes back empty."""
    if not text or ord(text[-1]) - _FIRST_CHARACTER >= 32:
        return ""
    num_runs = sum(ord(character) - _FIRST_CHARACTER < 32 for character in text)
    return text + chr(_FIRST_CHARACTER) * (3 - num_runs)


def _suspects_of_chunk(texts: list[str], positions: list[int], rles: Sequence[dict[str, Any]]) -> list[int]:
    """Return the positions of the masks of a chunk that are broken or need the exact reader."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    ends = np.cumsum(lengths)
    codes = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8) - np.uint8(_FIRST_CHARACTER)
    goes_on = codes > 31
    is_suspect = goes_on[ends - 1].copy()  # the last run is incomplete
    if codes.max() > 63:  # also characters below "0", which wrapped around
        is_suspect[np.searchsorted(ends, np.flatnonzero(codes > 63), side="right")] = True
    # Last characters of the runs of three or more; runs of too many are left to the exact reader.
    long = np.flatnonzero((goes_on[:-2] & goes_on[1:-1]) > goes_on[2:]) + 2
    too_long = long[long >= _MAX_FAST_CHARACTERS]
    for offset in range(3, _MAX_FAST_CHARACTERS + 1):
        too_long = too_long[goes_on[too_long - offset]]
    if too_long.size:
        is_suspect[np.searchsorted(ends, too_long, side="right")] = True
    if is_suspect.any():
        kept = np.flatnonzero(~is_suspect).tolist()
        found = [positions[index] for index in np.flatnonzero(is_suspect).tolist()]
        if kept:
            found += _suspects_of_chunk([texts[index] for index in kept], [positions[index] for index in kept], rles)
        return found
    sizes = np.array([rles[position]["size"] for position in positions], dtype=np.int64)
    is_broken = _run_sums(codes, goes_on, long, ends) != sizes[:, 0] * sizes[:, 1]
    return [positions[index] for index in np.flatnonzero(is_broken).tolist()]


def _run_sums(codes: np.ndarray, goes_on: np.ndarray, long: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Add up the runs of each mask of a chunk; -1 for a mask with a negative run.

    Every mask has three runs or more, and every run is complete. Of the runs after the first, those of even and those
    of odd position form two chains of differences; in a chunk, the chains of all masks alternate between the even and
    the odd positions of the whole chunk, so two running sums that start anew at every mask decode them all.

    Args:
        codes (`np.ndarray` of shape `(num_characters,)`): Characters of all masks, from 0 to 63.
        goes_on (`np.ndarray` of shape `(num_characters,)`): True where the run goes on behind the character.
        long (`np.ndarray` of shape `(num_long_runs,)`): Place of the last character of each run of three or more.
        ends (`np.ndarray` of shape `(num_masks,)`): Where the characters of each mask end.

    Returns:
        `np.ndarray` of shape `(num_masks,)` and dtype int64.
    """
    low = (codes & 31).astype(np.int16)
    # Value of the run that ends here, if it has one or two characters; the last character carries the sign.
    values = low ^ 16
    values -= 16
    # All in one type and in place: mixed types would be converted block by block.
    second = values[1:] * 31
    second += low[:-1]
    second *= goes_on[:-1].astype(np.int16)
    values[1:] += second
    last = np.flatnonzero(~goes_on)
    values = values.take(last).astype(np.int32)
    if long.size:
        values[np.searchsorted(last, long)] = _long_runs(low, goes_on, long)
    run_ends = np.searchsorted(last, ends - 1) + 1
    starts = np.concatenate([[0], run_ends[:-1]])

    longest = int((run_ends - starts).max())
    totals = np.zeros(len(ends), dtype=np.int64)
    is_negative = np.zeros(len(ends), dtype=bool)
    first_is_odd = starts % 2 == 1
    for parity in (0, 1):
        chain = values[parity::2].copy()
        begins = (starts + 1 - parity) // 2
        with_first = begins[first_is_odd if parity else ~first_is_odd]
        firsts = chain[with_first]
        sums = np.add.reduceat(chain, begins, dtype=np.int32)
        sums[first_is_odd if parity else ~first_is_odd] -= firsts
        chain[begins[1:]] -= sums[:-1]
        chain[with_first + 1] -= firsts
        # Differences have at most 30 bits, so a run that leaves 0 to 2**31 - 1 shows as negative before it comes back.
        runs = np.cumsum(chain, dtype=np.int32)
        # 64-bit sums of 32-bit runs take four times as long, and are needed for large pictures only.
        fits = int(runs.max()) * longest < 2**31
        totals += np.add.reduceat(runs, begins, dtype=np.int32 if fits else np.int64)
        if runs.min() < 0:
            is_negative |= np.minimum.reduceat(runs, begins) < 0
    totals[is_negative] = -1
    return totals


def _long_runs(low: np.ndarray, goes_on: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Read runs of three characters or more, given the place of their last one."""
    values = (low[last].astype(np.int64) ^ 16) - 16
    place, is_open = last, np.ones(len(last), dtype=bool)
    for _ in range(_MAX_FAST_CHARACTERS - 1):
        is_open = is_open & (place > 0)  # the first run of a chunk has nothing before it
        place = np.maximum(place - 1, 0)
        is_open &= goes_on[place]
        values = np.where(is_open, (values << 5) | low[place], values)
    return values
