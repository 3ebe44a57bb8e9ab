from typing import Any

import numpy as np
import pytest
from conftest import load_arrays, load_json
from pycocotools import mask as coco_mask

from transformers_videorefer.data.defects import RecordError
from transformers_videorefer.data.rows.records import from_published, record_defects, salvage, to_published
from transformers_videorefer.data.rows.row_checks import QUESTION_TYPES
from transformers_videorefer.data.synthetic.clips import bench_d_rows, bench_q_rows, conversation_rows, make_clip


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SETS = ("train", "bench_d", "bench_q")
RECORDS = [(name, record) for name in SETS for record in load_json(f"annotations/{name}.json")]


def coco_bits(segmentation: Any, height: int | None = None, width: int | None = None) -> np.ndarray | None:
    """Decode a published segmentation with the COCO tools."""
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return coco_mask.decode(segmentation)


def conversation(**fields: Any) -> dict[str, Any]:
    """Make a small record with one object in one frame."""
    record = {
        "id": "a",
        "video": "videos/a.mp4",
        "conversations": [
            {"from": "human", "value": "<video>\nWhat is <region>?"},
            {"from": "gpt", "value": "A dog."},
        ],
        "annotation": [{"3": {"segmentation": {"size": [4, 6], "counts": [8, 4, 12]}}}],
    }
    return {name: value for name, value in {**record, **fields}.items() if value != "DROP"}


def kinds(record: Any) -> list[str]:
    return [defect.kind for defect in record_defects(record)]


@pytest.mark.parametrize(("name", "record"), RECORDS, ids=[f"{name}{record['id']}" for name, record in RECORDS])
def test_published_records_come_back(name: str, record: dict[str, Any]) -> None:
    row = from_published(record)
    back = to_published(row)
    without = {key: value for key, value in record.items() if key != "annotation"}
    assert {key: value for key, value in back.items() if key != "annotation"} == without
    objects = record.get("annotation", [])
    assert [list(one) for one in back.get("annotation", [])] == [list(one) for one in objects]
    for one, other in zip(objects, back.get("annotation", []), strict=True):
        for number, entry in one.items():
            expected = coco_bits(entry["segmentation"], record.get("height"), record.get("width"))
            found = coco_bits(other[number]["segmentation"])
            assert np.array_equal(found, expected)
            assert isinstance(other[number]["segmentation"]["counts"], str)
    assert from_published(back) == row


def test_rows_have_the_columns_of_their_set_in_order() -> None:
    rows = {name: from_published(load_json(f"annotations/{name}.json")[0], task="qa", source="s") for name in SETS}
    assert list(rows["train"]) == ["id", "video", "image", "messages", "regions", "edit_list", "task", "source"]
    assert list(rows["bench_d"]) == ["id", "video", "caption", "frame_index", "regions", "edit_list"]
    expected = ["id", "video", "question", "options", "answer", "type", "frame_index", "regions", "edit_list"]
    assert list(rows["bench_q"]) == expected
    assert (rows["train"]["task"], rows["train"]["source"], rows["train"]["edit_list"]) == ("qa", "s", "ignore")
    assert rows["train"]["id"] == "0"
    regions = rows["train"]["regions"]
    assert [(region["object_id"], region["media"]) for region in regions] == [("0", 0), ("1", 0)]
    assert [frame["frame_index"] for frame in regions[1]["frames"]] == [12, 33, 8, 27, 38, 15]
    assert regions[0]["frames"][0].keys() == {"frame_index", "rle", "box", "size"}
    assert rows["bench_q"]["frame_index"] == 10


def test_messages_keep_the_published_text() -> None:
    row = from_published(load_json("annotations/train.json")[4])
    assert [message["role"] for message in row["messages"]] == ["assistant"] + ["user", "assistant"] * 3
    assert row["messages"][1]["content"] == "<image>\nHow are [<region>] and [<region>] related?"
    assert row["messages"][6]["content"] == ""


@pytest.mark.parametrize("mode", ["single", "multi"])
@pytest.mark.parametrize("letter", ["q", "d"])
def test_masks_of_the_benchmarks_are_those_the_published_code_made(letter: str, mode: str) -> None:
    arrays = load_arrays("bench/dataset_items.npz")
    recorded = load_json("bench/inference.json")[f"{letter}_{mode}"]["dataset_items"]
    for index, record in enumerate(load_json(f"annotations/bench_{letter}.json")):
        row = from_published(record)
        frames = [frame for region in row["regions"] for frame in region["frames"]]
        if mode == "single":
            frames = [frame for frame in frames if frame["frame_index"] == row["frame_index"]]
        expected = arrays[f"{letter}_{mode}_{index}/masks"][0]
        found = np.stack([coco_mask.decode(frame["rle"]) for frame in frames])
        assert np.array_equal(found, expected)
        assert {frame["frame_index"] for frame in frames} == set(recorded[index]["region_frame_indices"])


def test_both_namings_and_all_kinds_give_the_same_regions() -> None:
    mask = np.zeros((4, 6), dtype=np.uint8, order="F")
    mask[:, 2] = 1
    coded = coco_mask.encode(mask)
    counts = {"str": coded["counts"].decode(), "bytes": coded["counts"], "list": [8, 4, 12]}
    square = [[2.0, 0.0, 3.0, 0.0, 3.0, 4.0, 2.0, 4.0]]
    values = [*({"size": [4, 6], "counts": value} for value in counts.values()), square]
    rows = []
    for value in values:
        rows.append(from_published(conversation(height=4, width=6, annotation=[{"3": {"segmentation": value}}])))
        rows.append(from_published(conversation(height=4, width=6, annotation="DROP", masks=[{"3": value}])))
    assert all(row["regions"] == rows[0]["regions"] for row in rows)
    assert np.array_equal(coco_mask.decode(rows[0]["regions"][0]["frames"][0]["rle"]), mask)


def test_polygons_take_the_size_of_the_video() -> None:
    record = conversation(annotation=[{"3": {"segmentation": [[2.0, 0.0, 3.0, 0.0, 3.0, 4.0, 2.0, 4.0]]}}])
    with pytest.raises(RecordError, match="object 0, frame 3: polygons need the `height` and `width`"):
        from_published(record)
    assert from_published(record, video_size=(4, 6)) == from_published({**record, "height": 4, "width": 6})


def test_null_and_missing_segmentations_are_null_masks() -> None:
    whole = {"segmentation": {"size": [4, 6], "counts": [8, 4, 12]}}
    record = conversation(annotation=[{"3": whole, "1": {"segmentation": None}, "9": {}, "2": None}])
    row = from_published(record)
    frames = row["regions"][0]["frames"]
    assert [(frame["frame_index"], frame["rle"] is None) for frame in frames] == [
        (3, False),
        (1, True),
        (9, True),
        (2, True),
    ]
    assert kinds(record) == ["null_segmentation", "missing_segmentation", "null_segmentation"]
    assert [list(one.items())[1] for one in to_published(row)["annotation"]] == [("1", {"segmentation": None})]


def test_media_may_be_missing_or_an_image() -> None:
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]
    text_only = {"id": 3, "conversations": [{"from": "system", "value": "Be brief."}, *turns]}
    row = from_published(text_only)
    assert (row["video"], row["image"], row["regions"]) == (None, None, [])
    assert row["messages"][0] == {"role": "system", "content": "Be brief."}
    assert to_published(row) == text_only
    image = conversation(video="DROP", image="a.png", annotation=[{"0": {"segmentation": None}}])
    assert (from_published(image)["image"], from_published(image)["video"]) == ("a.png", None)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"conversations": "DROP"}, "missing_field"),
        ({"conversations": None}, "missing_field"),
        ({"conversations": {}}, "wrong_type"),
        ({"conversations": []}, "wrong_type"),
        ({"conversations": ["x"]}, "wrong_type"),
        ({"conversations": [{"from": "dog", "value": "x"}]}, "unknown_speaker"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "unknown_speaker"),
        ({"conversations": [{"from": "human", "value": 3}]}, "wrong_type"),
        ({"conversations": [{"from": "human", "value": "\ud800"}]}, "broken_text"),
        ({"id": 1.5}, "wrong_type"),
        ({"id": True}, "wrong_type"),
        ({"video": 7}, "wrong_type"),
        ({"image": "a.png"}, "wrong_type"),
        ({"video": "../x.mp4"}, "unsafe_path"),
        ({"video": "a/../../x.mp4"}, "unsafe_path"),
        ({"video": "/etc/passwd"}, "unsafe_path"),
        ({"video": "C:\\x.mp4"}, "unsafe_path"),
        ({"video": "https://example.org/x.mp4"}, "unsafe_path"),
        ({"video": "a\0.mp4"}, "unsafe_path"),
        ({"masks": [{"3": None}]}, "ambiguous_annotation"),
        ({"annotation": {"3": {}}}, "wrong_type"),
        ({"annotation": [None]}, "wrong_type"),
        ({"annotation": [{"3.0": {}}]}, "broken_frame_number"),
        ({"annotation": [{"-1": {}}]}, "broken_frame_number"),
        ({"annotation": [{"2147483648": {}}]}, "broken_frame_number"),
        ({"annotation": [{"٣": {}}]}, "broken_frame_number"),
        ({"annotation": [{True: {}}]}, "broken_frame_number"),
        ({"annotation": [{"3": None, "03": None}]}, "duplicate_frame"),
        ({"annotation": [{"3": "x"}]}, "broken_rle"),
        ({"annotation": [{"3": {"segmentation": 5}}]}, "broken_rle"),
        ({"annotation": [{"3": {"segmentation": {}}}]}, "broken_size"),
        ({"annotation": [{"3": {"segmentation": {"size": [4, 6]}}}]}, "broken_rle"),
        ({"annotation": [{"3": {"size": [4, 6]}}]}, "broken_rle"),
        ({"annotation": [{"3": {"segmentation": {"size": [4, 6], "counts": "84"}}}]}, "broken_rle"),
        ({"annotation": [{"3": {"segmentation": {"size": [10**6, 10**6], "counts": "84"}}}]}, "broken_size"),
        ({"annotation": [{"3": {"segmentation": []}}], "height": 4, "width": 6}, "broken_polygon"),
        ({"height": "4", "width": 6}, "broken_size"),
        ({"height": float("nan"), "width": 6}, "broken_size"),
    ],
)
def test_what_cannot_be_told_for_sure_is_refused(changes: dict[str, Any], kind: str) -> None:
    record = conversation(**changes)
    if "conversations" not in record:
        record["other"] = 1
    with pytest.raises(RecordError) as caught:
        from_published(record)
    assert kind in [defect.kind for defect in caught.value.defects]
    assert all(defect.is_fatal for defect in caught.value.defects)


def test_all_reasons_are_given_at_once() -> None:
    record = conversation(id=[], video="/x", annotation=[{"x": None}, 5])
    with pytest.raises(RecordError, match="^record a list of 0: `video` '/x' is no path") as caught:
        from_published(record)
    assert [defect.kind for defect in caught.value.defects] == [
        "unsafe_path",
        "wrong_type",
        "broken_frame_number",
        "wrong_type",
    ]


@pytest.mark.parametrize("record", [None, [], "x", 5, {}, {"id": 1, "video": "a.mp4"}])
def test_what_is_no_record_is_refused(record: Any) -> None:
    with pytest.raises(RecordError, match="a record is a dict|none of `conversations`, `Question` and `caption`"):
        from_published(record)
    assert salvage(record)[0] is None


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"type": "Basic"}, "unknown_question_type"),
        ({"type": 0}, "wrong_type"),
        ({"options": "(A) x"}, "wrong_type"),
        ({"options": ["(A) x", 5]}, "wrong_type"),
        ({"options": None}, "missing_field"),
        ({"Answer": None}, "missing_field"),
        ({"frame_idx": None}, "missing_field"),
        ({"frame_idx": "x"}, "broken_frame_number"),
        ({"frame_idx": 1.0}, "broken_frame_number"),
        ({"frame_idx": False}, "broken_frame_number"),
        ({"video": None}, "missing_field"),
        ({"Question": None}, "missing_field"),
    ],
)
def test_broken_benchmark_records_are_refused(changes: dict[str, Any], kind: str) -> None:
    record = {**load_json("annotations/bench_q.json")[0], **changes}
    with pytest.raises(RecordError) as caught:
        from_published(record)
    assert [defect.kind for defect in caught.value.defects] == [kind]


def test_frame_numbers_may_be_texts() -> None:
    record = load_json("annotations/bench_d.json")[0]
    assert from_published({**record, "frame_idx": "36"})["frame_index"] == 36


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="`edit_list` is 'hide'. Pass one of 'apply', 'ignore'"):
        from_published(conversation(), edit_list="hide")
    with pytest.raises(ValueError, match="`kind` must be one of conversations, bench_d, bench_q, got 'x'"):
        salvage(conversation(), kind="x")
    assert from_published(conversation(), edit_list="apply")["edit_list"] == "apply"


def test_swapped_sizes_are_found_where_the_record_shows_them() -> None:
    """Counts of 4 x 6 pixels fit 6 x 4 as well, but give another mask."""
    swapped, whole = ({"segmentation": {"size": size, "counts": [8, 4, 12]}} for size in ([6, 4], [4, 6]))
    record = conversation(annotation=[{"1": whole, "2": swapped}], height=4, width=6)
    row, defects = salvage(record)
    assert [frame["rle"] is None for frame in row["regions"][0]["frames"]] == [False, True]
    assert [(defect.kind, defect.is_fatal) for defect in defects] == [
        ("mask_size_differs", False),
        ("broken_size", True),
    ]
    del record["height"]
    row, _ = salvage(record)  # nobody knows which one is right
    assert [frame["rle"] for frame in row["regions"][0]["frames"]] == [None, None]


def test_masks_of_another_size_than_the_record_are_only_reported() -> None:
    record = conversation(height=8, width=12)
    assert from_published(record)["regions"][0]["frames"][0]["rle"]["size"] == [4, 6]
    assert kinds(record) == ["mask_size_differs"]


def test_salvage_keeps_what_is_whole() -> None:
    whole = {"segmentation": {"size": [4, 6], "counts": [8, 4, 12]}}
    cut = {"segmentation": {"size": [4, 6], "counts": "84"}}
    record = conversation(video="../a.mp4", annotation=[{"1": cut, "3": whole, "x": whole}, 5, {"2": whole}])
    row, defects = salvage(record)
    assert [defect.kind for defect in defects] == ["unsafe_path", "broken_frame_number", "wrong_type", "broken_rle"]
    assert defects[-1].message.startswith("object 0, frame 1: ")
    assert row["video"] is None
    assert [region["object_id"] for region in row["regions"]] == ["0", "1", "2"]
    found = [[(frame["frame_index"], frame["rle"] is None) for frame in region["frames"]] for region in row["regions"]]
    assert found == [[(1, True), (3, False)], [], [(2, False)]]


def test_masks_can_be_left_unchecked() -> None:
    record = conversation(annotation=[{"1": {"segmentation": {"size": [4, 6], "counts": "84"}}}])
    assert from_published(record, check_masks=False)["regions"][0]["frames"][0]["rle"]["counts"] == "84"


@pytest.mark.parametrize("as_number", [False, True])
def test_rows_of_the_synthetic_sets_survive_the_published_form(as_number: bool) -> None:
    clip = make_clip(5)
    for row in (*conversation_rows(clip)[:2], *bench_q_rows(clip)[:2], *bench_d_rows(clip)[:1]):
        given = {**row, "type": QUESTION_TYPES.index(row["type"])} if as_number and "type" in row else row
        back = from_published(to_published(given), edit_list="apply", task=row.get("task"), source=row.get("source"))
        for region in row["regions"]:  # objects are numbered anew
            region["object_id"] = str(row["regions"].index(region))
        assert back == row


def test_boxes_and_doubled_frames_have_no_published_form() -> None:
    row = from_published(conversation())
    frame = row["regions"][0]["frames"][0]
    row["regions"][0]["frames"] = [{**frame, "rle": None, "box": [0, 0, 2, 2]}]
    with pytest.raises(ValueError, match="row 'a', region 0: frame 3 has a box, .* `encode_rle` first"):
        to_published(row)
    row["regions"][0]["frames"] = [frame, frame]
    with pytest.raises(ValueError, match="frame 3 is listed twice"):
        to_published(row)
    with pytest.raises(ValueError, match="is of no published set"):
        to_published({"id": "1", "text": "x"})


@pytest.mark.parametrize(
    ("row_id", "expected"), [("12", 12), ("012", "012"), ("a1", "a1"), ("0", 0), (None, "absent")]
)
def test_ids_come_back_as_the_files_write_them(row_id: str | None, expected: Any) -> None:
    row = {**from_published(conversation()), "id": row_id}
    assert to_published(row).get("id", "absent") == expected


def test_error_of_a_record_says_what_to_do():
    with pytest.raises(
        RecordError, match=r"record 1: .*none of `conversations`.*`caption`\. Mend the record, or take"
    ):
        from_published({"id": 1})
