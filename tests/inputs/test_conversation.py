"""Marks of conversations: which media and regions they take, and which conversations are refused."""

import re

import numpy as np
import pytest
from PIL import Image

from transformers_videorefer.inputs.conversation import (
    CHAT_TEMPLATE,
    check_conversations,
    collect_media,
    without_payloads,
)
from transformers_videorefer.inputs.items import SampleMedia, VideoItem


BOX = {"frames": [{"frame_index": 0, "box": [0, 0, 2, 2]}]}
MASKLET = {"masks": [None, {"size": [2, 2], "counts": [0, 4]}], "frame_indices": [0, 1]}


def user(*parts) -> dict:
    return {"role": "user", "content": list(parts)}


def collect(*messages, **lists) -> SampleMedia:
    return collect_media([list(messages)], is_batch=False, **lists)[0]


def test_payloads_of_parts():
    picture = Image.new("RGB", (4, 4))
    found = collect(
        user(
            {"type": "video", "path": "a.mp4", "fps": 5, "edit_list": "ignore", "start_seconds": 0},
            {"type": "text", "text": "x"},
            {"type": "region", "media": 1, **BOX},
        ),
        {"role": "assistant", "content": "y"},
        user(
            {"type": "image", "image": picture},
            {"type": "video", "url": "https://x/y.mp4"},
            {"type": "region", **MASKLET},
        ),
    )
    assert found.kinds == ("video", "image", "video")
    # 0 seconds is a value; None is none.
    assert found.videos[0] == VideoItem("a.mp4", {"fps": 5, "edit_list": "ignore", "start_seconds": 0})
    assert found.videos[1] == VideoItem("https://x/y.mp4")
    assert found.images == (picture,)
    assert found.regions == ({"media": 1, **BOX}, MASKLET)
    assert [found.place(position) for position in range(3)] == [("video", 0), ("image", 0), ("video", 1)]


def test_payloads_in_order_over_all_turns():
    found = collect(
        {"role": "user", "content": "<image>\n<video>\nIs <region> here?"},
        {"role": "assistant", "content": "Yes."},
        user({"type": "region", **MASKLET}, {"type": "region"}, {"type": "video", "fps": 2}),
        videos=["a.mp4", "b.mp4"],
        images="p.png",
        regions=[BOX, {"frames": []}],
    )
    assert found.kinds == ("image", "video", "video")
    assert found.videos == (VideoItem("a.mp4"), VideoItem("b.mp4", {"fps": 2}))
    assert found.images == ("p.png",)
    assert found.regions == (BOX, MASKLET, {"frames": []})


def test_batch():
    found = collect_media(
        [
            [user({"type": "video"})],
            [{"role": "user", "content": "Hi"}],
            [user({"type": "video"}, {"type": "region"})],
        ],
        videos=["a.mp4", "b.mp4"],
        regions=[None, [], [BOX]],
    )
    assert [one.videos for one in found] == [(VideoItem("a.mp4"),), (), (VideoItem("b.mp4"),)]
    assert [one.regions for one in found] == [(), (), (BOX,)]


@pytest.mark.parametrize("content", ["", None, []])
def test_empty_content(content):
    assert collect({"role": "user", "content": content}) == SampleMedia()
    assert without_payloads({"role": "user", "content": content})["content"] == (
        content or content or ("" if content != [] else [])
    )


def test_falsy_payloads_are_payloads():
    frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)  # the truth value of an array is an error
    found = collect(user({"type": "video", "video": frames}))
    assert found.videos[0].source is frames


@pytest.mark.parametrize(
    ("lists", "match"),
    [
        ({}, r"Sample 0 has 0 video\(s\) but 1 `<video>` mark\(s\) that bring none themselves"),
        ({"videos": ["a.mp4", "b.mp4"]}, r"Sample 0 has 2 video\(s\) but 1 `<video>` mark"),
        ({"videos": ["a.mp4"], "regions": [BOX]}, r"Sample 0 has 1 region\(s\) but 2 `<region>` mark"),
        ({"videos": ["a.mp4"], "regions": [BOX] * 3}, r"Sample 0 has 3 region\(s\) but 2 `<region>` mark"),
        ({"videos": ["a.mp4"], "regions": [BOX] * 2, "images": ["p.png"]}, r"1 image\(s\) but 0 `<image>` mark"),
    ],
)
def test_marks_and_lists_differ(lists, match):
    message = user({"type": "video"}, {"type": "region"}, {"type": "region", **BOX}, {"type": "region"})
    with pytest.raises(ValueError, match=match):
        collect(message, **lists)


def test_batch_names_the_sample():
    conversations = [[user({"type": "region", **BOX})], [user({"type": "region"})]]
    with pytest.raises(ValueError, match=r"Sample 1 has 0 region\(s\) but 1"):
        collect_media(conversations)
    with pytest.raises(ValueError, match="`regions` must be one list per text"):
        collect_media(conversations, regions=[BOX])


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ({"text": "x"}, "unknown part"),
        ({"type": "audio", "path": "x.wav"}, "unknown part .*audio"),
        ({"type": "points"}, "unknown part"),
        ("Hi", "unknown part 'Hi'"),
        ({"type": "text"}, 'a text part needs a string under "text", got None'),
        ({"type": "text", "text": 3}, 'a text part needs a string under "text", got 3'),
        ({"type": "video", "video": "a.mp4", "path": "b.mp4"}, "a `video` part has several sources"),
        ({"type": "image", "url": "a", "base64": "b"}, "a `image` part has several sources"),
        (
            {"type": "image", "path": "a.png", "fps": 3},
            "unknown key.* `fps` in a `image` part. It takes `image`, `url`",
        ),
        (
            {"type": "video", "path": "a.mp4", "box": [0, 0, 1, 1]},
            "unknown key.* `box` in a `video` part. It takes `video`",
        ),
        ({"type": "video", "path": "a.mp4", "num_frames": 8}, "unknown key.* `num_frames`"),
        (
            {"type": "video", "path": "a.mp4", "fps": [1, 2]},
            r"`fps` of a `video` part must be one value, got \[1, 2\]",
        ),
    ],
)
def test_malformed_part(part, match):
    with pytest.raises(ValueError, match=f"^sample 0, message 1: {match}"):
        collect({"role": "system", "content": "x"}, user(part))


@pytest.mark.parametrize(
    ("message", "match"),
    [
        ({"content": "Hi"}, r'a message is \{"role": "user"'),
        ({"role": None, "content": "Hi"}, r'a message is \{"role": "user"'),
        ("Hi", "a message is .*, got 'Hi'"),
        ({"role": "user", "content": 3}, "`content` must be a string or a list of parts, got int"),
        ({"role": "user", "content": {"type": "text", "text": "Hi"}}, "`content` must be .* got dict"),
    ],
)
def test_malformed_message(message, match):
    with pytest.raises(ValueError, match=f"^sample 0, message 0: {match}"):
        check_conversations([[message]])


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
@pytest.mark.parametrize("content", ["See <region>.", [{"type": "region", **BOX}]])
def test_region_outside_a_user_turn(role, content):
    with pytest.raises(ValueError, match=f"sample 0, message 1: a region in a '{role}' turn"):
        collect(user({"type": "video", "path": "a.mp4"}), {"role": role, "content": content})


@pytest.mark.parametrize("mark", ["<video>", "<image>", "<region>"])
def test_text_part_spells_a_mark(mark):
    kind = mark.strip("<>")
    match = re.escape(f'sample 0, message 0: a text part spells the mark `{mark}`. Use a part {{"type": "{kind}"')
    with pytest.raises(ValueError, match=match):
        collect(user({"type": "text", "text": f"a{mark}b"}))
    assert collect_media([[user({"type": "text", "text": mark})]], allow_marks_in_text=True) == [SampleMedia()]
    assert collect_media([[{"role": "user", "content": mark}]], allow_marks_in_text=True) == [SampleMedia()]


def test_near_marks_are_text():
    assert (
        collect(user({"type": "text", "text": "<object0> <Region> <region/> < region> <|im_end|>"})) == SampleMedia()
    )


def test_template_sees_no_payloads():
    frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    masklet = {"type": "region", **MASKLET, "object_id": "dog"}
    message = user({"type": "video", "video": frames, "fps": 2.5}, {"type": "text", "text": "x"}, masklet)
    stripped = without_payloads({**message, "name": "Bob"})
    assert stripped == {
        "role": "user",
        "name": "Bob",
        "content": [
            {"type": "video", "video": "<ndarray>", "fps": 2.5},
            {"type": "text", "text": "x"},
            {"type": "region", "masks": "<list>", "frame_indices": "<list>", "object_id": "dog"},
        ],
    }
    assert message["content"][0]["video"] is frames


def test_template_marks_answers_for_training():
    assert "{%- generation -%}" in CHAT_TEMPLATE
    assert "{%- endgeneration -%}" in CHAT_TEMPLATE
