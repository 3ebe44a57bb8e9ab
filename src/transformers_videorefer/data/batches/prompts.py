"""Questions that the published checkpoints were trained and evaluated with, letter for letter."""

from collections.abc import Sequence


SHORT_CAPTION_PROMPT = "Please describe the object <region> in the video in brief."
DETAILED_CAPTION_PROMPT = "Please describe in detail the object <region> in the video."
BENCH_D_PROMPT = "Please give a detailed description of the highlighted object [<region>] in the video."
LETTER_INSTRUCTION = "Answer with the option's letter from the given choices directly."


def multiple_choice_prompt(question: str, options: Sequence[str]) -> str:
    """Word a question of VideoRefer-Bench-Q as the published evaluation does.

    Args:
        question (`str`): The question; every `<region>` mark gets brackets.
        options (`Sequence[str]`): The options with their letters, for example "(A) A helmet". Without any the question
            is asked openly.

    Returns:
        `str`: The prompt, without the mark of the video.
    """
    question = question.replace("<region>", "[<region>]")
    if not len(options):
        return question
    return f"{question} {' '.join(options)}. {LETTER_INSTRUCTION}"
