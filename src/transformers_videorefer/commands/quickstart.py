"""`videorefer quickstart`: the bundled miniature answers about the bundled clip, without network."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers_videorefer.bundled import QUICKSTART, TINY_MODEL, TINY_NOTICE
from transformers_videorefer.inference.generating import generate_answers
from transformers_videorefer.inference.loading import load_for_use
from transformers_videorefer.preview.drawing import draw_preview, read_marked_frames, region_colors

from .progress import quiet_libraries, report_when_slow


MAX_NEW_TOKENS = 32


def add_quickstart_parser(commands: Any, *, parents: list[argparse.ArgumentParser]) -> None:
    """Declare `videorefer quickstart`.

    Args:
        commands (`argparse._SubParsersAction`): Where commands are added.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    parser = commands.add_parser(
        "quickstart",
        parents=parents,
        allow_abbrev=False,
        help="see the bundled miniature answer about a bundled clip",
        description="Asks the bundled miniature about two objects of a bundled clip, offline, and draws the result.",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("quickstart.png"),
        help="where to draw the clip with outlined regions and answers (default: quickstart.png)",
    )
    parser.set_defaults(run=run_quickstart)


def run_quickstart(args: argparse.Namespace) -> None:
    """Ask the bundled questions in one batch, print the answers and draw them.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer quickstart`.

    Raises:
        OSError: If the picture cannot be written.
    """
    quiet_libraries(args.debug)
    content = json.loads((QUICKSTART / "questions.json").read_text(encoding="utf-8"))
    video, objects, questions = QUICKSTART / content["video"], content["objects"], content["questions"]
    with report_when_slow("loading the miniature"):
        answers = _answer(video, objects, questions)
    exchanges = [(_spell(question), answer) for question, answer in zip(questions, answers, strict=True)]
    for question, answer in exchanges:
        sys.stdout.write(f"{question}\n  {answer}\n")
    _draw(video, objects, exchanges, args.output)
    sys.stdout.write(f"{TINY_NOTICE[0].upper()}{TINY_NOTICE[1:]}\nThe clip with outlined objects: {args.output}\n")


def _answer(video: Path, objects: dict[str, dict[str, Any]], questions: Sequence[dict[str, Any]]) -> list[str]:
    """Answer all questions in one batch."""
    model, processor = load_for_use(TINY_MODEL, device="cpu", dtype="float32")  # too small to gain from more
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": f"<video>\n{question['text']}"}] for question in questions],
        videos=[[video]] * len(questions),
        regions=[[objects[name] for name in question["objects"]] for question in questions],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    answers = generate_answers(model, processor, inputs, max_new_tokens=MAX_NEW_TOKENS)
    return [answer.text for answer in answers]


def _spell(question: dict[str, Any]) -> str:
    """Write a question with the names of its objects in the place of the marks."""
    pieces = question["text"].split("<region>")
    return pieces[0] + "".join(f"[{name}]{piece}" for name, piece in zip(question["objects"], pieces[1:], strict=True))


def _draw(video: Path, objects: dict[str, dict[str, Any]], exchanges: Sequence[tuple[str, str]], output: Path) -> None:
    """Draw the first, the middle and the last frame with the outlined objects, and the answers below."""
    last = max(frame["frame_index"] for region in objects.values() for frame in region["frames"])
    wanted = (0, last // 2, last)
    visible = {
        name: [frame["frame_index"] for frame in region["frames"] if frame["frame_index"] in wanted]
        for name, region in objects.items()
    }
    frames = read_marked_frames(video, objects, frame_indices=visible)
    draw_preview(frames, exchanges=exchanges, colors=region_colors(list(objects))).save(output)
