"""Stages: which parts learn."""

import pytest
from tiny import tiny_model

from transformers_videorefer.training.stages import (
    LEARNING_MODULES,
    STAGES,
    check_modules,
    find_stage,
    freeze_all_but,
    module_of_parameter,
)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.vision_tower.encoder.layers.0.mlp.fc1.weight", "vision_tower"),
        ("model.connector.mlp.0.bias", "connector"),
        ("module.model.region_encoder.linear_1.weight", "region_encoder"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "language_model"),
        ("lm_head.weight", "lm_head"),
        ("base_model.model.model.connector.modules_to_save.default.mlp.0.bias", "connector"),
        ("base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight", "language_model"),
        ("_orig_mod.lm_head.weight", "lm_head"),
        ("something.else", None),
    ],
)
def test_parameters_belong_to_parts(name, part):
    assert module_of_parameter(name) == part


def test_every_parameter_belongs_to_a_part():
    parts = {module_of_parameter(name) for name, _ in tiny_model().named_parameters()}
    assert parts == {"vision_tower", *LEARNING_MODULES}


@pytest.mark.parametrize("modules", [stage.modules for stage in STAGES.values()] + [()])
def test_only_named_parts_learn(modules):
    model = tiny_model()
    freeze_all_but(model, modules)
    for name, value in model.named_parameters():
        assert value.requires_grad == (module_of_parameter(name) in modules), name


def test_tied_head_learns_with_either_name():
    tied = tiny_model(tie_word_embeddings=True)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    for modules, learns in ((["lm_head"], True), (["language_model"], True), (["connector"], False)):
        freeze_all_but(tied, modules)
        assert tied.lm_head.weight.requires_grad == learns


@pytest.mark.parametrize(
    ("name", "rate"), [("1", 1e-3), (2, 1e-3), (2.5, 2e-5), ("3", 2e-5), (3.0, 2e-5), (None, 2e-5)]
)
def test_stages_are_found_by_text_or_number(name, rate):
    assert find_stage(name).learning_rate == rate


def test_unknown_stage():
    with pytest.raises(ValueError, match=r"`stage` must be one of 1, 2, 2.5, 3, got '4'"):
        find_stage("4")


def test_the_vision_tower_stays_frozen():
    with pytest.raises(ValueError, match="names the vision tower, which always stays frozen"):
        check_modules(["vision_tower"])
    with pytest.raises(ValueError, match="got 'head'"):
        freeze_all_but(tiny_model(), ["head"])
