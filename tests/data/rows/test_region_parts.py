"""Regions of rows as parts of messages, and the choice of single frames."""

from typing import Any

import numpy as np
import pytest

from transformers_videorefer.data.rows.region_parts import draw_frames, frame_keys, keep_frame, region_part


RLE = {"size": [2, 2], "counts": [1, 3]}
EMPTY_RLE = {"size": [2, 2], "counts": [4]}


def frame(index: int, **form: Any) -> dict[str, Any]:
    return {"frame_index": index, "rle": None, "box": None, "size": None, **form}


def row_region(*frames: dict[str, Any], media: int | None = 0) -> dict[str, Any]:
    return {"object_id": "0", "media": media, "frames": list(frames)}


def part(*indices: int, hidden: tuple[int, ...] = (), rle: Any = RLE) -> dict[str, Any]:
    return region_part(row_region(*(frame(index, rle=None if index in hidden else rle) for index in indices)))


def test_masks_and_boxes_keep_their_frames_in_order() -> None:
    region = row_region(frame(5, rle=RLE), frame(2, box=[0.0, 1.0, 2.0, 3.0], size=[4, 4]))
    assert region_part(region) == {
        "type": "region",
        "object_id": "0",
        "media": 0,
        "frames": [
            {"frame_index": 5, "rle": RLE},
            {"frame_index": 2, "box": [0.0, 1.0, 2.0, 3.0], "size": [4, 4]},
        ],
    }


def test_absent_keys_may_be_none_empty_or_structs_of_none() -> None:
    region = row_region(frame(5, rle={"size": None, "counts": None}, box=[1.0, 1.0, 2.0, 2.0], size=[]), media=None)
    assert region_part(region) == {
        "type": "region",
        "object_id": "0",
        "frames": [{"frame_index": 5, "box": [1.0, 1.0, 2.0, 2.0]}],
    }


def test_a_null_segmentation_becomes_a_hidden_frame_of_a_masklet() -> None:
    assert region_part(row_region(frame(5, rle=RLE), frame(2))) == {
        "type": "region",
        "object_id": "0",
        "media": 0,
        "masks": [RLE, None],
        "frame_indices": [5, 2],
    }


def test_a_common_size_goes_with_the_masklet() -> None:
    region = region_part(
        row_region(frame(5, rle=RLE, size=[4, 4]), frame(2, size=[9, 9]), frame(3, rle=RLE, size=[4, 4]))
    )
    assert region["masks"] == [RLE, None, RLE]
    assert region["size"] == [4, 4]


def test_beside_boxes_and_several_sizes_a_null_stays_an_empty_mask() -> None:
    region = row_region(frame(5, box=[0.0, 0.0, 1.0, 1.0]), frame(2))
    assert region_part(region)["frames"] == [{"frame_index": 5, "box": [0, 0, 1, 1]}, {"frame_index": 2, "rle": None}]
    region = row_region(frame(5, rle=RLE, size=[2, 2]), frame(2), frame(3, rle=RLE))
    assert region_part(region)["frames"][1] == {"frame_index": 2, "rle": None}


def test_a_region_without_any_mask_is_a_masklet_that_is_never_visible() -> None:
    assert region_part(row_region(frame(5), frame(2)))["masks"] == [None, None]


def test_other_forms_pass() -> None:
    masks = np.ones((2, 4, 4), dtype=bool)
    assert region_part({"masks": masks, "media": None}) == {"type": "region", "masks": masks}


@pytest.mark.parametrize("region", [None, 3, {"frames": [None]}, {"frames": [4]}])
def test_something_else_is_refused(region: Any) -> None:
    with pytest.raises(TypeError, match="must be a dictionary"):
        region_part(region)


def test_one_frame_is_kept() -> None:
    frames, masks = part(5, 2, 9), part(5, 2, 9, hidden=(9,))
    assert frame_keys(frames) == frame_keys(masks) == [5, 2, 9]
    assert keep_frame(frames, 1)["frames"] == [{"frame_index": 2, "rle": RLE}]
    assert keep_frame(masks, 2) == {
        "type": "region",
        "object_id": "0",
        "media": 0,
        "masks": [None],
        "frame_indices": [9],
    }
    assert len(frames["frames"]) == 3
    arrays = keep_frame({"type": "region", "masks": np.arange(12).reshape(3, 2, 2)}, 2)
    assert arrays["frame_indices"] == [2]
    assert arrays["masks"].tolist() == [[[8, 9], [10, 11]]]


def test_times_stand_in_for_frame_numbers() -> None:
    region = {"frames": [{"time_seconds": 0.5, "rle": RLE}, {"frame_index": 3, "rle": RLE}]}
    assert frame_keys(region_part(region)) == [0.5, 3]


def by_number(name: str) -> float:
    """Prefer small frame numbers."""
    return float(name.split()[-1])


def by_last_digit(name: str) -> float:
    return float(name[-1])


def test_a_common_frame_is_drawn() -> None:
    regions = [part(9, 2, 4, 6), part(6, 1, 4)]
    assert draw_frames(regions, by_number) == [2, 2]  # frame 4
    assert draw_frames(regions, lambda name: -by_number(name)) == [3, 0]  # frame 6


def test_hidden_and_empty_frames_are_not_drawn() -> None:
    assert draw_frames([part(9, 2, 4, hidden=(2,))], by_number) == [2]
    assert draw_frames([part(4, 6), part(6, 4, hidden=(4,))], by_number) == [1, 0]
    empty = region_part(row_region(frame(1, rle=EMPTY_RLE), frame(2, rle={"size": [2, 2], "counts": "13"})))
    assert draw_frames([empty], by_number) == [1]


def test_without_a_common_frame_each_region_gets_its_own() -> None:
    assert draw_frames([part(9, 2), part(7, 3, 8)], by_last_digit) == [1, 1]


def test_where_nothing_is_visible_any_frame_will_do() -> None:
    assert draw_frames([part(9, 2, hidden=(9, 2))], by_last_digit) == [1]


def test_of_a_frame_that_comes_twice_the_first_counts() -> None:
    assert draw_frames([part(4, 4)], by_number) == [0]
