"""The `videorefer` command itself: exit codes, errors, `convert`. Answers are tested in commands/test_ask.py."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import av
import pytest
import torch
from huggingface_hub.errors import HTTPError, StrictDataclassFieldValidationError
from jinja2 import TemplateError
from PIL import Image

import transformers_videorefer.published.conversion
from transformers_videorefer import __version__, cli
from transformers_videorefer.cli import main
from transformers_videorefer.commands import env
from transformers_videorefer.commands.region_flags import group_flags
from transformers_videorefer.evaluation.scoring import JudgeError
from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.form import parse_region
from transformers_videorefer.video.opening import open_video


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


@pytest.fixture
def convert(monkeypatch):
    """Run `videorefer convert` with a function in the place of the conversion, and return the exit code."""

    def run(function, *flags):
        monkeypatch.setattr(
            transformers_videorefer.published.conversion, "convert_checkpoint", lambda *_, **__: function()
        )
        return main(["convert", "source", "output", *flags])

    return run


def raising(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("first line\n  second line"), "first line second line"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            "can't decode byte 0xff in position 0: invalid start byte",
        ),
        (FileNotFoundError(2, "No such file", "mask.png"), "[Errno 2] No such file: 'mask.png'"),
        (ImportError("Install av"), "Install av"),
        (MemoryError(), "MemoryError"),
        (Image.DecompressionBombError("too many pixels"), "too many pixels"),
        (av.error.UndefinedError(1, "no packet"), "[Errno 1] no packet"),
        (HTTPError("connection refused"), "connection refused"),
        (
            StrictDataclassFieldValidationError("num_frames", TypeError("no int")),
            "field 'num_frames': TypeError: no int",
        ),
        (TemplateError("unexpected end of the chat template"), "unexpected end of the chat template"),
    ],
)
def test_errors_about_the_input_are_one_line(capsys, convert, error, message):
    assert convert(raising(error)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("videorefer: error: ")
    assert line.endswith(message)


def test_debug_shows_where_an_error_about_the_input_comes_from(capsys, convert):
    assert convert(raising(ValueError("`x` is 3")), "--debug") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ValueError: `x` is 3", "videorefer: error: `x` is 3"]
    assert main(["dance", "--debug"]) == 2
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):")


@pytest.mark.parametrize("module", ["transformers_videorefer.regions.pixels", "transformers_modules.x.regions_pixels"])
def test_kinds_refused_by_this_package_are_about_the_input(capsys, convert, module):
    code = "def fail(x):\n    if x != 1: raise TypeError('`x` must be ' + repr(1))\n"
    namespace = {"__name__": module}
    exec(code, namespace)
    assert convert(lambda: namespace["fail"](2)) == 2
    assert capsys.readouterr().err == "videorefer: error: `x` must be 1\n"


def test_a_refusal_of_the_video_reader_is_about_the_input(capsys, convert):
    assert convert(lambda: open_video(3)) == 2
    assert "is a int. Pass a path" in capsys.readouterr().err


def test_only_a_refusal_of_a_kind_is_about_the_input_where_its_place_is_known(capsys, convert):
    def refuse():
        with located(sample=0, region=1):
            parse_region(3)

    def fail():
        with located(sample=0, region=1):
            len(3)

    assert convert(refuse) == 2
    assert "sample 0, region 1: a region is a dict" in capsys.readouterr().err
    assert convert(fail) == 1
    assert "fault: MediaTypeError: sample 0, region 1: object of type 'int' has no len()" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: group_flags(3), "TypeError: 'int' object is not iterable"),  # happens in a line of this package
        (lambda: open_video(), "TypeError: open_video() missing 1 required positional argument: 'source'"),
        (raising(TypeError("forward() got an unexpected keyword argument")), "TypeError: forward() got an unexpected"),
        (raising(KeyError("bug")), "KeyError: 'bug'"),
        (raising(AttributeError("no\n  such name")), "AttributeError: no such name"),
        (raising(IndexError("list index out of range")), "IndexError: list index out of range"),
        (raising(RuntimeError("shapes do not match")), "RuntimeError: shapes do not match"),
        (raising(NotImplementedError()), "NotImplementedError"),
        (raising(RecursionError("maximum depth")), "RecursionError: maximum depth"),
        (raising(AssertionError()), "AssertionError"),
        (raising(ZeroDivisionError("division by zero")), "ZeroDivisionError: division by zero"),
    ],
)
def test_faults_are_called_faults(capsys, convert, function, message):
    assert convert(function) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"videorefer: fault: {message}")
    assert lines[1] == f"This is a fault in transformers-videorefer {__version__}, not in what you passed."
    assert lines[2].split() == ["library", "installed", "tested"]
    assert [line.split()[:2] for line in lines[3:5]] == [
        [name, metadata.version(name)] for name in ("transformers", "torch")
    ]
    assert lines[-1] == (
        "Run the command again with --debug, and report the traceback together with what `videorefer env` prints."
    )
    assert "Traceback" not in captured.err


def test_debug_shows_where_a_fault_is(capsys, convert):
    assert convert(raising(KeyError("bug")), "--debug") == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert re.search(r"in fail\n.*\nKeyError: 'bug'\nvideorefer: fault: KeyError: 'bug'\n", err, re.DOTALL)
    assert err.endswith("\nReport the traceback above together with what `videorefer env` prints.\n")


def test_long_messages_of_faults_are_cut(capsys, convert):
    assert convert(raising(KeyError("x" * 10_000))) == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"videorefer: fault: KeyError: '{'x' * 489} ..."  # 500 characters from the K on


def test_faults_name_libraries_outside_of_what_was_tested(capsys, convert, monkeypatch):
    installed = {"transformers": "99.0", "torch": "2.13.0+cpu", "datasets": "5.1.0"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(env.importlib.metadata, "version", version)
    monkeypatch.setattr(env, "tested_range", {"transformers": ">=5.23,<5.25", "torch": ">=2.6"}.get)
    assert convert(raising(KeyError("bug"))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines[2:6]] == [
        ["library", "installed", "tested"],
        ["transformers", "99.0", ">=5.23,<5.25", "outside"],
        ["torch", "2.13.0+cpu", ">=2.6"],
        ["datasets", "5.1.0", "-"],  # and no line for trl, which is not installed
    ]
    assert lines[6] == (
        'Releases outside the tested ranges may be the cause. Try: pip install "transformers>=5.23,<5.25"'
    )
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: torch.empty(10**15), "can't allocate memory: you tried to allocate 4000000000000000 bytes"),
        (raising(torch.OutOfMemoryError("CUDA out of memory.")), "The memory is too small: CUDA out of memory. Use"),
    ],
)
def test_too_small_a_memory_is_no_fault(capsys, convert, function, message):
    assert convert(function) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("videorefer: error: The memory is too small: ")
    assert message in line
    assert line.endswith(
        "Use smaller batches, fewer frames or `--dtype bfloat16`, where the command has a flag for it."
    )


def test_a_judge_that_scored_nothing_ends_with_1(capsys, convert):
    assert convert(raising(JudgeError("all 3 requests failed"))) == 1
    assert capsys.readouterr().err == "videorefer: error: all 3 requests failed\n"


def half(content):
    return content[: len(content) // 2]


@pytest.fixture
def tiny_copy(reference, tmp_path):
    """A copy of the tiny checkpoint, with its tower beside it, to be damaged."""
    copy = tmp_path / "videorefer-tiny"
    shutil.copytree(reference / "videorefer-tiny", copy)
    (tmp_path / "siglip-tiny-patch14-56").symlink_to(reference / "siglip-tiny-patch14-56")
    return copy


def ask_about_clip(reference, model, *flags):
    flags = flags or ("--box", "10,10,60,50@10")
    command = ["ask", str(reference / "media" / "clip.mp4"), "What is <region>?", *flags]
    return main([*command, "--model", str(model), "--max-new-tokens", "1"])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", half, "(SafetensorError: Error while deserializing header: "),
        ("model.safetensors", lambda _: b"", "(SafetensorError: Error while deserializing header: "),
        ("config.json", half, "config.json' is not a valid JSON file"),
        ("config.json", lambda _: b'{"a":' * 50_000, "(RecursionError: "),
        ("tokenizer.json", lambda _: b"{}", "Model missing"),  # which its Rust code raises as a bare `Exception`
        ("vocab.json", half, "vocab.json` is not valid JSON"),
    ],
)
def test_damaged_checkpoints_are_no_fault(capsys, reference, tiny_copy, name, damage, message):
    file = tiny_copy / name
    file.write_bytes(damage(file.read_bytes()))
    assert ask_about_clip(reference, tiny_copy) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]  # lines about slow steps may stand before it
    assert line.startswith("videorefer: error: ")
    assert message in line


@pytest.mark.parametrize("damage", [half, lambda _: b"", lambda _: b"hello\n"])
@pytest.mark.parametrize("command", ["ask", "convert"])
def test_damaged_pickles_of_weights_are_no_fault(capsys, reference, tiny_copy, tmp_path, command, damage):
    (tiny_copy / "model.safetensors").unlink()
    file = tiny_copy / "pytorch_model.bin"
    torch.save({"lm_head.weight": torch.zeros(3300, 64)}, file)
    file.write_bytes(damage(file.read_bytes()))
    code = (
        ask_about_clip(reference, tiny_copy)
        if command == "ask"
        else main(["convert", str(tiny_copy), str(tmp_path / "output")])
    )
    line = capsys.readouterr().err.splitlines()[-1]
    assert code == 2, line
    assert line.startswith(
        "videorefer: error: A file of the model or of the data cannot be read, it may be damaged or "
    )
    assert line.endswith("Download or copy it again.")


def test_a_masklet_that_is_no_archive_is_no_fault(capsys, reference, tiny_copy, tmp_path):
    masklet = tmp_path / "masklet.npz"
    masklet.write_bytes(b"hello")
    assert ask_about_clip(reference, tiny_copy, "--masklet", str(masklet)) == 2
    assert f"`--masklet {masklet}`: no masklet in this file" in capsys.readouterr().err


def test_interrupt_ends_with_130(capsys, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers_videorefer.published.conversion, "convert_checkpoint", interrupt)
    assert main(["convert", "source", "output"]) == 130
    assert capsys.readouterr().err == "\nvideorefer: interrupted\n"


def test_reader_that_went_away_is_no_error(capsys, monkeypatch, tmp_path):
    def break_pipe(*_args, **_kwargs):
        raise BrokenPipeError

    monkeypatch.setattr(transformers_videorefer.published.conversion, "convert_checkpoint", break_pipe)
    with open(tmp_path / "stdout", "w") as stdout:
        monkeypatch.setattr(cli.sys, "stdout", stdout)
        assert main(["convert", "source", "output"]) == 1
        stdout.write("more")  # what the interpreter still flushes goes nowhere
    assert (tmp_path / "stdout").read_text() == ""
    assert capsys.readouterr().err == ""


def test_convert_hands_its_flags_on(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        transformers_videorefer.published.conversion,
        "convert_checkpoint",
        lambda *args, **kwargs: seen.append((args, kwargs)),
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


def _import_a_name_that_is_gone(args):
    from transformers import NoSuchThing  # noqa: F401


def _import_a_library_that_is_missing(args):
    import no_such_library  # noqa: F401


def _ask_for_a_library(args):
    raise ImportError("Scores need the library `evaluate`. Install it.")


@pytest.mark.parametrize(
    ("run", "code", "message"),
    [
        (_import_a_name_that_is_gone, 1, "fault: ImportError: cannot import name 'NoSuchThing'"),
        (_import_a_library_that_is_missing, 2, "error: No module named 'no_such_library'"),
        (_ask_for_a_library, 2, "error: Scores need the library `evaluate`"),
    ],
)
def test_a_name_that_a_library_lost_is_a_fault_and_a_missing_library_is_not(run, code, message, capsys, monkeypatch):
    monkeypatch.setattr("transformers_videorefer.commands.env.run_env", run)
    assert main(["env"]) == code
    assert message in capsys.readouterr().err
