import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_helpers import boxes_of, masks_of, pixels, run_import
from PIL import Image
from pycocotools import mask as coco_mask
from video_files import write_video

from transformers_videorefer.data.defects import RecordError


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "clip.mp4", 10, height=8, width=10, fps=10)
    Image.new("RGB", (10, 8)).save(tmp_path / "videos" / "still.png")
    return tmp_path / "videos"


@pytest.fixture
def save(tmp_path: Path):
    def write(*rows: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
        return path

    return write


def row_with(**region: Any) -> dict[str, Any]:
    return {"id": "a", "video": "clip.mp4", "question": "What is <region>?", "answer": "A dog.", "regions": [region]}


SQUARE = pixels(8, 10, slice(2, 5), slice(3, 7))


def test_rows_keep_what_they_say(save, videos):
    given = {
        "id": 3,
        "video": "clip.mp4",
        "messages": [
            {"role": "user", "content": "<video>\nWhat is <region>?"},
            {"role": "assistant", "content": "A dog."},
            {"role": "user", "content": "And <region>?"},
            {"role": "assistant", "content": "A cat."},
        ],
        "regions": [
            {"object_id": "d", "frames": [{"frame_index": 4, "box": [1, 2, 3, 4]}]},
            {"frames": [{"frame_index": 2, "rle": None}, {"frame_index": 1, "box": [0, 0, 10, 8]}]},
        ],
        "task": "qa",
        "source": "mine",
    }
    (row,), report = run_import("jsonl", save(given), videos)
    null = {"rle": None, "box": None, "size": None}
    assert row == {
        **given,
        "id": "3",
        "image": None,
        "edit_list": "apply",
        "regions": [
            {"object_id": "d", "media": 0, "frames": [{**null, "frame_index": 4, "box": [1, 2, 3, 4]}]},
            {
                "object_id": "1",
                "media": 0,
                "frames": [{**null, "frame_index": 2}, {**null, "frame_index": 1, "box": [0, 0, 10, 8]}],
            },
        ],
    }
    assert report.counts == {}


@pytest.mark.parametrize(
    "form",
    [
        {"rle": {"size": [8, 10], "counts": [26, 3, 5, 3, 5, 3, 5, 3, 27]}},
        {"polygon": [[3, 2, 7, 2, 7, 5, 3, 5]]},
        {"polygon": [[0.3, 0.25, 0.7, 0.25, 0.7, 0.625, 0.3, 0.625]], "size": [1, 1]},
        {"mask": "masks/square.png"},
        {"mask": "masks/labels.png", "label": 7},
    ],
)
def test_every_form_becomes_the_same_mask(save, videos, tmp_path, form):
    (tmp_path / "masks").mkdir()
    Image.fromarray(SQUARE * np.uint8(255)).save(tmp_path / "masks" / "square.png")
    Image.fromarray(np.where(SQUARE, 7, 2).astype(np.uint8)).save(tmp_path / "masks" / "labels.png")
    (row,), _ = run_import("jsonl", save(row_with(frames=[{"frame_index": 5, **form}])), videos)
    masks = masks_of(row)
    assert list(masks) == [5]
    np.testing.assert_array_equal(masks[5], SQUARE)
    assert row["messages"] == [
        {"role": "user", "content": "<video>\nWhat is <region>?"},
        {"role": "assistant", "content": "A dog."},
    ]


def test_scribbles_times_and_scaled_boxes(save, videos):
    # A horizontal stroke of 2 pixels from (2, 4) to (6, 4): centres at most 1 away from the line, rows 3 and 4.
    scribble = {"scribble": {"points": [[2, 4], [6, 4]], "width": 2}, "time_seconds": 0.35}
    scaled = {"frame_index": 6, "box": [2, 4, 10, 16], "size": [16, 20]}
    (row,), _ = run_import("jsonl", save(row_with(frames=[scribble, scaled])), videos)
    (index, mask), *_ = masks_of(row).items()
    assert index == 3  # shown from 0.3 seconds on
    np.testing.assert_array_equal(np.flatnonzero(mask.any(axis=1)), [3, 4])
    assert mask[3, 2:6].all()
    assert boxes_of(row) == {6: [1, 2, 5, 8]}


def test_masklets_and_masks_of_another_size(save, videos):
    small = coco_mask.encode(np.asfortranarray(np.eye(4, 5, dtype=np.uint8)))
    rle = {"size": [4, 5], "counts": small["counts"].decode()}
    region = {"masks": [rle, None, rle], "frame_indices": [1, 4, 7], "size": [4, 5]}
    (row,), _ = run_import("jsonl", save(row_with(**region)), videos, stride=2)
    frames = row["regions"][0]["frames"]
    assert [(frame["frame_index"], frame["size"]) for frame in frames] == [(1, [4, 5]), (7, [4, 5])]
    np.testing.assert_array_equal(masks_of(row)[7], np.eye(4, 5, dtype=bool))


def test_images_and_rows_without_regions(save, videos):
    image = {"image": "still.png", "question": "Is <region> red?", "regions": [{"frames": [{"box": [1, 1, 4, 4]}]}]}
    plain = {"video": "clip.mp4", "messages": [{"role": "user", "content": "What happens?"}]}
    rows, _ = run_import("jsonl", save(image, plain), videos)
    assert [(row["id"], row["video"], row["image"]) for row in rows] == [
        ("0", None, "still.png"),
        ("1", "clip.mp4", None),
    ]
    assert rows[0]["messages"] == [{"role": "user", "content": "<image>\nIs <region> red?"}]
    assert boxes_of(rows[0]) == {0: [1, 1, 4, 4]}
    assert rows[1]["messages"] == [{"role": "user", "content": "<video>\nWhat happens?"}]
    assert rows[1]["regions"] == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", r"row 0 \(byte 0\)"),
        ("[1]", "a row is a JSON object|JSON"),
        ({**row_with(), "regions": []}, "1 <region> mark for 0 regions"),
        (row_with(frames=[{"frame_index": 10, "box": [1, 1, 2, 2]}]), "frame 10.*10 frames"),
        (row_with(frames=[{"frame_index": 1, "bbox": [1, 1, 2, 2]}]), "unknown key `bbox`"),
        (row_with(frames=[{"frame_index": 1, "box": [1, 1, 30, 2]}]), "reaches more than 1 pixel outside"),
        (row_with(frames=[{"frame_index": 1, "rle": {"size": [4, 5], "counts": [20]}}]), "height 4 and width 5"),
        (row_with(frames=[{"frame_index": 1, "mask": "../secret.png"}]), "no path below the folder of the file"),
        (row_with(frames=[{"frame_index": 1, "mask": "none.png"}]), "does not exist"),
        (row_with(media=1, frames=[{"frame_index": 1, "box": [1, 1, 2, 2]}]), "`media` is 1, but there are 1 media"),
        (row_with(frames=[{"frame_index": 1, "rle": None}]), "shows nothing in any frame"),
        ({**row_with(), "video": "../clip.mp4"}, "no path below the folder of videos"),
        ({**row_with(), "video": "gone.mp4"}, "no video 'gone.mp4'"),
        ({**row_with(), "edit_list": "x"}, "`edit_list` is 'x'. Pass one of"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "a turn has a `role`"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no turn of the user"),
        ({**row_with(), "question": 5}, "`question` must be a text"),
        ({**row_with(), "messages": [{"role": "user", "content": "<region>"}]}, "`question` stands beside `messages`"),
        ({**row_with(), "options": "(A)"}, "`options` must be a list"),
        ({"options": ["(A)"]}, "there are `options`, but no `question`"),
        ({**row_with(), "caption": "A dog."}, "`question` stands beside `caption`"),
        ({"caption": "A dog.", "answer": "A cat."}, "`answer` stands beside `caption`"),
        ({"id": 1, "conversations": []}, "a row with `conversations` is a published record"),
        ({"id": 1, "Question": "Who?"}, "a row with `Question` is a published record"),
    ],
)
def test_broken_rows_are_named_or_skipped(save, videos, tmp_path, row, message):
    Image.new("L", (10, 8), 255).save(tmp_path.parent / "secret.png")
    good = {**row_with(frames=[{"frame_index": 1, "box": [1, 1, 2, 2]}]), "id": "b"}
    path = save(row, good) if row != "[1]" else save("[[1],", json.dumps(good), "]")
    with pytest.raises(RecordError, match=message):
        run_import("jsonl", path, videos)
    rows, report = run_import("jsonl", path, videos, bad_rows="skip")
    assert [row["id"] for row in rows] == ["b"]
    assert (report.num_rows, report.num_skipped) == (2, 1)


def test_keep_makes_broken_frames_null(save, videos):
    frames = [{"frame_index": 1, "box": [1, 1, 30, 2]}, {"frame_index": 2, "box": [1, 1, 3, 2]}]
    (row,), report = run_import("jsonl", save(row_with(frames=frames)), videos, bad_rows="keep")
    assert [frame["box"] for frame in row["regions"][0]["frames"]] == [None, [1, 1, 3, 2]]
    assert sum(report.counts.values()) == 1


BOX = [{"frames": [{"frame_index": 1, "box": [1, 1, 2, 2]}]}]
MASK = [{"frames": [{"frame_index": 1, "polygon": [[3, 2, 7, 2, 7, 5, 3, 5]]}]}]


@pytest.mark.parametrize(
    ("given", "options", "question", "answer"),
    [
        (
            {"question": "What is <region>?", "options": ["(A) A dog", "(B) A cat"], "answer": "(A) A dog", "regions": BOX},
            {},
            "What is [<region>]? (A) A dog (B) A cat. Answer with the option's letter from the given choices directly.",
            "(A) A dog",
        ),
        (
            {"caption": "A dog runs.", "frame_index": 1, "regions": MASK},
            {},
            "Please give a detailed description of the highlighted object [<region>] in the video.",
            "A dog runs.",
        ),
        (
            {"caption": "A dog runs.", "regions": BOX},
            {},
            "Please describe the object <region> in the video in brief.",
            "A dog runs.",
        ),
        ({"caption": "A dog.", "regions": MASK}, {"question": "Name <region>."}, "Name <region>.", "A dog."),
        (
            {"question": "Who is <region>?", "caption": "A dog.", "regions": BOX},
            {"answer_field": "caption"},
            "Who is <region>?",
            "A dog.",
        ),
    ],
    ids=["bench-q", "bench-d", "hc-stvg", "own question", "answer field"],
)  # fmt: skip
def test_rows_of_benchmarks_keep_what_they_say(save, videos, given, options, question, answer):
    (row,), report = run_import("jsonl", save({"id": "a", "video": "clip.mp4", **given}), videos, **options)
    assert row["messages"] == [
        {"role": "user", "content": f"<video>\n{question}"},
        {"role": "assistant", "content": answer},
    ]
    assert report.counts == {}


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ({"frame_index": 10, "box": [1, 1, 2, 2]}, "frame_outside_video"),
        ({"frame_index": 1, "box": [1, 1, 30, 2]}, "broken_box"),
        ({"frame_index": 1, "box": [3, 1, 1, 2]}, "broken_box"),
        ({"frame_index": 1, "polygon": [[1, 1, 3]]}, "broken_polygon"),
        ({"frame_index": 1, "rle": {"size": [8, 10], "counts": [5]}}, "broken_rle"),
        ({"frame_index": 1, "rle": {"size": [4, 5], "counts": [20]}}, "mask_size_differs"),
        ({"frame_index": 1, "bbox": [1, 1, 2, 2]}, "wrong_type"),
        ({"frame_index": "x", "box": [1, 1, 2, 2]}, "wrong_type"),
        ({"frame_index": 1, "box": [1, 1, 2, 2], "label": 3}, "wrong_type"),
        ({"frame_index": 1, "box": [1, 1, 2, 2], "size": [0, 5]}, "wrong_type"),
        ({"frame_index": 1, "rle": [[1, 1, 3, 1, 3, 3]]}, "broken_rle"),
        ({"time_seconds": 60, "box": [1, 1, 2, 2]}, "frame_outside_video"),
        ({"box": [1, 1, 2, 2]}, "broken_frame_number"),
        ({"frame_index": 1, "mask": "none.png"}, "wrong_type"),
    ],
)
def test_kinds_of_broken_frames(save, videos, frame, kind):
    frames = [frame, {"frame_index": 2, "box": [1, 1, 3, 2]}]
    rows, report = run_import("jsonl", save(row_with(frames=frames)), videos, bad_rows="skip")
    assert (rows, report.counts) == ([], {kind: 1})
