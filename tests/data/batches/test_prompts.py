"""The published prompts, letter for letter."""

from transformers_videorefer.data.batches import prompts


def test_fixed_prompts() -> None:
    assert prompts.BENCH_D_PROMPT == (
        "Please give a detailed description of the highlighted object [<region>] in the video."
    )
    assert prompts.SHORT_CAPTION_PROMPT == "Please describe the object <region> in the video in brief."
    assert prompts.DETAILED_CAPTION_PROMPT == "Please describe in detail the object <region> in the video."


def test_multiple_choice() -> None:
    prompt = prompts.multiple_choice_prompt("What is <object3><region> not wearing?", ["(A) A helmet", "(B) A hat"])
    assert prompt == (
        "What is <object3>[<region>] not wearing? (A) A helmet (B) A hat. "
        "Answer with the option's letter from the given choices directly."
    )


def test_a_question_without_options_is_asked_openly() -> None:
    assert prompts.multiple_choice_prompt("What is <region>?", []) == "What is [<region>]?"
