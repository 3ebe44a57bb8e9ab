"""Frames with outlines: which are chosen, and that lines stand where the regions are."""

import numpy as np
import pytest
from PIL import Image

from transformers_videorefer.evaluation.outlined_frames import OUTLINE_COLORS, plan_frames, show_frames


RED, BLUE = (np.array(OUTLINE_COLORS[name]) for name in ("red", "blue"))


@pytest.mark.parametrize(
    ("frames_of_region", "mode", "num_frames", "shown", "marked"),
    [
        # The first frame that shows all objects, alone.
        ([[9, 4, 6]], "single", 1, [4], [4]),
        ([[2, 4, 6], [4, 6]], "single", 1, [4], [4]),
        # No frame shows both: the first of each, although that is more than one.
        ([[2, 3], [8, 7]], "single", 1, [2, 7], [2, 7]),
        # Two scene frames are the midpoints of two halves of 0 to 10: 2.5 and 7.5, halves rounded up.
        ([[4]], "single", 3, [3, 4, 8], [4]),
        # 8 annotated frames, 4 wanted: midpoints 0.875, 2.625, 4.375, 6.125 of their positions.
        ([[0, 1, 2, 3, 4, 5, 6, 7]], "multi", 4, [1, 3, 4, 6], [1, 3, 4, 6]),
        # Few annotated frames are all marked, and scene frames fill up: 1.67, 5, 8.33.
        ([[5], [6]], "multi", 5, [2, 5, 6, 8], [5, 6]),
        # Even spreading would never show the second object, which has one frame.
        ([list(range(11)), [10]], "multi", 2, [0, 10], [0, 10]),
        # Without regions there are scene frames only.
        ([], "multi", 2, [3, 8], []),
    ],
)
def test_plan(frames_of_region: list, mode: str, num_frames: int, shown: list[int], marked: list[int]) -> None:
    assert plan_frames(frames_of_region, num_total=11, mode=mode, num_frames=num_frames) == (shown, marked)


def test_objects_that_cannot_all_be_shown() -> None:
    with pytest.raises(ValueError, match="`num_frames` is 1, but 2 objects"):
        plan_frames([[1], [2]], num_total=9, mode="multi", num_frames=1)


def video(num_frames: int = 6) -> dict:
    frames = np.repeat(np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * 10, 300, axis=1)
    return {"type": "video", "video": np.broadcast_to(frames, (num_frames, 300, 600, 3)).copy()}


def region(box: list[int], *frames: int) -> dict:
    return {"type": "region", "frames": [{"frame_index": index, "box": box} for index in frames]}


def test_lines_stand_at_the_border_of_each_region_on_marked_frames_alone() -> None:
    parts = [video(), region([100, 100, 200, 200], 1, 4), region([400, 50, 500, 150], 4)]
    (shown,) = show_frames([("row", parts)], mode="multi", num_frames=4)
    assert shown.frame_indices == [1, 4]  # midpoints 1.25 and 3.75 of two scene frames are the same frames
    first, second = (np.asarray(picture).astype(int) for picture in shown.pictures)
    assert first.shape == (300, 600, 3)
    for picture in (first, second):
        assert np.abs(picture[150, 100] - RED).max() < 40  # left border of the first box
        assert np.abs(picture[200, 150] - RED).max() < 40
    assert np.abs(second[100, 500] - BLUE).max() < 40
    assert np.array_equal(first[100, 500], [10, 10, 10])  # the second object is not annotated there
    # Neither inside nor around is anything changed, and there are no labels.
    assert (second[110:190, 110:190] == 40).all()
    assert (second[:, 220:380] == 40).all() and (second[:85] == second[0, 0]).all(axis=-1)[:, :380].all()


def test_single_mode_shows_one_frame_and_scene_frames_stay_clean() -> None:
    parts = [video(), region([100, 100, 200, 200], 4, 1)]
    (alone,) = show_frames([("row", parts)], mode="single", num_frames=1)
    assert alone.frame_indices == [1]
    (among,) = show_frames([("row", parts)], mode="single", num_frames=3)
    assert among.frame_indices == [1, 4]
    assert (np.asarray(among.pictures[1]) == 40).all()  # annotated too, but not the first
    (plain,) = show_frames([("row", parts)], mode="single", num_frames=3, draws_outlines=False)
    assert plain.frame_indices == [1, 4]
    assert (np.asarray(plain.pictures[0]) == 10).all()


def test_small_frames_are_enlarged() -> None:
    frames = {"type": "video", "video": np.zeros((2, 32, 64, 3), dtype=np.uint8)}
    (shown,) = show_frames([("row", [frames, region([8, 8, 24, 24], 0)])], mode="single", num_frames=1)
    assert shown.pictures[0].size == (448, 224)
    assert np.abs(np.asarray(shown.pictures[0]).astype(int)[7 * 16, 7 * 8] - RED).max() < 40


def test_images_and_rows_without_pictures() -> None:
    image = {"type": "image", "image": Image.new("RGB", (500, 400), (7, 7, 7))}
    box = {"type": "region", "frames": [{"box": [100, 100, 200, 200]}]}
    shown, nothing = show_frames([("a", [image, box]), ("b", [])], mode="multi", num_frames=16)
    assert shown.is_image and len(shown.pictures) == 1
    assert np.abs(np.asarray(shown.pictures[0]).astype(int)[150, 100] - RED).max() < 40
    assert nothing.pictures == []


def test_metadata_says_where_frames_come_from() -> None:
    clip = {**video(), "fps": 3.0}
    (shown,) = show_frames([("row", [clip, region([10, 10, 99, 99], 1, 4)])], mode="multi", num_frames=2)
    assert shown.metadata() == {"total_num_frames": 6, "fps": 3.0, "duration": 2.0, "frames_indices": [1, 4]}


def test_rows_of_one_video_have_regions_of_their_own() -> None:
    clip = video()
    rows = [(name, [clip, region(box, 1)]) for name, box in (("a", [100, 100, 200, 200]), ("b", [300, 100, 400, 200]))]
    together = show_frames(rows, mode="single", num_frames=1)
    for row, one in zip(rows, together, strict=True):
        (alone,) = show_frames([row], mode="single", num_frames=1)
        assert np.array_equal(np.asarray(alone.pictures[0]), np.asarray(one.pictures[0]))
    assert not np.array_equal(np.asarray(together[0].pictures[0]), np.asarray(together[1].pictures[0]))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([video(), video()], "row 7 has 2 videos and images"),
        ([region([0, 0, 9, 9], 0)], "row 7 has 0 videos and images"),
        ([video(), *[region([0, 0, 9, 9], 0)] * 9], "row 7 has 9 objects, but there are 8 colors"),
        ([video(), region([0, 0, 9, 9], 6)], "row 7, region 0, frame 6: the frame lies outside"),
        ([video(), region([0, 0, 9, 9], 1), region([0, 0, 9, 9], 2)], "row 7: `num_frames` is 1"),
    ],
)
def test_rows_that_cannot_be_shown(parts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        show_frames([("row 7", parts)], mode="multi", num_frames=1)
