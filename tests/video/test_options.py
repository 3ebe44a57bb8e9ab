"""Options and descriptions of the videos of a call."""

from pathlib import Path

import pytest
from transformers.video_utils import VideoMetadata

from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.options import (
    check_scene_lengths,
    describe_video,
    flatten_metadata,
    spread_option,
)


def test_spread_option() -> None:
    assert spread_option("fps", 3, 2) == [3, 3]
    assert spread_option("fps", [3, None], 2) == [3, None]
    with pytest.raises(ValueError, match="`fps` has 1 values for 2 videos"):
        spread_option("fps", [3], 2)


def test_metadata_lists() -> None:
    one, two = {"fps": 3}, VideoMetadata(total_num_frames=4)
    assert flatten_metadata(None) is None
    assert flatten_metadata(one) == [one]
    assert flatten_metadata(two) == [two]
    assert flatten_metadata([one, two]) == [one, two]
    assert flatten_metadata([[one], [], (two,)]) == [one, two]


def test_scene_lengths() -> None:
    check_scene_lengths([])
    check_scene_lengths([3, 3], 3)
    with pytest.raises(ValueError, match="Videos of 3, 3, 4 frames cannot share a batch"):
        check_scene_lengths([3, 3, 4])
    with pytest.raises(ValueError, match="a video needs at least 2 frames, got 1"):
        check_scene_lengths([1, 1], 2)


def test_describe_video(reference: Path) -> None:
    with open_video(reference / "media/frames") as reader:
        described = describe_video(reader)
        assert [described[name] for name in ("total_num_frames", "fps", "frames_indices")] == [10, None, None]
        numbers = list(range(5, 15))
        described = describe_video(reader, {"frames_indices": numbers, "fps": 6.0})
        assert [described[name] for name in ("total_num_frames", "fps", "frames_indices")] == [15, 6.0, numbers]
