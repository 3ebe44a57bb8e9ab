"""Rotated boxes and angles, as annotation tools mean them."""

import math
from collections.abc import Sequence


def rotated_box(box: Sequence[float], degrees: float, *, pivot: tuple[float, float]) -> list[float]:
    """Turn a box clockwise (in a picture whose y axis points down) about a point.

    Args:
        box (`Sequence[float]`): [x0, y0, x1, y1] in pixels, before it is turned.
        degrees (`float`): Angle in degrees.
        pivot (`tuple[float, float]`): The point that stays, x and y in pixels.

    Returns:
        `list[float]`: The corners as a flat polygon [x0, y0, ...], from the top left one clockwise.
    """
    x0, y0, x1, y1 = box
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points: list[float] = []
    for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
        dx, dy = x - pivot[0], y - pivot[1]
        points += [pivot[0] + dx * cosine - dy * sine, pivot[1] + dx * sine + dy * cosine]
    return points


def interpolate_angle(start: float, end: float, share: float) -> float:
    """Interpolate between two angles along the shorter way.

    Args:
        start (`float`): First angle in degrees.
        end (`float`): Last angle in degrees.
        share (`float`): How far, from 0 to 1.

    Returns:
        `float`: The angle in degrees, in [0, 360).
    """
    difference = (end - start + 180) % 360 - 180
    return (start + difference * share) % 360


__all__ = ["interpolate_angle", "rotated_box"]
