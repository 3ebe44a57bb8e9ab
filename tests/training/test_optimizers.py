"""Parameter groups, and Muon beside another optimizer."""

import copy
from pathlib import Path

import pytest
import torch
from tiny import tiny_model
from torch import nn
from training_rows import QUIET, losses_of, make_trainer, write_clips

from transformers_videorefer.training.config import VideoReferSFTConfig
from transformers_videorefer.training.optimizers import (
    JoinedOptimizer,
    build_optimizer,
    learning_rates_of,
    parameter_groups,
)
from transformers_videorefer.training.stages import LEARNING_MODULES, freeze_all_but


RATES = {"connector": 1.0, "region_encoder": 2.0, "language_model": 3.0, "lm_head": 4.0}
REGION_ENCODER = ["linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


def groups_of(model, **options):
    return parameter_groups(model, **{"learning_rates": RATES, "weight_decay": 0.0, "decay_names": [], **options})


def learning_model(modules=LEARNING_MODULES):
    model = tiny_model()
    freeze_all_but(model, modules)
    return model


def test_one_group_for_each_part():
    model = learning_model()
    groups = groups_of(model)
    assert [(group["name"], group["lr"]) for group in groups] == list(RATES.items())
    for group in groups:
        parts = model.lm_head if group["name"] == "lm_head" else model.model.get_submodule(group["name"])
        assert {id(value) for value in group["params"]} == {id(value) for value in parts.parameters()}


def test_heads_of_auxiliary_losses_make_a_group_without_matrices():
    model = learning_model(["region_encoder"])
    model.add_module("auxiliary_heads", nn.ModuleDict({"corner": nn.Linear(48, 3)}))
    rates = {**RATES, "auxiliary_heads": 5.0}
    groups = groups_of(model, learning_rates=rates, matrix_learning_rate=0.02)
    assert [(group["name"], group["lr"], len(group["params"])) for group in groups] == [
        ("region_encoder", 2.0, 2),
        ("region_encoder_matrices", 0.02, 2),
        ("auxiliary_heads", 5.0, 2),
    ]


def test_rates_of_parts_go_before_the_common_one(tmp_path):
    args = VideoReferSFTConfig(
        output_dir=str(tmp_path),
        learning_rate=1.0,
        connector_learning_rate=2.0,
        language_model_learning_rate=3.0,
        **QUIET,
    )
    assert learning_rates_of(args) == {
        "connector": 2.0,
        "region_encoder": 1.0,
        "language_model": 3.0,
        "lm_head": 3.0,
        "auxiliary_heads": 1.0,
    }


def test_biases_and_norms_do_not_decay():
    model = learning_model(["region_encoder"])
    names = [f"model.region_encoder.{name}" for name in REGION_ENCODER if name.endswith("weight")]
    groups = groups_of(model, weight_decay=0.1, decay_names=names)
    assert [(group["name"], group["weight_decay"], len(group["params"])) for group in groups] == [
        ("region_encoder", 0.1, 2),
        ("region_encoder_no_decay", 0.0, 2),
    ]


def test_matrices_are_neither_embeddings_nor_head():
    model = learning_model()
    groups = {group["name"]: group for group in groups_of(model, matrix_learning_rate=0.02)}
    assert set(groups) == {*RATES, "connector_matrices", "region_encoder_matrices", "language_model_matrices"}
    matrices = [value for name, group in groups.items() if name.endswith("_matrices") for value in group["params"]]
    assert all(value.ndim == 2 for value in matrices)
    assert {group["lr"] for name, group in groups.items() if name.endswith("_matrices")} == {0.02}
    # Two layers of the language model with seven projections each, two layers of the region encoder, two of the MLP.
    assert len(groups["language_model_matrices"]["params"]) == 14
    assert len(groups["region_encoder_matrices"]["params"]) == 2
    assert any(value is model.get_input_embeddings().weight for value in groups["language_model"]["params"])
    assert groups["lm_head"]["params"] == [model.lm_head.weight]


def test_nothing_learns():
    with pytest.raises(ValueError, match="No parameter of the model learns"):
        groups_of(learning_model([]))


def test_foreign_parameters_are_refused():
    with pytest.raises(ValueError, match="`weight` learns, but belongs to none of connector"):
        groups_of(nn.Linear(2, 2))


class TestJoinedOptimizer:
    def make(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        groups = [
            {"name": "x_matrices", "params": [layer.weight for layer in model], "lr": 0.1, "weight_decay": 0.0},
            {"name": "x", "params": [layer.bias for layer in model], "lr": 0.01, "weight_decay": 0.0},
        ]
        return model, build_optimizer(groups, torch.optim.AdamW, lr=1.0, betas=(0.9, 0.95))

    def step(self, model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    def test_each_part_makes_its_own_step(self):
        model, joined = self.make()
        twin, _ = self.make()
        muon = torch.optim.Muon([layer.weight for layer in twin], lr=0.1, momentum=0.95, weight_decay=0.0)
        adam = torch.optim.AdamW([layer.bias for layer in twin], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
        for _ in range(3):
            self.step(model, joined)
            twin.zero_grad()
            twin(torch.ones(1, 3)).square().sum().backward()
            muon.step()
            adam.step()
        for value, expected in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(value, expected)

    def test_schedulers_reach_all_parts(self):
        model, joined = self.make()
        scheduler = torch.optim.lr_scheduler.LambdaLR(joined, lambda step: 0.5**step)
        self.step(model, joined)
        scheduler.step()
        assert [group["lr"] for part in joined.optimizers for group in part.param_groups] == [0.05, 0.005]

    def test_state_goes_on(self):
        model, joined = self.make()
        self.step(model, joined)
        state, weights = copy.deepcopy(joined.state_dict()), copy.deepcopy(model.state_dict())
        self.step(model, joined)
        other, resumed = self.make()
        other.load_state_dict(weights)
        resumed.load_state_dict(state)
        resumed.param_groups[0]["lr"] = 0.1  # still the dictionary that the part uses
        assert resumed.param_groups[0] is resumed.optimizers[0].param_groups[0]
        self.step(other, resumed)
        for value, expected in zip(other.parameters(), model.parameters(), strict=True):
            assert torch.equal(value, expected)

    def test_state_of_another_optimizer_is_refused(self):
        model, joined = self.make()
        with pytest.raises(ValueError, match="is not one of `matrix_optimizer`"):
            joined.load_state_dict(torch.optim.SGD(model.parameters(), lr=0.1).state_dict())


def test_one_kind_of_group_needs_no_joining():
    groups = groups_of(learning_model())
    assert isinstance(build_optimizer(groups, torch.optim.SGD), torch.optim.SGD)


def test_muon_trains_and_resumes(clips, tmp_path):
    options = {
        "stage": "3",
        "matrix_optimizer": "muon",
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "global_batch_size": 2,
        "max_steps": 3,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    trainer = make_trainer(tmp_path, clips, **options)
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, JoinedOptimizer)
    resumed = make_trainer(tmp_path, clips, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses_of(resumed) == losses_of(trainer)
    for value, expected in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(value, expected)


def test_optimizers_that_sort_by_themselves_are_refused(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, optim="adamw_torch", matrix_optimizer=None)
    trainer.get_optimizer_cls_and_kwargs = lambda args, model: (torch.optim.AdamW, {"params": []})
    with pytest.raises(ValueError, match="sorts the parameters itself and knows no parts of a model"):
        trainer.create_optimizer()
