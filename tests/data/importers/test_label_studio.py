import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_helpers import boxes_of, frames_of, masks_of, pixels, run_import
from video_files import write_video

from transformers_videorefer.data.defects import RecordError


def key(frame: int, x: float, y: float, width: float, height: float, **extra: Any) -> dict[str, Any]:
    position = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {"frame": frame, "enabled": True, "time": frame / 25, **position, **extra}


def task(sequence: list[dict[str, Any]], *, frames: int = 10, others: tuple = (), **changes: Any) -> dict[str, Any]:
    value = {"framesCount": frames, "duration": frames / 25, "sequence": sequence, "labels": ["Cell"]}
    result = {"id": "r1", "type": "videorectangle", "from_name": "box", "to_name": "video", "value": value}
    annotation = {"id": 50, "was_cancelled": False, "result": [result, *others]}
    data = {"video": "/data/upload/3/0a1b2c3d-cells.mp4", "batch": "first"}
    return {"id": 12, "data": data, "annotations": [annotation], "predictions": [], **changes}


@pytest.fixture
def save(tmp_path: Path):
    def write(*tasks: Any) -> Path:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(list(tasks)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "cells.mp4", 10, height=50, width=100)  # percent and half percent are pixels
    return tmp_path / "videos"


def test_percent_key_frames_from_1_become_interpolated_pixels_from_0(save, videos):
    sequence = [
        key(2, 10, 20, 30, 40),
        key(4, 20, 40, 50, 40, enabled=False),
        key(7, 0, 0, 10, 10),
        key(9, 0, 0, 10, 20),
    ]
    (row,), report = run_import("label-studio", save(task(sequence)), videos)
    assert boxes_of(row) == {
        1: [10, 10, 40, 30],
        2: [15, 15, 55, 35],
        3: [20, 20, 70, 40],  # the key frame that ends the stretch is shown, the frames behind it are not
        6: [0, 0, 10, 5],
        7: [0, 0, 10, 7.5],
        8: [0, 0, 10, 10],
        9: [0, 0, 10, 10],  # held to the end of the video
    }
    assert (row["id"], row["video"], row["edit_list"]) == ("12-50-r1", "cells.mp4", "apply")
    assert row["messages"][1]["content"] == "Cell"
    assert report.counts == {}


def test_rotation_turns_pixels_about_the_top_left_corner(save, videos):
    # 30 x 10 pixels with the corner at (50, 10); a quarter turn clockwise puts them left of it, 10 wide and 30 high.
    sequence = [key(1, 50, 20, 30, 20, rotation=90, enabled=False)]
    (row,), _ = run_import("label-studio", save(task(sequence)), videos)
    np.testing.assert_array_equal(masks_of(row)[0], pixels(50, 100, slice(10, 40), slice(40, 50)))


def test_another_frame_rate_is_converted_by_time(save, videos):
    # The project has 50 frames per second, the video 25: the frames 1, 3, 5, ... of the export are those of the video.
    sequence = [
        key(1, 0, 0, 10, 10, time=1 / 50),
        key(9, 40, 0, 10, 10, time=9 / 50, enabled=False),
    ]
    (row,), _ = run_import("label-studio", save(task(sequence, frames=20)), videos)
    assert {index: box[0] for index, box in boxes_of(row).items()} == {0: 0, 1: 10, 2: 20, 3: 30, 4: 40}


def test_a_count_that_is_rounded_up_is_the_same_rate(save, videos):
    (row,), _ = run_import("label-studio", save(task([key(10, 0, 0, 10, 10)], frames=11)), videos)
    assert frames_of(row) == [9]


@pytest.mark.parametrize(
    ("field", "answer"),
    [("caption", "It moves. It stops."), ("meta", "A note."), ("batch", "first"), ("state", "alive"), ("none", None)],
)
def test_answers_come_from_the_tags_of_the_region(save, videos, field, answer):
    others = (
        {"id": "r1", "type": "textarea", "from_name": "caption", "value": {"text": ["It moves.", "It stops."]}},
        {"id": "r1", "type": "choices", "from_name": "state", "value": {"choices": ["alive"]}},
        {"id": "r2", "type": "textarea", "from_name": "caption", "value": {"text": ["Another region."]}},
    )
    content = task([key(1, 0, 0, 10, 10)], others=others)
    content["annotations"][0]["result"][0]["meta"] = {"text": ["A note."]}
    (row,), _ = run_import("label-studio", save(content), videos, answer_field=field)
    assert [message["content"] for message in row["messages"][1:]] == ([answer] if answer else [])


@pytest.mark.parametrize(
    "address",
    [
        "cells.mp4",
        "/data/local-files/?d=lab%2Fcells.mp4",
        "s3://bucket/lab/cells.mp4",
        "https://example.org/lab/cells.mp4?token=1",
        "/data/upload/12ab34cd-cells.mp4",
    ],
)
def test_videos_are_found_by_any_address(save, videos, address):
    (row,), _ = run_import("label-studio", save(task([key(1, 0, 0, 10, 10)], data={"clip": address})), videos)
    assert row["video"] == "cells.mp4"


def test_cancelled_annotations_are_left_out_and_several_annotators_kept(save, videos):
    content = task([key(1, 0, 0, 10, 10)])
    first = content["annotations"][0]
    content["annotations"] += [{**first, "id": 51}, {**first, "id": 52, "was_cancelled": True}]
    rows, _ = run_import("label-studio", save(content), videos)
    assert [row["id"] for row in rows] == ["12-50-r1", "12-51-r1"]


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ([key(0, 0, 0, 10, 10)], "count from 1, got 0"),
        ([key(1, 0, 0, "a", 10)], "needs a number in `width`, got 'a'"),
        ([key(1, 0, 0, 0, 10)], "x1 <= x0"),
        ([key(1, 0, 0, 10, 10), key(1, 5, 5, 10, 10)], "frame 1 of the export is set twice"),
        ([key(13, 0, 0, 10, 10)], "frame 13 of the export lies outside the video"),
        ([], "visible in no frame"),
        ("x", "no `sequence`"),
    ],
)
def test_broken_regions_are_named_or_skipped(save, videos, sequence, message):
    path = save(task(sequence), task([key(1, 0, 0, 10, 10)], id=13))
    with pytest.raises(RecordError, match=rf"export\.json, task 12, region r1: .*{message}"):
        run_import("label-studio", path, videos)
    rows, report = run_import("label-studio", path, videos, bad_rows="skip")
    assert [row["id"] for row in rows] == ["13-50-r1"]
    assert report.num_skipped == 1


def test_keep_writes_shares_of_the_frame_where_the_video_is_missing(save, tmp_path):
    (tmp_path / "empty").mkdir()
    path = save(task([key(1, 10, 20, 30, 40), key(3, 20, 20, 30, 40, enabled=False)]))
    (row,), report = run_import("label-studio", path, tmp_path / "empty", bad_rows="keep")
    frames = row["regions"][0]["frames"]
    assert [frame["frame_index"] for frame in frames] == [0, 1, 2]
    assert frames[1]["size"] == [1, 1]
    assert frames[1]["box"] == pytest.approx([0.15, 0.2, 0.45, 0.6])
    assert report.counts == {"missing_video": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": 1}', "a list of tasks"),
        ('[{"video": "a.mp4", "box": []}]', "JSON-MIN"),
        ("[", "line 1, column 2: no JSON"),
    ],
)
def test_broken_files(tmp_path, videos, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        run_import("label-studio", path, videos, bad_rows="skip")
