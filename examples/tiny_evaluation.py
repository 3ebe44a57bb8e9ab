"""Measure a checkpoint on held-out clips as a user would run it: mp4 files, processor, `generate`."""

import json
import logging
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from transformers_videorefer.data.synthetic.clips import (
    SPLIT_SEEDS,
    Clip,
    conversation_rows,
    iterate_clips,
    write_clip,
)
from transformers_videorefer.data.synthetic.questions import DESCRIPTION, Question, questions_about
from transformers_videorefer.data.synthetic.world import sample_scene


logger = logging.getLogger(__name__)

# Questions drawn of each clip, where it has them.
QUESTIONS_PER_CLIP = {
    "basic": 2,
    "sequential": 2,
    "relationship": 2,
    "reasoning": 2,
    "future": 1,
    DESCRIPTION: 2,
    "multiple choice": 2,
}
CLIPS_PER_BATCH = 4
NUM_BLIND_CLIPS = 3000
MAX_NEW_TOKENS = 24
# Topics whose answers need more than one frame, whatever their kind.


def group_of(question: Question) -> str:
    """Name the row of the report that a question counts in."""
    return "multiple choice" if question.options else question.kind


def draw_questions(clip: Clip) -> list[int]:
    """Draw questions of a clip, by a generator of its own.

    Args:
        clip ([`Clip`]): The clip.

    Returns:
        `list[int]`: Positions in `clip.questions`.
    """
    rng = np.random.default_rng([clip.scene.seed, 3])
    positions = []
    for group, count in QUESTIONS_PER_CLIP.items():
        found = [place for place, question in enumerate(clip.questions) if group_of(question) == group]
        positions += rng.permutation(found)[:count].astype(int).tolist()
    return positions


def to_messages(row: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Turn the user turn of a row into a conversation for `apply_chat_template`.

    Args:
        row (`dict`): A row with `messages`, `video` and `regions`.
        folder (`Path`): Folder of the video.

    Returns:
        `list[dict]`: One user turn with video, text and region parts.
    """
    regions, parts = iter(row["regions"]), []
    for piece in re.split(r"(<video>\n|<region>)", row["messages"][0]["content"]):
        if piece == "<video>\n":
            parts.append({"type": "video", "path": str(folder / row["video"])})
        elif piece == "<region>":
            parts.append({"type": "region", **next(regions)})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return [{"role": "user", "content": parts}]


def keep_regions(regions: Sequence[dict[str, Any]], clip_regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave the regions of a question as they are."""
    return list(regions)


def swap_regions(regions: Sequence[dict[str, Any]], clip_regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give a question the region of another object; two objects change places."""
    if len(regions) > 1:
        return list(regions[::-1])
    others = [region for region in clip_regions if region["object_id"] != regions[0]["object_id"]]
    return others[:1]


def single_frame(regions: Sequence[dict[str, Any]], clip_regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the middle frame of each region."""
    return [{**region, "frames": [region["frames"][len(region["frames"]) // 2]]} for region in regions]


def answer_clips(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    clips: Sequence[Clip],
    folder: Path,
    change: Callable[[Sequence[dict[str, Any]], Sequence[dict[str, Any]]], list[dict[str, Any]]] = keep_regions,
) -> list[tuple[Question, str]]:
    """Ask drawn questions about clips.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model.
        processor ([`VideoReferProcessor`]): Its processor.
        clips (`Sequence[Clip]`): The clips, whose video files lie in `folder`.
        folder (`Path`): Folder of the video files.
        change (`Callable`, *optional*): Makes the regions of a question from them and those of all objects.

    Returns:
        `list[tuple[Question, str]]`: Each question with what the model said.
    """
    answered = []
    for start in tqdm(range(0, len(clips), CLIPS_PER_BATCH), desc=change.__name__, unit="batch", mininterval=5):
        questions, conversations = [], []
        for clip in clips[start : start + CLIPS_PER_BATCH]:
            rows = conversation_rows(clip)
            of_objects = {region["object_id"]: region for row in rows for region in row["regions"]}
            for position in draw_questions(clip):
                row = {**rows[position], "regions": change(rows[position]["regions"], list(of_objects.values()))}
                questions.append(clip.questions[position])
                conversations.append(to_messages(row, folder))
        inputs = processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(model.device)
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answered += zip(questions, texts, strict=True)
    return answered


def blind_answers() -> Callable[[Question], str]:
    """Learn the best answers without seeing the clip, from training questions.

    Returns:
        `Callable[[Question], str]`: Gives the most frequent answer to the text of a question; of a multiple-choice
        question the option that was right most often.
    """
    counts: dict[tuple[str, bool], Counter] = defaultdict(Counter)
    for seed in range(SPLIT_SEEDS["train"], SPLIT_SEEDS["train"] + NUM_BLIND_CLIPS):
        for question in questions_about(sample_scene(seed)):
            counts[question.text, bool(question.options)][question.answer] += 1

    def answer(question: Question) -> str:
        found = counts[question.text, bool(question.options)]
        if not question.options:
            return found.most_common(1)[0][0]
        best = max(question.options, key=lambda option: found[option])
        return f"({'ABCD'[question.options.index(best)]})"

    return answer


def accuracies(
    answered: Sequence[tuple[Question, str]], key: Callable[[Question], str] = group_of
) -> dict[str, tuple[float, int]]:
    """Return the share of exact matches and the number of questions, for each value of `key`."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for question, text in answered:
        hits[key(question)].append(text == question.reply)
    return {name: (float(np.mean(values)), len(values)) for name, values in sorted(hits.items())}


def evaluate(checkpoint: Path, *, split: str, num_clips: int, num_control_clips: int) -> dict[str, Any]:
    """Measure a checkpoint.

    Args:
        checkpoint (`Path`): Folder of the checkpoint.
        split (`str`): "validation" or "test".
        num_clips (`int`): Clips.
        num_control_clips (`int`): How many of them are asked about again with wrong masks and with single frames.

    Returns:
        `dict`: For each row of the report a dictionary from kind to (share of exact matches, number of questions).
    """
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    clips, blind = list(iterate_clips(split, num_clips)), blind_answers()
    with tempfile.TemporaryDirectory() as scratch:
        for clip in clips:
            write_clip(clip, Path(scratch))
        answered = answer_clips(model, processor, clips, Path(scratch))
        report = {
            "model": accuracies(answered),
            "blind": accuracies([(question, blind(question)) for question, _ in answered]),
            "model by topic": accuracies(answered, lambda question: f"{group_of(question)}: {question.topic}"),
        }
        controls = clips[:num_control_clips]
        num_questions = sum(len(draw_questions(clip)) for clip in controls)
        report["model, first clips"] = accuracies(answered[:num_questions])
        for name, change in (("other object's mask", swap_regions), ("single frame", single_frame)):
            report[name] = accuracies(answer_clips(model, processor, controls, Path(scratch), change))
    report["wrong answers"] = [
        (question.prompt, question.reply, text) for question, text in answered if text != question.reply
    ][:40]
    return report


def print_report(report: dict[str, Any]) -> None:
    """Print a table of a report, one line for each kind."""
    for name, row in report.items():
        if isinstance(row, dict):
            print(f"{name}: " + ", ".join(f"{kind} {share:.1%} ({count})" for kind, (share, count) in row.items()))
    print(json.dumps(report["wrong answers"], indent=0))
