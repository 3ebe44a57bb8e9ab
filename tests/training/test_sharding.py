"""Training with sharded parameters: made-up rows, and two processes that hold half of the parameters each."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_model, tiny_processor
from training_rows import (
    losses_of,
    made_up_rows,
    make_trainer,
    rows_in_turn,
    run_in_two_processes,
    text_row,
    write_clips,
)

from transformers_videorefer.data.batches.collator import VideoReferDataCollator
from transformers_videorefer.training.batches import REGION_TARGETS, MediaSizes
from transformers_videorefer.training.sharding import add_made_up_row, kinds_in_use


ALL_PARTS = ["connector", "region_encoder", "language_model", "lm_head"]
RUN = {
    "stage": "3",
    "per_device_train_batch_size": 2,
    "global_batch_size": 4,
    "max_steps": 4,
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 2,
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


def encode(clips: Path, rows: list[dict]) -> dict:
    return dict(VideoReferDataCollator(tiny_processor(), data_root=clips)(rows))


def image_row() -> dict:
    picture = Image.fromarray(np.full((40, 40, 3), 90, dtype=np.uint8))
    messages = [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A wall."}]},
    ]
    return {"id": "image", "messages": messages}


def with_mark(messages: list[dict]) -> list[dict]:
    return [{**messages[0], "content": f"<video>\n{messages[0]['content']}"}, *messages[1:]]


def rows_of(name: str) -> list[dict]:
    video = made_up_rows()[0]
    return {
        "video": [{**video, "regions": [], "messages": with_mark(text_row()["messages"])}],
        "regions": made_up_rows()[:2],
        "image": [image_row()],
        "text": [text_row(), text_row(answer="No, never.")],
        "mixed": [made_up_rows()[0], text_row(), image_row()],
    }[name]


@pytest.mark.parametrize(
    ("name", "modules", "expected"),
    [
        ("video", ["language_model"], [1, 0, 0]),
        ("video", ALL_PARTS, [1, 0, 1]),
        ("regions", [], [1, 0, 1]),
        ("image", ["connector"], [0, 1, 0]),
        ("text", ["connector"], [1, 0, 0]),
        ("text", [], [0, 0, 0]),
    ],
)
def test_kinds_in_use(name, modules, expected, clips):
    assert kinds_in_use(encode(clips, rows_of(name)), modules).tolist() == expected


@pytest.mark.parametrize("name", ["video", "regions", "image", "text", "mixed"])
def test_made_up_rows_bring_every_kind_and_change_nothing(name, clips):
    model = tiny_model()
    passes = []
    model.model.vision_tower.register_forward_hook(lambda *_: passes.append(1))

    def loss_and_gradients(batch):
        passes.clear()
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        return loss.detach(), {key: value.grad for key, value in model.named_parameters() if value.grad is not None}

    batch = encode(clips, rows_of(name))
    completed = add_made_up_row(batch, MediaSizes.from_processor(tiny_processor()), [1, 1, 2])
    loss, gradients = loss_and_gradients(batch)
    same_loss, all_gradients = loss_and_gradients(completed)
    assert len(passes) == 3  # for videos, for images, and for frames of regions
    torch.testing.assert_close(same_loss, loss, atol=1e-5, rtol=1e-5)
    for key, value in all_gradients.items():
        torch.testing.assert_close(value, gradients.get(key, torch.zeros_like(value)), atol=1e-5, rtol=1e-4)
    assert add_made_up_row(completed, MediaSizes.from_processor(tiny_processor()), [2, 2, 2]) == completed


def test_nothing_is_added_that_no_process_has(clips):
    sizes = MediaSizes.from_processor(tiny_processor())
    batch = encode(clips, rows_of("text"))
    assert add_made_up_row(batch, sizes, [0, 0, 0]) == batch
    with_image = add_made_up_row(batch, sizes, [0, 1, 0])
    assert set(with_image) - set(batch) == {"pixel_values"}
    assert with_image["sample_counts"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_nothing_is_known_of_a_made_up_region(clips):
    rows = rows_of("regions")
    batch = encode(clips, rows)
    batch.pop("region_pixel_values", None)
    num_regions = len(batch["region_lengths"])
    batch[REGION_TARGETS] = {"corner": torch.ones(num_regions, 3)}
    completed = add_made_up_row(batch, MediaSizes.from_processor(tiny_processor()), [1, 0, 1])
    targets = completed[REGION_TARGETS]["corner"]
    assert targets.shape == (num_regions + 1, 3)
    assert targets[:-1].eq(1).all()
    assert targets[-1].isnan().all()
    assert batch[REGION_TARGETS]["corner"].shape == (num_regions, 3)


# `accelerate` shards on accelerators alone; PyTorch does so on a CPU, too.
SCRIPT = """
import json
from pathlib import Path
import accelerate.state, torch
from accelerate.utils import DistributedType
torch.set_num_threads(1)
start = accelerate.state.AcceleratorState.__init__
def start_sharded(self, *args, **kwargs):
    start(self, *args, **kwargs)
    plugin = kwargs.get("fsdp_plugin") or self.__dict__.get("fsdp_plugin")
    if plugin is not None:
        self.fsdp_plugin, self.distributed_type = plugin, DistributedType.FSDP
accelerate.state.AcceleratorState.__init__ = start_sharded
from training_rows import losses_of, make_trainer, rows_in_turn
trainer = make_trainer(Path({folder!r}), Path({clips!r}), rows_in_turn(), **{options!r})
assert trainer.is_fsdp_enabled
trainer.train(resume_from_checkpoint={resume!r})
trainer.save_model()
if trainer.args.process_index == 0:
    Path({folder!r}, "losses.json").write_text(json.dumps(losses_of(trainer)))
"""
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Qwen2DecoderLayer,SiglipEncoderLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def run_sharded(folder: Path, clips: Path, options: dict, resume: bool) -> list[float]:
    script = SCRIPT.format(folder=str(folder), clips=str(clips), options=options, resume=resume)
    run_in_two_processes(script, folder, **SHARDED)
    return json.loads((folder / "losses.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1", "2", "3"])
def test_sharded_processes_equal_one_with_accumulation(stage, clips, tmp_path):
    options = {**RUN, "stage": stage}
    one = make_trainer(tmp_path / "one", clips, rows_in_turn(), **options)
    one.train()
    sharded = tmp_path / "sharded"
    losses = run_sharded(sharded, clips, options, resume=False)
    torch.testing.assert_close(losses, losses_of(one), atol=1e-5, rtol=0)
    weights = type(one.model).from_pretrained(sharded).state_dict()
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0)
    # Interrupted in the last save, the same command goes on from the one before.
    (sharded / "checkpoint-4" / "complete.json").unlink()
    torch.testing.assert_close(run_sharded(sharded, clips, options, resume=True), losses, atol=1e-5, rtol=0)
