"""Losses beside the next token: what they are computed from, what learns, what is saved."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_model
from torch import nn
from training_rows import (
    copy_of,
    losses_of,
    made_up_rows,
    make_trainer,
    rows_in_turn,
    run_in_two_processes,
    text_row,
    write_clips,
)

from transformers_videorefer.data.synthetic.clips import conversation_rows, make_clip
from transformers_videorefer.training.auxiliary import (
    AuxiliaryLoss,
    AuxiliaryLosses,
    RegionStates,
    TargetCollator,
    load_auxiliary_loss,
)
from transformers_videorefer.training.batches import REGION_TARGETS, add_missing_media, select_rows


RUN = {
    "stage": "3",
    "per_device_train_batch_size": 2,
    "global_batch_size": 4,
    "questions_per_video": 2,
    "max_steps": 4,
    "learning_rate": 1e-3,
    "multi_frame_ratio": 1.0,
}


class CornerLoss(AuxiliaryLoss):
    """Where is the first object pixel? Told from the `counts` of the first mask; rows of one clip do not tell."""

    name = "corner"

    def build(self, model):
        torch.manual_seed(7)
        return nn.Linear(model.config.text_config.hidden_size, 1)

    def targets(self, row):
        if not row.get("video") or row["video"].startswith("00000002"):
            return None
        return torch.tensor([[float(len(region["frames"][0]["rle"]["counts"]))] for region in row["regions"]]) / 100

    def loss(self, head, states, targets):
        return (head(states.last) - targets).pow(2).mean()


class OtherLoss(CornerLoss):
    name = "other"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


def trainer_of(folder, clips, rows=None, losses=None, **options):
    losses = [CornerLoss(layer=1, weight=0.5)] if losses is None else losses
    return make_trainer(folder, clips, rows, **{**RUN, **options}, auxiliary_losses=losses)


def test_states_end_with_the_last_token_of_each_region():
    tokens = torch.arange(12.0).reshape(6, 2)
    states = RegionStates(tokens, num_tokens=torch.tensor([3, 1, 2]), lengths=torch.tensor([8, 1, 2]))
    assert states.last.tolist() == [[4, 5], [6, 7], [10, 11]]
    kept = states.select(torch.tensor([True, False, True]))
    assert kept.tokens.tolist() == [[0, 1], [2, 3], [4, 5], [8, 9], [10, 11]]
    assert (kept.num_tokens.tolist(), kept.lengths.tolist()) == ([3, 2], [8, 2])


def test_targets_stand_region_by_region(clips, tmp_path):
    rows = [*made_up_rows()[:3], text_row(), made_up_rows()[-1]]
    collator = trainer_of(tmp_path, clips).data_collator
    batch = collator(rows)
    loss = CornerLoss(layer=1)
    expected = [loss.targets(row)[:, 0].tolist() for row in rows[:3]]
    found = batch[REGION_TARGETS]["corner"]
    assert found[:-1, 0].tolist() == [value for of_row in expected for value in of_row]
    assert found[-1].isnan().all()  # the last clip does not tell
    selected = select_rows(batch, [2, 4])[REGION_TARGETS]["corner"]
    assert torch.equal(selected[:-1, 0], torch.tensor(expected[2]))
    assert REGION_TARGETS not in select_rows(batch, [3])
    assert REGION_TARGETS not in collator([text_row()])


def test_rows_that_are_left_out_leave_no_targets(clips, tmp_path):
    rows = made_up_rows()[:3]
    rows[1] = {**rows[1], "video": "missing.mp4"}
    batch = trainer_of(tmp_path, clips).data_collator(rows)
    expected = torch.cat([CornerLoss(layer=1).targets(rows[row]) for row in (0, 2)])
    assert torch.equal(batch[REGION_TARGETS]["corner"], expected)


def test_targets_must_be_one_line_per_region():
    class Wrong(CornerLoss):
        def targets(self, row):
            return torch.zeros(3, 1)

    batch = {"sample_counts": torch.tensor([[1, 0, 0, 2]])}
    collator = TargetCollator(lambda rows: batch, [Wrong(layer=1)])
    with pytest.raises(ValueError, match=r"`corner`: targets of row 'a' have shape \(3, 1\), expected \(2, 1\)"):
        collator([{"id": "a"}])


def test_value_is_that_of_the_hidden_states(clips, tmp_path):
    trainer = trainer_of(tmp_path, clips)
    model = trainer.model.train()
    batch = {name: value for name, value in trainer.data_collator(made_up_rows()[4:8]).items() if name != "row_report"}
    targets = batch[REGION_TARGETS]["corner"]
    # The library's own hidden states, entry 1 of which is what the first layer returns.
    states = model(**batch, output_hidden_states=True).hidden_states[1]
    last = states[batch["input_ids"] == 329][batch["region_num_tokens"].cumsum(0) - 1]
    head = model.auxiliary_heads["corner"]
    expected = (last @ head.weight.T + head.bias - targets).pow(2).mean()
    torch.testing.assert_close(trainer._auxiliary.values["corner"], expected)
    torch.testing.assert_close(trainer._auxiliary.total(), 0.5 * expected)


def test_everything_before_the_layer_learns_from_it_and_nothing_behind(clips, tmp_path):
    trainer = trainer_of(tmp_path, clips)
    model = trainer.model.train()
    batch = {name: value for name, value in trainer.data_collator(made_up_rows()[:2]).items() if name != "row_report"}
    model(**batch)
    trainer._auxiliary.total().backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert {"auxiliary_heads.corner.weight", "model.region_encoder.linear_1.weight"} <= reached
    assert "model.language_model.layers.0.mlp.up_proj.weight" in reached
    assert not any(name.startswith(("model.language_model.layers.1.", "model.vision_tower")) for name in reached)


def test_evaluation_and_plain_forward_passes_are_left_alone(clips, tmp_path):
    plain = make_trainer(tmp_path / "plain", clips, **RUN)
    trainer = trainer_of(tmp_path / "auxiliary", clips)
    batch = trainer.data_collator(made_up_rows()[:2])
    batch = {name: value for name, value in batch.items() if name != "row_report"}
    with torch.no_grad():
        logits = trainer.model.eval()(**batch).logits
        batch.pop(REGION_TARGETS)
        assert torch.equal(plain.model.eval()(**batch).logits, logits)
    assert trainer._auxiliary.values == {}


def test_loss_is_weighted_logged_and_learned(clips, tmp_path):
    trainer = trainer_of(tmp_path / "auxiliary", clips, max_steps=8, warmup_steps=0)
    before = copy_of(trainer.model)
    trainer.train()
    plain = make_trainer(tmp_path / "plain", clips, **{**RUN, "max_steps": 8, "warmup_steps": 0})
    plain.train()
    values = [entry["auxiliary/corner"] for entry in trainer.state.log_history if "loss" in entry]
    assert values[-1] < values[0]
    # Before the first step the models are equal, so that the losses differ by the weighted value.
    assert losses_of(trainer)[0] == pytest.approx(losses_of(plain)[0] + 0.5 * values[0], abs=1e-4)
    assert not torch.equal(before["auxiliary_heads.corner.weight"], trainer.model.auxiliary_heads["corner"].weight)
    rates = {group["name"]: group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert rates["auxiliary_heads"] == 1e-3


def test_parts_of_a_batch_add_up_to_the_whole(clips, tmp_path):
    rows = conversation_rows(make_clip(0))[7:11]
    assert [len(row["regions"]) for row in rows] == [1, 1, 2, 2]
    options = {"max_steps": 2, "per_device_train_batch_size": 4, "multi_frame_ratio": 0.0, "warmup_steps": 0}
    whole = trainer_of(tmp_path / "whole", clips, rows, **options)
    whole.train()
    parts = trainer_of(tmp_path / "parts", clips, rows, **options, max_visual_tokens_per_batch=6 * 16)
    sizes = [len(parts._split(batch)) for batch in parts.get_train_dataloader()]
    assert min(sizes) > 1
    parts.train()
    assert parts.guard.counts.too_long == 0
    torch.testing.assert_close(losses_of(parts), losses_of(whole), atol=1e-5, rtol=0)


def test_heads_are_in_checkpoints_for_resuming_only(clips, tmp_path):
    whole = trainer_of(tmp_path / "whole", clips)
    whole.train()
    options = {"save_strategy": "steps", "save_steps": 3}  # in the second epoch
    first = trainer_of(tmp_path / "run", clips, **options)
    first.train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    assert set(load_file(checkpoint / "auxiliary_heads.safetensors")) == {"corner.weight", "corner.bias"}
    assert not any("auxiliary" in name for name in load_file(checkpoint / "model.safetensors"))
    second = trainer_of(tmp_path / "run", clips, **options)
    with torch.no_grad():
        second.model.auxiliary_heads["corner"].weight.zero_()
    second.train(resume_from_checkpoint=str(checkpoint))
    assert losses_of(second) == losses_of(whole)
    for name, value in copy_of(whole.model).items():
        assert torch.equal(second.model.get_parameter(name), value), name
    second.save_model(str(tmp_path / "final"))
    assert not any("auxiliary" in name for name in load_file(tmp_path / "final" / "model.safetensors"))
    assert not (tmp_path / "final" / "auxiliary_heads.safetensors").exists()
    assert "| auxiliary losses | corner 0.5 |" in card_of(second, tmp_path / "run")


def card_of(trainer, folder):
    trainer.create_model_card()
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("rows", [[text_row("a"), text_row("b")], made_up_rows()[-2:]])
def test_heads_take_part_where_nothing_can_be_told(rows, clips, tmp_path):
    trainer = trainer_of(tmp_path, clips, rows, max_steps=1, per_device_train_batch_size=2, global_batch_size=2)
    batch = trainer.data_collator(rows)
    batch.pop("row_report")
    batch = add_missing_media(batch, trainer._sizes, ["connector", "region_encoder"])
    trainer.model.train()(**batch)
    total = trainer._auxiliary.total()
    assert total.item() == 0
    total.backward()
    assert not trainer.model.auxiliary_heads["corner"].weight.grad.any()


def test_heads_learn_beside_adapters(clips, tmp_path):
    from peft import LoraConfig

    trainer = trainer_of(tmp_path, clips, peft_config=LoraConfig(r=2), max_steps=2, warmup_steps=0)
    before = trainer._auxiliary.heads["corner"].weight.detach().clone()
    trainer.train()
    assert not torch.equal(before, trainer._auxiliary.heads["corner"].weight)
    trainer.save_model(str(tmp_path / "adapter"))
    assert not any("auxiliary" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


def test_losses_that_cannot_be():
    model = tiny_model()
    with pytest.raises(ValueError, match="`corner` wants layer 3 of a language model of 2"):
        AuxiliaryLosses(model, [CornerLoss(layer=3)])
    with pytest.raises(ValueError, match="share a name: corner, corner"):
        AuxiliaryLosses(model, [CornerLoss(layer=1), CornerLoss(layer=2)])
    with pytest.raises(ValueError, match="`layer` of an auxiliary loss is 0"):
        CornerLoss(layer=0)
    with pytest.raises(ValueError, match="`weight` of an auxiliary loss is 0"):
        CornerLoss(layer=1, weight=0)


def test_a_loss_that_would_teach_its_head_alone(clips, tmp_path):
    trainer = trainer_of(tmp_path, clips, trainable_modules=["lm_head"])
    with pytest.raises(ValueError, match="`corner` teaches its head alone: nothing that learns lies before layer 1"):
        trainer.train()


def test_losses_are_found_by_path():
    found = load_auxiliary_loss("test_auxiliary:OtherLoss", layer=2, weight=0.1)
    assert (found.name, found.layer, found.weight) == ("other", 2, 0.1)
    with pytest.raises(ValueError, match="must read `module:Class`, got 'test_auxiliary'"):
        load_auxiliary_loss("test_auxiliary")
    with pytest.raises(ValueError, match="is no subclass of `AuxiliaryLoss`"):
        load_auxiliary_loss("torch:Tensor")
    with pytest.raises(ValueError, match="'no_such:Loss' cannot be imported: No module named 'no_such'"):
        load_auxiliary_loss("no_such:Loss")
    with pytest.raises(ValueError, match="does not take these options: .*'layr'"):
        load_auxiliary_loss("test_auxiliary:OtherLoss", layr=2)


SCRIPT = """
import json, torch
torch.set_num_threads(1)
from pathlib import Path
from test_auxiliary import trainer_of
from training_rows import losses_of, rows_in_turn
trainer = trainer_of(Path({folder!r}), Path({clips!r}), rows_in_turn(), **{options!r})
trainer.train()
if trainer.args.process_index == 0:
    Path({folder!r}, "losses.json").write_text(json.dumps([losses_of(trainer), trainer.args.world_size]))
    torch.save(trainer.model.state_dict(), Path({folder!r}, "weights.pt"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("finds_unused", [False, True])
def test_two_processes_equal_one_with_accumulation(finds_unused, clips, tmp_path):
    options = {"max_steps": 6, "ddp_find_unused_parameters": finds_unused}
    one = trainer_of(tmp_path / "one", clips, rows_in_turn(), **options)
    one.train()
    script = SCRIPT.format(folder=str(tmp_path), clips=str(clips), options=options)
    run_in_two_processes(script, tmp_path / "script")
    losses, world_size = json.loads((tmp_path / "losses.json").read_text())
    assert world_size == 2
    torch.testing.assert_close(losses, losses_of(one), atol=1e-5, rtol=0)
    for name, value in torch.load(tmp_path / "weights.pt").items():
        torch.testing.assert_close(value, one.model.state_dict()[name], atol=1e-5, rtol=0)
