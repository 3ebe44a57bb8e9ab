"""How decoded frames are turned for display (phones record sideways and say so in the file)."""

import logging
from functools import lru_cache
from typing import Any

import numpy as np


logger = logging.getLogger(__name__)

# Cosine and sine of the angles by which a frame may be turned counterclockwise.
QUARTER_TURNS = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}


def display_matrix(frame: Any) -> np.ndarray | None:
    """Read the matrix that says how a decoded frame is turned for display.

    Args:
        frame (`av.VideoFrame`): A decoded frame.

    Returns:
        `np.ndarray` of shape `(9,)`, *optional*: The matrix row by row, in fixed-point numbers; `None` when the frame is
        shown as it is coded.
    """
    try:
        return next(
            (np.frombuffer(bytes(d), np.int32) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None
        )
    except ValueError:
        # PyAV stumbles over kinds of side data that it does not know; the angle is all there is then.
        cosine, sine = QUARTER_TURNS.get(frame.rotation % 360, (1, 1))
        return np.asarray([cosine, -sine, 0, sine, cosine, 0, 0, 0, 1], np.int32)


def turn_upright(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a display matrix made of quarter turns and mirrorings, the only ones players agree on.

    Args:
        picture (`np.ndarray` of shape `(height, width, 3)`): The picture as coded.
        matrix (`np.ndarray` of shape `(9,)`): The display matrix, row by row.

    Returns:
        `np.ndarray` of shape `(height, width, 3)` or `(width, height, 3)`: The picture as shown.
    """
    # A point (x, y) of the coded picture is shown at (a * x + c * y, b * x + d * y).
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    # Some programs leave rounding errors where a 0 belongs.
    smallest = max(map(abs, (a, b, c, d))) / 100
    is_upright, is_sideways = max(abs(a), abs(d)) > smallest, max(abs(b), abs(c)) > smallest
    if is_upright and is_sideways:
        _warn_of_odd_angle()
        return picture
    if is_sideways:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


@lru_cache(maxsize=1)
def _warn_of_odd_angle() -> None:
    """Say once in a process that a video is not turned."""
    logger.warning("A video is rotated by an angle other than quarter turns; it is read as it is coded.")


__all__ = ["display_matrix", "turn_upright"]
