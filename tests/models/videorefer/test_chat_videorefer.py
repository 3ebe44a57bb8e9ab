"""`apply_chat_template`: every way to write the same content gives the same inputs, and wrong content is refused."""

import copy
import dataclasses
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from tiny import box_region, noise_video, tiny_processor
from transformers.utils import chat_template_utils
from transformers.utils import logging as library_logging


CLIP = str(REFERENCE / "media" / "clip.mp4")  # 40 frames of 64 x 96
PICTURE = str(REFERENCE / "media" / "image.png")  # 80 x 100
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
FULL = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture
def library_messages() -> Iterator[list[str]]:
    """Everything the library warns about while the test runs, also what it says only once per process."""
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    library_logging.warning_once.cache_clear()
    loggers = [logging.getLogger(name) for name in ("transformers", "transformers_videorefer")]
    for logger in loggers:
        logger.addHandler(handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield records
    for logger in loggers:
        logger.removeHandler(handler)


def user(*parts) -> dict:
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def answer(text: str) -> dict:
    return {"role": "assistant", "content": text}


def video(**payload) -> dict:
    return {"type": "video", **payload}


def region(**payload) -> dict:
    return {"type": "region", **payload}


def assert_same(one, other) -> None:
    assert set(one) == set(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name
        assert one[name].dtype == other[name].dtype, name


def test_prompt_of_the_readme(processor):
    frames = [{"frame_index": 0, "box": [300, 0, 800, 430]}]
    messages = [user(video(path="dog.mp4"), "What is ", region(frames=frames), " doing?")]
    # The file does not exist: rendering opens nothing.
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == (f"{SYSTEM}<|im_start|>user\n<video>\nWhat is <region> doing?<|im_end|>\n<|im_start|>assistant\n")
    assert (
        processor.apply_chat_template([messages, messages], tokenize=False)
        == [f"{SYSTEM}<|im_start|>user\n<video>\nWhat is <region> doing?<|im_end|>\n"] * 2
    )


def test_prompt_of_several_turns_and_kinds(processor):
    messages = [
        {"role": "system", "content": "Be brief."},
        user("Look: ", {"type": "image", "path": "x.png"}, video(path="y.mp4"), "[", region(), "]", region()),
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        user("And now?"),
        answer("It sleeps."),
    ]
    assert processor.apply_chat_template(messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nLook: <image>\n<video>\n[<region>]<region><|im_end|>\n"
        "<|im_start|>assistant\nA dog.<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n"
        "<|im_start|>assistant\nIt sleeps.<|im_end|>\n"
    )
    # A system turn that is empty still takes the place of the default.
    assert processor.apply_chat_template([{"role": "system", "content": ""}, user("Hi")]) == (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


def same_content_in_all_ways(processor) -> dict:
    """One conversation with a video, an image and three regions over two turns, written in every way there is."""
    boxes = [box_region([3, 20], media=0), box_region([0], 7, media=1), box_region([39], 2, media=0)]
    with_payload = [
        user(
            video(path=CLIP),
            "Is ",
            region(**boxes[0]),
            " like ",
            {"type": "image", "path": PICTURE},
            region(**boxes[1]),
        ),
        answer("Yes."),
        user("And ", region(**boxes[2]), "?"),
    ]
    bare = [
        user(video(), "Is ", region(), " like ", {"type": "image"}, region()),
        answer("Yes."),
        user("And ", region(), "?"),
    ]
    as_strings = [
        {"role": "user", "content": "<video>\nIs <region> like <image>\n<region>"},
        answer("Yes."),
        {"role": "user", "content": "And <region>?"},
    ]
    half = copy.deepcopy(with_payload)
    half[0]["content"][2] = region()
    half[0]["content"][0] = video(path=None, url=None)
    lists = {"videos": [CLIP], "images": [PICTURE], "regions": boxes}
    nested = {"videos": [[CLIP]], "images": [[PICTURE]], "regions": [boxes]}
    single = {"videos": CLIP, "images": PICTURE, "regions": tuple(boxes)}
    prompt = processor.apply_chat_template(as_strings, add_generation_prompt=True)
    return {
        "parts with payload": processor.apply_chat_template(with_payload, **FULL),
        "tuples": processor.apply_chat_template(
            tuple({**m, "content": tuple(m["content"])} if m["role"] == "user" else m for m in with_payload), **FULL
        ),
        "bare parts and lists": processor.apply_chat_template(bare, **lists, **FULL),
        "bare parts and nested lists": processor.apply_chat_template(bare, **nested, **FULL),
        "strings and lists": processor.apply_chat_template(as_strings, **lists, **FULL),
        "strings and single items": processor.apply_chat_template(as_strings, **single, **FULL),
        "half": processor.apply_chat_template(half, videos=[CLIP], regions=[boxes[0]], **FULL),
        "processor_kwargs": processor.apply_chat_template(bare, processor_kwargs=lists, **FULL),
        "batch of one": processor.apply_chat_template([bare], **nested, **FULL),
        "text": processor(text=prompt, **lists, return_tensors="pt"),
        "batch of one text": processor(text=[prompt], **nested, return_tensors="pt"),
    }


def test_every_way_gives_the_same_inputs(processor, library_messages):
    made = same_content_in_all_ways(processor)
    first = made["parts with payload"]
    # Frames 5, 15, 24 and 34 are scene frames; 3, 20 and 39 are sent beside them.
    assert first["sample_counts"].tolist() == [[1, 1, 3, 3]]
    assert first["region_frame_index"].tolist() == [5, 6, 4, 7]
    for other in made.values():
        assert_same(first, other)
    assert library_messages == []


def test_every_way_gives_the_same_batch(processor, library_messages):
    one = [user(video(path=CLIP), region(**box_region([1, 2])))]
    two = [user("Hi"), answer("Hello"), user("Bye")]
    three = [user({"type": "image", "path": PICTURE}, region(**box_region([0])), region(**box_region([0], 30)))]
    parts = processor.apply_chat_template([one, two, three], **FULL)
    bare = [
        [user(video(), region())],
        two,
        [{"role": "user", "content": "<image>\n<region><region>"}],
    ]
    lists = {
        "videos": [[CLIP], None, []],
        "images": [[], [], [PICTURE]],
        "regions": [[box_region([1, 2])], None, [box_region([0]), box_region([0], 30)]],
    }
    prompts = processor.apply_chat_template([one, two, three], add_generation_prompt=True)
    for other in (
        processor.apply_chat_template(bare, **lists, **FULL),
        processor.apply_chat_template(tuple(bare), processor_kwargs=lists, **FULL),
        processor(text=prompts, **lists, return_tensors="pt"),
        # Flat lists are dealt out in the order of the marks; one entry per sample may be an item too.
        processor(text=prompts, **{**lists, "videos": [CLIP], "images": PICTURE}, return_tensors="pt"),
        processor(text=prompts, **{**lists, "videos": [CLIP, None, None]}, return_tensors="pt"),
    ):
        assert_same(parts, other)
    assert parts["sample_counts"].tolist() == [[1, 0, 2, 1], [0, 0, 0, 0], [0, 1, 0, 2]]
    assert library_messages == []


@pytest.mark.parametrize(
    "options",
    [
        {"num_frames": 6, "num_region_frames": 2, "num_region_tokens": 1},
        {"num_frames": np.int64(6), "num_region_frames": np.int32(2), "num_region_tokens": torch.tensor(3)},
        {"num_region_frames": None, "empty_masks": "drop"},
        {"padding_side": "right", "pad_to_multiple_of": 8, "return_mm_token_type_ids": True},
        {"start_seconds": 1.0, "end_seconds": [2.5, None], "edit_list": ("ignore", "apply")},
        {"videos_kwargs": {"num_frames": 8, "edit_list": "ignore", "end_seconds": 2.0}},
        {"text_kwargs": {"padding_side": "right"}, "resize_backend": "torch"},
    ],
    ids=["counts", "numpy_counts", "none", "text", "per_video", "nested_video", "nested_text"],
)
def test_keywords_mean_the_same_everywhere(processor, library_messages, options):
    tracked = box_region(list(range(40)))  # more than the 32 frames that are used unless told otherwise
    messages = [
        [user(video(path=CLIP), region(**tracked))],
        [user(video(path=CLIP), "Describe it at length, please: ", region(**box_region([4])))],
    ]
    prompts = processor.apply_chat_template(messages, add_generation_prompt=True)
    lists = {"videos": [CLIP, CLIP], "regions": [[tracked], [box_region([4])]]}
    direct = processor.apply_chat_template(messages, **options, **FULL)
    nested = processor.apply_chat_template(messages, processor_kwargs=dict(options), **FULL)
    moved = {name: value for name, value in FULL.items() if name != "return_tensors"}
    in_kwargs = processor.apply_chat_template(messages, processor_kwargs={**options, "return_tensors": "pt"}, **moved)
    called = processor(text=prompts, **lists, **options, return_tensors="pt")
    plain = processor(text=prompts, **lists, return_tensors="pt")
    for other in (nested, in_kwargs, called):
        assert_same(direct, other)
    changed = [name for name in plain if name not in direct or not torch.equal(plain[name], direct[name])]
    assert changed, "the options did nothing"
    assert library_messages == []


def test_frames_as_they_are_by_default():
    """The library would sample as soon as `fps` or `num_frames` is given."""
    processor = tiny_processor()
    processor.video_processor.do_sample_frames = False
    frames = noise_video(6)
    messages = [user(video(video=frames))]
    for options in ({}, {"fps": 3.0}, {"num_frames": 4}):
        made = processor.apply_chat_template(messages, **options, **FULL)
        assert made["pixel_values_videos"].shape[1] == 6
        called = processor(text="<video>", videos=frames, return_tensors="pt", **options)
        assert torch.equal(made["pixel_values_videos"], called["pixel_values_videos"])
    made = processor.apply_chat_template(messages, do_sample_frames=True, **FULL)
    assert made["pixel_values_videos"].shape[1] == 4


def test_options_of_a_video_part_win_over_those_of_the_call(processor):
    early, late = [
        processor(text="<video>", videos=CLIP, start_seconds=start, end_seconds=end, return_metadata=True)
        for start, end in ((0.5, 1.5), (2.0, 3.5))
    ]
    messages = [
        [user(video(path=CLIP, start_seconds=2.0, end_seconds=3.5))],
        [user(video(path=CLIP))],
    ]
    both = processor.apply_chat_template(
        messages, start_seconds=0.5, end_seconds=1.5, return_metadata=True, tokenize=True, return_dict=True
    )
    indices = [metadata.frames_indices for metadata in both["video_metadata"]]
    assert indices == [late["video_metadata"][0].frames_indices, early["video_metadata"][0].frames_indices]
    # The published rule at 10 frames per second: frames 4 to 14 and 19 to 34, midpoints of four parts.
    assert indices == [[21, 25, 28, 32], [5, 8, 10, 13]]


def test_rows_of_a_table_give_the_same_inputs(processor):
    """Arrow gives every part all keys, `None` where it has none, and numpy gives arrays and numpy numbers."""

    def padded(part: dict) -> dict:
        keys = ("text", "path", "url", "video", "image", "base64", "fps", "edit_list", "start_seconds", "end_seconds")
        region_keys = ("object_id", "media", "frames", "masks", "frame_indices", "size", "label")
        return {**dict.fromkeys((*keys, *region_keys)), **part}

    frame_keys = ("frame_index", "time_seconds", "mask", "rle", "polygon", "box", "scribble", "size", "label")
    row = {
        **dict.fromkeys(frame_keys),
        "frame_index": np.int64(3),
        "box": np.array([1, 2, 30, 40], dtype=np.float32),
    }
    plain = [user(video(path=CLIP), "Is ", region(frames=[{"frame_index": 3, "box": [1, 2, 30, 40]}]), "?")]
    arrow = [
        {
            "role": "user",
            "name": None,
            "content": np.array(
                [
                    padded({"type": "video", "path": CLIP}),
                    padded({"type": "text", "text": "Is "}),
                    padded({"type": "region", "frames": np.array([row], dtype=object)}),
                    padded({"type": "text", "text": "?"}),
                ],
                dtype=object,
            ),
        }
    ]
    assert_same(processor.apply_chat_template(plain, **FULL), processor.apply_chat_template(arrow, **FULL))


def test_image_parts_in_openai_form(processor):
    messages = [user({"type": "image_url", "image_url": {"url": PICTURE}}, "What is this?")]
    plain = [user({"type": "image", "path": PICTURE}, "What is this?")]
    assert_same(processor.apply_chat_template(messages, **FULL), processor.apply_chat_template(plain, **FULL))


def test_nothing_of_the_caller_is_changed_or_copied(processor):
    class Masks(np.ndarray):
        def __deepcopy__(self, memo):
            raise AssertionError("masks were copied")

    masks = np.zeros((12, 40, 60), dtype=np.uint8).view(Masks)
    masks[:, 5:20, 5:30] = 1
    frames = noise_video()
    boxed = box_region([2], 5)
    parts = [video(video=frames), {"type": "text", "text": "Is "}, region(masks=masks), region(**boxed)]
    messages = [{"role": "user", "content": parts}]
    options = {"num_frames": 6, "padding_side": "left"}
    before = (frames.copy(), np.array(masks), copy.deepcopy(boxed), [dict(part) for part in parts])
    processor.apply_chat_template(messages, processor_kwargs=options, **FULL)
    processor(text="<video><region>", videos=[frames], regions=[{"masks": masks}], return_tensors="pt")
    assert np.array_equal(frames, before[0])
    assert np.array_equal(np.array(masks), before[1])
    assert boxed == before[2]
    assert messages == [{"role": "user", "content": parts}]
    for part, copied in zip(parts, before[3], strict=True):
        assert part.keys() == copied.keys()
        assert all(part[key] is copied[key] for key in part)
    assert options == {"num_frames": 6, "padding_side": "left"}


# ---------------------------------------------------------------------------------------------------------------------
# Assistant mask
# ---------------------------------------------------------------------------------------------------------------------

TURNS = [
    [
        user(video(path=CLIP), "What is ", region(**box_region([0, 5, 9])), "?"),
        answer("A red dog."),
        user("And ", region(**box_region([7], 9)), "?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A cat, "}, {"type": "text", "text": "asleep."}]},
    ],
    [user("Hi"), answer("Hello.")],
    [user({"type": "image", "path": PICTURE}, "Tell me a long story about it."), answer("")],
]
ANSWERS = [
    ["A red dog.<|im_end|>\n", "A cat, asleep.<|im_end|>\n"],
    ["Hello.<|im_end|>\n"],
    ["<|im_end|>\n"],
]


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("return_tensors", ["pt", None, "np"])
def test_assistant_mask_is_the_answers(processor, padding_side, return_tensors):
    made = processor.apply_chat_template(
        TURNS,
        tokenize=True,
        return_dict=True,
        return_tensors=return_tensors,
        return_assistant_tokens_mask=True,
        padding_side=padding_side,
    )
    if return_tensors is not None:
        expected_class = torch.Tensor if return_tensors == "pt" else np.ndarray
        assert isinstance(made["assistant_masks"], expected_class)
    assert "offset_mapping" not in made and "text_replacement_offsets" not in made
    for sample, expected in enumerate(ANSWERS):
        ids, mask = (torch.as_tensor(made[name][sample]).numpy() for name in ("input_ids", "assistant_masks"))
        starts = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
        runs = [processor.tokenizer.decode(ids[a:b]) for a, b in zip(starts[::2], starts[1::2], strict=True)]
        assert runs == expected
        # Alone, without padding, the same tokens are marked.
        alone = processor.apply_chat_template(
            TURNS[sample], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert ids[mask == 1].tolist() == [
            i for i, m in zip(alone["input_ids"][0], alone["assistant_masks"][0], strict=True) if m
        ]
        attended = torch.as_tensor(made["attention_mask"][sample]).numpy() == 1
        assert mask[attended].tolist() == alone["assistant_masks"][0]


def test_kind_of_tensors_may_stand_in_processor_kwargs(processor):
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    made = processor.apply_chat_template(TURNS, processor_kwargs={"return_tensors": "pt"}, **options)
    assert_same(made, processor.apply_chat_template(TURNS, return_tensors="pt", **options))


def test_continued_answer(processor):
    messages = [user("Hi"), {"role": "assistant", "content": [{"type": "text", "text": "Well, "}]}]
    prompt = processor.apply_chat_template(messages, continue_final_message=True)
    assert prompt == f"{SYSTEM}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, "


def test_ids_alone(processor):
    messages = [user(video(path=CLIP), "Hi")]
    whole = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert processor.apply_chat_template(messages, tokenize=True) == whole["input_ids"]


# ---------------------------------------------------------------------------------------------------------------------
# Text that looks like marks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["<video>", "<image>", "<region>"])
@pytest.mark.parametrize("tokenize", [True, False])
def test_text_part_with_a_mark_is_refused(processor, mark, tokenize):
    messages = [user("Hi"), answer("Hello"), user("What is ", f"this {mark}?")]
    with pytest.raises(ValueError, match=f"sample 0, message 2: a text part spells the mark `{mark}`"):
        processor.apply_chat_template(messages, tokenize=tokenize)


def test_mark_in_two_pieces_is_refused(processor):
    with pytest.raises(ValueError, match=r"Sample 0 has 0 region\(s\) but 1 `<region>` mark"):
        processor.apply_chat_template([user("What is <reg", "ion>?")], tokenize=True)


def test_sanitized_text_is_plain_text(processor, library_messages):
    spelled = "Is <video> or <region> or <image> or <|im_end|> in "
    messages = [user(video(path=CLIP), spelled, region(**box_region([2])), "?")]
    made = processor.apply_chat_template(messages, sanitize_control_tokens=True, **FULL)
    ids = made["input_ids"][0].tolist()
    # Two frames times 2 x 2 cells joined; one region of one frame; nothing for the text.
    assert [ids.count(token) for token in (329, 330, 331)] == [1, 8, 0]
    assert ids.count(328) == 2  # the end of the system and of the user turn
    plain = processor.apply_chat_template([user(video(path=CLIP), region(**box_region([2])))], **FULL)
    assert torch.equal(made["pixel_values_videos"], plain["pixel_values_videos"])
    assert made["sample_counts"].tolist() == [[1, 0, 1, 1]]
    assert processor.decode([token for token in ids if token not in (329, 330)]).count("Is <video> or <region>") == 1
    strings = [{"role": "user", "content": "Is <region> in <video>?"}]
    made = processor.apply_chat_template(strings, sanitize_control_tokens=True, **FULL)
    assert not {329, 330, 331} & set(made["input_ids"][0].tolist())
    with pytest.raises(ValueError, match=r"has 1 region\(s\) but 0 `<region>` mark"):
        processor.apply_chat_template(strings, regions=[box_region([0])], sanitize_control_tokens=True, **FULL)
    assert library_messages == []


def test_a_template_of_the_user_sees_where_media_come_from(processor):
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{{ part['text'] if part['type'] == 'text' else '<' + part['type'] + '>' }}"
        "{% if part['type'] == 'video' %} from {{ part['path'] or part['url'] }} at {{ part['fps'] }}{% endif %}"
        "{% if part['type'] == 'region' %} of {{ part['object_id'] }}, {{ part['frames'] }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )
    messages = [user(video(path=str(CLIP), fps=10), " ", region(**box_region([0]), object_id="dog"))]
    text = processor.apply_chat_template(messages, chat_template=template)
    assert text == f"<video> from {CLIP} at 10 <region> of dog, <list>"
    made = processor.apply_chat_template(messages, chat_template=template, **FULL)
    plain = processor.apply_chat_template(messages, **FULL)
    assert torch.equal(made["pixel_values_videos"], plain["pixel_values_videos"])


@pytest.mark.skipif(
    not hasattr(chat_template_utils, "_normalize_chat_messages"), reason="messages are dictionaries here"
)
def test_messages_may_be_objects(processor):
    @dataclasses.dataclass
    class Message:
        role: str
        content: list

    messages = [user(video(path=str(CLIP)), "What is ", region(**box_region([0])), "?")]
    objects = [Message(**message) for message in messages]
    made, expected = (processor.apply_chat_template(one, **FULL) for one in (objects, messages))
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in made)


# ---------------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ({"num_region_token": 2}, "num_region_tokens"),
        ({"regoins": []}, "regions"),
        ({"add_generation_promt": True}, "add_generation_prompt"),
        ({"nframes": 3, "num_frame": 3}, "num_frames"),
        ({"empty_mask": "drop"}, "empty_masks"),
        ({"return_tensor": "pt"}, "return_tensors"),
    ],
)
def test_misspelt_keyword(processor, keyword, meant):
    with pytest.raises(TypeError, match=f"`apply_chat_template` has no argument .* Did you mean `{meant}`"):
        processor.apply_chat_template([user("Hi")], tokenize=True, **keyword)


def test_unknown_keyword_in_processor_kwargs(processor):
    with pytest.raises(
        TypeError, match="The processor has no argument `num_region_token`. Did you mean `num_region_tokens`"
    ):
        processor.apply_chat_template([user("Hi")], tokenize=True, processor_kwargs={"num_region_token": 2})


def test_variables_of_templates(processor, library_messages):
    """What only other templates use is harmless; servers send such variables to every model."""
    plain = processor.apply_chat_template([user("Hi")], **FULL)
    assert_same(plain, processor.apply_chat_template([user("Hi")], enable_thinking=False, **FULL))
    assert library_messages == ["The chat template has no use for `enable_thinking`."]
    template = "{{ greeting }} {{ messages[0]['content'][0]['text'] }}"
    assert processor.apply_chat_template([user("Bob")], chat_template=template, greeting="Hello") == "Hello Bob"


def test_call_of_the_server(processor, library_messages):
    """`transformers serve` sends these keywords for every video."""
    messages = [user(video(url=CLIP), "What is this?")]
    made = processor.apply_chat_template(messages, num_frames=6, tools=None, load_audio_from_video=True, **FULL)
    assert_same(made, processor.apply_chat_template(messages, num_frames=6, **FULL))
    assert library_messages == []


@pytest.mark.parametrize("name", ["videos", "regions", "num_frames", "edit_list"])
def test_keyword_given_twice(processor, name):
    value = {"videos": [CLIP], "regions": [box_region([0])], "num_frames": 6, "edit_list": "apply"}[name]
    with pytest.raises(ValueError, match=f"`{name}` is given directly and in `processor_kwargs`"):
        processor.apply_chat_template([user("Hi")], tokenize=True, processor_kwargs={name: value}, **{name: value})


def test_template_that_prints_no_marks(processor):
    template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    messages = [user(video(path=CLIP), region(**box_region([0])))]
    with pytest.raises(ValueError, match=r"Sample 0 has 1 video\(s\) but 0 `<video>` mark"):
        processor.apply_chat_template(messages, chat_template=template, tokenize=True)


@pytest.mark.parametrize(
    ("conversation", "error", "match"),
    [
        ("What is this?", TypeError, "`conversation` must be a list of messages, got 'What is this"),
        ({"role": "user", "content": "Hi"}, TypeError, "`conversation` must be a list of messages, got {'role'"),
        (["Hi", "Bye"], TypeError, r"`conversation` must be a list of messages, got \['Hi'"),
        (None, TypeError, "`conversation` must be a list of messages, got None"),
        ([], ValueError, "`conversation` is empty"),
    ],
)
def test_no_conversation(processor, conversation, error, match):
    with pytest.raises(error, match=match):
        processor.apply_chat_template(conversation)


def test_no_template(processor):
    without = tiny_processor()
    without.chat_template = None
    with pytest.raises(ValueError, match="does not have a chat template"):
        without.apply_chat_template([user("Hi")])
