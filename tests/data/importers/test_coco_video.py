import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_helpers import boxes_of, frames_of, masks_of, picture_folder, pixels, run_import
from video_files import write_video

from transformers_videorefer.data.defects import RecordError


NAMES = ["00000.jpg", "00005.jpg", "00010.jpg"]
# Height 8, width 10; runs go down the columns, background first: 16 pixels are the first two columns.
FIRST = {"size": [8, 10], "counts": [17, 3, 5, 3, 52]}  # columns 2 and 3, rows 1 to 3
THIRD = [[4, 2, 8, 2, 8, 6, 4, 6]]  # columns 4 to 7, rows 2 to 5


def content(**changes: Any) -> dict[str, Any]:
    video = {"id": 7, "height": 8, "width": 10, "length": 3, "file_names": [f"dog_a/{name}" for name in NAMES]}
    annotation = {
        "id": 31,
        "video_id": 7,
        "category_id": 2,
        "iscrowd": 0,
        "segmentations": [FIRST, None, THIRD],
        "bboxes": [[2, 1, 2, 3], None, [4, 2, 4, 4]],
        "caption": "A dog that turns.",
        "attributes": {"colour": "brown"},
    }
    annotation.update(changes)
    return {"videos": [video], "annotations": [annotation], "categories": [{"id": 2, "name": "dog"}]}


def save(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    # Every fifth frame is annotated, but all eleven lie in the folder.
    picture_folder(tmp_path / "videos" / "JPEGImages" / "dog_a", [f"{number:05d}.jpg" for number in range(11)])
    return tmp_path / "videos"


def test_masks_keep_pixels_and_null_frames_are_left_out(tmp_path, videos):
    (row,), report = run_import("coco-video", save(tmp_path / "train.json", content()), videos)
    assert {key: row[key] for key in ("id", "video", "image", "edit_list", "source")} == {
        "id": "31",
        "video": "JPEGImages/dog_a",
        "image": None,
        "edit_list": "apply",
        "source": "coco-video",
    }
    assert row["messages"] == [
        {"role": "user", "content": "<video>\nPlease describe the object <region> in the video in brief."},
        {"role": "assistant", "content": "dog"},
    ]
    masks = masks_of(row)
    assert list(masks) == [0, 10]
    np.testing.assert_array_equal(masks[0], pixels(8, 10, slice(1, 4), slice(2, 4)))
    np.testing.assert_array_equal(masks[10], pixels(8, 10, slice(2, 6), slice(4, 8)))
    assert (report.num_rows, report.counts) == (1, {})


def test_frames_are_positions_where_only_annotated_pictures_lie_in_the_folder(tmp_path):
    picture_folder(tmp_path / "videos" / "dog_a", NAMES)
    (row,), _ = run_import("coco-video", save(tmp_path / "train.json", content()), tmp_path / "videos")
    assert (row["video"], frames_of(row)) == ("dog_a", [0, 2])


def test_a_video_file_takes_positions_in_the_list(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "dog_a.mp4", 3)  # 48 x 64, the annotations have 8 x 10
    data = content()
    data["videos"][0].update(height=24, width=32)
    data["annotations"][0].update(segmentations=None, bboxes=[[4, 6, 10, 12], None, [0, 0, 0, 0]])
    (row,), _ = run_import("coco-video", save(tmp_path / "train.json", data), tmp_path / "videos")
    assert row["video"] == "dog_a.mp4"
    assert row["regions"][0]["frames"] == [
        {"frame_index": 0, "rle": None, "box": [4, 6, 14, 18], "size": [24, 32]}  # the processor scales it
    ]


def test_a_video_file_must_have_as_many_frames_as_the_list(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "dog_a.mp4", 5)
    with pytest.raises(RecordError, match=r"lists 3 frames, but the video has 5.*Pass the folder of frames"):
        run_import("coco-video", save(tmp_path / "train.json", content()), tmp_path / "videos")


def test_pictures_of_another_shape_are_refused(tmp_path, videos):
    data = content()
    data["videos"][0].update(height=10, width=8)
    path = save(tmp_path / "train.json", data)
    with pytest.raises(RecordError, match=r"height 10 and width 8, but the video has 8 and 10"):
        run_import("coco-video", path, videos)


@pytest.mark.parametrize(
    ("field", "answer"), [("caption", "A dog that turns."), ("colour", "brown"), ("name", "dog"), ("absent", None)]
)
def test_answer_field(tmp_path, videos, field, answer):
    path = save(tmp_path / "train.json", content())
    (row,), _ = run_import(
        "coco-video", path, videos, answer_field=field, question="What does the {label} <region> do?"
    )
    assert row["messages"][0]["content"] == "<video>\nWhat does the dog <region> do?"
    assert [message["content"] for message in row["messages"][1:]] == ([answer] if answer else [])


def test_stride_keeps_every_second_visible_frame(tmp_path):
    picture_folder(tmp_path / "videos" / "dog_a", NAMES)
    path = save(tmp_path / "train.json", content(segmentations=[FIRST, FIRST, FIRST]))
    (row,), _ = run_import("coco-video", path, tmp_path / "videos", stride=2)
    assert frames_of(row) == [0, 2]


def test_annotations_of_single_images_are_joined_by_their_track(tmp_path):
    folder = tmp_path / "videos" / "clips"
    folder.mkdir(parents=True)
    write_video(folder / "street.mp4", 4)
    images = [{"id": 100 + n, "video_id": 1, "frame_id": n, "file_name": f"street/img_{n}.jpg"} for n in range(4)]
    boxes = {103: [1, 2, 3, 4], 101: [10, 10, 20, 30]}
    annotations = [
        {"id": n, "image_id": image, "category_id": 1, "bbox": box, "instance_id": 5, "occluded": True}
        for n, (image, box) in enumerate(boxes.items())
    ]
    annotations.append({"id": 9, "image_id": 100, "category_id": 1, "bbox": [0, 0, 64, 48], "track_id": 6})
    data = {
        "videos": [{"id": 1, "name": "clips/street.mp4", "width": 64, "height": 48}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "car"}],
    }
    rows, _ = run_import("coco-video", save(tmp_path / "tracks.json", data), tmp_path / "videos")
    assert [(row["id"], row["video"]) for row in rows] == [("1-5", "clips/street.mp4"), ("1-6", "clips/street.mp4")]
    assert boxes_of(rows[0]) == {1: [10, 10, 30, 40], 3: [1, 2, 4, 6]}
    assert boxes_of(rows[1]) == {0: [0, 0, 64, 48]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_id": 8}, "`video_id` 8 is none of the `videos`"),
        ({"segmentations": [FIRST]}, "1 frames are annotated, but its video lists 3"),
        ({"segmentations": None, "bboxes": None}, "neither `segmentations` nor `bboxes`"),
        ({"segmentations": [{"size": [8, 10], "counts": [17, 3]}, None, None]}, "frame 0.*cover 20 pixels"),
        ({"segmentations": [{"size": [8, 10], "counts": "a`0"}, None, None]}, "frame 0.*cover"),
        ({"segmentations": [{"size": [10, 8], "counts": [17, 3, 60]}, None, None]}, "mask has height 10 and width 8"),
        ({"segmentations": [None, None, None], "bboxes": [None] * 3}, "visible in no frame"),
        ({"segmentations": [[[1, 2, 3]], None, None]}, "polygon 0 has 3 numbers"),
        ({"segmentations": None, "bboxes": [["a", 1, 2, 3], None, None]}, r"a box is \[x, y, width, height\]"),
    ],
)
def test_broken_objects_are_named_or_skipped(tmp_path, videos, changes, message):
    data = content(**changes)
    data["annotations"].append({**content()["annotations"][0], "id": 32})
    path = save(tmp_path / "train.json", data)
    with pytest.raises(RecordError, match=rf"train\.json, annotations\[0\]: .*{message}.*bad_rows"):
        run_import("coco-video", path, videos)
    rows, report = run_import("coco-video", path, videos, bad_rows="skip")
    assert [row["id"] for row in rows] == ["32"]
    assert [(entry["id"], entry["position"]) for entry in report.skipped] == [("31", 0)]


def test_keep_makes_broken_frames_null(tmp_path, videos):
    broken = {"size": [8, 10], "counts": [17, 3]}
    path = save(tmp_path / "train.json", content(segmentations=[broken, None, THIRD]))
    (row,), report = run_import("coco-video", path, videos, bad_rows="keep")
    frames = row["regions"][0]["frames"]
    assert frames[0] == {"frame_index": 0, "rle": None, "box": None, "size": None}
    assert list(masks_of(row)) == [10]
    assert report.counts == {"broken_rle": 1}


@pytest.mark.parametrize("name", ["../dog_a/00000.jpg", "/dog_a/00000.jpg", "C:/dog_a/00000.jpg"])
def test_names_that_leave_the_folder_are_refused_under_every_policy(tmp_path, videos, name):
    picture_folder(tmp_path / "dog_a", NAMES)
    data = content()
    data["videos"][0]["file_names"] = [name] * 3
    path = save(tmp_path / "train.json", data)
    with pytest.raises(RecordError, match="no path below the folder"):
        run_import("coco-video", path, videos)
    rows, report = run_import("coco-video", path, videos, bad_rows="keep")
    assert (rows, report.counts) == ([], {"unsafe_path": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"videos": [],\n "annotations": [}', r"train\.json, line 2, column 18: no JSON"),
        ("[]", "no COCO file of videos"),
        ('{"annotations": []}', "no COCO file of videos"),
    ],
)
def test_broken_files(tmp_path, videos, text, message):
    path = tmp_path / "train.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        run_import("coco-video", path, videos, bad_rows="skip")


@pytest.mark.parametrize("masks", [None, [None, None, None], [None, None, THIRD]])
def test_boxes_stand_where_masks_are_null(tmp_path, videos, masks):
    path = save(tmp_path / "train.json", content(segmentations=masks))
    (row,), _ = run_import("coco-video", path, videos)
    expected = {0: [2, 1, 4, 4], 10: [4, 2, 8, 6]}
    if masks and masks[2]:
        np.testing.assert_array_equal(masks_of(row)[10], pixels(8, 10, slice(2, 6), slice(4, 8)))
        del expected[10]
    assert boxes_of(row) == expected
