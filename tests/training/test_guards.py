"""Rows that cannot be trained on are left out with their reason, counted, and stop a run when there are too many."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_processor
from training_rows import losses_of, made_up_rows, make_trainer, text_row, write_clips

from transformers_videorefer.data.batches.collator import VideoReferDataCollator
from transformers_videorefer.training.batches import IGNORED, MediaSizes
from transformers_videorefer.training.guards import REPORT, GuardedCollator, RowCounts, RowGuard, RowReport


RUN = {"stage": "3", "per_device_train_batch_size": 2, "global_batch_size": 4, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def collator_of(processor, clips, **options) -> GuardedCollator:
    collator = VideoReferDataCollator(processor, data_root=clips)
    return GuardedCollator(collator, MediaSizes.from_processor(processor), **options)


def missing_video(row):
    return {**row, "id": "lost", "video": "nowhere.mp4"}


def surplus_region(row):
    return {**row, "id": "surplus", "regions": [*row["regions"], row["regions"][0]]}


def no_answer(row):
    return {**row, "id": "mute", "messages": row["messages"][:1]}


def no_messages(row):
    return {**row, "id": "odd", "messages": 3}


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (missing_video, "'lost'", "nowhere.mp4"),
        (surplus_region, "'surplus'", "region"),
        (no_answer, "'mute'", "no answer to learn from"),
        (no_messages, "'odd'", "messages"),
    ],
)
def test_bad_rows_are_left_out_with_their_reason(spoil, name, reason, processor, clips):
    good = made_up_rows()[:3]
    collator = collator_of(processor, clips)
    batch = collator([good[0], spoil(good[1]), good[2]])
    report = batch.pop(REPORT)
    assert [one.startswith(name) for one, _ in report.unusable] == [True]
    assert reason in report.unusable[0][1]
    assert f"Row {name}:" not in report.unusable[0][1]  # the name stands beside it
    assert report.kept == [f"'{row['id']}' of synthetic_shapes" for row in (good[0], good[2])]
    expected = collator([good[0], good[2]])
    assert set(batch) == set(expected) - {REPORT}
    for key, value in batch.items():
        assert torch.equal(value, expected[key]), key


def test_batch_of_bad_rows_only_teaches_nothing(processor, clips):
    batch = collator_of(processor, clips)([missing_video(row) for row in made_up_rows()[:2]])
    assert (batch["labels"] == IGNORED).all()
    assert batch[REPORT].kept == []
    assert len(batch[REPORT].unusable) == 2


@pytest.mark.parametrize("bad", [(1,), (0, 2)])
def test_each_bad_row_costs_one_more_pass_at_most(bad, processor, clips, monkeypatch):
    """A cut-off file is only noticed when its frames are decoded."""
    rows = made_up_rows()[:4]
    whole = (clips / rows[0]["video"]).read_bytes()
    (clips / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for position in bad:
        rows[position] = {**rows[position], "id": f"cut {position}", "video": "cut.mp4"}
    calls = []
    process = VideoReferDataCollator._process
    monkeypatch.setattr(
        VideoReferDataCollator,
        "_process",
        lambda collator, conversations: calls.append(len(conversations)) or process(collator, conversations),
    )
    report = collator_of(processor, clips)(rows)[REPORT]
    assert [name for name, _ in report.unusable] == [f"'cut {position}' of synthetic_shapes" for position in bad]
    # The batch, the bad row alone, and the batch without it; the same again for another bad row.
    assert calls == {1: [4, 1, 3], 2: [4, 1, 3, 1, 2]}[len(bad)]


def test_a_collator_that_names_no_position_is_asked_row_by_row(processor, clips):
    inner = VideoReferDataCollator(processor, data_root=clips)

    def collate(rows):
        if any(row["id"] == "bad" for row in rows):
            raise KeyError("regions")
        return inner(rows)

    batch = GuardedCollator(collate, MediaSizes.from_processor(processor))([text_row("a"), text_row("bad")])
    assert batch[REPORT].unusable == [("'bad' of made_up", "'regions'")]
    assert batch[REPORT].kept == ["'a' of made_up"]


def test_an_error_of_no_row_is_not_hidden(processor):
    def collate(rows):
        if len(rows) > 1:
            raise ValueError("several rows do not fit together")
        return {}

    with pytest.raises(ValueError, match="several rows do not fit together"):
        GuardedCollator(collate, MediaSizes.from_processor(processor))([text_row("a"), text_row("b")])


def test_long_rows_are_left_out_never_cut(processor, clips):
    rows = [text_row("short"), text_row("long", answer="Yes. " * 200), text_row("other")]
    unbounded = collator_of(processor, clips)(rows)
    lengths = unbounded["attention_mask"].sum(dim=1).tolist()
    batch = collator_of(processor, clips, max_length=lengths[0])(rows)
    assert batch[REPORT].kept == ["'short' of made_up", "'other' of made_up"]
    reason = f"It has {lengths[1]} tokens, more than `max_length` of {lengths[0]}."
    assert batch[REPORT].too_long == [("'long' of made_up", reason)]
    assert batch["input_ids"].shape == (2, lengths[0])
    at_the_limit = collator_of(processor, clips, max_length=lengths[1])(rows)
    assert len(at_the_limit[REPORT].kept) == 3


def test_rows_beyond_the_visual_budget_are_left_out(processor, clips):
    batch = collator_of(processor, clips, max_visual_tokens=4 * 16)([text_row(), made_up_rows()[0]])
    assert batch[REPORT].kept == ["'text' of made_up"]
    assert "visual tokens, more than `max_visual_tokens_per_batch` of 64" in batch[REPORT].too_long[0][1]


def test_guard_stops_above_the_share(tmp_path):
    guard = RowGuard(tmp_path, 0.1, fewest_rows=20)
    guard.add(19, 9, 0)  # too few to judge
    with pytest.raises(ValueError, match="9 of 20 rows cannot be trained on, more than `max_bad_row_share` of 0.1"):
        guard.add(1, 0, 0)


def test_guard_accepts_the_share_itself(tmp_path):
    guard = RowGuard(tmp_path, 0.1, fewest_rows=20)
    guard.add(20, 2, 0)
    guard.check()
    with pytest.raises(ValueError, match="3 of 21 rows"):
        guard.add(1, 1, 0)


def test_guard_stops_when_nothing_is_left(tmp_path):
    guard = RowGuard(tmp_path, 0.5)
    guard.add(5, 1, 4)
    with pytest.raises(ValueError, match="All 5 rows are left out, 4 of them as too long"):
        guard.check()


def test_guard_writes_every_row_and_names_few(tmp_path, caplog):
    guard = RowGuard(tmp_path, 1.0)
    for number in range(30):
        counts = guard.record(RowReport(kept=["a"], unusable=[(f"row {number}", "broken")]), step=number)
        assert counts.tolist() == [2, 1, 0]
    lines = [json.loads(line) for line in (tmp_path / "_logs" / "skipped_rows.jsonl").read_text().splitlines()]
    assert lines[7] == {"row": "row 7", "kind": "unusable", "reason": "broken", "step": 7}
    assert len(lines) == 30
    assert len(caplog.records) == 21
    assert caplog.records[-1].message == "Further rows that are left out stand only in _logs/skipped_rows.jsonl."


def test_a_new_run_starts_with_an_empty_file(clips, tmp_path):
    rows = [*made_up_rows(), missing_video(made_up_rows()[0])]
    for _ in range(2):
        trainer = make_trainer(tmp_path, clips, rows, **RUN, max_bad_row_share=0.5)
        trainer.train()
        assert len(trainer.guard.file.read_text().splitlines()) == 1


def test_processes_write_files_of_their_own(tmp_path):
    assert RowGuard(tmp_path, 1.0, process_index=2).file.name == "skipped_rows-2.jsonl"


def test_counts_survive_a_checkpoint(tmp_path):
    assert RowCounts.load(tmp_path) == RowCounts()
    RowCounts(10, 2, 1).save(tmp_path)
    assert RowCounts.load(tmp_path) == RowCounts(10, 2, 1)


def test_run_with_some_bad_rows_counts_them(clips, tmp_path):
    rows = made_up_rows()
    rows[3], rows[7] = missing_video(rows[3]), surplus_region(rows[7])
    trainer = make_trainer(tmp_path, clips, rows, **RUN, max_bad_row_share=0.2)
    trainer.train()
    assert trainer.guard.counts == RowCounts(seen=12, unusable=2, too_long=0)
    assert trainer.state.log_history[-2]["skipped_rows"] == 2
    names = {json.loads(line)["row"] for line in (tmp_path / "_logs" / "skipped_rows.jsonl").read_text().splitlines()}
    assert names == {"'lost' of synthetic_shapes", "'surplus' of synthetic_shapes"}


def test_run_with_too_many_bad_rows_stops_and_names_one(clips, tmp_path):
    rows = [missing_video(row) for row in made_up_rows()]
    trainer = make_trainer(tmp_path, clips, rows, **RUN, max_bad_row_share=0.2)
    with pytest.raises(ValueError, match=r"12 of 12 rows cannot be trained on.*The last one: Row 'lost' of synthetic"):
        trainer.train()
    assert losses_of(trainer) == [0.0, 0.0]  # the third step was never made


def test_loss_that_is_not_finite_names_the_row(clips, tmp_path):
    rows = [text_row("first"), text_row("second", "Pi."), text_row("third")]
    options = {"per_device_train_batch_size": 3, "global_batch_size": 3, "max_steps": 1}
    trainer = make_trainer(tmp_path, clips, rows, **options)
    embeddings = trainer.model.get_input_embeddings()
    ids = trainer.processing_class.tokenizer("Pi.")["input_ids"]
    plain = set(trainer.processing_class.tokenizer("Is it so? Yes.\n")["input_ids"])
    telling = next(token for token in ids if token not in plain)
    with torch.no_grad():
        embeddings.weight[telling] = torch.nan
    with pytest.raises(ValueError, match=r"The loss is nan at step 0 for the rows 'second' of made_up\. "):
        trainer.train()


def test_a_picture_of_too_many_pixels_is_left_out_like_a_broken_one(processor, tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = [{"type": "image", "path": "huge.png"}, {"type": "text", "text": "What is this?"}]
    row = {**text_row("huge"), "messages": [{"role": "user", "content": content}, text_row()["messages"][1]]}
    report = collator_of(processor, tmp_path)([text_row("a"), row])[REPORT]
    assert report.kept == ["'a' of made_up"]
    assert [name for name, _ in report.unusable] == ["'huge' of made_up"]
    assert "pixels" in report.unusable[0][1]
