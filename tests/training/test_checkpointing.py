"""Checkpoints are complete when the list written last agrees with what is there."""

import json

import pytest

from transformers_videorefer.training.checkpointing import (
    MARKER,
    find_checkpoints,
    mark_complete,
    unmark,
    what_is_missing,
)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint-5"
    (folder / "nested").mkdir(parents=True)
    (folder / "weights").write_bytes(b"12345")
    (folder / "nested" / "shard").write_bytes(b"123")
    mark_complete(folder)
    return folder


def test_marker_lists_every_file(checkpoint):
    assert json.loads((checkpoint / MARKER).read_text()) == {"files": {"nested/shard": 3, "weights": 5}}
    assert what_is_missing(checkpoint) is None
    assert find_checkpoints(checkpoint.parent) == (str(checkpoint), [])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "weights").unlink(), "it lacks weights"),
        (lambda folder: (folder / "nested" / "shard").write_bytes(b"1"), "nested/shard has 1 bytes instead of 3"),
        (lambda folder: unmark(folder), "it has no complete.json, which is written last"),
        (lambda folder: (folder / MARKER).write_text("{"), "its complete.json cannot be read"),
        (lambda folder: (folder / MARKER).write_text("[]"), "its complete.json cannot be read"),
    ],
)
def test_what_is_wrong_is_named(spoil, problem, checkpoint):
    spoil(checkpoint)
    assert what_is_missing(checkpoint) == problem
    assert find_checkpoints(checkpoint.parent) == (None, [("checkpoint-5", problem)])


def test_last_complete_checkpoint_is_found_by_number(checkpoint):
    for name in ("checkpoint-40", "checkpoint-9", "checkpoint-x", "other"):
        (checkpoint.parent / name).mkdir()
    mark_complete(checkpoint.parent / "checkpoint-9")
    found, passed_over = find_checkpoints(checkpoint.parent)
    assert found == str(checkpoint.parent / "checkpoint-9")
    assert [name for name, _ in passed_over] == ["checkpoint-40"]


def test_no_folder_no_checkpoint(tmp_path):
    assert find_checkpoints(tmp_path / "nowhere") == (None, [])
    unmark(tmp_path / "nowhere")


def test_leftover_of_a_marker_is_no_file_of_the_checkpoint(checkpoint):
    (checkpoint / f"{MARKER}.part").write_text("half")
    mark_complete(checkpoint)
    assert set(json.loads((checkpoint / MARKER).read_text())["files"]) == {"nested/shard", "weights"}
