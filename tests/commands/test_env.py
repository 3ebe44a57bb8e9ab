"""`videorefer env`: what it prints, read back."""

import getpass
import platform
import re
import socket
from importlib import metadata
from pathlib import Path

import av
import pytest
import torch

from transformers_videorefer import __version__
from transformers_videorefer.cli import main
from transformers_videorefer.commands import env
from transformers_videorefer.commands.env import LIBRARIES, format_library_versions, library_versions


def read_env(capsys: pytest.CaptureFixture) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Run the command; return the facts about the machine, and the columns of each library."""
    assert main(["env"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    machine, libraries = captured.out.split("\n\n")
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in machine.splitlines())
    columns, *rows = [re.split(r" {2,}", line) for line in libraries.splitlines()]
    assert columns == ["library", "installed", "tested"]
    return facts, {name: rest for name, *rest in rows}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The only libraries that are installed, to be changed by tests; ranges are those of `tested`."""
    versions = {"transformers": "5.24.0", "torch": "2.13.0+cpu"}
    tested = {"transformers": ">=5.23,<5.25", "torch": ">=2.9", "trl": ">=1.16,<1.17"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(env.importlib.metadata, "version", version)
    monkeypatch.setattr(env, "tested_range", tested.get)
    return versions


def test_what_a_report_needs(capsys):
    facts, libraries = read_env(capsys)
    assert facts["transformers-videorefer"] == __version__
    assert facts["python"] == f"{platform.python_version()} ({platform.python_implementation()})"
    assert facts["platform"] == f"{platform.system()} {platform.release()} {platform.machine()}"
    assert int(facts["processors"].split(",")[0]) >= 1
    assert re.fullmatch(r"\d+\.\d GiB|unknown", facts["memory"])
    major, minor, micro = av.library_versions["libavcodec"]
    assert f"libavcodec {major}.{minor}.{micro}" in facts["ffmpeg"].split(", ")
    assert list(libraries) == list(LIBRARIES)
    assert libraries["torch"][0] == metadata.version("torch")
    assert libraries["pillow"][0] == metadata.version("pillow")


def test_no_names_of_people_machines_and_folders(capsys):
    main(["env"])
    text = capsys.readouterr().out
    for private in (socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd())):
        assert not re.search(rf"(?<!\w){re.escape(private)}(?!\w)", text)
    assert not re.search(r"(?:^|\s)(?:/|[A-Z]:\\)\w", text)


def test_releases_inside_and_outside_of_what_was_tested(capsys, installed):
    installed |= {"transformers": "5.25.0", "trl": "1.16.3", "numpy": "2.4.6"}
    _, libraries = read_env(capsys)
    assert libraries["transformers"] == ["5.25.0", ">=5.23,<5.25", "outside"]
    assert libraries["torch"] == ["2.13.0+cpu", ">=2.9"]
    assert libraries["trl"] == ["1.16.3", ">=1.16,<1.17"]
    assert libraries["numpy"] == ["2.4.6", "-"]  # no range is stated for it
    assert libraries["peft"] == ["not installed", "-"]


@pytest.mark.parametrize(
    ("version", "is_outside"),
    [
        ("5.23.0", False),
        ("5.24.7", False),
        ("5.24.0rc1", False),  # pre-releases count, in both directions
        ("5.22.9", True),
        ("5.23.0.dev0", True),
        ("5.25.0.dev0", True),
        ("6.0", True),
        ("main-with-changes", True),
    ],
)
def test_ends_of_ranges(installed, version, is_outside):
    installed["transformers"] = version
    (found,) = library_versions(["transformers"])
    assert found == env.LibraryVersion("transformers", version, ">=5.23,<5.25", is_outside)


def test_what_is_not_installed_is_not_outside(installed):
    (found,) = library_versions(["trl"])
    assert found == env.LibraryVersion("trl", None, ">=1.16,<1.17", False)
    assert format_library_versions([found]) == (
        "library  installed      tested\ntrl      not installed  >=1.16,<1.17\n"
    )


def test_installed_libraries_lie_inside_of_the_stated_ranges():
    found = {version.name: version for version in library_versions()}
    if found["transformers"].tested is None:
        pytest.skip("the package is not installed in this environment")
    assert re.fullmatch(r">=[\d.]+,<[\d.]+", found["transformers"].tested)
    assert found["torch"].tested.startswith(">=")


def test_accelerators_by_name(capsys, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ("NVIDIA H200", "NVIDIA L4")[index])
    facts, _ = read_env(capsys)
    assert facts["torch build"] == "CUDA 12.8"
    assert facts["devices"] == "cuda:0 NVIDIA H200, cuda:1 NVIDIA L4"


def test_a_machine_without_accelerator(capsys, monkeypatch):
    for build in ("cuda", "hip"):
        monkeypatch.setattr(torch.version, build, None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    facts, _ = read_env(capsys)
    assert (facts["torch build"], facts["devices"]) == ("CPU", "none")


def test_what_cannot_be_found_out(capsys, monkeypatch):
    def refuse(_name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(env.os, "sysconf", refuse)
    monkeypatch.setattr(env.os, "cpu_count", lambda: None)
    monkeypatch.setattr(env, "av", None)
    facts, _ = read_env(capsys)
    assert (facts["memory"], facts["processors"], facts["ffmpeg"]) == ("unknown", "unknown", "PyAV is not installed")


def test_processors_that_may_not_be_used(capsys, monkeypatch):
    monkeypatch.setattr(env.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(env.os, "sched_getaffinity", lambda _pid: {0, 3}, raising=False)
    facts, _ = read_env(capsys)
    assert facts["processors"] == "64, of which 2 may be used"


def test_flags_are_those_of_every_command(capsys):
    assert main(["env", "--debug"]) == 0
    assert capsys.readouterr().out.startswith("transformers-videorefer  ")
    assert main(["env", "torch"]) == 2
    assert "unrecognized arguments: torch" in capsys.readouterr().err
