"""Run lengths of COCO masks: written, read and checked.

A run-length mask is a dict of `size` [height, width] and `counts`: a compressed COCO string as `str` or `bytes`, or the
run lengths themselves as whole numbers, column by column, background first. Every function here takes all three kinds
and writes strings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


# COCO strings hold 5 bits a character, counted from "0"; 7 characters already exceed the 32-bit runs of COCO tools.
FIRST_CHARACTER = 48
MAX_CHARACTERS_PER_RUN = 7


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
    codes = np.zeros((len(values), MAX_CHARACTERS_PER_RUN), dtype=np.uint8)
    used = np.zeros(codes.shape, dtype=bool)
    is_open = np.ones(len(values), dtype=bool)
    for position in range(MAX_CHARACTERS_PER_RUN):
        bits = values & 31
        values >>= 5
        is_last = values == np.where(bits & 16, -1, 0)
        codes[:, position] = bits + np.where(is_last, 0, 32) + FIRST_CHARACTER
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

    Raises:
        ValueError: If the mask has another number of axes, or no pixel.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f"`mask` must have shape (height, width), got {mask.shape}. Encode one mask at a time.")
    flat = mask.T.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    borders = np.concatenate([[0, 0] if flat[0] else [0], starts, [flat.size]])  # runs begin with background
    return encode_runs(np.diff(borders), mask.shape)


def rle_runs(rle: Mapping[str, Any]) -> np.ndarray:
    """Read the run lengths of a COCO run-length mask and check that they fill its picture.

    Args:
        rle (`Mapping`): `size` [height, width], and `counts` as `str`, `bytes` or a sequence of integers.

    Returns:
        `np.ndarray` of shape `(num_runs,)` and dtype int64: lengths in pixels, column by column, background first.

    Raises:
        ValueError: If `counts` is no COCO string, holds a negative run, or covers another number of pixels.
        TypeError: If `counts` holds something other than integers.
    """
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        runs = _runs_from_text(counts)
    else:
        runs = np.asarray(counts)
        if runs.size == 0 or runs.ndim != 1:
            raise ValueError(f"`rle` counts must be a flat list of run lengths, got shape {runs.shape}.")
        if runs.dtype.kind not in "iu":
            raise TypeError(f"`rle` counts must be whole numbers, got values of type {runs.dtype}.")
        runs = runs.astype(np.int64)
    if runs.min() < 0:
        raise ValueError(f"`rle` counts are broken: run {int(runs.argmin())} is {runs.min()}, below 0.")
    height, width = rle["size"]
    if runs.sum() != height * width:
        raise ValueError(
            f"`rle` counts cover {runs.sum()} pixels but its size [{height}, {width}] has {height * width}. "
            "The counts are broken, or `size` is not [height, width] of this mask."
        )
    return runs


def _as_bytes(counts: str | bytes) -> bytes:
    """Take a COCO string of either type. Characters beyond ASCII become bytes above 127, which are no part of one."""
    return counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts


def rle_codes(counts: str | bytes) -> np.ndarray:
    """Number the characters of COCO strings from 0 to 63; others get larger numbers, those below "0" by wrapping."""
    return np.frombuffer(_as_bytes(counts), dtype=np.uint8) - np.uint8(FIRST_CHARACTER)


def _runs_from_text(counts: str | bytes) -> np.ndarray:
    """Decode a compressed COCO string: 5 bits a character, lowest first, from the fourth run on as differences."""
    codes = rle_codes(counts)
    last_of_run = np.flatnonzero(codes & 32 == 0)
    if codes.size == 0 or codes.max() > 63 or last_of_run.size == 0 or last_of_run[-1] != codes.size - 1:
        raise ValueError(
            f"`rle` counts {counts!r:.80} are no complete COCO string. Pass the `counts` that "
            "pycocotools wrote, uncut, or a list of run lengths."
        )
    first_of_run = np.concatenate([[0], last_of_run[:-1] + 1])
    num_characters = last_of_run - first_of_run + 1
    if num_characters.max() > MAX_CHARACTERS_PER_RUN:
        raise ValueError(f"`rle` counts {counts!r:.80} hold a number that no COCO string can hold.")
    bits = (codes & 31).astype(np.int64)
    runs = bits[first_of_run]
    for position in range(1, int(num_characters.max())):
        longer = np.flatnonzero(num_characters > position)
        runs[longer] += bits[first_of_run[longer] + position] << (5 * position)
    negative = codes[last_of_run] & 16 != 0
    runs[negative] -= np.int64(1) << (5 * num_characters[negative])
    # From the fourth on, each run is stored as the difference to the run two before it.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def rle_is_empty(rle: Mapping[str, Any]) -> bool:
    """Tell whether a COCO run-length mask has no pixel, without decoding any.

    Usually the second run, the first one inside the object, decides, so that thousands of masks of a long video are
    told apart in milliseconds. Counts are checked in full only when the mask is decoded.

    Args:
        rle (`Mapping`): As in `rle_runs`.

    Returns:
        `bool`: True if no pixel belongs to the mask.

    Raises:
        ValueError: If the counts are broken and had to be read in full.
    """
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        second = _second_run(counts)
    else:
        second = counts[1] if len(counts) > 1 and isinstance(counts[1], (int, np.integer)) else 0
    if second > 0:
        return False
    return not rle_runs(rle)[1::2].any()


def _second_run(counts: str | bytes) -> int:
    """Read the first run inside the object of a COCO string, unchecked; 0 if it is not complete."""
    # The two first runs of a sound string end within this many characters; broken ones are left to the full reading.
    text = _as_bytes(counts[: 2 * MAX_CHARACTERS_PER_RUN])
    start = 0
    while start < len(text) and text[start] - FIRST_CHARACTER & 32:  # the first run is background
        start += 1
    value = 0
    for position, character in enumerate(text[start + 1 :]):
        value |= (character - FIRST_CHARACTER & 31) << (5 * position)
        if not character - FIRST_CHARACTER & 32:
            return value
    return 0


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decode a COCO run-length mask.

    The runs have to be read anyway to be checked (pycocotools reads past the end of a truncated string), and
    spreading them with numpy is several times faster than a second decoding by pycocotools; the bits are the same.

    Args:
        rle (`Mapping`): As in `rle_runs`.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool.

    Raises:
        ValueError: If the counts are broken.
        TypeError: If the counts are of a wrong type.
    """
    height, width = rle["size"]
    return spread_runs(rle_runs(rle), height, width)


def spread_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Turn run lengths into a mask.

    Args:
        runs (`np.ndarray` of shape `(num_runs,)`): Lengths in pixels, column by column, background first.
        height (`int`): Height of the mask in pixels.
        width (`int`): Width of the mask in pixels.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool.
    """
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


__all__ = [
    "FIRST_CHARACTER",
    "MAX_CHARACTERS_PER_RUN",
    "decode_rle",
    "encode_rle",
    "encode_runs",
    "rle_codes",
    "rle_is_empty",
    "rle_runs",
    "spread_runs",
]
