"""The benchmark of a training step: the plain loop in the published way gives the trainer's losses."""

import sys
from pathlib import Path

import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import train_step  # noqa: E402


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train_step")
    rows = train_step.make_rows(folder, train_step.QUICK)
    return train_step.make_ways(folder, rows, train_step.QUICK), rows


def test_both_ways_make_the_same_steps(ways):
    (reference, ours), rows = ways
    their_losses = [train_step.run_once(reference, rows).loss for _ in range(3)]
    our_losses = [train_step.run_once(ours, rows).loss for _ in range(3)]
    assert our_losses == pytest.approx(their_losses, abs=1e-4)
    assert their_losses[0] > their_losses[1] > their_losses[2]
    for name, value in ours.trainer.model.named_parameters():
        torch.testing.assert_close(value, reference.model.get_parameter(name), atol=1e-3, rtol=1e-3)


def test_different_losses_stop_the_run(ways, monkeypatch):
    both, rows = ways
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(train_step, "run_once", lambda way, rows: train_step.Run(1.0, 1.0, 1.0, next(losses)))
    with pytest.raises(AssertionError, match="2.0"):
        train_step.measure(both, rows, repeats=0)
