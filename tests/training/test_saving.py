"""Checkpoints: complete or passed over, resumed runs equal undisturbed ones, components alone, the final repository."""

import json
import logging
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from tiny import tiny_model, tiny_processor
from training_rows import copy_of, losses_of, make_trainer, write_clips
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_videorefer.training import checkpointing
from transformers_videorefer.training.checkpointing import find_checkpoints


# 12 rows are three steps, so a run crosses the border of an epoch.
RUN = {"stage": "3", "per_device_train_batch_size": 2, "global_batch_size": 4, "max_steps": 4, "learning_rate": 1e-3}
SAVING = {**RUN, "save_strategy": "steps", "save_steps": 2}
NUM_STEPS = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


class Killed(BaseException):
    """Stands for `kill -9`: nothing in the trainer may catch it."""


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return copy_of(trainer.model)


@pytest.fixture(scope="module")
def undisturbed(clips, tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("undisturbed"), clips, **RUN)
    trainer.train()
    assert len(losses_of(trainer)) == NUM_STEPS
    return losses_of(trainer), weights_of(trainer)


# What is called while a checkpoint is written, in order; the process dies right before, or half-way through.
def die_before_weights(monkeypatch):
    monkeypatch.setattr(type(tiny_model()), "save_pretrained", die)


def die_in_optimizer(monkeypatch):
    def half_a_file(value, path, *args, **kwargs):
        Path(path).write_bytes(b"half")
        die()

    monkeypatch.setattr(torch, "save", half_a_file)


def die_before_rng_state(monkeypatch):
    monkeypatch.setattr("transformers.trainer.Trainer._save_rng_state", die)


def die_before_marker(monkeypatch):
    monkeypatch.setattr("transformers_videorefer.training.saving.mark_complete", die)


def die_in_marker(monkeypatch):
    monkeypatch.setattr(os, "fsync", die)


def die(*args, **kwargs):
    raise Killed


@pytest.mark.parametrize(
    "die_at",
    [
        die_in_optimizer,
        die_in_marker,
        pytest.param(die_before_weights, marks=pytest.mark.slow),
        pytest.param(die_before_rng_state, marks=pytest.mark.slow),
        pytest.param(die_before_marker, marks=pytest.mark.slow),
    ],
)
def test_run_that_dies_in_a_save_ends_like_an_undisturbed_one(
    die_at, undisturbed, clips, tmp_path, monkeypatch, caplog
):
    first = make_trainer(tmp_path, clips, **SAVING)
    original = first._save_checkpoint
    with monkeypatch.context() as patch:

        def save_checkpoint(model, trial):
            if first.state.global_step == 4:
                die_at(patch)
            original(model, trial)

        first._save_checkpoint = save_checkpoint
        with pytest.raises(Killed):
            first.train()
    assert (tmp_path / "checkpoint-4").is_dir()
    found, passed_over = find_checkpoints(tmp_path)
    assert (Path(found).name, [name for name, _ in passed_over]) == ("checkpoint-2", ["checkpoint-4"])

    second = make_trainer(tmp_path, clips, **SAVING)
    with caplog.at_level(logging.INFO, "transformers_videorefer"):
        second.train(resume_from_checkpoint="true")
    assert "checkpoint-4 is passed over" in caplog.text
    assert "Resuming from checkpoint-2" in caplog.text
    losses, weights = undisturbed
    assert losses_of(second) == losses  # the first two are read from the checkpoint
    for name, value in weights_of(second).items():
        assert torch.equal(value, weights[name]), name
    assert second.guard.counts.seen == 12 + 4
    assert find_checkpoints(tmp_path) == (str(tmp_path / "checkpoint-4"), [])


def test_without_a_complete_checkpoint_training_starts_from_the_beginning(undisturbed, clips, tmp_path, caplog):
    (tmp_path / "checkpoint-2").mkdir()
    trainer = make_trainer(tmp_path, clips, **RUN)
    trainer.train(resume_from_checkpoint=True)
    assert "checkpoint-2 is passed over: it has no complete.json" in caplog.text
    assert "starts from the beginning" in caplog.text
    assert losses_of(trainer) == undisturbed[0]


def test_last_complete_checkpoint_outlives_the_limit(clips, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, clips, **SAVING, save_total_limit=1)
    original = checkpointing.mark_complete
    seen = []

    def mark_complete(folder):
        seen.append(sorted(path.name for path in tmp_path.glob("checkpoint-*")))
        original(folder)

    monkeypatch.setattr("transformers_videorefer.training.saving.mark_complete", mark_complete)
    trainer.train()
    assert seen == [["checkpoint-2"], ["checkpoint-2", "checkpoint-4"]]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.parametrize(("stage", "component"), [("1", "connector"), ("2", "region_encoder")])
def test_checkpoints_of_the_first_stages_hold_one_component(stage, component, clips, tmp_path):
    options = {**SAVING, "stage": stage}
    trainer = make_trainer(tmp_path, clips, **options)
    trainer.train()
    folder = tmp_path / "checkpoint-2"
    assert not (folder / "model.safetensors").exists()
    tensors = load_file(folder / f"{component}.safetensors")
    assert {name.split(".")[0] for name in tensors} == {component}
    assert [path.name for path in folder.glob("*.safetensors")] == [f"{component}.safetensors"]

    fresh = tiny_model()
    assert fresh.load_component(folder) == component
    resumed = make_trainer(tmp_path, clips, **options)
    resumed.train(resume_from_checkpoint=str(folder))
    assert losses_of(resumed) == losses_of(trainer)


def test_final_save_is_a_whole_repository(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, **{**RUN, "stage": "2", "max_steps": 2})
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    for name, value in model.named_parameters():
        assert torch.equal(value, trainer.model.get_parameter(name)), name
    assert type(AutoProcessor.from_pretrained(tmp_path)).__name__ == "VideoReferProcessor"
    assert "AutoModelForImageTextToText" in json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert (tmp_path / "modeling_videorefer.py").exists()
    card = (tmp_path / "README.md").read_text()
    assert "| parts that learn | region_encoder |" in card
    assert "| schedule | cosine, warm-up " in card
    assert "| optimizer | adamw_torch" in card
    for file in tmp_path.iterdir():  # nothing tells where it was made
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_half_precision_model_learns_in_float32_and_is_saved_as_it_came(clips, tmp_path):
    model = tiny_model().to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    trainer = make_trainer(tmp_path, clips, model=model, **{**RUN, "bf16": True, "stage": "2", "max_steps": 2})
    dtypes = {value.dtype for value in trainer.model.model.region_encoder.parameters()}
    assert dtypes == {torch.float32}
    assert trainer.model.model.connector.mlp[0].weight.dtype == torch.bfloat16
    trainer.train()
    trainer.save_model()
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


def test_tied_weights_in_half_precision_are_written_once(clips, tmp_path):
    model = tiny_model()
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    trainer = make_trainer(tmp_path, clips, model=model, **{**RUN, "bf16": True, "max_steps": 1})
    trainer.train()
    trainer.save_model()
    names = load_file(tmp_path / "model.safetensors").keys()
    assert [name for name in names if "lm_head" in name] == []
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, trainer.model.lm_head.weight.to(torch.bfloat16))


SCRIPT = """
import os, signal, sys
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from pathlib import Path
from training_rows import losses_of, make_trainer
trainer = make_trainer(Path({folder!r}), Path({clips!r}), **{options!r})
calls = 0
def count_and_die(function):
    def wrapper(*args, **kwargs):
        global calls
        if trainer._is_saving_checkpoint and trainer.state.global_step == 4:
            calls += 1
            if calls == {die_at}:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper
import builtins, io
builtins.open = io.open = count_and_die(builtins.open)
os.replace = count_and_die(os.replace)
torch.save = count_and_die(torch.save)
trainer.train(resume_from_checkpoint=True)
Path({folder!r}, "losses.txt").write_text(repr(losses_of(trainer)))
"""


def run_script(**values) -> int:
    tests = Path(__file__).parents[1]
    source = SCRIPT.format(paths=[str(tests), str(tests / "training")], **values)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.parametrize("die_at", [1, 5, 20, 40, 60])
def test_killed_process_goes_on_with_the_same_command(die_at, undisturbed, clips, tmp_path):
    values = {"folder": str(tmp_path), "clips": str(clips), "options": SAVING}
    assert run_script(**values, die_at=die_at) == -signal.SIGKILL
    assert not (tmp_path / "losses.txt").exists()
    found, passed_over = find_checkpoints(tmp_path)
    assert Path(found).name == "checkpoint-2"
    assert run_script(**values, die_at=0) == 0
    assert json.loads((tmp_path / "losses.txt").read_text()) == undisturbed[0]


def test_tokens_of_the_processor_survive(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, **{**RUN, "max_steps": 1})
    trainer.save_model()
    assert AutoProcessor.from_pretrained(tmp_path).region_token_id == tiny_processor().region_token_id


class Hub:
    """Stands for the Hub: notes what would be uploaded."""

    def __init__(self):
        self.created, self.uploaded = [], []

    def create_repo(self, name, **options):
        self.created.append((name, options["private"]))
        return types.SimpleNamespace(repo_id=name)

    def upload_folder(self, folder_path, ignore_patterns, path_in_repo="", **options):
        names = [str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()]
        kept = filter_repo_objects(names, ignore_patterns=ignore_patterns)
        contents = {name: Path(folder_path, name).read_bytes() for name in kept}
        self.uploaded.append((path_in_repo, contents))
        return types.SimpleNamespace(done=lambda: True, result=lambda: None, is_done=lambda: True)


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "end"])
def test_uploads_are_private_and_tell_nothing_of_this_machine(strategy, clips, tmp_path, monkeypatch):
    hub = Hub()
    for module in ("transformers.trainer", "transformers_videorefer.training.saving"):
        monkeypatch.setattr(f"{module}.hf_api", lambda: hub)
    folder = tmp_path / "private-folder"
    pushing = {"push_to_hub": True, "hub_model_id": "me/model", "hub_strategy": strategy, "hub_token": "secret"}
    trainer = make_trainer(folder, clips, **{**SAVING, "max_steps": 2}, **pushing)
    trainer.train()
    trainer.push_to_hub()
    assert hub.created == [("me/model", True)]
    assert [path for path, _ in hub.uploaded] == {
        "every_save": ["", ""],
        "checkpoint": ["", "last-checkpoint", ""],
    }.get(strategy, [""])
    for path, contents in hub.uploaded:
        assert {"model.safetensors", "config.json", "modeling_videorefer.py", "README.md"} <= set(contents)
        assert "training_args.bin" not in contents
        assert path or "optimizer.pt" not in contents
        for name, content in contents.items():
            assert b"secret" not in content, name
            assert b"private-folder" not in content, name
