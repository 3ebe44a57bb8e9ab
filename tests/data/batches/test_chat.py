"""Rows of every set as messages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import ProcessorMixin

from transformers_videorefer.data.batches.chat import name_of, to_chat


RLE = {"size": [2, 2], "counts": "13"}


def region(*indices: int, media: int | None = 0, **form: Any) -> dict[str, Any]:
    form = form or {"rle": RLE}
    return {
        "object_id": "0",
        "media": media,
        "frames": [{"frame_index": index, "rle": None, "box": None, "size": None, **form} for index in indices],
    }


def conversation(*texts: str, first: str = "user", **columns: Any) -> dict[str, Any]:
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    return {"id": "7", "video": "v.mp4", "image": None, "messages": messages, "regions": [], **columns}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def rendered(messages: list[dict[str, Any]], processor: ProcessorMixin) -> str:
    """The user's first turn as the template writes it."""
    return processor.apply_chat_template(messages).split("<|im_start|>user\n")[1].split("<|im_end|>")[0]


def test_a_conversation_becomes_parts() -> None:
    row = conversation("<video>\nWhat is <region> doing?", "It runs.", regions=[region(3, 1)], edit_list="ignore")
    assert to_chat(row, "root") == [
        {
            "role": "user",
            "content": [
                {"type": "video", "path": "root/v.mp4", "edit_list": "ignore"},
                text("What is "),
                {
                    "type": "region",
                    "object_id": "0",
                    "media": 0,
                    "frames": [{"frame_index": 3, "rle": RLE}, {"frame_index": 1, "rle": RLE}],
                },
                text(" doing?"),
            ],
        },
        {"role": "assistant", "content": [text("It runs.")]},
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("What is in the video? <video>", ["What is in the video?"]),
        ("Look: <video> now", ["Look:  now"]),
        ("<video>\n<video>\nTwice", ["Twice"]),  # one video, so one mark
        ("  <video>\n  What?  ", ["What?"]),
        ("<video>", []),
    ],
)
def test_the_mark_of_a_medium_moves_to_the_front(given: str, expected: list[str]) -> None:
    content = to_chat(conversation(given, "Yes."))[0]["content"]
    assert content == [{"type": "video", "path": "v.mp4"}, *map(text, expected)]


def test_a_turn_without_a_medium_keeps_its_blanks() -> None:
    assert to_chat(conversation(" Hello \n", "Yes.", video=None))[0]["content"] == [text(" Hello \n")]


def test_media_of_both_kinds_move_in_their_order() -> None:
    row = conversation("Compare <image> and <video> for <region>.", "No.", image="i.png", regions=[region(0)])
    content = to_chat(row)[0]["content"]
    assert [part["type"] for part in content] == ["image", "video", "text", "region", "text"]


def test_marks_over_several_turns_get_their_regions_in_order() -> None:
    row = conversation(
        "<video>\nIs <region>?", "Yes.", "And <region>, <region>?", "", regions=[region(1), region(2), region(3)]
    )
    parts = [part for message in to_chat(row) for part in message["content"] if part["type"] == "region"]
    assert [part["frames"][0]["frame_index"] for part in parts] == [1, 2, 3]


def test_leading_answers_are_dropped_and_empty_answers_stay() -> None:
    messages = to_chat(conversation("Hello.", "<video>\nWhat?", "", first="assistant"))
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["content"] == [text("")]
    row = conversation("<video>\nWhat?", "A dog.")
    row["messages"] = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Hi."},
        *row["messages"],
    ]
    assert [message["role"] for message in to_chat(row)] == ["system", "user", "assistant"]


def test_bench_d(published_processor: ProcessorMixin) -> None:
    row = {
        "id": "1",
        "video": "v.mp4",
        "caption": "A dog.",
        "frame_index": 3,
        "regions": [region(1, 3)],
        "edit_list": "ignore",
    }
    assert rendered(to_chat(row), published_processor) == (
        "<video>\nPlease give a detailed description of the highlighted object [<region>] in the video."
    )
    assert [message["role"] for message in to_chat(row)] == ["user"]


def test_bench_q(published_processor: ProcessorMixin) -> None:
    row = {
        "id": "1",
        "video": "v",
        "question": "What is <object3><region> not wearing?",
        "options": ["(A) A helmet", "(B) A hat"],
        "answer": "(A) A helmet",
        "type": 0,
        "frame_index": 3,
        "regions": [region(1, 3)],
        "edit_list": "ignore",
    }
    assert rendered(to_chat(row), published_processor) == (
        "<video>\nWhat is <object3>[<region>] not wearing? (A) A helmet (B) A hat. "
        "Answer with the option's letter from the given choices directly."
    )


def test_hc_stvg_asks_for_a_short_caption(published_processor: ProcessorMixin) -> None:
    boxes = region(4, 5, box=[0.0, 0.0, 4.0, 4.0])
    row = {"id": "1", "video": "v.mp4", "caption": "The man turns.", "frame_index": 4, "regions": [boxes]}
    messages = to_chat(row)
    assert rendered(messages, published_processor) == (
        "<video>\nPlease describe the object <region> in the video in brief."
    )
    assert messages[0]["content"][2]["frames"][1] == {"frame_index": 5, "box": [0.0, 0.0, 4.0, 4.0]}


def test_interleaved_sets_fill_columns_with_none() -> None:
    row = conversation("<video>\nWhat?", "A dog.", caption=None, question=None, frame_index=None)
    assert len(to_chat(row)) == 2


def test_single_frame() -> None:
    row = {"id": "1", "video": "v.mp4", "question": "<region> or <region>?", "options": [], "frame_index": 3}
    row["regions"] = [region(1, 3), region(3, 2)]
    kept = [part["frames"] for part in to_chat(row, single_frame=True)[0]["content"] if part["type"] == "region"]
    assert kept == [[{"frame_index": 3, "rle": RLE}]] * 2
    row["regions"] = [region(1, 2), region(2)]
    kept = to_chat(row, single_frame=True, frame_index=2)[0]["content"]
    assert [part["frames"][0]["frame_index"] for part in kept if part["type"] == "region"] == [2, 2]
    with pytest.raises(ValueError, match=r"Row '1': region 0 has no mask on frame 3, only on 1, 2. Choose"):
        to_chat(row, single_frame=True)


def test_single_frame_needs_a_frame() -> None:
    row = conversation("<video>\n<region>?", "A dog.", regions=[region(1)])
    with pytest.raises(ValueError, match="Row '7': there is no `frame_index` in the row.*Pass `frame_index`"):
        to_chat(row, single_frame=True)
    assert to_chat(row, single_frame=True, frame_index=1)[0]["content"][1]["frames"][0]["frame_index"] == 1
    with pytest.raises(ValueError, match="`frame_index` goes with `single_frame=True`"):
        to_chat(row, frame_index=1)


def test_a_hidden_frame_is_no_box_and_no_mask() -> None:
    hidden = region(1, 2)
    hidden["frames"][1]["rle"] = None
    part = to_chat(conversation("<video>\n<region>?", "A dog.", regions=[hidden]))[0]["content"][1]
    assert part["masks"] == [RLE, None]
    assert part["frame_indices"] == [1, 2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"regions": []}, r"0 region\(s\) but 1 `<region>` mark\(s\)"),
        ({"regions": [region(1), region(2)]}, r"2 region\(s\) but 1 `<region>` mark\(s\)"),
        ({"video": None}, r"0 video\(s\) but 1 `<video>` mark\(s\)"),
        ({"image": "i.png"}, r"1 image\(s\) but 0 `<image>` mark\(s\).*Mend or leave out the row"),
        ({"video": "../v.mp4"}, "'../v.mp4' is not a path below the data root"),
        ({"video": "/v.mp4"}, "'/v.mp4' is not a path below the data root"),
        ({"messages": []}, "no user turn. Leave the row out"),
        ({"messages": [{"from": "human", "value": "Hi"}]}, "message 0 has the role None.*`from_published`"),
        ({"messages": ["Hi"]}, "message 0 has the role None"),
        ({"messages": None}, "none of `messages`, `question` and `caption`"),
        ({"messages": None, "caption": "x", "regions": []}, r"0 region\(s\) but 1"),
        ({"messages": "[{"}, "Row '7'"),
    ],
)
def test_rows_that_do_not_fit_name_themselves(columns: dict[str, Any], message: str) -> None:
    row = conversation("<video>\nWhat is <region>?", "A dog.", **{"regions": [region(1)], **columns})
    with pytest.raises(ValueError, match=message) as caught:
        to_chat(row, "root")
    assert str(caught.value).startswith("Row '7': ")


@pytest.mark.parametrize("mark", ["<region>", "<video>", "<image>"])
@pytest.mark.parametrize("role", ["assistant", "system"])
def test_marks_outside_user_turns_are_refused(mark: str, role: str) -> None:
    row = conversation("<video>\nWhat?", "It is.")
    row["messages"].append({"role": role, "content": f"That is {mark}."})
    with pytest.raises(
        ValueError, match=f"Row '7': a turn of the {role} holds `{mark}`.*Marks belong into user turns"
    ):
        to_chat(row)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"regions": 3}, "`regions` must be a list, got int"),
        ({"regions": [None]}, "A region must be a dictionary"),
        ({"video": 3.5, "regions": [{"frames": 3}]}, "Row '7'"),
        ({"messages": 3}, "`messages` must be a list, got int"),
        ({"messages": [{"role": "user", "content": 3}]}, "`content` must be a list, got int"),
        ({"messages": None, "question": 3}, "`question` must be text, got int"),
    ],
)
def test_values_of_a_wrong_kind_name_their_row(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        to_chat(conversation("<video>\nWhat is <region>?", "A dog.", **columns))
    assert str(caught.value).startswith("Row '7': ")


def test_rows_without_id_are_named_by_what_they_say() -> None:
    assert name_of({"caption": "A dog."}) == "A row without `id` ('A dog.')"
    assert name_of({"id": 3}) == "Row 3"
    with pytest.raises(TypeError, match="A row must be a dictionary, got list"):
        name_of([])


def test_content_that_is_parts_already() -> None:
    """Parts without payload take the row's, in order; columns of tables fill absent keys with None."""
    row = conversation("", "", regions=[region(1)])
    row["messages"] = [
        {
            "role": "user",
            "content": [
                {"type": "video", "text": None},
                {"type": "text", "text": "What is "},
                {"type": "region", "text": None},
                {"type": "text", "text": "?"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A dog.", "path": None}]},
    ]
    plain = conversation("<video>\nWhat is <region>?", "A dog.", regions=[region(1)])
    assert to_chat(row, "root") == to_chat(plain, "root")


def test_parts_with_their_own_payload() -> None:
    row = conversation("", video=None, edit_list="ignore")
    row["messages"][0]["content"] = [
        {"type": "video", "path": "w.mp4", "start_seconds": 1.0},
        {"type": "region", "frames": [{"frame_index": 0, "box": [0, 0, 1, 1]}]},
        {"type": "text", "text": "?"},
    ]
    content = to_chat(row, "root")[0]["content"]
    assert content[0] == {"type": "video", "path": "root/w.mp4", "start_seconds": 1.0, "edit_list": "ignore"}
    assert content[1]["frames"] == [{"frame_index": 0, "box": [0, 0, 1, 1]}]
    row["messages"][0]["content"][0]["path"] = "/etc/w.mp4"
    with pytest.raises(ValueError, match="Row '7': .*not a path below the data root"):
        to_chat(row, "root")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "audio"}, "unknown part"),
        ("Hi", "unknown part 'Hi'"),
        ({"type": "text", "text": "What is <region>?"}, "a turn of the user holds `<region>`.*is a part of its own"),
        ({"type": "region"}, r"0 region\(s\) but 1 `<region>`"),
        ({"type": "image"}, r"0 image\(s\) but 1 `<image>`"),
    ],
)
def test_parts_that_do_not_fit(part: Any, message: str) -> None:
    row = conversation("", video=None)
    row["messages"][0]["content"] = [part]
    with pytest.raises(ValueError, match=message):
        to_chat(row)


def test_a_region_part_in_an_answer_is_refused() -> None:
    row = conversation("<video>\nWhat?", "", regions=[region(1)])
    row["messages"][1]["content"] = [{"type": "region"}]
    with pytest.raises(ValueError, match="a turn of the assistant holds `<region>`"):
        to_chat(row)


def test_trl_rows_with_lists_of_media() -> None:
    """Without marks they stand before the first user turn, as TRL does it; pictures may be objects or bytes."""
    picture = Image.new("RGB", (4, 4))
    row = {
        "messages": [{"role": "user", "content": "Compare."}, {"role": "assistant", "content": "No."}],
        "images": [picture, {"bytes": b"png", "path": None}, {"bytes": None, "path": "i.png"}],
    }
    assert to_chat(row, "root")[0]["content"] == [
        {"type": "image", "image": picture},
        {"type": "image", "image": b"png"},
        {"type": "image", "path": "root/i.png"},
        text("Compare."),
    ]
    row["messages"][0]["content"] = "<image> or <image> or <image>?"
    types = [part["type"] for part in to_chat(row)[0]["content"]]
    assert types == ["image"] * 3 + ["text"]
    row["messages"][0]["content"] = "<image> or <image>?"
    with pytest.raises(ValueError, match=r"3 image\(s\) but 2 `<image>`"):
        to_chat(row)
    single = {"image": picture, "messages": [{"role": "user", "content": "What?"}]}
    assert to_chat(single)[0]["content"] == [{"type": "image", "image": picture}, text("What?")]


def test_rows_that_come_from_datasets(tmp_path: Path) -> None:
    """Through Parquet and back; also where the column of messages is read as text."""
    datasets = pytest.importorskip("datasets")
    from transformers_videorefer.data.tables.features import conversation_features

    hidden = region(1, 2)
    hidden["frames"][1]["rle"] = None
    row = conversation("<video>\nWhat is <region>?", "", regions=[hidden], edit_list="ignore", task="qa", source="x")
    boxes = conversation("<video>\nIs <region>?", "No.", regions=[region(1, box=[0.0, 0.0, 1.0, 1.0], media=None)])
    boxes.update(edit_list="apply", task="qa", source="y")
    table = datasets.Dataset.from_list([row, boxes], features=conversation_features())
    table.to_parquet(str(tmp_path / "rows.parquet"))
    read = datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    assert [to_chat(one) for one in read] == [to_chat(row), to_chat(boxes)]
    assert to_chat({**row, "messages": json.dumps(row["messages"])}) == to_chat(row)
    arrays = {**row, "messages": np.array(row["messages"]), "regions": np.array(row["regions"])}
    assert to_chat(arrays) == to_chat(row)
