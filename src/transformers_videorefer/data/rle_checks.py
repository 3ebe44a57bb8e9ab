"""Run lengths of many compressed COCO masks checked at once, as files of hundreds of thousands of masks need it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from transformers_videorefer.regions.rle import FIRST_CHARACTER, MAX_CHARACTERS_PER_RUN, rle_codes, rle_runs


# Masks are checked this many characters at a time, so that the arrays stay in the cache.
_CHUNK_CHARACTERS = 1 << 17
# Deltas of at most this many characters fit the 32-bit arithmetic.
_MAX_FAST_CHARACTERS = 6


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
        if len(text) < 3 * MAX_CHARACTERS_PER_RUN:
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
        rle_runs(rle)
    except ValueError as error:
        return str(error)
    return ""


def _pad_short(text: str) -> str:
    """Give a mask of one or two runs three of them, the new ones empty; an incomplete text comes back empty."""
    if not text or ord(text[-1]) - FIRST_CHARACTER >= 32:
        return ""
    num_runs = sum(ord(character) - FIRST_CHARACTER < 32 for character in text)
    return text + chr(FIRST_CHARACTER) * (3 - num_runs)


def _suspects_of_chunk(texts: list[str], positions: list[int], rles: Sequence[dict[str, Any]]) -> list[int]:
    """Return the positions of the masks of a chunk that are broken or need the exact reader."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    ends = np.cumsum(lengths)
    codes = rle_codes("".join(texts))
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
