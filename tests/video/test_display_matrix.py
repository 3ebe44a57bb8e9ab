"""Turning frames by display matrices (real files: test_container.py)."""

import numpy as np
import pytest
from video_files import moving_texture

from transformers_videorefer.video.container import display_matrix, turn_upright


def test_rotation_follows_the_display_matrix() -> None:
    # Shown a quarter turn clockwise, the top left corner comes to the top right.
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0] = 255
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], np.int32)
    shown = turn_upright(picture, matrix)
    assert shown.shape == (3, 2, 3)
    assert shown[0, 1].tolist() == [255, 255, 255]
    inexact = matrix + np.array([3, 0, 0, 0, -2, 0, 0, 0, 0], np.int32)
    assert np.array_equal(turn_upright(picture, inexact), shown)
    assert np.array_equal(turn_upright(picture, np.zeros(9, np.int32)), picture)
    slanted = np.array([46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30], np.int32)
    assert turn_upright(picture, slanted) is picture


class FrameWithUnknownSideData:
    """A frame whose side data this PyAV has no name for."""

    def __init__(self, rotation: int) -> None:
        self.rotation = rotation

    @property
    def side_data(self) -> None:
        raise ValueError("99 is not a valid Type")


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (-180, 2), (-90, -1), (45, 0)])
def test_rotation_with_unknown_side_data(rotation: int, turns: int) -> None:
    (picture,) = moving_texture(1)
    shown = turn_upright(picture, display_matrix(FrameWithUnknownSideData(rotation)))
    assert np.array_equal(shown, np.rot90(picture, turns))
