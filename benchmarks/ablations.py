"""What the parts of the method are worth: miniatures trained with and without them, beside the rows of the paper.

    python benchmarks/ablations.py                                # the committed run: hours on two cores
    python benchmarks/ablations.py --quick --output quick.json    # a few clips and steps: does everything run?
    python benchmarks/ablations.py --report                       # table and plot of what the JSON file holds

Every cell is a model trained from one start with its own form of region, number of frames, number of tokens and kinds
of data; its test uses the same. All cells share the frozen vision tower of the shipped checkpoint, whose features are
computed once. A cell that is finished is written to the JSON file at once and skipped in the next run, so that a run
that was stopped loses only the cell that each of its processes was at.
"""

import argparse
import json
import logging
import multiprocessing
import os
import platform
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from ablation_clips import WORLDS, FeatureSet, load_features
from ablation_report import summarise, write_report
from ablation_training import (
    BATCH_SIZE,
    CHECKPOINT,
    QA,
    QUESTIONS_PER_CLIP,
    QUESTIONS_PER_CLIP_AND_GROUP,
    SHORT,
    Cell,
    CellTrainer,
    TextItem,
    build_model,
    make_start,
    test_items,
    text_items,
)
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_videorefer.data.synthetic.world import NUM_FRAMES


logger = logging.getLogger("ablations")

RESULTS = Path(__file__).parent / "results" / "ablations.json"
CACHE = Path.home() / ".cache" / "videorefer-ablations"
CELLS = {
    "default": Cell(),
    "box": Cell(form="box"),
    "single frame": Cell(multi_frame=False),
    "u=1": Cell(num_tokens=1),
    "u=8": Cell(num_tokens=8),
    "u=16": Cell(num_tokens=16),
    "no merge": Cell(num_tokens=NUM_FRAMES),
    "short captions": Cell(data=(SHORT,)),
    "+ questions": Cell(data=(SHORT, QA)),
}
# Further tests of a cell, with other regions than it was trained on.
OTHER_TESTS = {
    "default": {"single frame at test": Cell(multi_frame=False), "box at test": Cell(form="box")},
}


@dataclass(frozen=True)
class Plan:
    """How much is done, the same for all cells.

    Args:
        num_steps (`int`): Training steps of a cell.
        num_copy_steps (`int`): Steps in which the start of a seed learns to repeat random tokens.
        num_train_clips (`int`): Training clips of each world.
        num_test_clips (`int`): Held-out clips of each world.
    """

    num_steps: int
    num_copy_steps: int
    num_train_clips: int
    num_test_clips: int


QUICK = Plan(num_steps=3, num_copy_steps=2, num_train_clips=4, num_test_clips=2)


@dataclass(frozen=True, eq=False)
class Workbench:
    """What all cells of a process share.

    Args:
        plan ([`Plan`]): How much is done.
        cache (`Path`): Folder of features and starts.
        processor ([`VideoReferProcessor`]): The processor of the shipped checkpoint.
        train_set ([`FeatureSet`]): Training clips of both worlds.
        test_sets (`dict[str, FeatureSet]`): Held-out clips of each world.
        train_items (`list[list[TextItem]]`): Questions of the training clips.
        items_of_test (`dict[str, list[list[TextItem]]]`): Questions of the held-out clips of each world.
    """

    plan: Plan
    cache: Path
    processor: Any
    train_set: FeatureSet
    test_sets: dict[str, FeatureSet]
    train_items: list[list[TextItem]]
    items_of_test: dict[str, list[list[TextItem]]]

    @classmethod
    def open(cls, plan: Plan, cache: Path, num_workers: int) -> "Workbench":
        """Read everything from the cache; what is missing there is made by `num_workers` processes."""
        tower = AutoModelForImageTextToText.from_pretrained(CHECKPOINT).eval()
        options = {"cache": cache, "num_workers": num_workers}
        train_set = load_features(tower, "train", WORLDS, plan.num_train_clips, **options)
        test_sets = {
            world: load_features(tower, "held-out", (world,), plan.num_test_clips, **options) for world in WORLDS
        }
        processor = AutoProcessor.from_pretrained(CHECKPOINT)
        return cls(
            plan,
            cache,
            processor,
            train_set,
            test_sets,
            train_items=text_items(train_set.clips, processor),
            items_of_test={world: test_items(one.clips, processor) for world, one in test_sets.items()},
        )

    def count_questions(self) -> dict[str, dict[str, int]]:
        """Count the test questions of each world by group."""
        return {
            world: dict(Counter(item.group for of_clip in items for item in of_clip))
            for world, items in self.items_of_test.items()
        }

    def start(self, seed: int) -> dict[str, torch.Tensor]:
        """Return the weights that all cells of a seed start from."""
        path = self.cache / f"start-{seed}-{self.plan.num_train_clips}-{self.plan.num_copy_steps}.pt"
        if not path.exists():
            state = make_start(self.processor, self.train_set, seed, self.plan.num_copy_steps)
            unfinished = path.with_suffix(f".{os.getpid()}")  # another process may be making the same start
            torch.save(state, unfinished)
            unfinished.replace(path)
        return torch.load(path, weights_only=True)

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train and measure one cell.

        Args:
            name (`str`): One of `CELLS`.
            seed (`int`): Seed of weights and batches.

        Returns:
            `dict`: `cell`, `seed`, `scores[test][world][group]`, `end_of_training` and seconds.
        """
        started, cpu_started = time.monotonic(), time.process_time()
        start = self.start(seed)
        torch.manual_seed(seed)
        model = build_model(self.processor)
        model.load_state_dict(start)
        model.model.vision_tower.requires_grad_(False)
        trainer = CellTrainer(model, self.processor, np.random.default_rng([seed, 8]), CELLS[name])
        end = trainer.train_cell(self.train_items, self.train_set, self.plan.num_steps)
        scores = {
            test: {
                world: {
                    group: round(score, 4)
                    for group, score in trainer.measure(self.items_of_test[world], test_set, cell).items()
                }
                for world, test_set in self.test_sets.items()
            }
            for test, cell in {"own": CELLS[name], **OTHER_TESTS.get(name, {})}.items()
        }
        return {
            "cell": name,
            "seed": seed,
            "scores": scores,
            "end_of_training": {key: round(value, 4) for key, value in end.items()},
            "seconds": round(time.monotonic() - started),
            "cpu_seconds": round(time.process_time() - cpu_started),
        }


_workbenches: list[Workbench] = []  # the one of this process


def _open_workbench(plan: Plan, cache: Path) -> None:
    torch.set_num_threads(1)
    _workbenches[:] = [Workbench.open(plan, cache, num_workers=0)]


def _run(name: str, seed: int) -> dict[str, Any]:
    return _workbenches[0].run(name, seed)


def describe_settings(plan: Plan) -> dict[str, Any]:
    """Return everything that the figures depend on; a file with other settings is not gone on with."""
    return {
        **asdict(plan),
        "questions_per_step": BATCH_SIZE,
        "questions_per_clip": QUESTIONS_PER_CLIP,
        "test_questions_per_clip_and_group": QUESTIONS_PER_CLIP_AND_GROUP,
        "annotated_frames_per_clip": NUM_FRAMES,
        "cells": {name: {**asdict(cell), "data": list(cell.data)} for name, cell in CELLS.items()},
    }


def read_result(path: Path, plan: Plan) -> dict[str, Any]:
    """Read the result file of an earlier run, or begin one.

    Args:
        path (`Path`): The file.
        plan ([`Plan`]): How much is to be done.

    Returns:
        `dict`: With the finished `runs`.

    Raises:
        ValueError: If the file was made with other settings.
    """
    settings = describe_settings(plan)
    if not path.exists():
        return {
            "benchmark": "ablations",
            "question": "what are masks, several frames, the merge and the kinds of data worth, on held-out clips?",
            "score": "share of answers right to the last token, each token the most probable one (greedy decoding)",
            "settings": settings,
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "threads_per_cell": 1,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "runs": [],
        }
    result = json.loads(path.read_text())
    if result["settings"] != settings:
        changed = [key for key in settings if result["settings"].get(key) != settings[key]]
        raise ValueError(
            f"`output` {str(path)!r} holds figures made with other settings ({', '.join(changed)}). "
            "Give the same options as before, or another file."
        )
    return result


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write the result file, whole or not at all."""
    result["runs"].sort(key=lambda run: (run["seed"], list(CELLS).index(run["cell"])))
    result["summary"] = summarise(result["runs"])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.replace(path)


def missing_runs(result: dict[str, Any], num_seeds: int) -> list[tuple[str, int]]:
    """Return (cell, seed) of everything that is not yet in the result, seed after seed."""
    done = {(run["cell"], run["seed"]) for run in result["runs"]}
    return [(name, seed) for seed in range(num_seeds) for name in CELLS if (name, seed) not in done]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file; table and plot are put beside it")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of features and starts, about 1.4 GB")
    parser.add_argument("--num-steps", type=int, default=750, help="training steps of a cell")
    parser.add_argument("--num-copy-steps", type=int, default=250, help="steps of the start of a seed")
    parser.add_argument("--num-train-clips", type=int, default=1500, help="training clips of each world")
    parser.add_argument("--num-test-clips", type=int, default=250, help="held-out clips of each world")
    parser.add_argument("--num-seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="cells trained at a time, on one thread each")
    parser.add_argument("--quick", action="store_true", help="a few clips and steps of everything")
    parser.add_argument("--report", action="store_true", help="only write table and plot")
    arguments = parser.parse_args()
    if arguments.quick and arguments.output == RESULTS:
        parser.error("`--quick` needs an `--output` of its own.")
    return arguments


def main() -> None:
    """Train what is missing, then write table and plot."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.report:
        result = json.loads(arguments.output.read_text())
        write_result(arguments.output, result)
        write_report(result, arguments.output)
        return
    plan = QUICK if arguments.quick else Plan(**{name: getattr(arguments, name) for name in asdict(QUICK)})
    result = read_result(arguments.output, plan)
    missing = missing_runs(result, arguments.num_seeds)
    bench = Workbench.open(plan, arguments.cache, arguments.processes)  # fills the cache
    result["test_questions"] = bench.count_questions()
    del bench  # its features would stay in memory beside those of the processes
    logger.info("%d of %d cells are left", len(missing), len(missing) + len(result["runs"]))
    with ProcessPoolExecutor(
        arguments.processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open_workbench,
        initargs=(plan, arguments.cache),
    ) as pool:
        for future in as_completed([pool.submit(_run, name, seed) for name, seed in missing]):
            run = future.result()
            result["runs"].append(run)
            write_result(arguments.output, result)
            logger.info("%s, seed %d: %d s, %s", run["cell"], run["seed"], run["seconds"], run["end_of_training"])
    write_report(result, arguments.output)


if __name__ == "__main__":
    main()
