import numpy as np
import pytest
from conftest import load_json
from pycocotools import mask as coco_mask

from transformers_videorefer.data.segmentations import MAX_SIDE, read_size, segmentation_to_rle


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("kind", ["str", "bytes", "list"])
def test_run_lengths_of_every_kind_give_the_same_mask(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        mask = rng.random(rng.integers(1, 90, size=2)) < rng.choice([0, 0.01, 0.5, 1])
        text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
        borders = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]])
        counts = {"str": text.decode(), "bytes": text, "list": np.diff(borders).tolist()}[kind]
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
