"""Arguments of the trainer."""

import pytest
from training_rows import QUIET

from transformers_videorefer.training.config import VideoReferSFTConfig


def config_of(tmp_path, **options) -> VideoReferSFTConfig:
    return VideoReferSFTConfig(output_dir=str(tmp_path), **{**QUIET, **options})


@pytest.mark.parametrize(
    ("stage", "rate", "rows", "ratio", "modules"),
    [
        ("1", 1e-3, 256, 0.0, ["connector"]),
        (2, 1e-3, 256, 0.0, ["region_encoder"]),
        (2.5, 2e-5, 128, 0.5, ["connector", "region_encoder", "language_model", "lm_head"]),
        ("3", 2e-5, 128, 0.5, ["connector", "region_encoder", "language_model", "lm_head"]),
    ],
)
def test_a_stage_brings_the_settings_of_the_paper(stage, rate, rows, ratio, modules, tmp_path):
    config = config_of(tmp_path, stage=stage, per_device_train_batch_size=8)
    assert config.stage == str(stage)
    assert (config.learning_rate, config.gradient_accumulation_steps * 8) == (rate, rows)
    assert (config.multi_frame_ratio, config.trainable_modules) == (ratio, modules)
    assert (config.lr_scheduler_type, config.warmup_steps, config.num_train_epochs) == ("cosine", 0.03, 1)
    assert config.save_components_only == (len(modules) == 1)


def test_what_is_given_wins(tmp_path):
    given = {"learning_rate": 5e-4, "multi_frame_ratio": 1.0, "gradient_accumulation_steps": 3, "num_train_epochs": 2}
    config = config_of(tmp_path, stage="2", trainable_modules=["connector", "region_encoder"], **given)
    assert {name: getattr(config, name) for name in given} == given
    assert config.trainable_modules == ["connector", "region_encoder"]
    assert config.save_components_only


def test_without_a_stage_every_batch_is_a_step(tmp_path):
    config = config_of(tmp_path)
    assert (config.gradient_accumulation_steps, config.learning_rate, config.multi_frame_ratio) == (1, 2e-5, 0.5)


def test_processes_share_the_global_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers_videorefer.training.config._num_processes", lambda: 4)
    assert config_of(tmp_path, global_batch_size=64, per_device_train_batch_size=2).gradient_accumulation_steps == 8
    with pytest.raises(ValueError, match=r"which 12 rows at once \(`per_device_train_batch_size` 3 x 4 processes\)"):
        config_of(tmp_path, global_batch_size=64, per_device_train_batch_size=3)


def test_settings_that_disagree(tmp_path):
    with pytest.raises(ValueError, match="`gradient_accumulation_steps` of 2 gives 2 rows per step, but"):
        config_of(tmp_path, gradient_accumulation_steps=2, global_batch_size=4, per_device_train_batch_size=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"questions_per_video": 3, "per_device_train_batch_size": 8},
            "`questions_per_video` is 3, which does not divide",
        ),
        ({"questions_per_video": 0}, "`questions_per_video` is 0"),
        (
            {"questions_per_video": 2, "per_device_train_batch_size": 4, "train_sampling_strategy": "sequential"},
            "`questions_per_video` and `train_sampling_strategy` 'sequential' both order the rows",
        ),
        ({"multi_frame_ratio": 1.5}, "`multi_frame_ratio` is 1.5. Pass a share from 0 to 1"),
        ({"max_bad_row_share": -0.1}, "`max_bad_row_share` is -0.1"),
        ({"matrix_optimizer": "sgd"}, "`matrix_optimizer` must be muon or absent, got 'sgd'"),
        ({"trainable_modules": ["vision_tower"]}, "always stays frozen"),
        ({"connector_learning_rate": -1.0}, "`connector_learning_rate` is -1.0. Pass 0 or more"),
        ({"max_length": 0}, "`max_length` is 0. Pass at least 1"),
        ({"max_visual_tokens_per_batch": -3}, "`max_visual_tokens_per_batch` is -3"),
        ({"region_statistics_rows": -1}, "`region_statistics_rows` is -1"),
        ({"completion_only_loss": True}, "`completion_only_loss` has no meaning here"),
        ({"stage": "2.75"}, "`stage` must be one of"),
        ({"dataset_kwargs": "{}"}, "`dataset_kwargs` must be a mapping"),
    ],
)
def test_bad_values(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path, **options)


def test_rows_reach_the_collator_as_they_are(tmp_path):
    config = config_of(tmp_path)
    assert config.dataset_kwargs == {"skip_prepare_dataset": True}
    assert config.remove_unused_columns is False
    assert config.hub_private_repo is True


def test_a_config_can_be_made_anew_from_its_values(tmp_path):
    config = config_of(tmp_path, stage="2.5", per_device_train_batch_size=2)
    again = VideoReferSFTConfig(**{**config.to_dict(), "report_to": []})
    assert again.gradient_accumulation_steps == 64
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"gradient_checkpointing": False}, False),
        ({"activation_checkpointing": False}, False),
        ({"activation_checkpointing": True, "gradient_checkpointing": False}, True),
    ],
)
def test_activations_are_recomputed_unless_told_otherwise(options, expected, tmp_path, recwarn):
    quiet = {name: value for name, value in QUIET.items() if name != "activation_checkpointing"}
    config = VideoReferSFTConfig(output_dir=str(tmp_path), **quiet, **options)
    assert (config.activation_checkpointing, config.gradient_checkpointing) == (expected, expected)
    assert not [warning for warning in recwarn if "deprecated" in str(warning.message)]


@pytest.mark.parametrize(("given", "kept"), [("all", "all"), ("7", 7), (7, 7), (None, None)])
def test_region_frames_may_be_all(given, kept, tmp_path):
    assert VideoReferSFTConfig(str(tmp_path), num_region_frames=given, **QUIET).num_region_frames == kept


@pytest.mark.parametrize(("given", "error"), [("many", TypeError), (0, ValueError)])
def test_region_frames_that_are_no_number(given, error, tmp_path):
    with pytest.raises(error, match="`num_region_frames` must be a whole number of at least 1"):
        VideoReferSFTConfig(str(tmp_path), num_region_frames=given, **QUIET)
