"""Rows, models and trainers that the tests of training share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from tiny import tiny_model, tiny_processor

from transformers_videorefer.data.synthetic.clips import clip_name, conversation_rows, make_clip, write_clip
from transformers_videorefer.data.tables.features import conversation_features


os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
NUM_CLIPS = 3
ROWS_PER_CLIP = 4
# Nothing but what a test asks for: no reports, no bars, no half precision.
QUIET = {
    "use_cpu": True,
    "bf16": False,
    "report_to": [],
    "disable_tqdm": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "activation_checkpointing": False,
}


def write_clips(folder: Path) -> Path:
    """Write the video files that `made_up_rows` names, unless they are there, and return their folder."""
    for seed in range(NUM_CLIPS):
        if not (folder / clip_name(seed)).exists():
            write_clip(make_clip(seed), folder)
    return folder


def made_up_rows() -> list[dict[str, Any]]:
    """Return 12 rows about three clips."""
    return [row for seed in range(NUM_CLIPS) for row in conversation_rows(make_clip(seed))[:ROWS_PER_CLIP]]


def as_dataset(rows: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows, features=conversation_features())


def text_row(name: str = "text", answer: str = "Yes.") -> dict[str, Any]:
    """Return a row without any media."""
    messages = [{"role": "user", "content": "Is it so?"}, {"role": "assistant", "content": answer}]
    empty = {"video": None, "image": None, "regions": [], "edit_list": "apply", "task": "text", "source": "made_up"}
    return {"id": name, "messages": messages, **empty}


def rows_in_turn() -> list[dict[str, Any]]:
    """Return rows about clips and plain text in turn, so that one process has media that the other has not."""
    rows = made_up_rows()
    return [*rows[:4], text_row("a"), text_row("b"), *rows[4:], text_row("c"), text_row("d")]


def run_in_two_processes(script: str, folder: Path, **environment: str) -> None:
    """Run Python code in two processes of one job; the tests can be imported there."""
    tests = Path(__file__).parents[1]
    file = folder.with_suffix(".py")
    file.write_text(f"import sys\nsys.path[:0] = {[str(tests), str(tests / 'training')]!r}\n{script}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    result = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def make_trainer(folder: Path, clips: Path, rows: list[dict[str, Any]] | None = None, **options: Any) -> Any:
    """Return a trainer of a tiny model on made-up rows."""
    from transformers_videorefer.training import VideoReferSFTConfig, VideoReferSFTTrainer

    trainer_options = {
        name: options.pop(name)
        for name in ("model", "peft_config", "data_collator", "auxiliary_losses")
        if name in options
    }
    args = VideoReferSFTConfig(output_dir=str(folder), data_root=str(clips), **{**QUIET, **options})
    return VideoReferSFTTrainer(
        **{"model": tiny_model(), **trainer_options},
        args=args,
        train_dataset=as_dataset(made_up_rows() if rows is None else rows),
        processing_class=tiny_processor(),
    )


def copy_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
