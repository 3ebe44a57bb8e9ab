"""Rows of ours as anybody may write them."""

import copy
import random
from typing import Any

import pytest
from annotation_files import box_mask, make_row

from transformers_videorefer.data.batches.chat import to_chat
from transformers_videorefer.data.rows.row_checks import row_defects
from transformers_videorefer.data.rows.row_form import read_row


def kinds(value: dict[str, Any]) -> list[str]:
    return [defect.kind for defect in read_row(value)[1]]


def test_sound_row_stays_as_it_is():
    row = make_row()
    assert read_row(copy.deepcopy(row)) == (row, [])


def test_keys_may_be_missing_and_nulls_may_be_structs():
    short = {"id": 7, "messages": [{"role": "user", "content": "Hi"}]}
    row, defects = read_row(short)
    assert defects == []
    assert (row["id"], row["video"], row["regions"], row["edit_list"]) == ("7", None, [], "apply")
    frame = {"frame_index": 3, "rle": {"size": None, "counts": None}, "box": [1, 2, 3, 4], "size": []}
    row, defects = read_row(make_row(frames=[frame]))
    assert defects == []
    assert row["regions"][0]["frames"] == [{"frame_index": 3, "rle": None, "box": [1, 2, 3, 4], "size": None}]


def test_benchmark_rows():
    regions = make_row()["regions"]
    question = {"id": "1", "video": "a.mp4", "question": "Who is <region>?", "options": ["(A) x"], "answer": "(A) x"}
    row, defects = read_row({**question, "type": "Basic Questions", "frame_index": 0, "regions": regions})
    assert (defects, row["question"], row["frame_index"]) == ([], "Who is <region>?", 0)
    row, defects = read_row({"id": "1", "video": "a.mp4", "caption": "A dog.", "frame_index": 0, "regions": regions})
    assert (defects, row["caption"]) == ([], "A dog.")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"id": [1]}, "wrong_type"),
        ({"video": "../x.mp4"}, "unsafe_path"),
        ({"video": 5}, "wrong_type"),
        ({"messages": "Hi"}, "wrong_type"),
        ({"messages": None}, "missing_field"),
        ({"messages": [{"role": "human", "content": "<video><region>"}]}, "unknown_speaker"),
        ({"messages": [{"role": "user", "content": [{"type": "sound"}]}], "regions": []}, "wrong_type"),
        ({"regions": {}}, "wrong_type"),
        ({"regions": [[]]}, "wrong_type"),
        ({"edit_list": "maybe"}, "wrong_type"),
    ],
)
def test_broken_columns(fields: dict[str, Any], kind: str):
    assert kinds(make_row(**fields)) == [kind]


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ({"frame_index": 0, "rle": None}, "null_segmentation"),
        ({"frame_index": -1, "box": [1, 2, 3, 4]}, "broken_frame_number"),
        ({"frame_index": 1.5, "box": [1, 2, 3, 4]}, "broken_frame_number"),
        ("frame", "broken_frame_number"),
        ({"frame_index": 0, "box": [3, 2, 1, 4]}, "broken_box"),
        ({"frame_index": 0, "box": [1, 2, 3]}, "broken_box"),
        ({"frame_index": 0, "box": [1, 2, float("nan"), 4]}, "broken_box"),
        ({"frame_index": 0, "box": [1, 2, 3, 4], "size": [0, 5]}, "broken_size"),
        ({"frame_index": 0, "rle": {"size": [4, 4], "counts": 5}}, "broken_rle"),
        ({"frame_index": 0, "rle": [[1, 2, 3, 4, 5, 6]]}, "broken_rle"),
        ({"frame_index": 0, "rle": box_mask(), "box": [1, 2, 3, 4]}, "wrong_type"),
    ],
)
def test_broken_frames(frame: Any, kind: str):
    assert kinds(make_row(frames=[frame])) == [kind]


def test_frame_that_is_listed_twice():
    frame = make_row()["regions"][0]["frames"][0]
    assert kinds(make_row(frames=[frame, frame])) == ["duplicate_frame"]


def test_damaged_rows_never_raise():
    junk = [None, 5, -1, "", "x", [], {}, [None], {"a": 1}, 1e400, True, b"x"]
    generator = random.Random(0)

    def damage(value: Any) -> Any:
        if generator.random() < 0.08:
            return generator.choice(junk)
        if isinstance(value, dict):
            return {key: damage(one) for key, one in value.items() if generator.random() > 0.05}
        return [damage(one) for one in value] if isinstance(value, list) else value

    num_kept = 0
    for _ in range(500):
        damaged = damage(make_row())
        if isinstance(damaged, dict):
            row, defects = read_row(damaged)
            num_kept += row is not None
            assert row is not None or defects
    assert num_kept > 100


def test_rows_written_by_hand_need_no_id():
    row, defects = read_row(make_row(id=None))
    assert (row["id"], defects) == (None, [])


def parts_row(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return make_row(
        messages=[{"role": "user", "content": list(parts)}, {"role": "assistant", "content": "Yes."}], **fields
    )


TEXT = {"type": "text", "text": "Is it ", "video": None}
LAST = {"type": "text", "text": "?"}


def test_content_of_parts_is_read_as_its_text():
    row, defects = read_row(parts_row({"type": "video"}, TEXT, {"type": "region", "text": None}, LAST))
    assert defects == []
    assert row["messages"][0]["content"] == "<video>Is it <region>?"
    assert row_defects(row) == []
    assert to_chat(row)[0]["content"][2]["type"] == "region"


def test_parts_may_bring_their_regions_and_videos():
    own = {"type": "region", "masks": [box_mask(), None], "frame_indices": [4, 9]}
    parts = ({"type": "video", "path": "videos/b.mp4"}, TEXT, {"type": "region"}, TEXT, own, LAST)
    row, defects = read_row(parts_row(*parts, video=None))
    assert [defect.kind for defect in defects] == ["null_segmentation"]
    assert row["video"] == "videos/b.mp4"
    assert [[frame["frame_index"] for frame in region["frames"]] for region in row["regions"]] == [[0], [4, 9]]
    assert row["regions"][1]["frames"][0]["rle"] == box_mask()
    assert [defect.kind for defect in row_defects(row)] == ["null_segmentation"]


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "text", "text": "<region>"}, "region_mark_mismatch"),
        ({"type": "video", "path": "../b.mp4"}, "unsafe_path"),
        ("text", "wrong_type"),
    ],
)
def test_broken_parts(part: Any, kind: str):
    assert kinds(parts_row(part)) == [kind]
