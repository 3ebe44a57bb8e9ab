"""`videorefer quickstart` on the bundled clip: right answers, a picture, no network."""

import socket

import pytest
from PIL import Image

from transformers_videorefer.bundled import QUICKSTART, TINY_NOTICE
from transformers_videorefer.cli import main


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the quickstart must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_quickstart_answers_right(no_network, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # What the clip shows (examples/make_quickstart.py): A, a small blue cross, moves right; B, a large green circle, up.
    assert lines[:6] == [
        "What is [A] doing?",
        "  It moves right.",
        "What is [B] doing?",
        "  It moves up.",
        "Which is larger, [A] or [B]?",
        "  The second.",
    ]
    assert lines[6].lower().startswith(TINY_NOTICE.lower())
    with Image.open("quickstart.png") as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 100


def test_output_that_cannot_be_written(capsys, tmp_path):
    assert main(["quickstart", "--output", str(tmp_path / "missing" / "x.png")]) == 2
    assert "missing" in capsys.readouterr().err


def test_tiny_answers_and_says_what_it_knows(capsys):
    # A, the small blue cross, lies at about (8, 97) to (35, 125) on frame 0.
    flags = ["--box", "9,97,36,125@0", "--model", "tiny"]
    assert main(["ask", str(QUICKSTART / "clip.mp4"), "What color is <region>?", *flags]) == 0
    captured = capsys.readouterr()
    assert TINY_NOTICE in captured.err
    assert captured.out == "It is blue.\n"
