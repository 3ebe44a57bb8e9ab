"""Run lengths of COCO masks: written, read, checked one by one and in bulk.

A run-length mask is a dict of `size` [height, width] and `counts`: a compressed COCO string as `str` or `bytes`, or the
run lengths themselves as whole numbers, column by column, background first. Every function here takes all three kinds
and writes strings. Every function that can refuse its input takes `where`, the words an error message starts with
("sample 0, region 1, frame 12").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


# COCO strings hold 5 bits a character, counted from "0"; 7 characters already exceed the 32-bit runs of COCO tools.
_FIRST_CHARACTER = 48
_MAX_CHARACTERS_PER_RUN = 7
# Bulk checks work on this many characters at a time, so that their arrays stay in the cache.
_CHUNK_CHARACTERS = 1 << 17
# Deltas of at most this many characters fit the 32-bit arithmetic of the bulk check.
_MAX_FAST_CHARACTERS = 6


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


def rle_runs(rle: Mapping[str, Any], *, where: str) -> np.ndarray:
    """Read the run lengths of a COCO run-length mask and check that they fill its picture.

    Args:
        rle (`Mapping`): `size` [height, width], and `counts` as `str`, `bytes` or a sequence of integers.
        where (`str`): Start of every error message.

    Returns:
        `np.ndarray` of shape `(num_runs,)` and dtype int64: lengths in pixels, column by column, background first.

    Raises:
        ValueError: If `counts` is no COCO string, holds a negative run, or covers another number of pixels.
        TypeError: If `counts` holds something other than integers.
    """
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        runs = _runs_from_text(counts, where=where)
    else:
        runs = np.asarray(counts)
        if runs.size == 0 or runs.ndim != 1:
            raise ValueError(f"{where}: `rle` counts must be a flat list of run lengths, got shape {runs.shape}.")
        if runs.dtype.kind not in "iu":
            raise TypeError(f"{where}: `rle` counts must be whole numbers, got values of type {runs.dtype}.")
        runs = runs.astype(np.int64)
    if runs.min() < 0:
        raise ValueError(f"{where}: `rle` counts are broken: run {int(runs.argmin())} is {runs.min()}, below 0.")
    height, width = rle["size"]
    if runs.sum() != height * width:
        raise ValueError(
            f"{where}: `rle` counts cover {runs.sum()} pixels but its size [{height}, {width}] has {height * width}. "
            "The counts are broken, or `size` is not [height, width] of this mask."
        )
    return runs


def _as_bytes(counts: str | bytes) -> bytes:
    """Take a COCO string of either type. Characters beyond ASCII become bytes above 127, which are no part of one."""
    return counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts


def _codes_of(counts: str | bytes) -> np.ndarray:
    """Number the characters of COCO strings from 0 to 63; others get larger numbers, those below "0" by wrapping."""
    return np.frombuffer(_as_bytes(counts), dtype=np.uint8) - np.uint8(_FIRST_CHARACTER)


def _runs_from_text(counts: str | bytes, *, where: str) -> np.ndarray:
    """Decode a compressed COCO string: 5 bits a character, lowest first, from the fourth run on as differences."""
    codes = _codes_of(counts)
    last_of_run = np.flatnonzero(codes & 32 == 0)
    if codes.size == 0 or codes.max() > 63 or last_of_run.size == 0 or last_of_run[-1] != codes.size - 1:
        raise ValueError(
            f"{where}: `rle` counts {counts!r:.80} are no complete COCO string. Pass the `counts` that "
            "pycocotools wrote, uncut, or a list of run lengths."
        )
    first_of_run = np.concatenate([[0], last_of_run[:-1] + 1])
    num_characters = last_of_run - first_of_run + 1
    if num_characters.max() > _MAX_CHARACTERS_PER_RUN:
        raise ValueError(f"{where}: `rle` counts {counts!r:.80} hold a number that no COCO string can hold.")
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


def rle_is_empty(rle: Mapping[str, Any], *, where: str) -> bool:
    """Tell whether a COCO run-length mask has no pixel, without decoding any.

    Usually the second run, the first one inside the object, decides, so that thousands of masks of a long video are
    told apart in milliseconds. Counts are checked in full only when the mask is decoded.

    Args:
        rle (`Mapping`): As in `rle_runs`.
        where (`str`): Start of every error message.

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
    return not rle_runs(rle, where=where)[1::2].any()


def _second_run(counts: str | bytes) -> int:
    """Read the first run inside the object of a COCO string, unchecked; 0 if it is not complete."""
    # The two first runs of a sound string end within this many characters; broken ones are left to the full reading.
    text = _as_bytes(counts[: 2 * _MAX_CHARACTERS_PER_RUN])
    start = 0
    while start < len(text) and text[start] - _FIRST_CHARACTER & 32:  # the first run is background
        start += 1
    value = 0
    for position, character in enumerate(text[start + 1 :]):
        value |= (character - _FIRST_CHARACTER & 31) << (5 * position)
        if not character - _FIRST_CHARACTER & 32:
            return value
    return 0


def decode_rle(rle: Mapping[str, Any], *, where: str = "the mask") -> np.ndarray:
    """Decode a COCO run-length mask.

    The runs have to be read anyway to be checked (pycocotools reads past the end of a truncated string), and
    spreading them with numpy is several times faster than a second decoding by pycocotools; the bits are the same.

    Args:
        rle (`Mapping`): As in `rle_runs`.
        where (`str`, *optional*, defaults to `"the mask"`): Start of every error message.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool.

    Raises:
        ValueError: If the counts are broken.
        TypeError: If the counts are of a wrong type.
    """
    height, width = rle["size"]
    return spread_runs(rle_runs(rle, where=where), height, width)


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
        rle_runs(rle, where="")
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
    codes = _codes_of("".join(texts))
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


__all__ = ["broken_rles", "decode_rle", "encode_rle", "encode_runs", "rle_is_empty", "rle_runs", "spread_runs"]
