"""Checks of the values in a region: what is taken as it is, and what each refusal says."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from transformers_videorefer.regions.values import (
    DEFAULT,
    parse_index,
    parse_number,
    parse_numbers,
    parse_region_frames,
    parse_size,
    parse_value,
    parse_whole,
    shorten,
)


RLE = {"size": [2, 3], "counts": "06"}


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), torch.tensor(7), np.array(7)])
def test_whole_numbers(value: Any) -> None:
    number = parse_whole(value, "label")
    assert number == 7
    assert type(number) is int


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), 7.0, np.float64(7), "7", None, [7], np.array([7, 8])]
)
def test_other_values_are_no_whole_number(value: Any) -> None:
    with pytest.raises(TypeError, match="^`label` must be a whole number"):
        parse_whole(value, "label")


def test_whole_numbers_with_a_smallest_value() -> None:
    assert parse_whole(2, "n", least=2) == 2
    with pytest.raises(ValueError, match="^`n` must be a whole number of at least 2, got 1"):
        parse_whole(1, "n", least=2)
    with pytest.raises(TypeError, match="^`n` must be a whole number of at least 2, got 3.0"):
        parse_whole(3.0, "n", least=2)


def test_positions_are_not_negative() -> None:
    assert parse_index(0, "frame_index") == 0
    with pytest.raises(ValueError, match="`frame_index` is -1, but positions are counted from 0"):
        parse_index(-1, "frame_index")


def test_numbers() -> None:
    assert parse_numbers([1, 2.5, np.float32(3)], "box").tolist() == [1, 2.5, 3]
    assert parse_numbers(torch.tensor([1, 2], dtype=torch.bfloat16), "box").tolist() == [1, 2]
    assert parse_number(np.float32(1.5), "width") == 1.5
    assert parse_number(torch.tensor(2), "width") == 2.0


@pytest.mark.parametrize("value", [["1", "2"], [None, 1], [[1, 2], [3]], "12", [True, False], {"a": 1}])
def test_other_values_are_no_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match="`box` must (hold numbers only|be a regular list of numbers)"):
        parse_numbers(value, "box")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="`box` holds NaN or infinity"):
        parse_numbers([0, 1, value, 3], "box")


def test_one_number_is_not_a_list() -> None:
    with pytest.raises(TypeError, match="`width` must be one number"):
        parse_number([1.0], "width")


def test_size() -> None:
    for value in ([720, 1280], (720, 1280), np.array([720, 1280]), [720.0, 1280.0]):
        assert parse_size(value) == (720, 1280)


@pytest.mark.parametrize("value", [[720], 720, [720, 1280, 3], [0, 10], [-1, 10], [0.5, 1]])
def test_wrong_size(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`size` must be \[height, width\] in whole pixels"):
        parse_size(value)


@pytest.mark.parametrize("form", ["mask", "rle"])
def test_masks_have_no_coordinates_from_0_to_1(form: str) -> None:
    value = np.ones((2, 3), dtype=bool) if form == "mask" else RLE
    with pytest.raises(ValueError, match=rf"`size` \[1, 1\] means coordinates from 0 to 1, but a `{form}` has pixels"):
        parse_value(form, value, (1, 1))


@pytest.mark.parametrize(
    ("given", "shape"), [((2, 3), (2, 3)), ((1, 2, 3), (2, 3)), ((2, 3, 1), (2, 3)), ((1, 2, 1), (2, 1))]
)
def test_mask_arrays_may_carry_one_channel(given: tuple, shape: tuple) -> None:
    assert parse_value("mask", np.ones(given), None).shape == shape
    assert tuple(parse_value("mask", torch.ones(given), None).shape) == shape


def test_mask_pictures_stay_closed() -> None:
    for value in ("no/such/file.png", b"no picture", Image.new("L", (3, 2))):
        assert parse_value("mask", value, None) is value


@pytest.mark.parametrize("shape", [(6,), (2, 2, 3), (1, 1, 2, 3), (0, 3)])
def test_mask_of_wrong_shape(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"`mask` must have shape \(height, width\), got"):
        parse_value("mask", np.ones(shape), None)


@pytest.mark.parametrize("value", [[[0, 1], [1, 0]], 7, RLE])
def test_mask_of_wrong_kind(value: Any) -> None:
    with pytest.raises(TypeError, match="`mask` is an array, a tensor, a PIL image, a PNG path or PNG bytes, got"):
        parse_value("mask", value, None)


@pytest.mark.parametrize("value", [np.array([["a"]]), np.array([[1j]]), torch.ones(2, 2, dtype=torch.complex64)])
def test_mask_of_wrong_dtype(value: Any) -> None:
    with pytest.raises(TypeError, match="`mask` must hold numbers or bool, got dtype"):
        parse_value("mask", value, None)


def test_rle_counts_stay_as_they_are() -> None:
    for counts in ("06", b"06", [0, 6]):
        found = parse_value("rle", {"size": [2, 3], "counts": counts}, None)
        assert found == {"size": (2, 3), "counts": counts}


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([1, 2, 3], TypeError, "`rle` is a dict .*Lists of coordinates go into `polygon`"),
        ({"counts": "06"}, ValueError, r"exactly `size` \[height, width\] and `counts`, got the keys \['counts'\]"),
        ({"size": None, "counts": "06"}, ValueError, r"got the keys \['counts'\]"),
        ({**RLE, "area": 6}, ValueError, "got the keys .*'area'"),
        ({"size": [2, 3], "counts": "0é"}, ValueError, "are no COCO string"),
        ({"size": [2, 3], "counts": 6}, TypeError, "`counts` of `rle` must be a string, bytes or a list"),
        ({"size": [2], "counts": "06"}, ValueError, "`rle`: `size` must be"),
    ],
)
def test_wrong_rle(value: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        parse_value("rle", value, None)


@pytest.mark.parametrize(
    "value",
    [[[0, 0, 4, 0, 4, 4]], ([0, 0, 4, 0, 4, 4],), np.array([[0, 0, 4, 0, 4, 4]]), [np.array([0, 0, 4, 0, 4, 4])]],
)
def test_polygons(value: Any) -> None:
    (part,) = parse_value("polygon", value, None)
    assert part.tolist() == [0, 0, 4, 0, 4, 4]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([0, 0, 4, 0, 4, 4], ValueError, r"`polygon` is a flat list.*Pass a list of flat lists .* here \[polygon\]"),
        ([[0, 0], [4, 0], [4, 4]], ValueError, r"`polygon` holds points \[x, y\]"),
        ([[[0, 0], [4, 0], [4, 4]]], ValueError, r"`polygon` holds points \[x, y\]"),
        ([[0, 0, 4, 4]], ValueError, r"`polygon\[0\]` has 4 numbers; .* goes into `box`"),
        ([[0, 0, 4, 0, 4, 4], [0, 0, 4, 0, 4, 4, 1]], ValueError, r"`polygon\[1\]` has 7 numbers"),
        ([[0, 0, 4, 0, 4, float("nan")]], ValueError, r"`polygon\[0\]` holds NaN or infinity"),
        ([[0, 0, 4, 0, 4, "4"]], TypeError, r"`polygon\[0\]` must hold numbers only"),
        ([], ValueError, "`polygon` is empty.*None for an empty mask"),
        (RLE, TypeError, "`polygon` must be a list of flat lists"),
        ("0 0 4 0", TypeError, "`polygon` must be a list of flat lists"),
    ],
)
def test_wrong_polygon(value: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        parse_value("polygon", value, None)


def test_box() -> None:
    for value in ([1, 2, 3.5, 4], (1, 2, 3.5, 4), np.array([1, 2, 3.5, 4]), torch.tensor([1, 2, 3.5, 4])):
        assert parse_value("box", value, None).tolist() == [1, 2, 3.5, 4]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([10, 10, 5, 20], ValueError, "x1 <= x0 or y1 <= y0.*COCO"),
        ([10, 10, 10, 20], ValueError, "x1 <= x0"),
        ([10, 10, 20, 10], ValueError, "y1 <= y0"),
        ([10, 10, 20], ValueError, r"`box` must be four numbers \[x0, y0, x1, y1\]"),
        ([[10, 10, 20, 20]], ValueError, "`box` must be four numbers"),
        ([10, 10, float("inf"), 20], ValueError, "`box` holds NaN or infinity"),
        ("10,10,20,20", TypeError, "`box` must hold numbers only"),
    ],
)
def test_wrong_box(value: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        parse_value("box", value, None)


def test_scribble() -> None:
    points, stroke_width = parse_value("scribble", {"points": [[1, 2], [3, 4]], "width": 5}, None)
    assert points.tolist() == [[1, 2], [3, 4]]
    assert stroke_width == 5.0


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([[1, 2], [3, 4]], ValueError, "`scribble` must be"),
        ({"points": [[1, 2]]}, ValueError, "`scribble` must be"),
        ({"points": [[1, 2]], "width": 3, "color": 1}, ValueError, "`scribble` must be"),
        ({"points": [1, 2, 3, 4], "width": 3}, ValueError, r"`points` of `scribble` must be \[\[x, y\], \.\.\.\]"),
        ({"points": [], "width": 3}, ValueError, "`points` of `scribble` must be"),
        ({"points": [[1, 2], [3, float("nan")]], "width": 3}, ValueError, "`points` holds NaN"),
        ({"points": [[1, 2]], "width": 0}, ValueError, "`width` of `scribble` is 0 pixels"),
        ({"points": [[1, 2]], "width": "3"}, TypeError, "`width` must hold numbers only"),
    ],
)
def test_wrong_scribble(value: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        parse_value("scribble", value, None)


def test_values_are_quoted_briefly() -> None:
    assert shorten([1, 2]) == "[1, 2]"
    assert shorten(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert shorten(torch.zeros(3, 40)) == "Tensor of shape (3, 40)"
    assert shorten("a" * 100) == "'" + "a" * 76 + "..."


@pytest.mark.parametrize(("value", "expected"), [(7, 7), (np.int64(3), 3), (None, None), ("all", None), (DEFAULT, 32)])
def test_most_frames_of_a_region(value, expected):
    assert parse_region_frames(value, 32) == expected


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), ("7", TypeError), (2.0, TypeError), (True, TypeError)]
)
def test_number_of_frames_that_is_none(value, error):
    with pytest.raises(error, match="`num_region_frames` must be a whole number of at least 1"):
        parse_region_frames(value, 32)


def test_the_default_stays_itself_in_copies():
    assert copy.deepcopy(DEFAULT) is DEFAULT
    assert pickle.loads(pickle.dumps(DEFAULT)) is DEFAULT
    assert repr(DEFAULT) == "DEFAULT"
