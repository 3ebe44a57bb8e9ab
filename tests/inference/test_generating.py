"""Answers: greedy and with one beam, as long as they may be, without what is no answer."""

from typing import Any

import pytest
import torch
from tiny import box_region, noise_video, tiny_model, tiny_processor
from transformers import BatchFeature
from transformers.generation import BaseStreamer

from transformers_videorefer.inference.generating import Answer, check_max_new_tokens, generate_answers


END = 328


class Scripted:
    """A model whose `generate` is scripted, and which remembers how it was called.

    Args:
        written (`list[list[int]]`): What it writes behind each prompt; an exception is raised.
        end (`int` or `list[int]`, *optional*): Its end of sequence.
    """

    device, dtype = torch.device("cpu"), torch.bfloat16

    def __init__(self, written: Any, end: Any = END):
        self.written = written
        self.generation_config = BatchFeature({"eos_token_id": end})
        self.calls: list[dict[str, Any]] = []

    def generate(self, **options: Any) -> torch.Tensor:
        self.calls.append({**options, "grad": torch.is_grad_enabled()})
        if isinstance(self.written, Exception):
            raise self.written
        return torch.cat([options["input_ids"], torch.tensor(self.written)], dim=1)


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_processor()


def inputs_of(processor: Any, *texts: str) -> BatchFeature:
    return processor(text=list(texts), return_tensors="pt")


def text_ids(processor: Any, text: str) -> list[int]:
    return processor.tokenizer(text)["input_ids"]


def test_answers_are_what_is_new(processor: Any) -> None:
    words = text_ids(processor, " yes it is")
    model = Scripted([words + [END]])
    assert generate_answers(model, processor, inputs_of(processor, "Is it?")) == [
        Answer("yes it is", is_complete=True)
    ]
    (call,) = model.calls
    assert (call["do_sample"], call["num_beams"], call["max_new_tokens"], call["grad"]) == (False, 1, 512, False)
    assert "repetition_penalty" not in call  # the checkpoint's
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("end", [END, [327, END]])
def test_each_answer_of_a_batch_says_whether_it_was_cut(processor: Any, end: Any) -> None:
    words = text_ids(processor, "yes it is")
    padding = processor.tokenizer.pad_token_id
    ended = [words[0], END] + [padding] * (len(words) - 2)
    answers = generate_answers(
        Scripted([words, ended], end), processor, inputs_of(processor, "A?", "B?"), max_new_tokens=len(words)
    )
    assert [answer.is_complete for answer in answers] == [False, True]
    assert answers[0].text == "yes it is"


@pytest.mark.parametrize(("longer", "is_complete"), [(0, False), (1, True)])
def test_an_answer_that_something_else_stopped_is_complete(processor: Any, longer: int, is_complete: bool) -> None:
    words = text_ids(processor, "yes")
    model = Scripted([words], end=None)
    (answer,) = generate_answers(model, processor, inputs_of(processor, "A?"), max_new_tokens=len(words) + longer)
    assert answer.is_complete is is_complete


def test_options_reach_the_model(processor: Any) -> None:
    model, streamer = Scripted([[END]]), BaseStreamer()
    options = {"max_new_tokens": 7, "repetition_penalty": 1.1, "streamer": streamer}
    generate_answers(model, processor, inputs_of(processor, "A?"), sample=True, **options)
    assert options.items() <= model.calls[0].items()
    assert model.calls[0]["do_sample"] is True


def test_inputs_come_in_the_precision_of_the_model(processor: Any) -> None:
    model = Scripted([[END]])
    inputs = processor(text="<video>\nA?", videos=[noise_video()], return_tensors="pt")
    generate_answers(model, processor, inputs)
    assert model.calls[0]["pixel_values_videos"].dtype == torch.bfloat16
    assert model.calls[0]["input_ids"].dtype == torch.int64


def test_the_length_must_be_possible(processor: Any) -> None:
    check_max_new_tokens(1)
    model = Scripted([[END]])
    with pytest.raises(ValueError, match="`max_new_tokens` is 0. Pass at least 1"):
        generate_answers(model, processor, inputs_of(processor, "A?"), max_new_tokens=0)
    assert model.calls == []


def test_too_small_a_memory_is_explained_to_those_who_can_do_something(processor: Any) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        generate_answers(Scripted(error), processor, inputs_of(processor, "A?"))
    with pytest.raises(MemoryError, match="^cpu ran out of memory. Close a window.$") as caught:
        generate_answers(Scripted(error), processor, inputs_of(processor, "A?"), memory_advice="Close a window.")
    assert caught.value.__cause__ is error


def region_inputs(processor: Any) -> BatchFeature:
    return processor(
        text="<video>\nWhat is <region>?", videos=[noise_video()], regions=[box_region([2, 5])], return_tensors="pt"
    )


def test_it_is_greedy_whatever_the_checkpoint_says(processor: Any) -> None:
    model = tiny_model()
    expected = generate_answers(model, processor, region_inputs(processor), max_new_tokens=8)
    model.generation_config.update(do_sample=True, temperature=5.0, num_beams=2)
    for _ in range(3):
        assert generate_answers(model, processor, region_inputs(processor), max_new_tokens=8) == expected


def test_a_seed_repeats_what_is_drawn(processor: Any) -> None:
    model = tiny_model()
    model.generation_config.update(temperature=3.0)
    drawn = [
        generate_answers(model, processor, region_inputs(processor), max_new_tokens=8, sample=True, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_streamer_sees_the_tokens_as_they_come(processor: Any) -> None:
    class Notes(BaseStreamer):
        def __init__(self) -> None:
            self.numbers: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.numbers.append(value.numel())

        def end(self) -> None:
            self.numbers.append(0)

    notes, inputs = Notes(), region_inputs(processor)
    generate_answers(tiny_model(), processor, inputs, max_new_tokens=3, streamer=notes)
    prompt, *steps, end = notes.numbers
    assert prompt == inputs["input_ids"].numel()
    assert 1 <= len(steps) <= 3 and set(steps) == {1} and end == 0
