"""The bundled miniature really answers about regions: right with the right masks, wrong with those of other objects."""

import io

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_videorefer.commands.bundled import TINY_CHECKPOINT
from transformers_videorefer.data import encode_video, make_clip, object_region
from transformers_videorefer.data.synthetic import SPLIT_SEEDS


SEEDS = range(SPLIT_SEEDS["validation"] + 500, SPLIT_SEEDS["validation"] + 512)


@pytest.fixture(scope="module")
def tiny():
    model = AutoModelForImageTextToText.from_pretrained(TINY_CHECKPOINT).eval()
    return model, AutoProcessor.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def clips():
    return [(clip, encode_video(clip.frames)) for clip in map(make_clip, SEEDS)]


def open_questions(clip, kinds):
    return [question for question in clip.questions if question.kind in kinds and not question.options]


def ask(tiny, clip, file, questions, objects_of):
    """Answer questions about one clip in one batch, each about the objects that `objects_of` names."""
    model, processor = tiny
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": f"<video>\n{question.text}"}] for question in questions],
        videos=[[io.BytesIO(file)] for _ in questions],
        regions=[[object_region(clip, index) for index in objects_of(question)] for question in questions],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def accuracy(tiny, clips, kinds):
    right = []
    for clip, file in clips:
        questions = open_questions(clip, kinds)
        answers = ask(tiny, clip, file, questions, lambda question: question.objects)
        right += [answer == question.answer for answer, question in zip(answers, questions, strict=True)]
    assert len(right) > 20
    return sum(right) / len(right)


# Held-out figures of the card, less what twelve clips may deviate.
@pytest.mark.parametrize(("kind", "least"), [("basic", 0.9), ("sequential", 0.75), ("description", 0.6)])
def test_right_answers(tiny, clips, kind, least):
    assert accuracy(tiny, clips, {kind}) >= least


def test_masks_of_other_objects_give_wrong_answers(tiny, clips):
    swapped = [(clip, file) for clip, file in clips if len(clip.scene.objects) == 2]
    assert swapped

    def other(question):
        return [1 - question.objects[0]]

    right = []
    for clip, file in swapped:
        one, two = clip.scene.objects
        questions = [
            question
            for question in open_questions(clip, {"basic"})
            if question.topic in ("color", "what") and one.color != two.color
        ]
        if questions:
            answers = ask(tiny, clip, file, questions, other)
            right += [answer == question.answer for answer, question in zip(answers, questions, strict=True)]
    assert len(right) >= 8
    assert sum(right) / len(right) <= 0.2


def test_size_and_precision(tiny):
    model, _ = tiny
    assert model.num_parameters() <= 3_000_000
    assert model.dtype == torch.float32
    assert sum(file.stat().st_size for file in TINY_CHECKPOINT.iterdir()) <= 8_000_000
