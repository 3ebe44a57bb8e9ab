"""The mask of one frame of a region in pixels and on the patch grid."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import load_arrays
from PIL import Image

from transformers_videorefer.regions.form import RegionFrame, parse_region
from transformers_videorefer.regions.grid import decode_mask, grid_mask


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BOX = [1, 2, 30, 40]


def frame_of(size: list[int] | None = None, label: int | None = None, **form: Any) -> RegionFrame:
    entry = {"frame_index": 12, "size": size, "label": label, **form}
    (frame,) = parse_region({"frames": [entry]}).frames
    return frame


def decode(height: int, width: int, **entry: Any) -> np.ndarray:
    return decode_mask(frame_of(**entry), height=height, width=width)


# Masks in pixels


def test_mask_of_the_frame_is_taken_as_it_is() -> None:
    mask = np.arange(6).reshape(2, 3) % 2 == 1
    assert np.array_equal(decode(2, 3, mask=mask), mask)
    assert np.array_equal(decode(2, 3, mask=mask * 255), mask)
    assert np.array_equal(decode(2, 3, mask=np.arange(6).reshape(2, 3), label=4), np.arange(6).reshape(2, 3) == 4)
    assert decode(2, 3, rle={"size": [2, 3], "counts": [1, 2, 3]}).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_null_mask_is_empty_on_the_frame() -> None:
    mask = decode(2, 3, rle=None)
    assert mask.shape == (2, 3)
    assert not mask.any()


@pytest.mark.parametrize("kind", ["mask", "rle", "picture"])
def test_masks_of_another_size_need_it_stated(kind: str, tmp_path) -> None:
    Image.new("L", (6, 4), 255).save(tmp_path / "mask.png")
    entry = {
        "mask": {"mask": np.ones((4, 6))},
        "rle": {"rle": {"size": [4, 6], "counts": [0, 24]}},
        "picture": {"mask": tmp_path / "mask.png"},
    }[kind]
    with pytest.raises(
        ValueError,
        match=r"^the mask has height 4 and width 6 but the frame has 2 and 3\. .*\"size\": \[4, 6\]",
    ):
        decode(2, 3, **entry)
    # Stated, the mask is taken on its own grid.
    assert decode(2, 3, size=[4, 6], **entry).shape == (4, 6)
    with pytest.raises(ValueError, match=r"^the mask has height 4 and width 6 but its `size` says \[2, 3\]"):
        decode(2, 3, size=[2, 3], **entry)
    with pytest.raises(ValueError, match=r"^`size` \[4, 6\] and the frame \[3, 2\] .* aspect ratio"):
        decode(3, 2, size=[4, 6], **entry)


@pytest.mark.parametrize(
    "entry",
    [{"mask": np.ones((100, 100))}, {"box": BOX}, {"polygon": [[0, 0, 9, 0, 9, 9]]}],
    ids=["mask", "box", "polygon"],
)
def test_aspect_ratios_agree_within_two_percent(entry: dict) -> None:
    for frame in ((100, 102), (102, 100), (500, 510)):
        assert decode(*frame, size=[100, 100], **entry).any()
    for frame in ((100, 103), (103, 100)):
        with pytest.raises(ValueError, match=r"differ in aspect ratio by more than 2%.*rotation"):
            decode(*frame, size=[100, 100], **entry)


def test_shapes_are_scaled_to_the_frame() -> None:
    # Twice the size: the box of pixels 1..2 x 2..3 becomes pixels 2..5 x 4..7.
    assert np.argwhere(decode(20, 20, size=[10, 10], box=[1, 2, 3, 4])).min(axis=0).tolist() == [4, 2]
    assert np.argwhere(decode(20, 20, size=[10, 10], box=[1, 2, 3, 4])).max(axis=0).tolist() == [7, 5]
    doubled = decode(20, 20, polygon=[[2, 2, 16, 2, 16, 12]])
    assert np.array_equal(decode(20, 20, size=[10, 10], polygon=[[1, 1, 8, 1, 8, 6]]), doubled)
    doubled = decode(20, 20, scribble={"points": [[4, 4], [10, 8]], "width": 6})
    assert np.array_equal(decode(20, 20, size=[10, 10], scribble={"points": [[2, 2], [5, 4]], "width": 3}), doubled)


def test_size_1_1_means_coordinates_from_0_to_1() -> None:
    assert np.array_equal(decode(20, 40, size=[1, 1], box=[0.25, 0.5, 0.5, 1]), decode(20, 40, box=[10, 10, 20, 20]))
    assert np.array_equal(
        decode(20, 40, size=[1, 1], polygon=[[0.25, 0.5, 0.5, 0.5, 0.5, 1]]),
        decode(20, 40, polygon=[[10, 10, 20, 10, 20, 20]]),
    )
    # The stroke width is in pixels of the frame all the same.
    assert np.array_equal(
        decode(20, 40, size=[1, 1], scribble={"points": [[0.25, 0.5], [0.5, 0.75]], "width": 3}),
        decode(20, 40, scribble={"points": [[10, 10], [20, 15]], "width": 3}),
    )
    with pytest.raises(ValueError, match="^`width` of `scribble` is 0.1, but it is counted in pixels"):
        decode(20, 40, size=[1, 1], scribble={"points": [[0.25, 0.5]], "width": 0.1})


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("box", [0.1, 0.1, 0.9, 0.9]),
        ("box", [0, 0, 0.5, 1]),
        ("polygon", [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]]),
        ("polygon", [[0, 0, 1, 0, 1, 1], [0, 0, 0.5, 0, 0.5, 1]]),
        ("scribble", {"points": [[0.2, 0.3], [0.8, 0.3]], "width": 12}),
    ],
)
def test_fractions_of_the_frame_need_their_size(form: str, value: Any) -> None:
    for height, width in ((48, 64), (4, 9), (9, 1)):
        with pytest.raises(ValueError, match=rf'^all numbers of `{form}` lie between 0 and 1.*`"size": \[1, 1\]`'):
            decode(height, width, **{form: value})
    assert decode(48, 64, size=[1, 1], **{form: value}).sum() > 100
    # On a frame of few pixels, and with the frame's own size, they are pixels.
    decode(8, 8, **{form: value})
    decode(48, 64, size=[48, 64], **{form: value})


def test_shapes_in_the_first_pixel() -> None:
    # Whole numbers, also as floats from a table, mean pixels; so does a single point.
    for box in ([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0], np.array([0, 0, 1, 1])):
        assert np.argwhere(decode(48, 64, box=box)).tolist() == [[0, 0]]
    assert decode(48, 64, polygon=[[0, 0, 1, 0, 1, 1, 0, 1]]).sum() == 1
    assert decode(48, 64, scribble={"points": [[0.5, 0.5]], "width": 1}).sum() == 1
    # A shape that only begins in the first pixel is no fraction, nor is one that begins outside.
    assert decode(48, 64, box=[0.2, 0.2, 1.6, 1.6]).sum() == 4
    assert decode(48, 64, box=[-0.5, 0.2, 0.9, 0.9]).sum() == 1
    assert decode(48, 64, polygon=[[0.1, 0.1, 0.9, 0.1, 0.9, 0.9], [10, 10, 20, 10, 20, 20]]).sum() > 20


def test_box_may_overshoot_by_one_pixel() -> None:
    assert decode(20, 40, box=[-1, -1, 41, 21]).all()
    for box in ([-1.1, 0, 10, 10], [0, -1.1, 10, 10], [0, 0, 41.1, 10], [0, 0, 10, 21.1], [0, 0, 400, 200]):
        with pytest.raises(ValueError, match="^`box` reaches more than 1 pixel outside .* height 20 and width 40"):
            decode(20, 40, box=box)
    # Measured in pixels of the frame, also where the numbers refer to another picture.
    assert decode(20, 40, size=[1, 1], box=[-0.02, 0, 1.02, 1]).all()
    with pytest.raises(ValueError, match="`box` reaches more than 1 pixel outside"):
        decode(20, 40, size=[1, 1], box=[0, 0, 1.03, 1])


def test_scribble_may_overshoot_by_one_pixel() -> None:
    assert decode(20, 40, scribble={"points": [[41, 21]], "width": 1})[19, 39]
    with pytest.raises(ValueError, match="`scribble` reaches more than 1 pixel outside .*x = 50, y = 3"):
        decode(20, 40, scribble={"points": [[1, 1], [50, 3]], "width": 1})


def test_polygon_may_leave_the_frame_but_not_by_far() -> None:
    assert decode(20, 40, polygon=[[-400, -400, 400, -400, 400, 400, -400, 400]]).all()
    with pytest.raises(ValueError, match="`polygon` reaches more than 400 pixels outside"):
        decode(20, 40, polygon=[[0, 0, 1e9, 0, 0, 5]])


def test_broken_counts_name_sample_region_and_frame() -> None:
    with pytest.raises(ValueError, match="^`rle` counts cover 5 pixels"):
        decode(2, 3, rle={"size": [2, 3], "counts": [2, 3]})


def test_missing_picture_names_sample_region_and_frame() -> None:
    with pytest.raises(FileNotFoundError, match="^`mask` file 'no/such.png' does not exist"):
        decode(2, 3, mask="no/such.png")


def test_scribble_on_a_4k_frame_stays_small_in_memory() -> None:
    frame = frame_of(scribble={"points": [[0, 0], [3840, 2160], [0, 2160], [3840, 0]], "width": 40})
    tracemalloc.start()
    mask = decode_mask(frame, height=2160, width=3840)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mask[0, 0] and mask[1080, 1920] and not mask[1080, 200]
    assert peak < 100e6  # a few bytes for each of the 8.3 million pixels


# Masks on the patch grid


RECORDED_MASKS = ("same_size", "landscape", "portrait", "large_336", "noise_mask", "upsampled_mask", "real_grid_27",
                  "first_mask_empty", "one_pixel", "thin_line", "values_255", "one_feat_many_masks", "full_mask")  # fmt: skip


@pytest.mark.parametrize("name", RECORDED_MASKS)
def test_cells_are_the_recorded_ones(name: str) -> None:
    arrays = load_arrays("modules/mask_pooling.npz")
    masks, cells = arrays[f"{name}/mask"] > 0, arrays[f"{name}/cells"].astype(bool)
    for mask, expected in zip(masks, cells, strict=True):
        assert np.array_equal(grid_mask(mask, expected.shape, keep_vanished=True), expected)


def published_cells(mask: np.ndarray, grid_size: int) -> np.ndarray:
    resized = F.interpolate(
        torch.from_numpy(mask.astype(np.float32))[None, None],
        size=(grid_size, grid_size),
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )
    return (resized[0, 0] > 0).numpy()


@pytest.mark.parametrize("grid_size", [1, 4, 16, 27])
def test_cells_equal_interpolation(grid_size: int) -> None:
    generator = np.random.default_rng(0)
    # Sizes up, down and equal; 285 and 375 read pixels with weights around the rounding error of 32 bits.
    for height, width in ((1, 1), (3, 2), (27, 27), (20, 31), (285, 375), (405, 855), (720, 1280), (1080, 1920)):
        for share in (0.0, 0.001, 0.05, 0.5, 1.0):
            mask = generator.random((height, width)) < share
            assert np.array_equal(
                grid_mask(mask, (grid_size, grid_size), keep_vanished=True), published_cells(mask, grid_size)
            )


def test_every_height_reads_the_pixels_that_interpolation_reads() -> None:
    for height in range(1, 600):
        mask = np.random.default_rng(height).random((height, 27)) < 0.5
        assert np.array_equal(grid_mask(mask, (27, 27), keep_vanished=True), published_cells(mask, 27))


def test_a_vanished_mask_counts_in_the_cell_under_its_centre() -> None:
    mask = np.zeros((64, 96), dtype=bool)
    mask[19:22, 26:30] = True  # cells are 16 x 24 pixels; centres of cells lie at 8, 24, ... and 12, 36, ...
    assert not published_cells(mask, 4).any()
    assert not grid_mask(mask, (4, 4), keep_vanished=True).any()
    assert np.argwhere(grid_mask(mask, (4, 4), keep_vanished=False)).tolist() == [[1, 1]]
    for row, column in ((0, 0), (63, 95), (0, 95), (63, 0)):
        corner = np.zeros((64, 96), dtype=bool)
        corner[row, column] = True
        assert np.argwhere(grid_mask(corner, (4, 4), keep_vanished=False)).tolist() == [[row // 16, column // 24]]


def test_a_mask_that_hits_a_cell_gets_no_other() -> None:
    mask = np.zeros((64, 96), dtype=bool)
    mask[7:9, 11:13] = True
    mask[63, 95] = True
    assert np.argwhere(grid_mask(mask, (4, 4), keep_vanished=False)).tolist() == [[0, 0]]


def test_an_empty_mask_has_no_cell() -> None:
    for keep_vanished in (False, True):
        assert not grid_mask(np.zeros((64, 96), dtype=bool), (4, 4), keep_vanished=keep_vanished).any()


def test_a_grid_need_not_be_square() -> None:
    # The frame is cut into 2 x 3 cells of 32 x 32 pixels; the object covers the last two of the upper row.
    mask = np.zeros((64, 96), dtype=bool)
    mask[:32, 40:] = True
    assert grid_mask(mask, (2, 3), keep_vanished=False).tolist() == [[False, True, True], [False, False, False]]
    point = np.zeros((64, 96), dtype=bool)
    point[40, 5] = True
    assert np.argwhere(grid_mask(point, (2, 3), keep_vanished=False)).tolist() == [[1, 0]]
