"""Other models on our rows: LLaVA-OneVision and Idefics3, tiny and random, with their own processors."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from other_models import box_rows, idefics3, llava_onevision, write_frames
from transformers import BatchFeature

from transformers_videorefer.evaluation.answering import PreparingAnswerer
from transformers_videorefer.evaluation.benches import make_synthetic_bench
from transformers_videorefer.evaluation.outlined_frames import OUTLINE_COLORS
from transformers_videorefer.evaluation.outlines import OutlineAnswerer, OutlinePreparation
from transformers_videorefer.evaluation.runner import iterate_answers, plan_batches


INSTRUCTION = "Answer with the option's letter from the given choices directly."
QUESTION = "Is the object outlined in red near the object outlined in blue? (A) yes (B) no. " + INSTRUCTION


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_frames(root / "clip")
    return root


@pytest.fixture(scope="module")
def llava() -> tuple[Any, Any]:
    return llava_onevision()


class RecordingProcessor:
    """Takes videos, and keeps what it is given: video processors of the library need torchvision."""

    chat_template = "there is one"
    video_processor = object()
    tokenizer = SimpleNamespace(pad_token="<pad>")

    def apply_chat_template(self, conversations: list, **kwargs: Any) -> BatchFeature:
        self.conversations, self.kwargs = conversations, kwargs
        return BatchFeature()


def text_of(messages: list[dict]) -> str:
    return messages[-1]["content"][-1]["text"]


def test_chats_have_outlined_frames_and_words_for_them(llava: tuple, data_root: Path) -> None:
    prepare = OutlineAnswerer(*llava, data_root=data_root, mode="single").prepare
    pair, alone, description = (prepare.to_chat(row) for row in box_rows())
    assert [part["type"] for part in pair[0]["content"]] == ["image", "text"]
    assert text_of(pair) == QUESTION
    assert text_of(alone) == f"Does <object1> (the object outlined in red) move? (A) yes (B) no. {INSTRUCTION}"
    assert text_of(description) == (
        "Please give a detailed description of the highlighted object outlined in red in the video."
    )
    # Frame 4 is the first that shows both objects, frame 2 the first that shows the left one; frame i is 10 * i.
    assert np.asarray(pair[0]["content"][0]["image"])[0, 0].tolist() == [40, 40, 40]
    assert np.asarray(alone[0]["content"][0]["image"])[0, 0].tolist() == [20, 20, 20]
    # 64 pixels are enlarged to 448: the border of the box at x = 8 lies at 56.
    pixel = np.asarray(alone[0]["content"][0]["image"]).astype(int)[16 * 7, 8 * 7]
    assert np.abs(pixel - OUTLINE_COLORS["red"]).max() < 40


@pytest.mark.parametrize("build", [llava_onevision, idefics3])
def test_batches_answer_as_single_rows_do(build: Any, data_root: Path) -> None:
    model, processor = build()
    for mode, num_frames in (("single", None), ("multi", 4)):
        answerer = OutlineAnswerer(
            model, processor, data_root=data_root, mode=mode, num_frames=num_frames, max_new_tokens=6
        )
        assert isinstance(answerer, PreparingAnswerer)
        together = answerer(box_rows())
        assert together == [answerer([row])[0] for row in box_rows()]
        assert all(isinstance(answer, str) for answer in together) and len(set(together)) == 3


def test_prompts_hold_every_frame_and_are_padded_on_the_left(llava: tuple, data_root: Path) -> None:
    _, processor = llava
    inputs = OutlineAnswerer(*llava, data_root=data_root, mode="multi", num_frames=4).prepare(box_rows())
    is_image = inputs["input_ids"] == processor.image_token_id
    # All three rows are annotated on three frames at most, so one scene frame (the midpoint 3.5 of 0 to 7, rounded up
    # to 4) is asked for, which is annotated already: 3 images of 16 patches and a newline.
    assert is_image.sum(dim=1).tolist() == [51, 51, 51]
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1, 1]
    assert (inputs["attention_mask"][2].diff() >= 0).all() and inputs["attention_mask"][2, 0] == 0
    prompt = processor.tokenizer.decode(inputs["input_ids"][0][~is_image[0]], skip_special_tokens=True)
    assert prompt.endswith(f"{QUESTION}\nassistant\n")


def test_the_model_sees_the_outlines(llava: tuple, data_root: Path) -> None:
    answerer = OutlineAnswerer(*llava, data_root=data_root, mode="single")
    marked, plain = (one.prepare(box_rows()[:1]) for one in (answerer, answerer.without_marks()))
    # Grey level 40 is 40 / 255 before the processor's normalisation with mean and deviation of CLIP.
    grey = (40 / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array([0.26862954, 0.26130258, 0.27577711])
    expected = np.broadcast_to(grey[:, None, None], (3, 56, 56))
    shown = plain["pixel_values"][0, 0].numpy()
    assert np.allclose(shown[:, 10:-10, :], expected[:, 10:-10, :], atol=1e-4)  # padded to a square above and below
    assert np.abs(marked["pixel_values"][0, 0].numpy() - shown).max() > 1
    assert text_of(answerer.without_marks().prepare.to_chat(box_rows()[0])).startswith("Is the object near the object")
    assert text_of(answerer.prepare.to_chat(box_rows()[0])) == QUESTION  # the first one still draws


def test_the_synthetic_bench_runs_through_the_outline_path(llava: tuple, tmp_path: Path) -> None:
    samples = make_synthetic_bench(1, tmp_path)
    answerer = OutlineAnswerer(*llava, data_root=tmp_path, mode="single", max_new_tokens=3)
    outcomes = dict(
        pair
        for batch in iterate_answers(answerer, samples, plan_batches(samples.groups(), 4), num_workers=0)
        for pair in batch
    )
    assert sorted(outcomes) == list(range(len(samples)))
    assert all(outcome.error is None and isinstance(outcome.answer, str) for outcome in outcomes.values())


def test_a_bad_row_costs_no_other(llava: tuple, data_root: Path) -> None:
    rows = box_rows()
    rows[1] = {**rows[1], "video": "missing"}
    answerer = OutlineAnswerer(*llava, data_root=data_root, mode="single", max_new_tokens=2)
    (batch,) = iterate_answers(answerer, rows, [[0, 1, 2]])
    outcomes = dict(batch)
    assert outcomes[0].error is None and outcomes[2].error is None
    assert "missing" in outcomes[1].error


def test_videos_go_to_processors_that_take_them(data_root: Path) -> None:
    processor = RecordingProcessor()
    prepare = OutlinePreparation(processor, data_root=data_root, mode="multi", num_frames=4)
    prepare(box_rows())
    kinds = [[part["type"] for part in messages[0]["content"]] for messages in processor.conversations]
    assert kinds == [["video", "text"]] * 3
    frames = processor.conversations[0][0]["content"][0]["video"]
    assert frames.shape == (3, 336, 448, 3) and frames.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [20, 40, 60]
    options = processor.kwargs["processor_kwargs"]
    assert options["do_sample_frames"] is False
    assert options["video_metadata"][0] == {
        "total_num_frames": 8,
        "fps": None,
        "duration": None,
        "frames_indices": [2, 4, 6],
    }
    OutlinePreparation(processor, data_root=data_root, mode="single")(box_rows())
    assert processor.conversations[0][0]["content"][0]["type"] == "image"
    assert "video_metadata" not in processor.kwargs["processor_kwargs"]
    OutlinePreparation(processor, data_root=data_root, mode="multi", show_as="images")(box_rows())
    assert processor.conversations[0][0]["content"][0]["type"] == "image"


def test_the_answer_of_a_conversation_is_what_is_asked_for(llava: tuple, data_root: Path) -> None:
    row = {
        "id": "c",
        "video": "clip",
        "messages": [
            {"role": "user", "content": "<video>\nWhat is <region>?"},
            {"role": "assistant", "content": "A box."},
            {"role": "user", "content": "Does it move?"},
            {"role": "assistant", "content": "No."},
        ],
        "regions": box_rows()[1]["regions"],
    }
    chat = OutlineAnswerer(*llava, data_root=data_root, mode="single").prepare.to_chat(row)
    assert [(message["role"], message["content"][-1]["text"]) for message in chat] == [
        ("user", "What is the object outlined in red?"),
        ("assistant", "A box."),
        ("user", "Does it move?"),
    ]


def test_preparation_goes_to_workers_without_the_model(llava: tuple, data_root: Path) -> None:
    answerer = OutlineAnswerer(*llava, data_root=data_root, mode="single")
    copy = pickle.loads(pickle.dumps(answerer.prepare))
    assert text_of(copy.to_chat(box_rows()[0])) == QUESTION
    assert not any(isinstance(value, torch.nn.Module) for value in vars(answerer.prepare).values())


def test_a_tokenizer_without_padding_gets_one_of_its_own(data_root: Path) -> None:
    model, processor = idefics3()
    processor.tokenizer.pad_token = None
    answerer = OutlineAnswerer(model, processor, data_root=data_root, mode="single", max_new_tokens=2)
    assert len(answerer(box_rows())) == 3
    assert processor.tokenizer.pad_token is None  # the caller's is left alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "`mode` must be one of single, multi, got 'both'"),
        ({"num_frames": 0}, "`num_frames` is 0"),
        ({"show_as": "gif"}, "`show_as` must be one of auto, images, video, got 'gif'"),
        ({"show_as": "video"}, "takes no videos"),
        ({"edit_list": "maybe"}, "`edit_list` is .maybe.. Pass one of .apply., .ignore."),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
    ],
)
def test_impossible_options(llava: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutlineAnswerer(*llava, **options)


def test_processors_without_a_chat_template(llava: tuple) -> None:
    with pytest.raises(ValueError, match="has no chat template"):
        OutlinePreparation(SimpleNamespace(chat_template=None))


def test_no_rows(llava: tuple) -> None:
    with pytest.raises(ValueError, match="`rows` is empty"):
        OutlineAnswerer(*llava)([])
