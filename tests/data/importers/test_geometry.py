import pytest

from transformers_videorefer.data.importers.geometry import interpolate_angle, rotated_box


def test_a_quarter_turn_clockwise_about_the_corner():
    # In a picture y points down: what lies right of the pivot comes to lie below it.
    points = rotated_box([10, 10, 30, 20], 90, pivot=(10, 10))
    assert points == pytest.approx([10, 10, 10, 30, 0, 30, 0, 10])


def test_a_half_turn_about_the_centre_gives_the_same_corners():
    assert rotated_box([10, 10, 30, 20], 180, pivot=(20, 15)) == pytest.approx([30, 20, 10, 20, 10, 10, 30, 10])


@pytest.mark.parametrize(
    ("start", "end", "share", "expected"),
    [(0, 90, 0.5, 45), (350, 10, 0.75, 5), (10, 350, 0.75, 355), (-170, 170, 0.25, 185)],
)
def test_angles_take_the_shorter_way(start, end, share, expected):
    assert interpolate_angle(start, end, share) == pytest.approx(expected)
