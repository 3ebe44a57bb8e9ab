"""What tests of benchmark runs share: metric modules with a cache of their own, and small made-up runs."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


# Helpers that lie beside the tests they were made for.
sys.path += [str(Path(__file__).parent / folder) for folder in ("eval_metrics", "evaluation")]

from judge_server import JudgeServer  # noqa: E402
from metric_modules import own_cache  # noqa: E402

from transformers_videorefer.evaluation.benches import BenchSamples, Sample  # noqa: E402


__all__ = ["JudgeServer", "own_cache"]
TYPES = ("Basic Questions", "Sequential Questions")


def made_up_bench(num_samples: int = 6, unreadable: Sequence[int] = ()) -> BenchSamples:
    """Return questions about three videos; every second one is of the second type, and A is always right."""
    samples = []
    for index in range(num_samples):
        row = {
            "id": f"q{index}",
            "video": f"{index % 3}.mp4",
            "question": "What?",
            "options": ["(A) yes", "(B) no"],
            "answer": "(A) yes",
            "type": TYPES[index % 2],
            "frame_index": 0,
            "regions": [],
        }
        samples.append(Sample(row, "the record is broken" if index in unreadable else None))
    return BenchSamples("bench-q", "made up", samples)


class ScriptedAnswerer:
    """Answers with what a function says about a row, and remembers which rows were asked together.

    Args:
        script (`Callable`): From a row to an answer; what it raises is raised.
    """

    def __init__(self, script: Callable[[Mapping[str, Any]], str] = lambda row: f"(A) {row['id']}"):
        self.script = script
        self.calls: list[list[str]] = []

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        self.calls.append([row["id"] for row in rows])
        return [self.script(row) for row in rows]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_run(folder: Path, lines: Sequence[Mapping[str, Any]], *, bench: str = "bench-q", **settings: Any) -> None:
    """Write the files of a run that has answers but no scores."""
    folder.mkdir(parents=True)
    content = {
        "bench": bench,
        "model": {"name": folder.name, "revision": None, "fingerprint": "0"},
        "data": {"name": "made up", "num_samples": len(lines), "fingerprint": "1"},
        "settings": {"mode": "multi", **settings},
    }
    (folder / "run.json").write_text(json.dumps(content))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def question_line(index: int, prediction: str | None, *, video: str = "a.mp4", kind: str = TYPES[0]) -> dict[str, Any]:
    """Return a line of a question whose right answer is A; without a prediction it failed."""
    line = {"index": index, "id": str(index), "video": video, "form": "question", "type": kind, "question": "What?"}
    line |= {"reference": "(A) yes", "prediction": prediction}
    return line if prediction is not None else {**line, "error": "the video is missing"}


def description_line(index: int, prediction: str | None, reference: str = "A dog.") -> dict[str, Any]:
    """Return a line of a description; without a prediction it failed."""
    line = {"index": index, "id": str(index), "video": f"{index}.mp4", "form": "description", "reference": reference}
    line["prediction"] = prediction
    return line if prediction is not None else {**line, "error": "the video is missing"}
