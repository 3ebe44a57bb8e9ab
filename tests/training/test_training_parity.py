"""A short run of the trainer against the recorded one of the published implementation."""

import pytest
from conftest import REFERENCE, load_json, load_published_model
from training_rows import QUIET, as_dataset, losses_of
from transformers import AutoProcessor

from transformers_videorefer.data import from_published
from transformers_videorefer.training import VideoReferSFTConfig, VideoReferSFTTrainer


def test_losses_of_six_steps_equal_the_recorded_ones(tmp_path):
    """AdamW at 1e-3 on one batch of two samples, no clipping, no schedule, the vision tower frozen."""
    recorded = load_json("train/batches.json")["optimisation"]
    samples = load_json("annotations/train.json")
    args = VideoReferSFTConfig(
        output_dir=str(tmp_path),
        data_root=str(REFERENCE / "media"),
        num_frames=16,
        empty_masks="keep",
        multi_frame_ratio=1.0,
        per_device_train_batch_size=2,
        max_steps=len(recorded["losses"]),
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        warmup_steps=0,
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
        **QUIET,
    )
    trainer = VideoReferSFTTrainer(
        load_published_model(),
        args,
        train_dataset=as_dataset([from_published(samples[index]) for index in recorded["batch"]]),
        processing_class=AutoProcessor.from_pretrained(REFERENCE / "videorefer-tiny"),
    )
    trainer.train()
    assert losses_of(trainer) == pytest.approx(recorded["losses"], abs=1e-4)
