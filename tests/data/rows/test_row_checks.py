from typing import Any

import pytest
from conftest import load_json

from transformers_videorefer.data.rows.row_checks import row_defects


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RLE = {"size": [4, 6], "counts": "8444"}


def frame(index: int, *, rle: Any = RLE, box: Any = None) -> dict[str, Any]:
    return {"frame_index": index, "rle": rle, "box": box, "size": None}


def conversation(text: str = "<video>\nWhat is <region>?", answer: str = "A dog.", **fields: Any) -> dict[str, Any]:
    row = {
        "id": "a",
        "video": "a.mp4",
        "image": None,
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}],
        "regions": [{"object_id": "0", "media": 0, "frames": [frame(3)]}],
    }
    return {**row, **fields}


def found(row: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(defect.kind, defect.is_fatal) for defect in row_defects(row)]


def region(*frames: dict[str, Any]) -> dict[str, Any]:
    return {"object_id": "0", "media": 0, "frames": list(frames)}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (conversation(), []),
        (conversation(text="<video>\nWhat?"), [("region_mark_mismatch", True)]),
        (conversation(regions=[]), [("region_mark_mismatch", True)]),
        (conversation(regions=None), [("region_mark_mismatch", True)]),
        (conversation(answer=" "), [("empty_answer", False)]),
        (conversation(answer="The <region>."), [("mark_in_answer", True)]),
        (conversation(text="What is <region>?"), [("media_mark_mismatch", True)]),
        (conversation(text="<video><video> <region>"), [("media_mark_mismatch", True)]),
        (conversation(text="<video><image> <region>"), [("media_mark_mismatch", True)]),
        (conversation(video=None, text="<region>"), [("region_without_media", True)]),
        (conversation(regions=[region()]), [("region_without_mask", True)]),
        (conversation(regions=[region(frame(1), frame(2, rle=None))]), [("null_segmentation", False)]),
        (conversation(regions=[region(frame(1, rle=None, box=[0, 0, 1, 1]))]), []),
        (
            conversation(regions=[region(frame(1, rle=None))]),
            [("region_without_mask", True), ("null_segmentation", False)],
        ),
        (
            conversation(text="<image> <region>", video=None, image="a.png"),
            [("frame_outside_video", True)],
        ),
        (conversation(messages=[{"role": None, "content": None}], regions=[]), [("media_mark_mismatch", True)]),
    ],
)
def test_conversations(row: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    assert found(row) == expected


def test_a_leading_answer_does_not_count() -> None:
    messages = [{"role": "assistant", "content": "See <region>."}, *conversation()["messages"]]
    assert found(conversation(messages=messages)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"frame_index": 5}, [("frame_without_mask", False)]),
        ({"answer": ""}, [("empty_answer", False)]),
        ({"question": "<region> or <region>"}, [("region_mark_mismatch", True)]),
        ({"question": None}, []),
    ],
)
def test_multiple_choice_questions(changes: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    row = {"question": "Is <region> red?", "answer": "(A) yes", "frame_index": 3, "regions": [region(frame(3))]}
    assert found({**row, **changes}) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"caption": ""}, [("empty_answer", False)]),
        ({"regions": [region(frame(3)), region(frame(3))]}, [("region_mark_mismatch", True)]),
    ],
)
def test_descriptions(changes: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    assert found({"caption": "A dog.", "frame_index": 3, "regions": [region(frame(3))], **changes}) == expected


def test_messages_name_numbers() -> None:
    (defect,) = row_defects(conversation(text="<video> <region> <region>"))
    assert defect.message == "2 <region> marks but 1 object"


def test_the_surplus_object_of_the_recording_is_found() -> None:
    from transformers_videorefer.data.rows.records import record_defects

    samples = load_json("annotations/train.json")
    assert [[defect.kind for defect in record_defects(sample)] for sample in samples] == [
        [],
        [],
        [],
        [],
        ["empty_answer"],
        [],
        ["region_mark_mismatch"],
    ]
