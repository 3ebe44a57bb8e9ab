"""Run lengths against the COCO tools, against the recorded published masks, and by hand."""

import numpy as np
import pytest
from coco_strings import sum_of_runs
from conftest import load_arrays, load_json
from pycocotools import mask as coco_mask

from transformers_videorefer.regions import rle as regions_rle
from transformers_videorefer.regions.rle import (
    broken_rles,
    decode_rle,
    encode_rle,
    encode_runs,
    rle_is_empty,
    rle_runs,
)


# pycocotools 2.0.11 has not followed a change of numpy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

AT = "sample 0, region 1, frame 12"
RECORDED = {entry["name"]: entry for entry in load_json("preprocess/ann_to_mask.json")}
RECORDED_RLE = [name for name, entry in RECORDED.items() if entry["ok"] and isinstance(entry["ann"], dict)]


@pytest.fixture(scope="module")
def recorded_masks() -> dict[str, np.ndarray]:
    return load_arrays("preprocess/ann_to_mask.npz")


def coco_encode(mask: np.ndarray) -> dict[str, object]:
    """Encode with the COCO tools."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_masks(seed: int, num_masks: int) -> list[np.ndarray]:
    """Make masks from empty over blocks to noise, of many sizes."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(num_masks):
        height, width = rng.integers(1, 90, size=2)
        mask = rng.random((height, width)) < rng.choice([0, 0.01, 0.5, 1])
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + rng.integers(1, 60), left : left + rng.integers(1, 60)] = rng.random() < 0.7
        masks.append(mask)
    return masks


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
        runs = rle_runs(rle, where=AT)
        for counts in (rle["counts"], rle["counts"].encode(), runs, runs.tolist(), tuple(runs.tolist())):
            given = {"size": mask.shape, "counts": counts}
            assert np.array_equal(decode_rle(given), mask)
            assert rle_is_empty(given, where=AT) is (not mask.any())


@pytest.mark.parametrize("name", RECORDED_RLE)
def test_rle_gives_the_recorded_mask(name: str, recorded_masks: dict[str, np.ndarray]) -> None:
    rle = RECORDED[name]["ann"]
    mask = decode_rle(rle, where=AT)
    assert mask.dtype == bool
    assert np.array_equal(mask, recorded_masks[name].astype(bool))
    assert rle_is_empty(rle, where=AT) == (RECORDED[name]["area"] == 0)


def test_rle_equals_pycocotools_on_random_masks() -> None:
    generator = np.random.default_rng(0)
    for _ in range(150):
        height, width = (int(side) for side in generator.integers(1, 60, 2))
        mask = generator.random((height, width)) < generator.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert np.array_equal(decode_rle(rle, where=AT), mask)
        assert rle_is_empty(rle, where=AT) == (coco_mask.area(rle) == 0)


def test_rle_reads_runs_that_need_many_characters() -> None:
    rle = coco_mask.frPyObjects({"size": [4000, 4000], "counts": [15_000_000, 7, 3, 999_990]}, 4000, 4000)
    assert rle_runs(rle, where=AT).tolist() == [15_000_000, 7, 3, 999_990]


def test_rle_runs_go_down_the_columns() -> None:
    mask = decode_rle({"size": (2, 3), "counts": [1, 2, 3]}, where=AT)
    assert mask.tolist() == [[False, True, False], [True, False, False]]


def test_a_second_run_of_length_zero_does_not_make_a_mask_empty() -> None:
    assert not rle_is_empty({"size": (2, 2), "counts": [1, 0, 1, 2]}, where=AT)
    # "1" is a run of 1, "0" a run of 0: the same mask as a COCO string (the fourth run is stored as 2 - 0).
    assert not rle_is_empty({"size": (2, 2), "counts": b"1012"}, where=AT)
    assert rle_is_empty({"size": (2, 2), "counts": b"1030"}, where=AT)


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
    with pytest.raises(ValueError, match=f"^{AT}.*{words}"):
        decode_rle({"size": (2, 3), "counts": counts}, where=AT)


def test_counts_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="whole numbers"):
        decode_rle({"size": (2, 3), "counts": [3.5, 2.5]}, where=AT)


def test_broken_string_is_not_called_empty() -> None:
    for counts in (b"", b"`", b"``", b"1`", "", "`", "1`"):
        with pytest.raises(ValueError, match="no complete COCO string"):
            rle_is_empty({"size": (2, 3), "counts": counts}, where=AT)


def test_whole_masks_pass_the_bulk_check(monkeypatch: pytest.MonkeyPatch) -> None:
    rles = [coco_encode(mask) for mask in random_masks(2, 400)]
    empty = {"size": [5000, 5000], "counts": [25_000_000]}
    rles.append({**empty, "counts": coco_mask.frPyObjects(empty, 5000, 5000)["counts"].decode()})
    assert broken_rles(rles) == []
    assert broken_rles([]) == []
    monkeypatch.setattr(regions_rle, "_CHUNK_CHARACTERS", 1000)
    assert broken_rles(rles) == []


def damage(rle: dict, rng: np.random.Generator) -> dict:
    """Damage the counts or the size of a mask in one of many ways."""
    text, size = rle["counts"], list(rle["size"])
    place = int(rng.integers(0, len(text)))
    kind = rng.integers(0, 7)
    if kind == 0:
        text = text[:place]
    elif kind == 1:
        text = text[:place] + chr(rng.integers(1, 200)) + text[place + 1 :]
    elif kind == 2:
        text = text[:place] + text[place + 1 :]
    elif kind == 3:
        text = text[:place] + chr(48 + rng.integers(0, 64)) + text[place:]
    elif kind == 4:
        size[rng.integers(0, 2)] += int(rng.integers(1, 5))
    elif kind == 5:
        text = text[:place] + "".join(chr(80 + code) for code in rng.integers(0, 32, size=8)) + text[place:]
    else:
        text = text[::-1]
    return {"size": size, "counts": text}


@pytest.mark.parametrize("chunk", [400, 1 << 17])
def test_exactly_the_broken_masks_are_found(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(regions_rle, "_CHUNK_CHARACTERS", chunk)
    rng = np.random.default_rng(3)
    whole = [coco_encode(mask) for mask in random_masks(4, 1200)]
    rles = [damage(rle, rng) if rng.random() < 0.4 else rle for rle in whole]
    expected = [
        index for index, rle in enumerate(rles) if sum_of_runs(rle["counts"]) != rle["size"][0] * rle["size"][1]
    ]
    found = broken_rles(rles)
    assert [index for index, _ in found] == expected
    assert 200 < len(expected) < 600
    assert all(reason for _, reason in found)


def test_sums_that_are_right_only_in_32_bits_are_found() -> None:
    """Runs of 2**32 + 6 pixels in all would pass for 6 where sums wrap around."""
    runs = [6, 2**31, 0, 2**31] + [0] * 20
    rle = encode_runs(runs, [2, 3])
    ((index, reason),) = broken_rles([rle])
    assert (index, "cover 4294967302 pixels" in reason) == (0, True)
    growing = "".join(["0", "0", "0"] + ["PPPP?"] * 400)  # every second run is 2**24 - ... larger than the one before
    ((index, _),) = broken_rles([{"size": [2, 3], "counts": growing}])
    assert index == 0
