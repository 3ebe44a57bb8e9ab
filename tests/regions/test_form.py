"""The typed form of a region: which keys and kinds it takes, and what each refusal says."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.form import Region, RegionFrame, parse_region


AT = "sample 0, region 1"
BOX = [1, 2, 30, 40]
RLE = {"size": [2, 3], "counts": "06"}
EMPTY_RLE = {"size": [2, 3], "counts": "6"}
MASK = np.ones((2, 3), dtype=bool)


def parse(region: Any) -> Region:
    with located(sample=0, region=1):
        return parse_region(region)


def one_frame(**entry: Any) -> RegionFrame:
    (frame,) = parse({"frames": [entry]}).frames
    return frame


def test_frames() -> None:
    region = parse(
        {
            "type": "region",
            "object_id": "dog",
            "media": 1,
            "frames": [{"frame_index": 7, "box": BOX}, {"time_seconds": 1.5, "rle": RLE, "size": [20, 30]}],
        },
    )
    assert (region.object_id, region.media, region.from_masklet, region.positional) == ("dog", 1, False, False)
    first, second = region.frames
    assert (first.frame_index, first.time_seconds, first.form, first.label, first.size) == (7, None, "box", None, None)
    assert first.value.tolist() == BOX
    assert (second.frame_index, second.time_seconds, second.form, second.size) == (None, 1.5, "rle", (20, 30))


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("mask", MASK),
        ("rle", RLE),
        ("polygon", [[0, 0, 4, 0, 4, 4]]),
        ("box", BOX),
        ("scribble", {"points": [[1, 1]], "width": 2}),
    ],
)
def test_every_form(form: str, value: Any) -> None:
    assert one_frame(frame_index=0, **{form: value}).form == form


def test_null_counts_as_absent_as_in_rows_of_a_table() -> None:
    region = parse(
        {
            "object_id": None,
            "media": None,
            "masks": None,
            "frame_indices": None,
            "bbox": None,
            "frames": [{"frame_index": 3, "time_seconds": None, "rle": None, "box": BOX, "size": None, "bbox": None}],
        },
    )
    assert (region.object_id, region.media) == (None, None)
    assert (region.frames[0].form, region.frames[0].size) == ("box", None)


def test_null_mask_is_an_empty_mask() -> None:
    for entry in ({"rle": None}, {"mask": None, "label": 3}, {"rle": None, "box": None, "size": [1, 1]}):
        frame = one_frame(frame_index=0, **entry)
        assert frame.form is None
        assert frame.is_empty() is True


def test_size_of_the_region_is_the_default_of_its_frames() -> None:
    region = parse(
        {"size": [20, 30], "frames": [{"frame_index": 0, "box": BOX}, {"frame_index": 1, "box": BOX, "size": [1, 1]}]},
    )
    assert [frame.size for frame in region.frames] == [(20, 30), (1, 1)]


@pytest.mark.parametrize(
    "masks",
    [
        np.ones((2, 4, 5)),
        np.ones((2, 1, 4, 5), dtype=bool),
        torch.ones(2, 4, 5),
        torch.ones(2, 1, 4, 5),
        [np.ones((4, 5)), torch.ones(4, 5)],
    ],
)
@pytest.mark.parametrize("indices", [[7, 3], np.array([7, 3]), torch.tensor([7, 3]), (7, 3)])
def test_masklet(masks: Any, indices: Any) -> None:
    region = parse({"masks": masks, "frame_indices": indices})
    assert (region.from_masklet, region.positional) == (True, False)
    assert [frame.frame_index for frame in region.frames] == [7, 3]
    assert [tuple(frame.value.shape) for frame in region.frames] == [(4, 5), (4, 5)]


def test_masklet_of_many_kinds() -> None:
    picture = Image.new("L", (3, 2))
    region = parse({"masks": [None, RLE, MASK, "mask.png", b"png", picture]})
    assert region.positional
    assert [frame.frame_index for frame in region.frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.form for frame in region.frames] == [None, "rle", "mask", "mask", "mask", "mask"]


def test_masklet_shares_label_and_size() -> None:
    region = parse({"masks": np.zeros((2, 4, 5)), "label": np.int64(3), "size": [4, 5]})
    assert [(frame.label, frame.size) for frame in region.frames] == [(3, (4, 5))] * 2


@pytest.mark.parametrize(
    ("frame", "empty"),
    [
        ({"rle": RLE}, False),
        ({"rle": EMPTY_RLE}, True),
        ({"rle": {"size": [2, 3], "counts": [6]}}, True),
        ({"mask": MASK}, False),
        ({"mask": torch.zeros(2, 3)}, True),
        ({"mask": np.array([[0, 3]]), "label": 3}, False),
        ({"mask": np.array([[0, 3]]), "label": 4}, True),
        ({"mask": "no/such/file.png"}, None),
        ({"mask": b"no picture"}, None),
        ({"mask": Image.new("L", (3, 2))}, None),
        ({"box": BOX}, None),
        ({"polygon": [[0, 0, 4, 0, 4, 4]]}, None),
        ({"scribble": {"points": [[1, 1]], "width": 2}}, None),
    ],
)
def test_emptiness_is_told_without_decoding(frame: dict, empty: bool | None) -> None:
    assert one_frame(frame_index=0, **frame).is_empty() is empty


def test_emptiness_of_a_picture_is_told_by_opening_it() -> None:
    assert one_frame(frame_index=0, mask=Image.new("L", (3, 2))).picture_is_empty()
    assert not one_frame(frame_index=0, mask=Image.new("L", (3, 2), 255)).picture_is_empty()
    assert not one_frame(frame_index=0, box=BOX).picture_is_empty()


def test_broken_counts_are_not_called_empty() -> None:
    frame = one_frame(frame_index=12, rle={"size": [2, 3], "counts": "`"})
    with pytest.raises(ValueError, match="^`rle` counts"):
        frame.is_empty()


def test_repr_does_not_print_masks() -> None:
    assert "True" not in repr(one_frame(frame_index=0, mask=MASK))


@pytest.mark.parametrize("region", [[0, 1, 2, 3], np.zeros((2, 2)), torch.zeros(2, 2), "box", 3, None])
def test_a_region_is_a_dict(region: Any) -> None:
    with pytest.raises(TypeError, match=rf'^{AT}: a region is a dict such as {{"frames": \[.*"masks": masks'):
        parse(region)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ({}, "exactly one of `frames` and `masks`, got nothing"),
        ({"object_id": "dog"}, r"exactly one of `frames` and `masks`, got only \['object_id'\]"),
        ({"frames": [{"frame_index": 0, "box": BOX}], "masks": [MASK]}, "exactly one of .* got both"),
        ({"frames": []}, "`frames` is empty"),
        ({"frames": [{"frame_index": 0, "box": BOX}], "media": -1}, "`media` is -1"),
        ({"frames": [{"frame_index": 0, "box": BOX}], "type": "box"}, '`type` of a region must be "region"'),
        ({"frames": [{"frame_index": 0, "box": BOX}], "frame_indices": [0]}, "`frame_indices` goes with `masks`"),
        ({"frames": [{"frame_index": 0, "mask": MASK}], "label": 1}, "`label` goes with `masks`"),
        ({"frames": [{"frame_index": 0, "box": BOX}], "size": [20]}, "`size` must be"),
        ({"masks": []}, "`masks` is empty"),
        ({"masks": np.ones((4, 5))}, r"`masks` must have shape .* got \(4, 5\)\. Pass masks\[None\]"),
        ({"masks": np.ones((2, 3, 4, 5))}, r"`masks` must have shape .* got \(2, 3, 4, 5\)"),
        ({"masks": np.ones((0, 4, 5))}, r"`masks` must have shape .* got \(0, 4, 5\)"),
        ({"masks": np.ones((2, 4, 5)), "frame_indices": [1]}, "2 masks but `frame_indices` has 1 numbers"),
        ({"masks": np.ones((1, 4, 5)), "frame_indices": [-1]}, r"`frame_indices\[0\]` is -1"),
        ({"masks": [RLE], "label": 1}, r"masks\[0\] \(frame 0\): `label` says .* `rle` has no values"),
        ({"masks": [MASK], "size": [1, 1]}, r"masks\[0\] \(frame 0\): `size` \[1, 1\] means coordinates"),
        ({"masks": [MASK[0]]}, r"masks\[0\] \(frame 0\): `mask` must have shape"),
    ],
)
def test_wrong_region(region: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{AT}.*{words}"):
        parse(region)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ({"object_id": 3, "frames": [{"frame_index": 0, "box": BOX}]}, "`object_id` must be a string, got 3"),
        ({"media": True, "frames": [{"frame_index": 0, "box": BOX}]}, "`media` must be a whole number"),
        ({"frames": {"0": {"rle": RLE}}}, "`frames` must be a list of dicts"),
        ({"frames": "0"}, "`frames` must be a list of dicts"),
        ({"frames": [BOX]}, r"frames\[0\]: a frame is a dict"),
        ({"frames": [None]}, r"frames\[0\]: a frame is a dict"),
        ({"masks": RLE}, "`masks` must be an array, a tensor or a list"),
        ({"masks": "mask.png"}, "`masks` must be an array, a tensor or a list"),
        ({"masks": [[[0, 1], [1, 0]]]}, r"masks\[0\] \(frame 0\): `mask` is an array"),
        ({"masks": [MASK], "frame_indices": 0}, "`frame_indices` must be a list of frame numbers"),
        ({"masks": [MASK], "frame_indices": "0"}, "`frame_indices` must be a list of frame numbers"),
        ({"masks": [MASK], "frame_indices": [0.0]}, r"`frame_indices\[0\]` must be a whole number"),
        ({"masks": [MASK], "frame_indices": np.array([True])}, r"`frame_indices\[0\]` must be a whole number"),
    ],
)
def test_region_of_wrong_kind(region: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"^{AT}.*{words}"):
        parse(region)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"frame_index": 3}, "the frame has no mask. Pass exactly one of `mask`, `rle`, `polygon`, `box`, `scribble`"),
        ({"frame_index": 3, "box": BOX, "rle": RLE}, r"\(frame 3\): got `rle` and `box`. Keep exactly one"),
        ({"frame_index": 3, "time_seconds": 1.0, "box": BOX}, "both `frame_index` and `time_seconds`"),
        ({"frame_index": -1, "box": BOX}, "`frame_index` is -1"),
        ({"time_seconds": float("nan"), "box": BOX}, "`time_seconds` holds NaN"),
        ({"frame_index": 3, "box": BOX, "label": 1}, "`label` says which value of a `mask` .* a `box` has no values"),
        ({"frame_index": 3, "mask": MASK, "size": [1, 1]}, r"`size` \[1, 1\] means coordinates"),
        ({"frame_index": 3, "box": [5, 5, 1, 9]}, r" \(frame 3\): `box` \[5, 5, 1, 9\] has x1 <= x0"),
    ],
)
def test_wrong_frame(entry: dict, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{AT}, frames\[0\].*{words}"):
        one_frame(**entry)


@pytest.mark.parametrize("index", ["36", 3.0, True, np.float32(3)])
def test_frame_index_is_a_whole_number(index: Any) -> None:
    with pytest.raises(TypeError, match=r"frames\[0\]: `frame_index` must be a whole number"):
        one_frame(frame_index=index, box=BOX)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("bbox", r"`box`: \[x0, y0, x1, y1\]; a COCO bbox .* becomes \[x, y, x \+ width, y \+ height\]"),
        ("segmentation", "`rle` .* or as `polygon`"),
        ("points", "Points are not offered.*SAM 2.*`mask`"),
        ("point", "Points are not offered.*SAM 2.*`mask`"),
        ("frame", "Did you mean `frame_index`"),
        ("frame_idx", "Did you mean `frame_index`"),
        ("masklet", "Did you mean `mask`"),
        ("time", "Did you mean `time_seconds`"),
        ("object_id", "It belongs to the region, beside `frames`"),
        ("colour_of_fur", "Known keys are `frame_index`, `time_seconds`, `mask`"),
    ],
)
def test_unknown_key_of_a_frame_teaches(key: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{AT}, frames\[0\]: unknown key `{key}`\. .*{words}"):
        one_frame(**{"frame_index": 0, key: 1})


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("bbox", "`box`"),
        ("segmentation", "`rle`"),
        ("points", "SAM 2"),
        ("masklet", "Did you mean `masks`"),
        ("frame", "Did you mean `frames`"),
        ("frame_index", 'It belongs to an entry of `frames`: {"frames"'),
        ("box", 'It belongs to an entry of `frames`: {"frames"'),
        ("12", "Frames keyed by their number"),
        ("colour_of_fur", "Known keys are `object_id`"),
    ],
)
def test_unknown_key_of_a_region_teaches(key: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{AT}: unknown key `{key}`\. .*{words}"):
        parse({key: 1})
