"""Run lengths against the COCO tools, against the recorded published masks, and by hand."""

import numpy as np
import pytest
from coco_strings import coco_encode, random_masks
from conftest import load_arrays, load_json
from pycocotools import mask as coco_mask

from transformers_videorefer.regions.rle import (
    decode_rle,
    encode_rle,
    encode_runs,
    rle_is_empty,
    rle_runs,
)


# pycocotools 2.0.11 has not followed a change of numpy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RECORDED = {entry["name"]: entry for entry in load_json("preprocess/ann_to_mask.json")}
RECORDED_RLE = [name for name, entry in RECORDED.items() if entry["ok"] and isinstance(entry["ann"], dict)]


@pytest.fixture(scope="module")
def recorded_masks() -> dict[str, np.ndarray]:
    return load_arrays("preprocess/ann_to_mask.npz")


def test_masks_are_encoded_as_by_the_coco_tools() -> None:
    for mask in [*random_masks(0, 200), np.ones((1, 1), bool), np.zeros((1, 1), bool), np.ones((400, 700), bool)]:
        assert encode_rle(mask) == coco_encode(mask)


def test_runs_are_encoded_as_by_the_coco_tools() -> None:
    runs = [0, 5, 40_000, 0, 17, 300, 1, 2**20]
    size = [1, sum(runs)]
    expected = coco_mask.frPyObjects({"size": size, "counts": runs}, *size)
    assert encode_runs(runs, size)["counts"] == expected["counts"].decode()


@pytest.mark.parametrize("mask", [np.zeros((0, 3)), np.zeros(4), np.ones((1, 2, 2)), True])
def test_only_a_single_mask_is_encoded(mask: object) -> None:
    with pytest.raises(ValueError, match=r"`mask` must have shape \(height, width\), got"):
        encode_rle(mask)


def test_counts_of_every_kind_give_the_same_mask() -> None:
    for mask in random_masks(1, 30):
        rle = coco_encode(mask)
        runs = rle_runs(rle)
        for counts in (rle["counts"], rle["counts"].encode(), runs, runs.tolist(), tuple(runs.tolist())):
            given = {"size": mask.shape, "counts": counts}
            assert np.array_equal(decode_rle(given), mask)
            assert rle_is_empty(given) is (not mask.any())


@pytest.mark.parametrize("name", RECORDED_RLE)
def test_rle_gives_the_recorded_mask(name: str, recorded_masks: dict[str, np.ndarray]) -> None:
    rle = RECORDED[name]["ann"]
    mask = decode_rle(rle)
    assert mask.dtype == bool
    assert np.array_equal(mask, recorded_masks[name].astype(bool))
    assert rle_is_empty(rle) == (RECORDED[name]["area"] == 0)


def test_rle_equals_pycocotools_on_random_masks() -> None:
    generator = np.random.default_rng(0)
    for _ in range(150):
        height, width = (int(side) for side in generator.integers(1, 60, 2))
        mask = generator.random((height, width)) < generator.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert np.array_equal(decode_rle(rle), mask)
        assert rle_is_empty(rle) == (coco_mask.area(rle) == 0)


def test_rle_reads_runs_that_need_many_characters() -> None:
    rle = coco_mask.frPyObjects({"size": [4000, 4000], "counts": [15_000_000, 7, 3, 999_990]}, 4000, 4000)
    assert rle_runs(rle).tolist() == [15_000_000, 7, 3, 999_990]


def test_rle_runs_go_down_the_columns() -> None:
    mask = decode_rle({"size": (2, 3), "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


def test_a_second_run_of_length_zero_does_not_make_a_mask_empty() -> None:
    assert not rle_is_empty({"size": (2, 2), "counts": [1, 0, 1, 2]})
    # "1" is a run of 1, "0" a run of 0: the same mask as a COCO string (the fourth run is stored as 2 - 0).
    assert not rle_is_empty({"size": (2, 2), "counts": b"1012"})
    assert rle_is_empty({"size": (2, 2), "counts": b"1030"})


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (b"", "no complete COCO string"),
        (b"l:8k0`", "no complete COCO string"),  # the last character announces another one
        (b"l:\xff", "no complete COCO string"),
        (b"l:\n8", "no complete COCO string"),
        (b"ooooooooo1", "no COCO string can hold"),
        (b"O5", "is -1, below 0"),  # "O" is the number -1
        (b"12", "cover 3 pixels but its size \\[2, 3\\] has 6"),
        ("", "no complete COCO string"),
        ("12é", "no complete COCO string"),
        ("12\ud800", "no complete COCO string"),
        ("O5", "is -1, below 0"),
        ([7, -1], "is -1, below 0"),
        ([1, 2], "cover 3 pixels but its size \\[2, 3\\] has 6"),
        ([], "flat list of run lengths"),
        ([[6]], "flat list of run lengths"),
    ],
)
def test_broken_counts_are_refused(counts: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"{words}"):
        decode_rle({"size": (2, 3), "counts": counts})


def test_counts_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="whole numbers"):
        decode_rle({"size": (2, 3), "counts": [3.5, 2.5]})


def test_broken_string_is_not_called_empty() -> None:
    for counts in (b"", b"`", b"``", b"1`", "", "`", "1`"):
        with pytest.raises(ValueError, match="no complete COCO string"):
            rle_is_empty({"size": (2, 3), "counts": counts})
