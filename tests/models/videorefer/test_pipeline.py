"""`pipeline("image-text-to-text")` with region messages: what single runs answer, or an error, never another answer."""

import numpy as np
import pytest
from tiny import box_region, noise_video, tiny_model, tiny_processor
from transformers import pipeline


GREEDY = {"do_sample": False, "eos_token_id": None}


def options(**more) -> dict:
    """Options of one call; the library writes into `generate_kwargs`."""
    return {"max_new_tokens": 8, "return_full_text": False, "generate_kwargs": dict(GREEDY), **more}


@pytest.fixture(scope="module")
def pipe():
    return pipeline("image-text-to-text", model=tiny_model(), processor=tiny_processor())


def ask(video: np.ndarray, regions, question: str = "What is it?") -> list[dict]:
    parts = [{"type": "video", "video": video}, {"type": "text", "text": question}]
    return [{"role": "user", "content": [*parts, *({"type": "region", **region} for region in regions)]}]


def text(question: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "text", "text": question}]}]


def answers(pipe, chats, batch_size: int) -> list[str]:
    made = pipe(text=chats, batch_size=batch_size, **options())
    return [(one[0] if isinstance(one, list) else one)["generated_text"] for one in made]


def single_answers(pipe, chats) -> list[str]:
    """One run each, without the pipeline."""
    found = []
    for chat in chats:
        inputs = pipe.processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        output = pipe.model.generate(**inputs, max_new_tokens=8, **GREEDY)
        new = output[:, inputs["input_ids"].shape[1] :]
        found.append(pipe.processor.batch_decode(new, skip_special_tokens=True)[0])
    return found


# In clips of 4 frames every region frame is a scene frame; in clips of 12, frames 0, 2, 3, 5, 6, 8, 9 and 11 are not.
def samples() -> dict[str, list]:
    clips = [noise_video(4, seed=seed) for seed in range(3)]
    long = [noise_video(12, seed=seed) for seed in range(3)]
    return {
        "plain": [ask(clip, [], "x" * n) for n, clip in enumerate(clips, 1)],
        "text": [text("Hi"), text("What a long question this is, is it not?"), text("So?")],
        "one_region_each": [ask(clip, [box_region([n])], "Is it " + "x" * 5 * n) for n, clip in enumerate(clips)],
        "several_regions": [
            ask(clips[0], [box_region([0]), box_region([1, 2], 9)]),
            ask(clips[1], [box_region([3], 20)]),
            ask(clips[2], [box_region([0, 1, 2, 3]), box_region([2], 5), box_region([1], 15)]),
        ],
        "one_extra_frame_each": [ask(clip, [box_region([n, 4])]) for n, clip in zip((0, 2, 9), long, strict=True)],
    }


# What the collation of the library cannot carry: it keeps one row of these tensors for each sample, or refuses.
def refused() -> dict[str, list]:
    clips = [noise_video(4, seed=seed) for seed in range(3)]
    long = [noise_video(12, seed=seed) for seed in range(3)]
    two_videos = [
        {"type": "video", "video": clips[0]},
        {"type": "video", "video": clips[1]},
        {"type": "text", "text": "?"},
    ]
    two_videos = [{"role": "user", "content": [*two_videos, {"type": "region", **box_region([0], media=1)}]}]
    return {
        "extra_frames_differ": [
            ask(long[0], [box_region([0])]), ask(long[1], [box_region([0, 2, 3])]), ask(long[2], [box_region([5])])
        ],
        "equal_extra_frames": [ask(clip, [box_region([0, 2])]) for clip in long],
        "extra_frames_only_in_some": [ask(long[0], [box_region([0])]), ask(clips[0], [box_region([0])]), ask(long[1], [box_region([1])])],
        "unequal_videos": [two_videos, ask(clips[0], [box_region([1])]), ask(clips[2], [box_region([0])])],
        "two_videos_each": [two_videos] * 3,
        "mixed_kinds": [ask(clips[0], [box_region([0])]), text("Hi"), ask(clips[1], [])],
    }  # fmt: skip


@pytest.mark.parametrize("name", list(samples()))
def test_batches_answer_like_single_runs(pipe, name):
    chats = samples()[name]
    expected = single_answers(pipe, chats)
    assert len(set(expected)) > 1
    assert answers(pipe, chats, batch_size=1) == expected
    assert answers(pipe, chats, batch_size=3) == expected


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("extra_frames_differ", "`sample_counts` says 5 extra frames in all, but the batch holds 3"),
        ("equal_extra_frames", "`sample_counts` says 6 extra frames in all, but the batch holds 3"),
        ("extra_frames_only_in_some", "batch contain different keys.*'region_pixel_values'"),
        ("unequal_videos", "`sample_counts` says 4 videos in all, but the batch holds 3"),
        ("two_videos_each", "`sample_counts` says 6 videos in all, but the batch holds 3"),
        ("mixed_kinds", "batch contain different keys.*'region_masks'"),
    ],
)
def test_batches_never_answer_otherwise(pipe, name, match):
    chats = refused()[name]
    assert answers(pipe, chats, batch_size=1) == single_answers(pipe, chats)
    with pytest.raises(ValueError, match=match):
        answers(pipe, chats, batch_size=3)


def test_options_reach_the_processor(pipe):
    chats = [ask(noise_video(12, seed=7), [box_region([0, 1, 2, 3, 4, 5])])]
    plain = answers(pipe, chats, batch_size=1)
    other = [
        pipe(text=chats, **options(**more))[0][0]["generated_text"]
        for more in ({"num_frames": 8}, {"processor_kwargs": {"num_frames": 8}})
    ]
    assert other[0] == other[1]
    inputs = pipe.processor.apply_chat_template(
        chats[0], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", num_frames=8
    )
    output = pipe.model.generate(**inputs, max_new_tokens=8, **GREEDY)
    assert other[0] == pipe.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert other[0] != plain[0]


def test_conversation_comes_back_with_the_answer(pipe):
    (chat,) = samples()["one_region_each"][:1]
    (made,) = pipe(text=chat, max_new_tokens=4, generate_kwargs=dict(GREEDY))
    assert made["generated_text"][:1] == chat
    assert made["generated_text"][1]["role"] == "assistant"


def test_answer_is_continued(pipe):
    (chat,) = samples()["one_region_each"][:1]
    chat = [*chat, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    (made,) = pipe(text=chat, max_new_tokens=4, return_full_text=False, generate_kwargs=dict(GREEDY))
    inputs = pipe.processor.apply_chat_template(
        chat, continue_final_message=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = pipe.model.generate(**inputs, max_new_tokens=4, **GREEDY)
    new = output[0, inputs["input_ids"].shape[1] :]
    assert made["generated_text"] == pipe.processor.decode(new, skip_special_tokens=True)


def test_images_and_prompt(pipe):
    picture = noise_video(1, seed=5)[0]
    from PIL import Image

    (made,) = pipe(
        images=Image.fromarray(picture), text="<image>\nWhat is this?", max_new_tokens=4, return_full_text=False
    )
    inputs = pipe.processor(text="<image>\nWhat is this?", images=picture, return_tensors="pt")
    output = pipe.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert made["generated_text"] == pipe.processor.decode(
        output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
