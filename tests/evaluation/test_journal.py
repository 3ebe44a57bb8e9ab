import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from transformers_videorefer.evaluation import journal
from transformers_videorefer.evaluation.journal import (
    LineWriter,
    check_settings,
    drop_unfinished_line,
    only_writer,
    read_lines,
    to_text,
    write_whole,
)


def test_lines_are_in_the_file_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with LineWriter(path) as writer:
        writer.write({"index": 3, "answer": "ja\nnein é"})
        assert read_lines(path) == {3: {"index": 3, "answer": "ja\nnein é"}}
        writer.write({"index": 1})
    assert path.read_bytes().count(b"\n") == 2
    with LineWriter(path) as writer:
        writer.write({"index": 2})
    assert list(read_lines(path)) == [3, 1, 2]


def test_half_a_last_line_does_not_count_and_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"index": 0}\n{"index": 1, "answer": "hal')
    assert list(read_lines(path)) == [0]
    drop_unfinished_line(path)
    assert path.read_bytes() == b'{"index": 0}\n'
    drop_unfinished_line(path)
    assert path.read_bytes() == b'{"index": 0}\n'


@pytest.mark.parametrize("length", [1, 65535, 65536, 200_000])
def test_unfinished_lines_of_any_length_are_cut_off(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"index": 0}\n' + b"x" * length)
    drop_unfinished_line(path)
    assert path.read_bytes() == b'{"index": 0}\n'
    path.write_bytes(b"x" * length)
    drop_unfinished_line(path)
    assert path.read_bytes() == b""


HOLD = r"""
import os, runpy, sys, time
from pathlib import Path
only_writer = runpy.run_path(sys.argv[2])["only_writer"]  # the package would import torch
with only_writer(Path(sys.argv[1]), Path("there")):
    if os.fork() == 0:  # a loader worker, which outlives its parent for some seconds
        os.write(1, b"held\n")
        os.close(1)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked and killed")
def test_a_killed_process_with_workers_blocks_nobody(tmp_path: Path) -> None:
    lock = tmp_path / "made" / "run.lock"
    command = [sys.executable, "-c", HOLD, str(lock), journal.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            owner = (
                f"answers.jsonl is in use by process {other.pid} on {socket.gethostname()}. Wait until it has ended"
            )
            with pytest.raises(ValueError, match=re.escape(owner)), only_writer(lock, Path("answers.jsonl")):
                pass
            other.kill()
            other.wait()
            with only_writer(lock, Path("answers.jsonl")):
                assert lock.with_suffix(".pid").read_text().startswith(f"process {os.getpid()} ")
        finally:
            os.killpg(other.pid, signal.SIGKILL)
    assert list((tmp_path / "made").iterdir()) == []


def test_an_owner_without_a_name_is_another_process(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with only_writer(lock, tmp_path):
        lock.with_suffix(".pid").unlink()
        with pytest.raises(ValueError, match="is in use by another process"), only_writer(lock, tmp_path):
            pass


def test_missing_files_are_empty(tmp_path: Path) -> None:
    drop_unfinished_line(tmp_path / "none.jsonl")
    assert read_lines(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize("text", ["{broken}\n", "[1]\n", '{"id": 1}\n', '{"index": "0"}\n'])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"index": 0}\n' + text + '{"index": 2}\n')
    with pytest.raises(ValueError, match="lines.jsonl, line 2, is no line of a run"):
        read_lines(path)


def test_half_characters_are_written_as_escapes() -> None:
    assert json.loads(to_text({"id": "\ud800"})) == {"id": "\ud800"}
    to_text({"id": "\ud800"}).encode("utf-8")
    assert to_text({"id": "é"}) == '{"id": "é"}\n'


def test_whole_files_replace_old_ones(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "old")
    write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_equal_settings_go_on_and_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.json"
    settings = {"bench": "bench-q", "settings": {"num_frames": 8, "prices": (1, 2)}}
    check_settings(path, settings, what="--output")
    check_settings(path, settings, what="--output")
    other = {"bench": "bench-q", "settings": {"num_frames": 16, "prices": (1, 2)}, "limit": 3}
    with pytest.raises(
        ValueError, match=r"limit None \(now 3\), settings.num_frames 8 \(now 16\)\. .*another --output"
    ):
        check_settings(path, other, what="--output")
    path.write_text("no JSON")
    with pytest.raises(ValueError, match="holds no settings of a run"):
        check_settings(path, settings, what="--output")
