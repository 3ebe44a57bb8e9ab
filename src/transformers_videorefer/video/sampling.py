"""Which frames of a video stand for the whole scene (the published rules)."""

import math

import numpy as np


def uniform_indices(num_total: int, num_wanted: int) -> list[int]:
    """Spread `num_wanted` frame numbers evenly over a video of `num_total` frames.

    The interval from the first to the last frame is cut into `num_wanted` equal parts and the midpoint of each part
    is rounded to the nearest frame. A video shorter than `num_wanted` therefore repeats frames.
    """
    if num_total < 1 or num_wanted < 1:
        raise ValueError(
            f"`num_total` is {num_total} and `num_wanted` is {num_wanted}, but both must be at least 1. "
            "Pass a video that has frames and ask for at least one."
        )
    part = float(num_total - 1) / num_wanted
    starts = np.arange(num_wanted) * part
    ends = np.arange(1, num_wanted + 1) * part
    # The published rule adds 1e-6 so that exact halves go up instead of to the even neighbour.
    return np.round((starts + ends) / 2 + 1e-6).astype(int).tolist()


def time_range_indices(
    num_total: int, fps: float | None, start_seconds: float | None, end_seconds: float | None
) -> tuple[int, int]:
    """Translate a time range into the first and the last frame number, both included; absent ends are the video's.

    The published rule is kept as it is: a second `t` is frame `int(t * fps) - 1`. When both ends are given, negative
    values count as 0, swapped ends are put in order, and equal ends span one second.
    """
    if start_seconds is None and end_seconds is None:
        return 0, num_total - 1
    if not fps:
        raise ValueError(
            f"`start_seconds` is {start_seconds} and `end_seconds` is {end_seconds}, but the frames have no time "
            "stamps. Pass `fps` (frames per second) with them."
        )
    for name, value in (("start_seconds", start_seconds), ("end_seconds", end_seconds)):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"`{name}` is {value}. Pass seconds as a finite number, or leave it out.")
    start, end = start_seconds, end_seconds
    if start is not None and end is not None:
        start, end = sorted((max(float(start), 0.0), max(float(end), 0.0)))
        if start == end:
            end = start + 1
    first = 0 if start is None else max(int(start * fps) - 1, 0)
    last = num_total - 1 if end is None else min(int(end * fps) - 1, num_total - 1)
    if not 0 <= first <= last:
        raise ValueError(
            f"The range from `start_seconds` {start_seconds} to `end_seconds` {end_seconds} holds no frame of a video "
            f"of {num_total} frames at {fps:g} frames per second ({num_total / fps:.2f} seconds). "
            "Pass a range inside the video."
        )
    return first, last


__all__ = ["time_range_indices", "uniform_indices"]
