"""What is shown while waiting."""

import time

import pytest
import torch
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging

from transformers_videorefer.commands import progress
from transformers_videorefer.commands.progress import TokenProgress, progress_bar, quiet_libraries, report_when_slow


def test_only_slow_steps_are_reported_and_only_on_stderr(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "SLOW_AFTER_SECONDS", 0.05)
    with report_when_slow("reading a.mp4"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr() == ("", "")
    with report_when_slow("reading b.mp4"):
        time.sleep(0.3)
    assert capsys.readouterr() == ("", "reading b.mp4 ...\n")


def test_step_that_fails_is_not_reported_later(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "SLOW_AFTER_SECONDS", 0.05)
    with pytest.raises(KeyError), report_when_slow("reading"):
        raise KeyError
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_tokens_are_counted_without_the_prompt(monkeypatch: pytest.MonkeyPatch):
    streamer = TokenProgress(10)
    counted = []
    monkeypatch.setattr(streamer._bar, "update", counted.append)
    streamer.put(torch.ones(1, 50))
    streamer.put(torch.ones(1))
    streamer.put(torch.ones(1))
    streamer.end()
    assert counted == [1, 1]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_libraries_are_quiet_and_bars_are_for_terminals(monkeypatch: pytest.MonkeyPatch, is_terminal: bool):
    calls = []
    for name in ("set_verbosity_error", "disable_progress_bar"):
        monkeypatch.setattr(logging, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(hub_logging, "set_verbosity_error", lambda: None)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: is_terminal, raising=False)
    quiet_libraries(debug=True)
    assert calls == []
    quiet_libraries(debug=False)
    assert calls == ["set_verbosity_error"] + ["disable_progress_bar"] * (not is_terminal)


def test_bar_counts_and_stays_away_where_nobody_watches(capsys):
    with progress_bar(10, task="checking", unit="B") as bar:
        bar.update(4)
    assert (bar.disable, bar.total) == (True, 10)
    assert capsys.readouterr() == ("", "")
