"""Train the miniature checkpoint from nothing on synthetic clips, or measure one on held-out clips.

    python examples/train_tiny.py --output tiny             # the whole run, about half an hour on two cores
    python examples/train_tiny.py --output tiny --quick     # a few seconds: does everything run?
    python examples/train_tiny.py --evaluate tiny --split test --report test.json

Needs nothing but the package. Stages: clips are made (rendered, encoded as H.264, decoded); the vision tower learns to
tell color, shape, place and size of objects in single frames; the language model learns to look things up in its
prompt; then connector, region encoder and language model learn to answer questions, on features of the frozen tower.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from tiny_clips import make_training_clips
from tiny_evaluation import evaluate, print_report
from tiny_items import text_items
from tiny_language import LanguageTrainer, standardise_projector
from tiny_parts import build_model, build_processor, build_tokenizer
from tiny_tower import encode_clips, train_tower

from transformers_videorefer import VideoReferForConditionalGeneration, VideoReferProcessor


logger = logging.getLogger("train_tiny")


def save_checkpoint(model: VideoReferForConditionalGeneration, processor: VideoReferProcessor, folder: Path) -> None:
    """Write a checkpoint whose weights are stored in half precision and computed with in single precision.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model.
        processor ([`VideoReferProcessor`]): Its processor.
        folder (`Path`): Folder, made if there is none.
    """
    processor.save_pretrained(folder)
    model.save_pretrained(folder, state_dict={name: value.half() for name, value in model.state_dict().items()})
    # Loading follows the configuration; on a CPU half precision would be slow and coarse.
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config["vision_config"], config["text_config"]):
        part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--output", type=Path, help="train, and write the checkpoint to this folder")
    task.add_argument("--evaluate", type=Path, help="measure the checkpoint in this folder")
    parser.add_argument("--quick", action="store_true", help="a few steps and clips of everything")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches; the clips are always the same")
    parser.add_argument("--num-clips", type=int, default=5000, help="training clips")
    parser.add_argument("--num-validation-clips", type=int, default=80, help="clips to report on while training")
    parser.add_argument("--tower-steps", type=int, default=750, help="steps of the vision tower")
    parser.add_argument("--copy-steps", type=int, default=650, help="steps of repeating random tokens")
    parser.add_argument("--letter-steps", type=int, default=100, help="steps of naming the letters of options")
    parser.add_argument("--language-steps", type=int, default=4200, help="steps of answering questions")
    parser.add_argument("--report-every", type=int, default=500, help="steps between two reports and savings")
    parser.add_argument("--workers", type=int, default=2, help="processes that make clips")
    parser.add_argument("--threads", type=int, default=1, help="threads of the training process")
    parser.add_argument("--split", choices=("validation", "test"), default="validation", help="with --evaluate")
    parser.add_argument("--num-test-clips", type=int, default=200, help="with --evaluate")
    parser.add_argument("--num-control-clips", type=int, default=60, help="with --evaluate: clips of the controls")
    parser.add_argument("--report", type=Path, help="with --evaluate: JSON file to write")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.num_clips, arguments.num_validation_clips = 64, 8
        arguments.copy_steps, arguments.letter_steps = 5, 5
        arguments.tower_steps, arguments.language_steps, arguments.report_every = 5, 5, 5
        arguments.num_test_clips, arguments.num_control_clips = 4, 4
    return arguments


def train(arguments: argparse.Namespace) -> None:
    """Run all stages.

    Args:
        arguments (`argparse.Namespace`): The command line.
    """
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    clips = make_training_clips("train", arguments.num_clips, arguments.workers)
    validation = make_training_clips("validation", arguments.num_validation_clips, arguments.workers)
    # Without the letters that answer multiple-choice questions: they shall be the tokens that the prompts have.
    texts = [f"{question.prompt}\n{question.answer}" for clip in clips[:1000] for question in clip.questions]
    processor = build_processor(
        build_tokenizer([*texts, *(["system user assistant\nYou are a helpful assistant."] * 1000)])
    )
    torch.manual_seed(arguments.seed)
    model = build_model(processor)
    logger.info("%d parameters", sum(parameter.numel() for parameter in model.parameters()))
    train_tower(model, clips, validation, num_steps=arguments.tower_steps, batch_size=64, rng=rng)
    logger.info("vision tower: CPU %.0f s", time.process_time())
    model.model.vision_tower.requires_grad_(False)
    features, validation_features = encode_clips(model, clips), encode_clips(model, validation)
    standardise_projector(model, features, clips[:400])
    trainer = LanguageTrainer(model, processor, rng)
    items, validation_items = text_items(clips, processor), text_items(validation, processor)
    trainer.learn_to_look_up(items, num_copy_steps=arguments.copy_steps, num_letter_steps=arguments.letter_steps)
    trainer.train(
        items,
        features,
        clips,
        (validation_items, validation_features, validation),
        num_steps=arguments.language_steps,
        clips_per_step=8,
        questions_per_clip=4,
        report_every=arguments.report_every,
        # Keeps what is trained so far; the last call leaves the finished checkpoint.
        on_report=lambda _: save_checkpoint(model, processor, arguments.output),
    )
    logger.info("done: CPU %.0f s", time.process_time())


def main() -> None:
    """Train or evaluate."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    if arguments.evaluate is None:
        train(arguments)
        return
    report = evaluate(
        arguments.evaluate,
        split=arguments.split,
        num_clips=arguments.num_test_clips,
        num_control_clips=arguments.num_control_clips,
    )
    print_report(report)
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
