"""One frame of a region, in whatever form a file gives it."""

import pickle
from typing import Any

import pytest

from transformers_videorefer.data.defects import FrameError
from transformers_videorefer.data.frames import null_frame, read_frame


# Two rows and three columns, of which the middle column is inside.
RLE = {"size": [2, 3], "counts": "222"}
NULL = {"frame_index": 4, "rle": None, "box": None, "size": None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"mask": RLE}, {"rle": RLE}),
        ({"mask": {"size": [2, 3], "counts": [2, 2, 2]}, "size": [4, 6]}, {"rle": RLE, "size": [4, 6]}),
        ({"mask": [[1, 0, 2, 0, 2, 2, 1, 2]], "picture": (2, 3)}, {"rle": RLE}),
        ({"box": [1, 0, 2, 2.5]}, {"box": [1, 0, 2, 2.5]}),
        ({"box": [0, 0, 1, 1], "size": [1, 1]}, {"box": [0, 0, 1, 1], "size": [1, 1]}),
    ],
)
def test_every_form_becomes_the_frame_of_a_row(given: dict[str, Any], expected: dict[str, Any]):
    assert read_frame(4, **given, where="x") == {**NULL, **expected}
    assert null_frame(4) == NULL


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"mask": RLE, "box": [1, 2, 3, 4]}, "wrong_type", "there is an `rle` and a `box`"),
        ({"mask": {"size": [2, 3], "counts": "22"}}, "broken_rle", "cover 4 pixels"),
        ({"mask": 5}, "broken_rle", "a run-length dict or a list of polygons, got 5"),
        ({"mask": {"size": [2, -3], "counts": "222"}}, "broken_size", r"`size` \[2, -3\]"),
        ({"mask": [RLE, {"size": [3, 2], "counts": "222"}]}, "broken_size", "several sizes"),
        ({"mask": [[1, 0, 2, 0]], "picture": (2, 3)}, "broken_polygon", "polygon 0 has 4 numbers"),
        ({"mask": [[1, 0, 2, 0, 2, 2]]}, "polygon_without_size", "need the `height` and `width`"),
        ({"box": [3, 0, 1, 2]}, "broken_box", "x1 <= x0"),
        ({"box": "x"}, "broken_box", "`box` must hold numbers only"),
        ({"box": [1, 0, 2, 2], "size": 5}, "broken_size", "`size` must be"),
    ],
)
def test_errors_carry_the_kind_of_the_defect(given: dict[str, Any], kind: str, message: str):
    with pytest.raises(FrameError, match=f"^object 0: .*{message}") as caught:
        read_frame(4, **given, where="object 0")
    assert (caught.value.kind, caught.value.defect.is_fatal) == (kind, True)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.kind, str(copy)) == (kind, str(caught.value))


def test_compressed_counts_are_left_for_later_where_many_are_checked_at_once():
    broken = {"size": [2, 3], "counts": "22"}
    assert read_frame(4, mask=broken, where="x", check=False)["rle"] == broken
