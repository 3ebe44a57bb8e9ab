"""The `videorefer` command itself: exit codes, errors, `convert`. Answers are tested in commands/test_ask.py."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import transformers_videorefer.checkpoints
from transformers_videorefer import cli
from transformers_videorefer.cli import main


pytestmark = pytest.mark.usefixtures("library_settings")


def test_version_through_the_console_script():
    script = Path(sys.executable).parent / "videorefer"
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"videorefer {metadata.version('transformers-videorefer')}\n"


def test_version_goes_to_stdout(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr() == (f"videorefer {transformers_videorefer.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["convert", "--help"]])
def test_help_goes_to_stdout(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("usage: videorefer")


def test_help_shows_how_regions_are_marked(capsys):
    with pytest.raises(SystemExit):
        main(["ask", "--help"])
    text = capsys.readouterr().out
    assert 'videorefer ask dog.mp4 "What is <region> doing?" --box 300,0,800,430@0' in text
    for flag in ("--mask [NAME=]FILE.png[#LABEL]@FRAME", "--masklet [NAME=]FILE.npz|DIR[#LABEL]", "--edit-list"):
        assert flag in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["ask", "v.mp4"], "the following arguments are required: QUESTION"),
        (["ask", "v.mp4", "?", "--boxes", "1,2,3,4@0"], "unrecognized arguments: --boxes"),
        (["ask", "v.mp4", "?", "--box", "1,2,3@0"], "`--box 1,2,3@0`: a box has 4 numbers, not 3"),
        (["convert", "source"], "the following arguments are required: OUTPUT"),
    ],
)
def test_wrong_usage_is_one_line_with_exit_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("videorefer: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert "--help" in captured.err


def test_negative_coordinates_are_no_flags(capsys):
    main(["ask", "nowhere.mp4", "<region>?", "--polygon", "-5,-5,60,60,10,100@3", "--model", "a/b"])
    assert "There is no video or image nowhere.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("first line\n  second line"), "first line second line"),
        (TypeError("`x` is 3"), "`x` is 3"),
        (FileNotFoundError(2, "No such file", "mask.png"), "[Errno 2] No such file: 'mask.png'"),
        (ImportError("Install av"), "Install av"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_errors_of_the_library_are_one_line(capsys, monkeypatch, error, message):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(transformers_videorefer.checkpoints, "convert_checkpoint", fail)
    assert main(["convert", "source", "output"]) == 2
    assert capsys.readouterr().err == f"videorefer: error: {message}\n"
    with pytest.raises(type(error)):
        main(["convert", "source", "output", "--debug"])


def test_errors_that_are_bugs_keep_their_traceback(monkeypatch):
    def fail(*_args, **_kwargs):
        raise KeyError("bug")

    monkeypatch.setattr(transformers_videorefer.checkpoints, "convert_checkpoint", fail)
    with pytest.raises(KeyError, match="bug"):
        main(["convert", "source", "output"])


def test_interrupt_ends_with_130(capsys, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers_videorefer.checkpoints, "convert_checkpoint", interrupt)
    assert main(["convert", "source", "output"]) == 130
    assert capsys.readouterr().err == "\nvideorefer: interrupted\n"


def test_reader_that_went_away_is_no_error(capsys, monkeypatch, tmp_path):
    def break_pipe(*_args, **_kwargs):
        raise BrokenPipeError

    monkeypatch.setattr(transformers_videorefer.checkpoints, "convert_checkpoint", break_pipe)
    with open(tmp_path / "stdout", "w") as stdout:
        monkeypatch.setattr(cli.sys, "stdout", stdout)
        assert main(["convert", "source", "output"]) == 1
        stdout.write("more")  # what the interpreter still flushes goes nowhere
    assert (tmp_path / "stdout").read_text() == ""
    assert capsys.readouterr().err == ""


def test_convert_hands_its_flags_on(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        transformers_videorefer.checkpoints, "convert_checkpoint", lambda *args, **kwargs: seen.append((args, kwargs))
    )
    assert main(["convert", "a/b", "out"]) == 0
    assert main(["convert", "a/b", "out", "--component", "c.bin", "--component", "f", "--vision-tower", "d/e"]) == 0
    assert seen == [
        (("a/b", "out"), {"component": None, "vision_tower": None}),
        (("a/b", "out"), {"component": ["c.bin", "f"], "vision_tower": "d/e"}),
    ]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "wrote out\nwrote out\n"


def test_convert_writes_a_repository_that_answers(capsys, reference, tmp_path):
    output = tmp_path / "converted"
    assert main(["convert", str(reference / "videorefer-tiny"), str(output)]) == 0, capsys.readouterr().err
    assert {"config.json", "model.safetensors", "README.md"} <= set(os.listdir(output))
    capsys.readouterr()
    answers = []
    for model in (reference / "videorefer-tiny", output):
        command = ["ask", str(reference / "media" / "clip.mp4"), "What is <region>?", "--box", "10,10,60,50@10"]
        assert main([*command, "--model", str(model), "--max-new-tokens", "8"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
