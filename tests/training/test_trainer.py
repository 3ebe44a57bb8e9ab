"""The trainer: data modes, parts of a batch, evaluation, streaming, several processes."""

import json
from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_processor
from training_rows import (
    QUIET,
    as_dataset,
    copy_of,
    losses_of,
    made_up_rows,
    make_trainer,
    run_in_two_processes,
    text_row,
    write_clips,
)

from transformers_videorefer import VideoReferForConditionalGeneration
from transformers_videorefer.training import VideoReferSFTConfig, VideoReferSFTTrainer
from transformers_videorefer.training.guards import REPORT


RUN = {"stage": "3", "per_device_train_batch_size": 4, "global_batch_size": 4, "max_steps": 3, "learning_rate": 1e-3}
PATCHES = 16


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


def mixed_rows() -> list[dict]:
    """Rows with a video, and plain text among them."""
    rows = made_up_rows()[:6]
    for position, number in enumerate((1, 2, 5, 6)):
        rows.insert(number, text_row(f"text-{position}"))
    return rows


def test_parts_of_a_batch_give_the_same_result(clips, tmp_path, monkeypatch):
    whole = make_trainer(tmp_path / "whole", clips, **RUN)
    whole.train()
    sizes = []
    parts = make_trainer(tmp_path / "parts", clips, **RUN, max_visual_tokens_per_batch=24 * PATCHES)
    inner = type(parts.model.model)
    monkeypatch.setattr(inner, "forward", record_sizes(inner.forward, sizes))
    parts.train()
    assert parts.guard.counts.too_long == 0
    assert max(sizes) < 4  # no batch passed whole
    assert sum(sizes) == 12
    torch.testing.assert_close(losses_of(parts), losses_of(whole), atol=1e-5, rtol=0)
    for name, value in copy_of(parts.model).items():
        torch.testing.assert_close(value, whole.model.get_parameter(name).data, atol=1e-5, rtol=0)


def record_sizes(forward, sizes):
    def recorded(self, *args, **kwargs):
        sizes.append(len(kwargs["input_ids"]))
        return forward(self, *args, **kwargs)

    return recorded


def test_single_frame_stage_shows_one_frame_per_region(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, **{**RUN, "stage": "2", "max_steps": 1})
    for batch in trainer.get_train_dataloader():
        assert (batch["region_lengths"] == 1).all()


def test_modes_change_with_the_epoch_and_not_with_the_process(clips, tmp_path):
    def frames_of(epoch, **options):
        trainer = make_trainer(tmp_path, clips, **{**RUN, **options}, train_sampling_strategy="sequential")
        trainer.data_collator.set_epoch(epoch)
        return [batch["region_lengths"].tolist() for batch in trainer.get_train_dataloader()]

    first = frames_of(0)
    assert frames_of(0) == first
    assert frames_of(0, dataloader_num_workers=2) == first
    assert frames_of(1) != first
    assert frames_of(0, seed=5) != first
    lengths = [length for batch in first for length in batch]
    assert min(lengths) == 1 < max(lengths)


def test_epochs_reach_workers_that_live_on(clips, tmp_path):
    trainer = make_trainer(
        tmp_path,
        clips,
        **RUN,
        train_sampling_strategy="sequential",
        dataloader_num_workers=1,
        dataloader_persistent_workers=True,
    )
    loader = trainer.get_train_dataloader()
    first = [batch["region_lengths"].tolist() for batch in loader]
    trainer.data_collator.set_epoch(1)
    assert [batch["region_lengths"].tolist() for batch in loader] != first


def test_training_tells_the_collator_the_epoch(clips, tmp_path, monkeypatch):
    rows = [text_row(str(number)) for number in range(9)]  # three steps an epoch
    trainer = make_trainer(tmp_path, clips, rows, **{**RUN, "max_steps": 7})
    epochs = []
    monkeypatch.setattr(trainer.data_collator, "set_epoch", epochs.append)
    trainer.train()
    assert epochs == [0, 1, 2]


def test_log_holds_what_the_batches_held(clips, tmp_path):
    trainer = make_trainer(
        tmp_path,
        clips,
        mixed_rows(),
        **{**RUN, "global_batch_size": 8, "max_steps": 1},
        multi_frame_ratio=0.0,
        train_sampling_strategy="sequential",
        region_encoder_learning_rate=5e-4,
        warmup_steps=0,
    )
    expected = [trainer.data_collator(mixed_rows()[start : start + 4]) for start in (0, 4)]
    assert [len(batch.pop(REPORT).kept) for batch in expected] == [4, 4]
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["regions_per_batch"] == sum(len(batch["region_lengths"]) for batch in expected)
    supervised = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in expected)
    assert logged["supervised_tokens_per_batch"] == supervised
    assert logged["single_frame_share"] == 1.0
    assert logged["skipped_rows"] == logged["too_long_rows"] == 0
    assert logged["learning_rate/region_encoder"] == pytest.approx(logged["learning_rate/connector"] / 2)


def test_evaluation_does_not_depend_on_the_epoch(clips, tmp_path):
    args = VideoReferSFTConfig(
        output_dir=str(tmp_path),
        data_root=str(clips),
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        **RUN,
    )
    rows = as_dataset(made_up_rows())
    trainer = VideoReferSFTTrainer(
        tiny_model(), args, train_dataset=rows, eval_dataset=rows.select(range(5)), processing_class=tiny_processor()
    )
    first = trainer.evaluate()["eval_loss"]
    trainer.data_collator.set_epoch(3)
    assert trainer.evaluate()["eval_loss"] == first


def evaluator_of(rows, clips, folder, **options):
    args = VideoReferSFTConfig(
        output_dir=str(folder),
        data_root=str(clips),
        **{**QUIET, **RUN, "per_device_eval_batch_size": 2, **options},
    )
    return VideoReferSFTTrainer(
        tiny_model(),
        args,
        train_dataset=as_dataset(made_up_rows()),
        eval_dataset=as_dataset(rows),
        processing_class=tiny_processor(),
    )


def without_video(row):
    return {**row, "id": f"lost {row['id']}", "video": "nowhere.mp4"}


@pytest.mark.parametrize("bad", [(0, 1), (0, 3), (2,)])
def test_bad_rows_do_not_change_the_loss_of_evaluation(bad, clips, tmp_path):
    rows = made_up_rows()[:4]
    spoilt = [without_video(row) if number in bad else row for number, row in enumerate(rows)]
    trainer = evaluator_of(spoilt, clips, tmp_path)
    found = trainer.evaluate()
    # Each good row counts like any other of its batch.
    batches = [[rows[number] for number in pair if number not in bad] for pair in ((0, 1), (2, 3))]
    losses = [
        evaluator_of(batch, clips, tmp_path / "alone").evaluate()["eval_loss"] * len(batch)
        for batch in batches
        if batch
    ]
    assert found["eval_loss"] == pytest.approx(sum(losses) / (4 - len(bad)), rel=1e-5)
    assert found["eval_skipped_rows"] == len(bad)
    assert 0 < found["eval_mean_token_accuracy"] + found["eval_entropy"]
    lines = [json.loads(line) for line in trainer.eval_guard.file.read_text().splitlines()]
    assert [line["row"] for line in lines] == [f"'lost {rows[n]['id']}' of synthetic_shapes" for n in bad]
    assert trainer.guard.counts.seen == 0


def test_batch_of_bad_rows_only_does_not_count_for_accuracy(clips, tmp_path):
    rows = made_up_rows()[:4]
    found = evaluator_of([*map(without_video, rows[:2]), *rows[2:]], clips, tmp_path).evaluate()
    expected = evaluator_of(rows[2:], clips, tmp_path).evaluate()
    for name in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5), name
    assert "eval_skipped_rows" not in expected


def test_evaluation_of_bad_rows_only_is_refused(clips, tmp_path):
    trainer = evaluator_of([without_video(row) for row in made_up_rows()[:3]], clips, tmp_path)
    with pytest.raises(ValueError, match=r"All 3 rows are left out, 0 of them as too long.*nowhere.mp4"):
        trainer.evaluate()


def test_streamed_rows_train_like_others(clips, tmp_path):
    def trainer_of(rows, folder):
        args = VideoReferSFTConfig(
            output_dir=str(folder),
            data_root=str(clips),
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            logging_steps=1,
            save_strategy="no",
            train_sampling_strategy="sequential",
            **RUN,
        )
        return VideoReferSFTTrainer(tiny_model(), args, train_dataset=rows, processing_class=tiny_processor())

    rows = as_dataset(made_up_rows())
    mapped, streamed = trainer_of(rows, tmp_path / "a"), trainer_of(rows.to_iterable_dataset(), tmp_path / "b")
    streamed.args.save_strategy, streamed.args.save_steps = "steps", 2
    mapped.train()
    streamed.train()
    assert losses_of(streamed) == losses_of(mapped)
    resumed = trainer_of(rows.to_iterable_dataset(), tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-2"))
    assert losses_of(resumed) == losses_of(mapped)


def test_mixed_precision_and_checkpointing_run(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, **{**RUN, "bf16": True, "activation_checkpointing": True, "max_steps": 2})
    trainer.train()
    plain = make_trainer(tmp_path, clips, **{**RUN, "max_steps": 2})
    plain.train()
    torch.testing.assert_close(losses_of(trainer), losses_of(plain), atol=0.1, rtol=0)


def test_model_is_loaded_by_name(clips, tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_processor().save_pretrained(tmp_path / "base")
    args = VideoReferSFTConfig(
        output_dir=str(tmp_path / "out"),
        data_root=str(clips),
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "auto"},
    )
    trainer = VideoReferSFTTrainer(str(tmp_path / "base"), args, train_dataset=as_dataset(made_up_rows()))
    assert isinstance(trainer.model, VideoReferForConditionalGeneration)
    assert trainer.processing_class.region_token_id == 329


SCRIPT = """
import json, torch
torch.set_num_threads(1)
from pathlib import Path
from test_trainer import mixed_rows
from training_rows import losses_of, make_trainer
trainer = make_trainer(Path({folder!r}), Path({clips!r}), mixed_rows(), **{options!r})
trainer.train()
if trainer.args.process_index == 0:
    Path({folder!r}, "losses.json").write_text(json.dumps([losses_of(trainer), trainer.args.world_size]))
    torch.save(trainer.model.state_dict(), Path({folder!r}, "weights.pt"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, 12 * PATCHES])
def test_two_processes_equal_one_with_accumulation(budget, clips, tmp_path):
    """With plain text in one process, nothing hangs although every gradient is waited for."""
    options = {
        **RUN,
        "per_device_train_batch_size": 1,
        "max_steps": 6,
        "ddp_find_unused_parameters": False,
        "max_visual_tokens_per_batch": budget,
    }
    one = make_trainer(tmp_path / "one", clips, mixed_rows(), **options)
    one.train()
    script = SCRIPT.format(folder=str(tmp_path), clips=str(clips), options=options)
    run_in_two_processes(script, tmp_path / "script")
    losses, world_size = json.loads((tmp_path / "losses.json").read_text())
    assert world_size == 2
    torch.testing.assert_close(losses, losses_of(one), atol=1e-5, rtol=0)
    for name, value in torch.load(tmp_path / "weights.pt").items():
        torch.testing.assert_close(value, one.model.state_dict()[name], atol=1e-5, rtol=0)


def test_one_process_with_several_gpus_is_refused(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(VideoReferSFTConfig, "n_gpu", property(lambda args: 4))
    with pytest.raises(ValueError, match=r"One process sees 4 GPUs.*accelerate launch"):
        make_trainer(tmp_path, clips, **RUN)
