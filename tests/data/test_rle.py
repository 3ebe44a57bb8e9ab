import numpy as np
import pytest
from coco_strings import sum_of_runs
from conftest import load_json
from pycocotools import mask as coco_mask

from transformers_videorefer.data.rle import (
    MAX_SIDE,
    broken_rles,
    encode_rle,
    encode_runs,
    read_size,
    segmentation_to_rle,
)


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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


@pytest.mark.parametrize("kind", ["str", "bytes", "list"])
def test_run_lengths_of_every_kind_give_the_same_mask(kind: str) -> None:
    for mask in random_masks(1, 30):
        rle = coco_encode(mask)
        flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
        borders = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]])
        counts = {"str": rle["counts"], "bytes": rle["counts"].encode(), "list": np.diff(borders).tolist()}[kind]
        found = segmentation_to_rle({"size": list(mask.shape), "counts": counts}, height=None, width=None, where="x")
        assert found["size"] == list(mask.shape)
        assert np.array_equal(coco_mask.decode(found), mask)


def test_several_run_length_masks_of_one_object_are_united() -> None:
    left = {"size": [2, 3], "counts": [0, 2, 4]}  # column by column: the first column
    right = {"size": [2, 3], "counts": [3, 3]}  # the last pixel of the second column and the third column
    found = segmentation_to_rle([left, right], height=None, width=None, where="x")
    assert coco_mask.decode(found).tolist() == [[1, 0, 1], [1, 1, 1]]
    with pytest.raises(ValueError, match="several sizes"):
        segmentation_to_rle([left, {"size": [3, 2], "counts": [3, 3]}], height=None, width=None, where="x")


def test_published_polygons_give_the_bits_of_the_coco_tools() -> None:
    polygons = [[51.0, 12.0, 96.0, 12.0, 98.5, 34.5, 96.0, 57.0, 51.0, 57.0], [-3.5, 2, 30, 4, 20, 30.25]]
    found = segmentation_to_rle(polygons, height=80, width=100, where="x")
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, 80, 100))
    assert np.array_equal(coco_mask.decode(found), coco_mask.decode(merged))
    recorded = load_json("annotations/train.json")[1]["annotation"][0]["0"]["segmentation"]
    assert segmentation_to_rle(recorded, height=80, width=100, where="x")["size"] == [80, 100]


def test_null_stays_null() -> None:
    assert segmentation_to_rle(None, height=1, width=1, where="x") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("PPYo6", "is a run-length dict or a list of polygons, got 'PPYo6'"),
        ({"size": [2, 3]}, "`counts` must be a string, bytes or a list, got None"),
        ({"size": [2, 3], "counts": ""}, "`counts` '' are no COCO string"),
        ({"size": [2, 3], "counts": "é"}, "are no COCO string"),
        ({"size": [2, 3], "counts": b"\xff"}, "are no COCO string"),
        ({"size": [2, 3], "counts": "7"}, "cover 7 pixels but its size"),
        ({"size": [2, 3], "counts": [7]}, "cover 7 pixels"),
        ({"size": [2, 3], "counts": [-1, 7]}, "the smallest run being -1"),
        ({"size": [2, 3], "counts": [6.0]}, "must be a list of whole numbers"),
        ({"size": [1, 1], "counts": [True]}, "must be a list of whole numbers"),
        ({"size": [1, 1], "counts": [10**400]}, "cover a number of more than 80 digits pixels"),
        ({"size": [1, 1], "counts": []}, "must be a list of whole numbers"),
        ({"counts": "6"}, "`size` must be .height, width. in whole pixels, got None"),
        ([], "the list of polygons is empty"),
        ([1.0] * 6, "polygon 0 must be a list of numbers, got 1.0"),
        ([[1.0] * 5], "polygon 0 has 5 numbers"),
        ([[1.0] * 4], "polygon 0 has 4 numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "polygon 0 must be a list of numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "polygon 0 has points far outside"),
        ([[1, 2, 3, 4, 5, 1e300]], "polygon 0 has points far outside"),
        ([[1, 2, 3, 4, 5, 10**400]], "polygon 0 has points far outside"),
    ],
)
def test_broken_segmentations_are_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"object 3: .*{message}"):
        segmentation_to_rle(value, height=8, width=9, where="object 3")


def test_polygons_need_a_size_that_fits_into_memory() -> None:
    polygon = [[0, 0, 5, 0, 5, 5]]
    with pytest.raises(ValueError, match="polygons need the `height` and `width`"):
        segmentation_to_rle(polygon, height=None, width=5, where="x")
    with pytest.raises(ValueError, match="too large to fill polygons in"):
        segmentation_to_rle(polygon, height=20_000, width=20_000, where="x")


@pytest.mark.parametrize(
    "size", [[0, 5], [5], [5, 6, 7], [5.0, 6], [True, 6], "56", None, [MAX_SIDE + 1, 1], [60_000, 60_000], [10**30, 1]]
)
def test_sizes_that_are_none_or_huge_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match="x: `size`"):
        read_size(size, where="x")


def test_whole_masks_pass_the_bulk_check(monkeypatch: pytest.MonkeyPatch) -> None:
    rles = [coco_encode(mask) for mask in random_masks(2, 400)]
    empty = {"size": [5000, 5000], "counts": [25_000_000]}
    rles.append({**empty, "counts": coco_mask.frPyObjects(empty, 5000, 5000)["counts"].decode()})
    assert broken_rles(rles) == []
    assert broken_rles([]) == []
    monkeypatch.setattr("transformers_videorefer.data.rle._CHUNK_CHARACTERS", 1000)
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
    monkeypatch.setattr("transformers_videorefer.data.rle._CHUNK_CHARACTERS", chunk)
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
