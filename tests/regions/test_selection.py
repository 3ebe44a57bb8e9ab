"""Which frames of a region are used, what happens to empty masks, and what a long masklet costs."""

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from conftest import load_json
from PIL import Image

from transformers_videorefer.regions import grid
from transformers_videorefer.regions import rle as regions_rle
from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.form import parse_region
from transformers_videorefer.regions.selection import (
    check_empty_masks,
    frame_to_grid,
    no_mask_left_message,
    num_tokens,
    select_frames,
)
from transformers_videorefer.video.sampling import uniform_indices


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

AT = "sample 0, region 1"
BOX = [1, 2, 30, 40]
VISIBLE = {"size": [2, 3], "counts": "06"}
EMPTY = {"size": [2, 3], "counts": "6"}


def no_times() -> np.ndarray:
    raise AssertionError("no time was asked for")


def select(
    region: dict,
    *,
    num_frames: int = 100,
    frame_times: Callable[[], np.ndarray] = no_times,
    max_frames: int | None = 32,
    empty_masks: str = "error",
    is_image: bool = False,
) -> list[int]:
    """Return the positions of the frames that are used."""
    with located(sample=0, region=1):
        selected = select_frames(
            parse_region(region),
            num_frames=num_frames,
            frame_times=frame_times,
            max_frames=max_frames,
            empty_masks=empty_masks,
            is_image=is_image,
        )
    return [index for index, _ in selected]


def boxes(*indices: int) -> dict:
    return {"frames": [{"frame_index": index, "box": BOX} for index in indices]}


def to_grid(
    region: dict, *, num_frames: int = 100, max_frames: int | None = 32, empty_masks: str = "error", **size: int
):
    parsed = parse_region(region)
    with located(sample=0, region=1):
        selected = select_frames(
            parsed, num_frames=num_frames, frame_times=no_times, max_frames=max_frames, empty_masks=empty_masks
        )
    size = {"height": 40, "width": 40, "grid": (4, 4)} | size
    indices, grids = [], []
    for index, entry in selected:
        with located(sample=0, region=1, frame=index):
            cells = frame_to_grid(parsed, entry, empty_masks=empty_masks, **size)
        if cells is not None:
            indices.append(index)
            grids.append(cells)
    return indices, np.array(grids)


# Which frames are used


def test_uniform_indices_are_the_recorded_ones() -> None:
    for case in load_json("preprocess/frame_sample.json")["uniform"]:
        assert uniform_indices(case["duration"], case["num_frames"]) == case["indices"]


def test_frames_keep_the_order_given() -> None:
    assert select(boxes(40, 3, 99, 3)) == [40, 3, 99, 3]


def test_midpoints_of_equal_parts_are_taken() -> None:
    # 0..9 in 3 parts of 3: midpoints 1.5, 4.5 and 7.5, of which exact halves go up.
    assert select(boxes(*range(50, 60)), max_frames=3) == [52, 55, 58]
    assert select(boxes(*range(59, 49, -1)), max_frames=3) == [57, 54, 51]
    assert select(boxes(*range(50, 60)), max_frames=10) == list(range(50, 60))
    assert select(boxes(*range(50, 60)), max_frames=None) == list(range(50, 60))


@pytest.mark.parametrize("num_visible", range(1, 80))
def test_no_frame_is_repeated(num_visible: int) -> None:
    kept = select(boxes(*range(num_visible)), max_frames=7)
    assert len(kept) == len(set(kept)) == min(num_visible, 7)


def test_empty_entries_of_a_masklet_are_not_visible() -> None:
    masks = [None, VISIBLE, EMPTY, VISIBLE, np.zeros((2, 3)), VISIBLE]
    for empty_masks in ("error", "drop"):
        assert select({"masks": masks}, num_frames=6, empty_masks=empty_masks) == [1, 3, 5]
        # 0..2 in 2 parts of 1: midpoints 0.5 and 1.5, so the second and third visible one.
        assert select({"masks": masks}, num_frames=6, max_frames=2, empty_masks=empty_masks) == [3, 5]
    assert select({"masks": masks}, num_frames=6, empty_masks="keep") == [0, 1, 2, 3, 4, 5]


def test_empty_pictures_do_not_shift_the_midpoints(tmp_path) -> None:
    masks = []
    for position in range(12):
        masks.append(tmp_path / f"{position}.png")
        Image.new("L", (3, 2), 255 if position % 2 else 0).save(masks[-1])
    # Visible: 1, 3, 5, 7, 9, 11; 0..5 in 2 parts of 2.5: midpoints 1.25 and 3.75.
    assert select({"masks": masks}, num_frames=12, max_frames=2) == [3, 9]
    frames = [{"frame_index": position, "mask": str(path)} for position, path in enumerate(masks)]
    assert select({"frames": frames}, num_frames=12, max_frames=2, empty_masks="drop") == [3, 9]


def test_pictures_stay_closed_where_all_fit() -> None:
    frames = [{"frame_index": position, "mask": "no/such/file.png"} for position in range(5)]
    assert select({"frames": frames}, max_frames=5) == [0, 1, 2, 3, 4]
    assert select({"frames": frames}, max_frames=2) == [1, 3]
    assert select({"masks": ["no/such/file.png"] * 5, "frame_indices": range(5)}, max_frames=5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("empty", [{"rle": None}, {"rle": EMPTY}, {"mask": np.zeros((2, 3))}])
def test_empty_frames(empty: dict) -> None:
    region = {"frames": [{"frame_index": 5, "box": BOX}, {"frame_index": 12, **empty}]}
    with pytest.raises(ValueError, match=f'^{AT}, frame 12: the mask is empty.*`empty_masks="drop"`.*"keep"'):
        select(region)
    assert select(region, empty_masks="drop") == [5]
    assert select(region, empty_masks="keep") == [5, 12]


def test_a_region_without_mask_is_an_error_unless_kept() -> None:
    masklet = {"masks": [None, EMPTY], "frame_indices": [4, 7]}
    frames = {"frames": [{"frame_index": 4, "rle": None}, {"frame_index": 7, "rle": EMPTY}]}
    for region, empty_masks in ((masklet, "error"), (masklet, "drop"), (frames, "drop")):
        with pytest.raises(ValueError, match=f'^{AT}: no mask is left, all 2 given are empty.*"keep"'):
            select(region, empty_masks=empty_masks)
    assert select(masklet, empty_masks="keep") == select(frames, empty_masks="keep") == [4, 7]


def test_masklet_without_indices_needs_one_mask_a_frame() -> None:
    region = {"masks": np.ones((3, 4, 5))}
    assert select(region, num_frames=3) == [0, 1, 2]
    assert select(region | {"frame_indices": [9, 4, 0]}, num_frames=10) == [9, 4, 0]
    with pytest.raises(
        ValueError, match=f"^{AT}: `masks` has 3 masks but the video has 10 frames. Pass `frame_indices`"
    ):
        select(region, num_frames=10)
    with pytest.raises(ValueError, match="has 3 masks but the image has 1 frame. "):
        select(region, num_frames=1, is_image=True)


def test_frames_outside_the_video() -> None:
    assert select(boxes(99)) == [99]
    with pytest.raises(
        ValueError, match=f"^{AT}, frame 100: the frame lies outside.* a video of 100 frames .0 to 99."
    ):
        select(boxes(3, 100))
    with pytest.raises(ValueError, match="frame 100: the frame lies outside"):
        select({"masks": [VISIBLE, None], "frame_indices": [0, 100]})


def test_images_need_no_frame_index() -> None:
    assert select({"frames": [{"box": BOX}]}, num_frames=1, is_image=True) == [0]
    assert select(boxes(0), num_frames=1, is_image=True) == [0]
    assert select({"masks": np.ones((1, 4, 5))}, num_frames=1, is_image=True) == [0]
    with pytest.raises(ValueError, match=f"^{AT}, frame 1: .*an image, whose only frame is 0"):
        select(boxes(1), num_frames=1, is_image=True)
    with pytest.raises(ValueError, match=f"^{AT}: `time_seconds` is given, but an image has no times"):
        select({"frames": [{"time_seconds": 0.0, "box": BOX}]}, num_frames=1, is_image=True)


def test_videos_need_a_frame_index_or_a_time() -> None:
    with pytest.raises(ValueError, match=rf"^{AT}, frames\[1\]: the video has 100 frames, but neither `frame_index`"):
        select({"frames": [{"frame_index": 0, "box": BOX}, {"box": BOX}]})


@pytest.mark.parametrize(
    ("seconds", "index"), [(0, 0), (0.099, 0), (0.1, 1), (0.1 + 0.2, 2), (0.49, 2), (0.5, 3), (0.6, 3), (0.7, 3)]
)
def test_time_picks_the_last_frame_shown(seconds: float, index: int) -> None:
    # Variable frame rate: the third frame stays for 0.2 s; the last one counts as long as the one before it.
    times = np.array([0.0, 0.1, 0.3, 0.5])
    region = {"frames": [{"time_seconds": seconds, "box": BOX}]}
    assert select(region, num_frames=4, frame_times=lambda: times) == [index]


def test_time_that_is_a_rounded_frame_time_picks_that_frame() -> None:
    times = np.arange(60) / 30
    region = {"frames": [{"time_seconds": round(index / 30, 6), "box": BOX} for index in range(60)]}
    assert select(region, num_frames=60, frame_times=lambda: times, max_frames=None) == list(range(60))


@pytest.mark.parametrize("seconds", [-0.01, 0.71, 100.0])
def test_time_outside_the_video(seconds: float) -> None:
    region = {"frames": [{"frame_index": 0, "box": BOX}, {"time_seconds": seconds, "box": BOX}]}
    times = np.array([0.0, 0.1, 0.3, 0.5])
    with pytest.raises(ValueError, match=rf"^{AT}, frames\[1\]: `time_seconds` .* lies outside .* 0 to 0.7 seconds"):
        select(region, num_frames=4, frame_times=lambda: times)


def test_time_in_a_video_of_one_frame() -> None:
    region = {"frames": [{"time_seconds": 0.5, "box": BOX}]}
    assert select(region, num_frames=1, frame_times=lambda: np.zeros(1)) == [0]


def test_empty_frame_given_by_time_is_named_by_its_position() -> None:
    region = {"frames": [{"time_seconds": 0.3, "rle": None}]}
    with pytest.raises(ValueError, match=f"^{AT}, frame 2: the mask is empty"):
        select(region, num_frames=4, frame_times=lambda: np.array([0.0, 0.1, 0.3, 0.5]))


def test_broken_counts_name_sample_region_and_frame() -> None:
    with pytest.raises(ValueError, match=f"^{AT}, frame 4: `rle` counts"):
        select({"masks": [VISIBLE, {"size": [2, 3], "counts": "`"}], "frame_indices": [3, 4]})


def test_unknown_options() -> None:
    with pytest.raises(ValueError, match='`empty_masks` must be "error", "drop" or "keep", got \'skip\''):
        select(boxes(0), empty_masks="skip")
    for offered in ("error", "drop", "keep"):
        check_empty_masks(offered)
    with pytest.raises(ValueError, match="`num_region_frames` is 0"):
        select(boxes(0), max_frames=0)


def test_num_tokens_is_the_smaller_number() -> None:
    assert [num_tokens(frames, 4) for frames in (1, 3, 4, 5, 32)] == [1, 3, 4, 4, 4]


# All together


def test_frames_become_cells() -> None:
    indices, grids = to_grid(
        {"frames": [{"frame_index": 7, "box": [0, 0, 20, 40]}, {"frame_index": 2, "box": [0, 0, 40, 10]}]}
    )
    assert indices == [7, 2]
    assert grids.dtype == bool
    assert grids.tolist() == [[[True, True, False, False]] * 4, [[True] * 4] + [[False] * 4] * 3]


@pytest.mark.parametrize(
    "empty",
    [
        {"box": [3.6, 3.6, 4.4, 4.4]},  # holds no pixel centre
        {"polygon": [[50, 50, 60, 50, 60, 60]]},  # beside the frame
        {"mask": Image.new("L", (40, 40))},
        {"rle": None},
    ],
    ids=["box", "polygon", "picture", "null"],
)
def test_masks_that_turn_out_to_be_empty(empty: dict) -> None:
    region = {"frames": [{"frame_index": 5, "box": BOX}, {"frame_index": 12, **empty}]}
    with pytest.raises(ValueError, match=f'^{AT}, frame 12: the mask is empty.*`empty_masks="drop"`'):
        to_grid(region)
    assert to_grid(region, empty_masks="drop")[0] == [5]
    indices, grids = to_grid(region, empty_masks="keep")
    assert indices == [5, 12]
    assert grids.any(axis=(1, 2)).tolist() == [True, False]


def test_empty_pictures_of_a_masklet_are_not_visible() -> None:
    pictures = [Image.new("L", (40, 40), level) for level in (0, 255)]
    assert to_grid({"masks": pictures}, num_frames=2)[0] == [1]
    assert to_grid({"masks": pictures}, num_frames=2, empty_masks="keep")[0] == [0, 1]
    assert to_grid({"masks": pictures[:1]}, num_frames=1)[0] == []
    assert no_mask_left_message(1).startswith("no mask is left, all 1 given are empty. Pass a frame")


def test_small_masks_vanish_only_when_the_published_rule_is_kept() -> None:
    region = {"frames": [{"frame_index": 0, "box": [0, 0, 1, 1]}]}
    assert to_grid(region)[1].sum() == 1
    assert to_grid(region, empty_masks="drop")[1].sum() == 1
    indices, grids = to_grid(region, empty_masks="keep")
    assert indices == [0]
    assert not grids.any()


@pytest.mark.parametrize(
    "case", [case for case in load_json("e2e/cases.json") if case.get("annotation")], ids=lambda case: case["name"]
)
def test_recorded_cases_select_the_recorded_cells(case: dict) -> None:
    counts = [count for sample in case["mask_cells_selected"] for count in sample]
    found = []
    for annotation in case["annotation"]:
        frames = [{"frame_index": int(key), "rle": entry["segmentation"]} for key, entry in annotation.items()]
        found.extend(
            to_grid({"frames": frames}, num_frames=40, empty_masks="keep", height=64, width=96)[1].sum(axis=(1, 2))
        )
    assert found == counts


# Cost


@pytest.fixture(scope="module")
def long_masklet() -> dict:
    """An object that moves through four minutes of 720p video and is hidden in every tenth frame."""
    coco_mask = pytest.importorskip("pycocotools.mask")
    y, x = np.mgrid[:720, :1280]
    rles = []
    for step in range(40):
        angle = np.arctan2(y - 360, x - 400 - 10 * step)
        inside = np.hypot(y - 360, x - 400 - 10 * step) < 200 + 20 * np.sin(23 * angle)
        rle = coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))
        rles.append({"size": [720, 1280], "counts": rle["counts"].decode()})
    hidden = {"size": [720, 1280], "counts": coco_mask.encode(np.zeros((720, 1280), np.uint8, "F"))["counts"].decode()}
    masks = [hidden if position % 10 == 0 else rles[position % 40] for position in range(7200)]
    return {"masks": masks, "frame_indices": list(range(7200))}


def test_a_long_masklet_costs_as_many_decoded_masks_as_frames_are_used(
    long_masklet: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def count(rle: dict) -> np.ndarray:
        decoded.append(rle)
        return regions_rle.decode_rle(rle)

    monkeypatch.setattr(grid, "decode_rle", count)
    start = time.perf_counter()
    indices, grids = to_grid(long_masklet, num_frames=7200, height=720, width=1280, grid=(27, 27))
    seconds = time.perf_counter() - start
    assert len(decoded) == len(indices) == len(grids) == 32
    assert grids.any(axis=(1, 2)).all()
    # The midpoints are those of the 6480 visible frames: number v of them is frame v + v // 9 + 1.
    assert indices == [v + v // 9 + 1 for v in uniform_indices(6480, 32)]
    assert seconds < 2  # a tenth of a second on an idle machine; decoding all masks would take many seconds


def test_other_frames_of_a_masklet_need_no_memory(long_masklet: dict) -> None:
    tracemalloc.start()
    to_grid(long_masklet, num_frames=7200, height=720, width=1280, grid=(27, 27))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # one decoded mask is 0.9 MB, all of them are 6.6 GB
