import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch

from transformers_videorefer.evaluation.provenance import (
    describe_code,
    describe_hardware,
    describe_model,
    describe_versions,
    git_commit,
    hub_commit,
)


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout


def test_a_folder_is_named_without_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "stage3"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    described = describe_model(str(folder), None)
    assert described["name"] == "stage3"
    assert described["revision"] is None
    assert describe_model(f"{folder}/", None) == described
    for name, content in (("model.safetensors", b"Weights"), ("config.json", b"{ }")):
        before = describe_model(str(folder), None)["fingerprint"]
        (folder / name).write_bytes(content)
        assert describe_model(str(folder), None)["fingerprint"] != before


def test_both_ends_of_large_files_count(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(3 << 20) + b"1")
    before = describe_model(str(tmp_path), None)["fingerprint"]
    (tmp_path / "model.safetensors").write_bytes(bytes(3 << 20) + b"2")
    assert describe_model(str(tmp_path), None)["fingerprint"] != before


def test_a_hub_id_is_named_with_its_commit() -> None:
    described = describe_model("someone/model", "abc")
    assert described == {"name": "someone/model", "revision": "abc", "fingerprint": None}


def test_the_commit_of_a_hub_model_is_read_from_the_cache(tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    repository = tmp_path / "models--someone--model"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert hub_commit("someone/model", cache_dir=tmp_path) == commit
    assert hub_commit("someone/other", cache_dir=tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    assert hub_commit(str(tmp_path)) is None


def test_commits_of_checkouts(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("a")
    assert git_commit(tmp_path) is None
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-q", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert git_commit(tmp_path) == commit
    (tmp_path / "untracked").mkdir()
    (tmp_path / "untracked" / "b.txt").write_text("b")
    assert git_commit(tmp_path) == commit
    assert git_commit(tmp_path / "untracked") is None
    (tmp_path / "a.txt").write_text("changed")
    assert git_commit(tmp_path) == f"{commit}+changes"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_code()["commit"] is None


def test_versions_and_hardware() -> None:
    assert describe_versions()["torch"] == metadata.version("torch")
    described = describe_hardware(torch.device("cpu"), 2)
    assert described["device"].startswith("cpu (")
    assert described["num_processes"] == 2
