"""Dealing out videos, images and regions to the samples of a batch."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transformers_videorefer.inputs.items import (
    SampleMedia,
    VideoItem,
    check_counts,
    expand_marks,
    find_marks,
    group_by_sample,
    media_from_lists,
    with_video_options,
)


BOX = {"frames": [{"frame_index": 0, "box": [0, 0, 2, 2]}]}
PICTURE = Image.new("RGB", (4, 4))
FRAME = np.zeros((4, 4, 3), dtype=np.uint8)
PNG = b"\x89PNG\r\n\x1a\n"


def group(values, num_marks, kind="video", is_batch=True) -> list:
    return group_by_sample(values, num_marks, kind=kind, is_batch=is_batch)


@pytest.mark.parametrize(
    "video",
    [
        "a.mp4",
        Path("a.mp4"),
        "https://x/y.mp4",
        b"bytes",
        bytearray(b"bytes"),
        io.BytesIO(b"bytes"),
        np.zeros((2, 4, 4, 3), dtype=np.uint8),
        torch.zeros((2, 4, 4, 3), dtype=torch.uint8),
        [PICTURE, PICTURE],
        (FRAME, FRAME),
        [FRAME[..., 0], torch.zeros(4, 4, dtype=torch.uint8)],
        ["0.png", Path("1.jpg")],
        [PNG, PNG],
    ],
    ids=lambda video: type(video).__name__,
)
def test_one_video_of_any_kind(video):
    for values in (video, [video], (video,), [[video]]):
        found = group(values, [1])
        assert len(found) == 1
        assert len(found[0]) == 1
        assert found[0][0] is video
    first, second = group([video, video], [1, 1])
    assert first[0] is video
    assert second[0] is video
    assert [len(one) for one in group([[video], None, [video, video]], [1, 0, 2])] == [1, 0, 2]


@pytest.mark.parametrize(
    "image",
    ["a.png", Path("a.png"), PNG, io.BytesIO(PNG), PICTURE, FRAME, torch.zeros(4, 4, dtype=torch.uint8)],
    ids=lambda image: type(image).__name__,
)
def test_one_image_of_any_kind(image):
    for values in (image, [image], [[image]]):
        assert group(values, [1], "image")[0][0] is image
    assert [len(one) for one in group([image, image], [0, 2], "image")] == [0, 2]
    assert [len(one) for one in group([[], [image, image]], [0, 2], "image")] == [0, 2]


def test_stacked_arrays():
    videos = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
    found = group(videos, [1, 1])
    assert np.array_equal(found[0][0], videos[0])
    assert np.array_equal(found[1][0], videos[1])
    images = torch.arange(3 * 4 * 4 * 3).reshape(3, 4, 4, 3)
    found = group(images, [2, 1], "image")
    assert torch.equal(found[0][1], images[1])
    assert torch.equal(found[1][0], images[2])


def test_flat_lists_follow_the_marks():
    assert group(["a", "b", "c"], [2, 0, 1]) == [["a", "b"], [], ["c"]]
    # One entry per sample as soon as one of them is a list or None.
    assert group(["a", None, ["b", "c"]], [1, 0, 2]) == [["a"], [], ["b", "c"]]
    # Animations are videos each, also as bytes; still pictures are the frames of one.
    assert group([b"GIF89a", b"GIF87a"], [1, 1]) == [[b"GIF89a"], [b"GIF87a"]]
    assert group(None, [0, 0]) == [[], []]
    assert group([], [0, 0]) == [[], []]


def test_columns_of_tables():
    regions = np.array([BOX, BOX], dtype=object)
    assert group(regions, [2], "region", is_batch=False) == [[BOX, BOX]]
    rows = np.empty(2, dtype=object)
    rows[0], rows[1] = regions, None
    assert group(rows, [2, 0], "region") == [[BOX, BOX], []]
    assert group(np.array(["a", "b"], dtype=object), [1, 1]) == [["a"], ["b"]]


def test_regions():
    assert group([BOX, BOX], [2], "region", is_batch=False) == [[BOX, BOX]]
    assert group([[BOX, BOX]], [2], "region", is_batch=False) == [[BOX, BOX]]
    assert group(BOX, [1], "region", is_batch=False) == [[BOX]]
    assert group([[BOX], [], None], [1, 0, 0], "region") == [[BOX], [], []]
    assert group([], [0, 0], "region") == [[], []]


@pytest.mark.parametrize(
    ("values", "num_marks", "kind", "match"),
    [
        (["a"], [2], "video", r"Sample 0 has 1 video\(s\) but 2 `<video>` mark\(s\)"),
        (["a", "b"], [1], "video", r"Sample 0 has 2 video\(s\) but 1 `<video>` mark\(s\)"),
        (["a"], [1, 1], "video", r"`videos` has 1 entries, but the 2 texts have 2 `<video>` mark\(s\) \(1, 1\)"),
        ([["a"]], [1, 1], "video", r"`videos` has 1 entries for 2 text\(s\)"),
        ([["a"], ["b", "c"]], [1, 1], "video", r"Sample 1 has 2 video\(s\) but 1 `<video>`"),
        ([None, "b"], [1, 1], "video", r"Sample 0 has 0 video\(s\) but 1 `<video>`"),
        (None, [0, 1], "image", r"Sample 1 has 0 image\(s\) but 1 `<image>`"),
        ([[BOX], [BOX]], [1, 2], "region", r"Sample 1 has 1 region\(s\) but 2 `<region>`"),
        ([[BOX], [BOX]], [1, 0], "region", r"Sample 1 has 1 region\(s\) but 0 `<region>`"),
        ([BOX, BOX], [1, 1], "region", "`regions` must be one list per text when `text` is a list"),
        ([BOX, [BOX]], [1, 1, 1], "region", r"`regions` has 2 entries for 3 text\(s\)"),
    ],
)
def test_numbers_differ(values, num_marks, kind, match):
    with pytest.raises(ValueError, match=match):
        group(values, num_marks, kind)


@pytest.mark.parametrize(
    ("values", "kind", "match"),
    [
        (3, "video", "`videos`: int is no video. Pass a path"),
        ({"path": "a.mp4"}, "video", "`videos`: dict is no video"),
        ([3], "video", "sample 0, video 0: int is no video"),
        ([FRAME], "image", None),
        (FRAME, "video", r"`videos`: ndarray of shape \(4, 4, 3\) is no video"),
        ([{"path": "a.mp4"}], "video", "sample 0, video 0: dict is no video"),
        (np.zeros((2, 2, 2, 2, 2, 2)), "video", r"`videos`: ndarray of shape \(2, 2, 2, 2, 2, 2\) is no video"),
        ([np.zeros((1, 2, 4, 4, 3))], "video", r"sample 0, video 0: ndarray of shape \(1, 2, 4, 4, 3\) is no video"),
        ("box", "region", "`regions`: str is no region. Pass a list"),
        (
            [[0, 0, 5, 5]],
            "region",
            r"sample 0, region 0: int is no region. Pass a list. A region is a dictionary such as \{",
        ),
        (["a.png"], "region", "sample 0, region 0: str is no region"),
    ],
)
def test_wrong_kinds(values, kind, match):
    if match is None:
        assert len(group(values, [1], kind)) == 1
        return
    with pytest.raises(TypeError, match=match):
        group(values, [1], kind, is_batch=False)


def test_media_of_texts():
    marks = [find_marks(text) for text in ("<region><image>\n<video>\n<region>", "Hi", "<video>")]
    assert [match.lastgroup for match in marks[0]] == ["region", "image", "video", "region"]
    found = media_from_lists(
        marks, videos=["a", "b"], images=["p"], regions=[[BOX, {"masks": []}], None, []], is_batch=True
    )
    assert found == [
        SampleMedia(("image", "video"), (VideoItem("a"),), ("p",), (BOX, {"masks": []})),
        SampleMedia(),
        SampleMedia(("video",), (VideoItem("b"),)),
    ]
    check_counts(found, marks)
    with pytest.raises(ValueError, match="`media` has 2 entries for 3 texts"):
        check_counts(found[:2], marks)
    with pytest.raises(ValueError, match=r"Sample 1 has 1 video\(s\) but 0"):
        check_counts([found[0], found[2], found[1]], marks)


def test_marks_behind_a_prefix():
    assert len(find_marks("*<video><video>", unmarked_prefix=r"(?<!\*)")) == 1


def test_options_per_video():
    media = [
        SampleMedia(videos=(VideoItem("a"), VideoItem("b", {"fps": 7.0}))),
        SampleMedia(),
        SampleMedia(videos=(VideoItem("c"),)),
    ]
    found = with_video_options(media, {"fps": [1.0, 2.0, None], "edit_list": "ignore", "end_seconds": None})
    assert [item.options for one in found for item in one.videos] == [
        {"fps": 1.0, "edit_list": "ignore"},
        {"fps": 7.0, "edit_list": "ignore"},
        {"edit_list": "ignore"},
    ]
    assert media[0].videos[0].options == {}
    with pytest.raises(ValueError, match="`fps` has 2 values for 3 videos"):
        with_video_options(media, {"fps": (1.0, 2.0)})


def test_expansion():
    text = "a<video>\nb<region><region>c"
    expanded, offsets = expand_marks(text, find_marks(text), [2, 3, 1])
    assert expanded == "a<video><video>\nb<region><region><region><region>c"
    assert [(one["type"], one["span"], one["new_span"]) for one in offsets] == [
        ("video", (1, 8), (1, 15)),
        ("region", (10, 18), (17, 41)),
        ("region", (18, 26), (41, 49)),
    ]
    for one in offsets:
        assert text[slice(*one["span"])] == one["text"]
        assert expanded[slice(*one["new_span"])] == one["replacement"]
    assert expand_marks("plain", [], []) == ("plain", [])
