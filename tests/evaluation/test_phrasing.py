"""Words for regions: what a general model reads in the place of each mark."""

import pytest

from transformers_videorefer.data.batches.chat import to_chat
from transformers_videorefer.evaluation.phrasing import write_text


RED, BLUE = "outlined in red", "outlined in blue"


def parts(text: str) -> list[dict]:
    """Split a text at its marks, as `to_chat` does."""
    pieces = text.split("<region>")
    content = [{"type": "text", "text": pieces[0]}]
    for piece in pieces[1:]:
        content += [{"type": "region"}, {"type": "text", "text": piece}]
    return [part for part in content if part.get("text") != ""]


@pytest.mark.parametrize(
    ("text", "outlined", "plain"),
    [
        ("What is [<region>] doing?", "What is the object outlined in red doing?", "What is the object doing?"),
        ("What is <region> doing?", "What is the object outlined in red doing?", "What is the object doing?"),
        ("[<region>] is what?", "The object outlined in red is what?", "The object is what?"),
        ("Look. <region> is what?", "Look. The object outlined in red is what?", "Look. The object is what?"),
        (
            "What is <object3>[<region>] not wearing?",
            "What is <object3> (the object outlined in red) not wearing?",
            "What is <object3> not wearing?",
        ),
        (
            "Please give a detailed description of the highlighted object [<region>] in the video.",
            "Please give a detailed description of the highlighted object outlined in red in the video.",
            "Please give a detailed description of the highlighted object in the video.",
        ),
        (
            "Please describe the object <region> in the video in brief.",
            "Please describe the object outlined in red in the video in brief.",
            "Please describe the object in the video in brief.",
        ),
        ("Is it <region>", "Is it the object outlined in red", "Is it the object"),
        ("No region at all [1].", "No region at all [1].", "No region at all [1]."),
    ],
)
def test_words_for_one_region(text: str, outlined: str, plain: str) -> None:
    assert write_text(parts(text), [RED]) == outlined
    assert write_text(parts(text), [None]) == plain


def test_each_region_has_its_own_words() -> None:
    text = (
        "There are two objects: <object0> [<region>], <object1> [<region>]. How are <object0> and <object1> related?"
    )
    assert write_text(parts(text), [RED, BLUE]) == (
        "There are two objects: <object0> (the object outlined in red), <object1> (the object outlined in blue). How "
        "are <object0> and <object1> related?"
    )
    assert write_text(parts("Is [<region>] near <region>?"), [RED, BLUE]) == (
        "Is the object outlined in red near the object outlined in blue?"
    )


def test_media_are_left_out() -> None:
    messages = to_chat(
        {"id": 1, "video": "a.mp4", "messages": [{"role": "user", "content": "<video>\nWhat is this?"}]}
    )
    assert write_text(messages[0]["content"], []) == "What is this?"
