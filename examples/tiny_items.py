"""Questions of the miniature as token ids."""

from dataclasses import dataclass

from tiny_clips import IGNORED, NUM_SCENE_FRAMES, TrainingClip

from transformers_videorefer import VideoReferProcessor
from transformers_videorefer.data.synthetic.questions import DESCRIPTION, Question


# How often questions of a kind are drawn where a clip has them: (open, multiple choice).
KIND_WEIGHTS = {
    "basic": (2.0, 1.2),
    "sequential": (2.4, 1.0),
    "relationship": (2.6, 0.7),
    "reasoning": (3.0, 0.8),
    "future": (1.0, 0.7),
    DESCRIPTION: (1.6, 0.0),
}
SINGLE_FRAME_SHARES = (0.06, 0.2)  # of basic questions more: one frame answers them


@dataclass(frozen=True, eq=False)
class TextItem:
    """One question of a clip as ids."""

    row: int
    question: Question
    group: str
    objects: tuple[int, ...]
    ids: list[int]  # one id for each mark of a region
    num_answer: int
    single_frame_share: float
    weight: float
    concept: int  # id at the end of the right option of a multiple-choice question, else `IGNORED`


def prompt_frame(processor: VideoReferProcessor) -> tuple[str, str]:
    """Return what the chat template puts before and after the words of the user."""
    content = "\0"
    prompt = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=processor.chat_template,
        tokenize=False,
        add_generation_prompt=True,
    )
    before, after = prompt.split(content)
    return before, after


def text_items(clips: list[TrainingClip], processor: VideoReferProcessor) -> list[list[TextItem]]:
    """Turn the questions of clips into ids.

    Args:
        clips (`list[TrainingClip]`): The clips.
        processor ([`VideoReferProcessor`]): Its template and tokenizer are used.

    Returns:
        `list[list[TextItem]]`: The questions of each clip.
    """
    tokenizer = processor.tokenizer
    before, after = prompt_frame(processor)
    scene = processor.video_token * processor.num_scene_tokens(NUM_SCENE_FRAMES)
    items = []
    for row, clip in enumerate(clips):
        answers = tokenizer([f"{question.reply}<|im_end|>" for question in clip.questions])["input_ids"]
        prompts = tokenizer([f"{before}{scene}\n{question.prompt}{after}" for question in clip.questions])["input_ids"]
        groups = [(question.kind, bool(question.options)) for question in clip.questions]
        items.append(
            [
                TextItem(
                    row=row,
                    question=question,
                    group="choice" if group[1] else group[0],
                    objects=question.objects,
                    ids=prompt + answer,
                    num_answer=len(answer),
                    single_frame_share=SINGLE_FRAME_SHARES[question.kind == "basic"],
                    weight=KIND_WEIGHTS[group[0]][group[1]] / groups.count(group),
                    concept=tokenizer(f" {question.answer}")["input_ids"][-1] if question.options else IGNORED,
                )
                for question, group, prompt, answer in zip(clip.questions, groups, prompts, answers, strict=True)
            ]
        )
    return items
