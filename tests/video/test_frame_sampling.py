"""Frame sampling against the recorded numbers of the published implementation."""

import pytest
from conftest import load_json

from transformers_videorefer.video.sampling import time_range_indices, uniform_indices


def test_uniform_rule_equals_all_recorded_cases() -> None:
    cases = load_json("preprocess/frame_sample.json")["uniform"]
    assert len(cases) > 1000
    for case in cases:
        assert uniform_indices(case["duration"], case["num_frames"]) == case["indices"], case


def test_short_video_repeats_frames() -> None:
    assert uniform_indices(1, 4) == [0, 0, 0, 0]
    # Parts of 1/2: midpoints 0.25, 0.75, ... 1.75; exact halves would go up.
    assert uniform_indices(3, 4) == [0, 1, 1, 2]
    assert uniform_indices(2, 2) == [0, 1]


@pytest.mark.parametrize(("num_total", "num_wanted"), [(0, 4), (4, 0), (-1, 2)])
def test_numbers_below_one(num_total: int, num_wanted: int) -> None:
    with pytest.raises(ValueError, match=f"`num_total` is {num_total} and `num_wanted` is {num_wanted}"):
        uniform_indices(num_total, num_wanted)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (0, 39)),
        (0.9, 2.3, (8, 22)),
        (2.3, 0.9, (8, 22)),
        (1.0, 1.0, (9, 19)),
        (-1.0, 1.5, (0, 14)),
        (1.5, None, (14, 39)),
        (None, 1.5, (0, 14)),
        (0.5, 99.0, (4, 39)),
        (-3.0, -2.0, (0, 9)),
    ],
)
def test_time_range(start: float | None, end: float | None, expected: tuple[int, int]) -> None:
    assert time_range_indices(40, 10.0, start, end) == expected


def test_time_range_without_frames() -> None:
    with pytest.raises(
        ValueError, match=r"`start_seconds` 60 .*holds no frame of a video of 40 frames .*4\.00 seconds"
    ):
        time_range_indices(40, 10.0, 60, None)
    with pytest.raises(ValueError, match="`end_seconds` 0.05"):
        time_range_indices(40, 10.0, None, 0.05)


def test_time_range_needs_a_rate() -> None:
    assert time_range_indices(40, None, None, None) == (0, 39)
    with pytest.raises(ValueError, match="Pass `fps`"):
        time_range_indices(40, None, 1.0, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["start_seconds", "end_seconds"])
def test_range_that_is_no_number(name, value):
    ends = {"start_seconds": None, "end_seconds": None, name: value}
    with pytest.raises(ValueError, match=f"`{name}` is {value}"):
        time_range_indices(10, 5.0, **ends)
