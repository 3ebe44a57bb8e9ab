"""Every defect of every row."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import HEIGHT, WIDTH, box_mask, make_record, make_row, write_json
from PIL import Image
from video_files import hide_first_frames, truncate, write_video

from transformers_videorefer.data import DEFECT_KINDS, encode_rle
from transformers_videorefer.data.checks import checking as module
from transformers_videorefer.data.checks.checking import RowChecker, item_to_row
from transformers_videorefer.data.sources.row_source import SourceItem, open_source


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root: 40 frames, 40 of which an edit list hides 5, a truncated file, and an image."""
    root = tmp_path_factory.mktemp("root")
    (root / "videos").mkdir()
    whole = write_video(root / "videos" / "a.mp4", 40, b_frames=0)
    hide_first_frames(whole, root / "videos" / "hidden.mp4", 5)
    truncate(whole, root / "videos" / "cut.mp4", 0.6)
    (root / "videos" / "noise.mp4").write_bytes(b"no video" * 100)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "picture.png")
    return root


def check(tmp_path: Path, records: list[Any], videos: Path | None = None) -> RowChecker:
    checker = RowChecker(None if videos is None else str(videos))
    for item in open_source(str(write_json(tmp_path / "file.json", records))):
        checker.check(item)
    return checker


def test_sound_file(tmp_path: Path, videos: Path):
    records = [
        make_record(0),
        make_row(1),
        make_row(2, video=None, regions=[], messages=[{"role": "user", "content": "?"}]),
    ]
    checker = check(tmp_path, records, videos)
    assert checker.report.counts == {}
    assert (checker.report.num_rows, checker.num_unusable, checker.num_media, checker.num_bad_media) == (3, 0, 2, 0)


TURN = {"from": "human", "value": "<video>\nWhat is <region> doing?"}


@pytest.mark.parametrize(
    ("record", "counts", "is_usable"),
    [
        (make_record(objects=[{0: None, 4: box_mask()}]), {"null_segmentation": 1}, True),
        (make_record(annotation=[{"0": {}, "4": {"segmentation": box_mask()}}]), {"missing_segmentation": 1}, True),
        (make_record(objects=[{0: box_mask()}, {0: box_mask()}]), {"region_mark_mismatch": 1}, False),
        (make_record(objects=[]), {"region_mark_mismatch": 1}, False),
        (
            make_record(objects=[{0: {"size": [HEIGHT, WIDTH], "counts": "abc"}, 4: box_mask()}]),
            {"broken_rle": 1},
            False,
        ),
        (make_record(objects=[{0: {"size": [9, 9], "counts": box_mask()["counts"]}, 4: box_mask()}]), {"broken_rle": 1, "mask_size_differs": 1}, False),
        (make_record(objects=[{0: box_mask(bottom=10), 4: box_mask()}]), {"empty_mask": 1}, True),
        (make_record(conversations=[TURN, {"from": "gpt", "value": " "}]), {"empty_answer": 1}, True),
        (make_record(video="../a.mp4"), {"unsafe_path": 1}, False),
        (make_record(objects=[{0: [[1, 1, 9, 1, 9, 9]]}], height=None), {"polygon_without_size": 1, "region_without_mask": 1}, False),
        ("text", {"wrong_type": 1}, False),
        ({"id": 1}, {"missing_field": 1}, False),
    ],
)  # fmt: skip
def test_defects_that_show_without_the_video(tmp_path: Path, record: Any, counts: dict[str, int], is_usable: bool):
    checker = check(tmp_path, [record])
    assert checker.report.counts == counts
    assert checker.num_unusable == (not is_usable)
    assert set(counts) <= set(DEFECT_KINDS)


def test_masks_are_decoded_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    decoded = []
    real = module.decode_rle
    monkeypatch.setattr(module, "decode_rle", lambda rle: decoded.append(rle) or real(rle))
    first, last = box_mask(), box_mask(bottom=12)
    check(tmp_path, [make_record(objects=[{0: first, 7: None, 9: last}])])
    assert [rle["counts"] for rle in decoded] == [first["counts"], last["counts"]]


def test_huge_mask_is_not_decoded(tmp_path: Path):
    huge = {"size": [40_000, 40_000], "counts": [1_600_000_000]}
    checker = check(tmp_path, [make_record(objects=[{0: huge}], height=None)])
    assert checker.report.counts == {"broken_size": 1}
    assert "40000 x 40000 pixels is too large to be decoded" in checker.report.examples["broken_size"][0]


def test_ids_that_come_twice(tmp_path: Path):
    checker = check(tmp_path, [make_record("x"), make_record(7), make_record("x"), make_record("7"), make_record("x")])
    assert checker.report.counts == {"duplicate_id": 3}
    assert checker.report.examples["duplicate_id"][0] == "file.json, row 2, id 'x': `id` 'x' stands there before"


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (make_record(objects=[{0: box_mask(), 39: box_mask()}]), {}),
        (make_record(objects=[{39: box_mask(), 40: box_mask(), 522: box_mask()}]), {"frame_outside_video": 2}),
        (make_record(objects=[{0: encode_rle(np.ones((20, 30), bool))}], height=20, width=30), {"mask_size_differs": 1}),
        (make_record(video="videos/no.mp4"), {"missing_video": 1}),
        (make_record(video="videos/cut.mp4"), {"truncated_video": 1}),
        (make_record(video="videos/noise.mp4"), {"unreadable_video": 1}),
        # The size of the video serves polygons of records without one.
        (make_record(objects=[{0: [[1, 1, 9, 1, 9, 9]]}], height=None, width=None), {}),
        # Published records count hidden frames; rows of ours say what they do.
        (make_record(video="videos/hidden.mp4", objects=[{39: box_mask()}]), {}),
        (make_row(video="videos/hidden.mp4"), {"edit_list": 1}),
        (make_row(video="videos/hidden.mp4", frames=[{"frame_index": 39, "rle": box_mask()}]), {"edit_list": 1, "frame_outside_video": 1}),
        # Boxes may reach outside by a pixel, and their numbers may refer to another size.
        (make_row(frames=[{"frame_index": 0, "box": [0, 0, WIDTH + 1, HEIGHT]}]), {}),
        (make_row(frames=[{"frame_index": 0, "box": [0, 0, WIDTH + 2, HEIGHT]}]), {"broken_box": 1}),
        (make_row(frames=[{"frame_index": 0, "box": [0, 0, 1280, 960], "size": [960, 1280]}]), {}),
        (make_row(frames=[{"frame_index": 0, "box": [0, 0, 9, 9], "size": [960, 960]}]), {"mask_size_differs": 1}),
        (make_row(frames=[{"frame_index": 0, "box": [0.1, 0, 0.5, 1], "size": [1, 1]}]), {}),
        (
            make_record(video=None, image="picture.png", conversations=[{"from": "human", "value": "<image>\n<region>?"}], objects=[{0: box_mask()}]),
            {},
        ),
        (
            make_record(video=None, image="no.png", conversations=[{"from": "human", "value": "<image>\n<region>?"}], objects=[{0: box_mask()}]),
            {"missing_video": 1},
        ),
    ],
)  # fmt: skip
def test_defects_that_show_with_the_video(tmp_path: Path, videos: Path, record: Any, counts: dict[str, int]):
    assert check(tmp_path, [record], videos).report.counts == counts


def test_frame_of_the_single_frame_mode_lies_in_the_video(tmp_path: Path, videos: Path):
    record = {"id": 1, "video": "videos/a.mp4", "caption": "A dog.", "frame_idx": "50"}
    record["annotation"] = [{"0": {"segmentation": box_mask()}}]
    assert check(tmp_path, [record], videos).report.counts == {"frame_outside_video": 1, "frame_without_mask": 1}


def test_each_video_is_opened_once_for_each_way_of_counting(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = []
    real = module.probe_video
    monkeypatch.setattr(module, "probe_video", lambda path, **options: opened.append(options) or real(path, **options))
    checker = check(tmp_path, [make_record(0), make_record(1), make_row(2), make_row(3)], videos)
    assert opened == [{"edit_list": "ignore"}, {"edit_list": "apply"}]
    assert checker.num_media == 2


def test_no_file_outside_the_data_root_is_opened(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch):
    opened = []
    monkeypatch.setattr(module, "probe_video", lambda path, **options: opened.append(path))
    outside = ["../a.mp4", "/etc/passwd", "videos/../../a.mp4", "https://x.org/a.mp4", "~/a.mp4", "C:\\a.mp4"]
    records = [make_record(number, video=path) for number, path in enumerate(outside)]
    rows = [make_row(number + 50, video=path) for number, path in enumerate(outside)]
    checker = check(tmp_path, [*records, *rows], videos)
    assert checker.report.counts == {"unsafe_path": 12}
    assert opened == []


def test_hc_stvg_entries(tmp_path: Path):
    import json

    path = tmp_path / "train.json"
    entry = {
        "bbox": [[1, 2, 3, 4]],
        "st_frame": 1,
        "img_num": 40,
        "caption": "A man walks.",
        "height": 48,
        "width": 64,
    }
    path.write_text(json.dumps({"a.mp4": entry, "b.mp4": {**entry, "st_frame": 0}}))
    checker = RowChecker()
    for item in open_source(str(path)):
        checker.check(item)
    assert checker.report.num_rows == 2
    assert checker.report.counts["broken_frame_number"] == 1


def test_report_as_json(tmp_path: Path, videos: Path):
    found = check(tmp_path, [make_record(0), make_record(0, video="videos/no.mp4")], videos).to_dict()
    assert found == {
        "num_rows": 2,
        "num_unusable_rows": 1,
        "num_videos": 2,
        "num_bad_videos": 1,
        "num_defects": 2,
        "counts": {"duplicate_id": 1, "missing_video": 1},
        "examples": {
            "duplicate_id": ["file.json, row 1, id '0': `id` '0' stands there before"],
            "missing_video": ["file.json, row 1, id '0': there is nothing at 'videos/no.mp4'"],
        },
    }


def test_damaged_records_never_raise(tmp_path: Path, videos: Path):
    junk = [
        None,
        -1,
        10**30,
        "",
        "../../x",
        "9" * 30,
        [],
        {},
        [None],
        True,
        [1e308] * 6,
        [10**9, 10**9],
        "\udc80",
        0.5,
    ]
    generator = random.Random(0)

    def damage(value: Any) -> Any:
        if generator.random() < 0.06:
            return generator.choice(junk)
        if isinstance(value, dict):
            return {key: damage(one) for key, one in value.items() if generator.random() > 0.03}
        return [damage(one) for one in value] if isinstance(value, list) else value

    sound = [make_record(objects=[{0: box_mask(), 3: [[1, 1, 9, 1, 9, 9]]}]), make_row()]
    checker = check(tmp_path, [damage(generator.choice(sound)) for _ in range(400)], videos)
    assert checker.report.num_rows == 400
    assert 200 < checker.num_unusable < 400
    assert set(checker.report.counts) <= set(DEFECT_KINDS)
    assert checker.num_media < 10  # nothing outside the folder was looked at, only paths in it


def test_ids_are_compared_within_a_config():
    checker = RowChecker()
    for config in ("qa", "other", "qa"):
        checker.check(SourceItem("row", 0, "row", make_row(), config))
    assert checker.report.counts == {"duplicate_id": 1}


@pytest.mark.parametrize("name", ["file.json", "file.jsonl"])
def test_frame_that_is_written_twice_in_one_object(tmp_path: Path, name: str):
    text = json.dumps(make_record(objects=[{0: box_mask(), 7: box_mask(), 4: box_mask()}])).replace('"7"', '"0"')
    (tmp_path / name).write_text(f"[{text}]" if name == "file.json" else text)
    (item,) = open_source(str(tmp_path / name))
    row, defects = item_to_row(item)
    assert [(defect.kind, defect.message, defect.is_fatal) for defect in defects] == [
        ("duplicate_frame", "object 0: frame 0 is listed twice", True)
    ]
    frames = row["regions"][0]["frames"]
    assert [(frame["frame_index"], frame["rle"]) for frame in frames] == [(0, None), (4, box_mask())]


def test_field_that_is_written_twice(tmp_path: Path):
    text = json.dumps(make_record()).replace('"id": 0', '"id": 0, "video": "b.mp4"')
    (tmp_path / "file.json").write_text(f"[{text}]")
    (item,) = open_source(str(tmp_path / "file.json"))
    assert [defect.message for defect in item_to_row(item)[1]] == ["the record holds `video` twice"]
