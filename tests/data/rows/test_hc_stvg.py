import json
from pathlib import Path
from typing import Any

import pytest

from transformers_videorefer.data.defects import RecordError
from transformers_videorefer.data.rows.hc_stvg import salvage_hc_stvg
from transformers_videorefer.data.sources.reading import iterate_rows


# The forms of the two published versions; numbers as in the first entry of version 1, shortened.
VERSION_1 = {
    "bbox": [[194, 0, 240, 359], [190, 11, 234, 349], [198, 1, 228, 359]],
    "st_time": 6.501935870542281,
    "ed_time": 6.6,
    "img_num": 480,
    "caption": "The man in brown clothes pours the contents of the bag into his hand.",
    "width": 480,
    "height": 360,
    "st_frame": 157,
}
VERSION_2 = {
    "bbox": VERSION_1["bbox"],
    "English": VERSION_1["caption"],
    "img_size": [360, 480],
    "img_num": 480,
    "st_frame": 157,
    "st_time": 6.5,
    "ed_time": 6.6,
}


def entry(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**VERSION_1, **changes}.items() if value != "DROP"}


@pytest.mark.parametrize("published", [VERSION_1, VERSION_2])
def test_both_versions_become_the_same_row(published: dict[str, Any]) -> None:
    row, defects = salvage_hc_stvg("55_vfjywN5CN0Y.mp4", published)
    assert defects == []
    assert {name: value for name, value in row.items() if name != "regions"} == {
        "id": "55_vfjywN5CN0Y.mp4",
        "video": "55_vfjywN5CN0Y.mp4",
        "caption": VERSION_1["caption"],
        "frame_index": 157,  # the second of the frames 156, 157 and 158
        "edit_list": "ignore",
    }
    (region,) = row["regions"]
    assert (region["object_id"], region["media"]) == ("0", 0)
    assert [frame["frame_index"] for frame in region["frames"]] == [156, 157, 158]
    assert [frame["box"] for frame in region["frames"]] == [
        [194, 0, 434, 359],
        [190, 11, 424, 360],
        [198, 1, 426, 360],
    ]
    assert all((frame["rle"], frame["size"]) == (None, [360, 480]) for frame in region["frames"])


def test_the_first_frame_is_the_one_of_the_start_time() -> None:
    """The published file counts frames from 1: 6.5019 s at 24 frames a second is the frame 156 from 0."""
    row, _ = salvage_hc_stvg("a.mp4", VERSION_1)
    fps = VERSION_1["img_num"] / 20  # all videos last 20 seconds
    assert row["regions"][0]["frames"][0]["frame_index"] == int(VERSION_1["st_time"] * fps) == 156


def test_boxes_are_clipped_by_a_pixel_at_most() -> None:
    row, defects = salvage_hc_stvg("a.mp4", entry(bbox=[[-0.5, 0, 481.5, 361]]))
    assert row["regions"][0]["frames"][0]["box"] == [0, 0, 480, 360]
    assert [(defect.kind, defect.is_fatal) for defect in defects] == [("box_clipped", False)]
    row, defects = salvage_hc_stvg("a.mp4", entry(bbox=[[0, 0, 482, 360], [1, 2, 3, 4]]))
    assert [frame["box"] for frame in row["regions"][0]["frames"]] == [None, [1, 2, 4, 6]]
    assert [(defect.kind, defect.is_fatal) for defect in defects] == [("broken_box", True)]
    assert "box 0 reaches 2 pixels out of the picture of [360, 480]" in defects[0].message


def test_boxes_without_a_size_are_taken_as_they_are() -> None:
    row, defects = salvage_hc_stvg("a.mp4", entry(width="DROP", bbox=[[0, 0, 9000, 10]]))
    assert (row["regions"][0]["frames"][0]["box"], row["regions"][0]["frames"][0]["size"]) == ([0, 0, 9000, 10], None)
    assert defects == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"bbox": "DROP"}, "missing_field"),
        ({"bbox": {"157": [1, 2, 3, 4]}}, "wrong_type"),
        ({"bbox": []}, "wrong_type"),
        ({"bbox": [None]}, "broken_box"),
        ({"bbox": [[1, 2, 3]]}, "broken_box"),
        ({"bbox": [[1, 2, "3", 4]]}, "broken_box"),
        ({"bbox": [[1, 2, True, 4]]}, "broken_box"),
        ({"bbox": [[1, 2, float("nan"), 4]]}, "broken_box"),
        ({"bbox": [[1, 2, 10**400, 4]]}, "broken_box"),
        ({"bbox": [[1, 2, 0, 4]]}, "broken_box"),
        ({"bbox": [[500, 2, 5, 4]]}, "broken_box"),
        ({"st_frame": "DROP"}, "broken_frame_number"),
        ({"st_frame": 0}, "broken_frame_number"),
        ({"st_frame": 2**31}, "broken_frame_number"),
        ({"st_frame": 157.0}, "broken_frame_number"),
        ({"img_num": 158}, "frame_outside_video"),
        ({"caption": "DROP"}, "missing_field"),
        ({"caption": 5}, "wrong_type"),
        ({"caption": "\udfff"}, "broken_text"),
        ({"width": 0}, "broken_size"),
    ],
)
def test_broken_entries_are_reported(changes: dict[str, Any], kind: str) -> None:
    row, defects = salvage_hc_stvg("a.mp4", entry(**changes))
    assert [defect.kind for defect in defects] == [kind]
    assert defects[0].is_fatal
    assert row["video"] == "a.mp4"


def test_names_that_leave_the_folder_are_reported() -> None:
    row, defects = salvage_hc_stvg("../a.mp4", VERSION_1)
    assert (row["video"], [defect.kind for defect in defects]) == (None, ["unsafe_path"])
    assert salvage_hc_stvg("a.mp4", [1])[0] is None


def test_files_are_streamed_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"a.mp4": VERSION_1, "b.mkv": VERSION_2, "c.mp4": entry(st_frame=0)}))
    rows = list(iterate_rows(path, kind="hc_stvg", bad_rows="skip", edit_list="apply"))
    assert [(row["id"], row["edit_list"]) for row in rows] == [("a.mp4", "apply"), ("b.mkv", "apply")]
    with pytest.raises(RecordError, match=r"test.json, byte \d+, id 'c.mp4': `st_frame` must be .* bad_rows=\"skip\""):
        list(iterate_rows(path, kind="hc_stvg"))
