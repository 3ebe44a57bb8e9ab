import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eval_helpers import ScriptedAnswerer, made_up_bench, read_json_lines

from transformers_videorefer.evaluation import benchmarking
from transformers_videorefer.evaluation.benchmarking import Ranks, answer_bench, read_run, sole_run
from transformers_videorefer.evaluation.journal import only_writer


SETTINGS = {"bench": "bench-q", "settings": {"num_frames": 8}}


def run(folder: Path, answerer: Any = None, bench: Any = None, **options: Any) -> Any:
    bench = made_up_bench() if bench is None else bench
    return answer_bench(answerer or ScriptedAnswerer(), bench, folder, SETTINGS, **{"batch_size": 2, **options})


class OneOf(Ranks):
    """One process of several, without the others."""

    def __init__(self, rank: int, num_processes: int):
        super().__init__()
        self._state = SimpleNamespace(
            process_index=rank, num_processes=num_processes, device=None, wait_for_everyone=lambda: None
        )


def test_lines_come_in_the_order_of_the_benchmark(tmp_path: Path) -> None:
    lines = run(tmp_path / "run")
    assert [line["index"] for line in lines] == list(range(6))
    assert lines[4]["prediction"] == "(A) q4"
    assert read_json_lines(tmp_path / "run" / "predictions.jsonl") == lines
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["predictions.jsonl", "run.json"]
    assert read_run(tmp_path / "run") == (SETTINGS, lines)


def test_a_run_that_stopped_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    undisturbed = ScriptedAnswerer()
    expected = run(tmp_path / "one", undisturbed)

    def stop(row: Any) -> str:
        if row["id"] == "q4":
            raise KeyboardInterrupt
        return f"(A) {row['id']}"

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two", ScriptedAnswerer(stop))
    part = tmp_path / "two" / "predictions.rank-00000.jsonl"
    assert [line["index"] for line in read_json_lines(part)] == [0, 3]
    # Killed in the middle of a batch, and of a line.
    part.write_bytes(part.read_bytes().splitlines(keepends=True)[0] + b'{"index": 3, "id": "q')
    again = ScriptedAnswerer()
    assert run(tmp_path / "two", again) == expected
    assert again.calls == undisturbed.calls  # q0 is asked again beside q3, but not written again
    nothing = ScriptedAnswerer()
    assert run(tmp_path / "two", nothing) == expected
    assert nothing.calls == []


def test_several_processes_share_the_batches(tmp_path: Path) -> None:
    expected = run(tmp_path / "one")
    answerers = [ScriptedAnswerer(), ScriptedAnswerer()]
    with pytest.raises(OSError, match="lacks the lines of 2 samples, the first being 1"):
        run(tmp_path / "two", answerers[0], ranks=OneOf(0, 2))
    (tmp_path / "other").mkdir()
    assert run(tmp_path / "other", answerers[1], ranks=OneOf(1, 2)) is None
    assert [answerer.calls for answerer in answerers] == [[["q0", "q3"], ["q2", "q5"]], [["q1", "q4"]]]
    part = "predictions.rank-00001.jsonl"
    (tmp_path / "other" / part).rename(tmp_path / "two" / part)
    assert run(tmp_path / "two", answerers[0], ranks=OneOf(0, 2)) == expected
    assert len(answerers[0].calls) == 2


def test_parts_of_more_processes_are_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(OSError, match="lacks the lines"):
        run(folder, ranks=OneOf(0, 3))
    (folder / "predictions.rank-00000.jsonl").rename(folder / "predictions.rank-00007.jsonl")
    answerer = ScriptedAnswerer()
    assert len(run(folder, answerer)) == 6
    assert len(answerer.calls) == 2


def test_errors_are_lines_without_the_places_of_this_machine(tmp_path: Path) -> None:
    def fail(row: Any) -> str:
        if row["id"] == "q1":
            raise OSError(f"There is no video {tmp_path}/videos/a.mp4.")
        return "(A)"

    lines = run(tmp_path / "run", ScriptedAnswerer(fail), made_up_bench(unreadable=[2]), hide=[tmp_path / "videos"])
    assert lines[1]["error"] == "There is no video a.mp4."
    assert lines[2]["error"] == "the record is broken"
    assert lines[2]["prediction"] is None
    assert sum(line["prediction"] == "(A)" for line in lines) == 4
    answerer = ScriptedAnswerer()
    run(tmp_path / "run", answerer, made_up_bench(unreadable=[2]))
    assert answerer.calls == []
    again = run(tmp_path / "run", answerer, made_up_bench(unreadable=[2]), retry_errors=True)
    assert again[1]["prediction"] == "(A) q1"
    assert again[2]["error"] == "the record is broken"
    assert again[0]["prediction"] == "(A)"


def test_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with sole_run(folder):
        with pytest.raises(ValueError, match=rf"run is in use by process {os.getpid()} on "), sole_run(folder):
            pass
        run(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.jsonl", "run.json"]
    with sole_run(folder):
        assert sorted(path.name for path in folder.iterdir())[-2:] == ["rank-00000.pid", "run.json"]


def test_processes_of_one_run_do_not_exclude_each_other(tmp_path: Path) -> None:
    with sole_run(tmp_path, OneOf(0, 2)), sole_run(tmp_path, OneOf(1, 2)):
        assert len(list(tmp_path.glob("*.lock"))) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_outlived_its_run_keeps_others_out(tmp_path: Path) -> None:
    with only_writer(tmp_path / "rank-00003.lock", tmp_path):
        with pytest.raises(ValueError, match="is in use by process"), sole_run(tmp_path):
            pass
        assert not (tmp_path / "rank-00000.lock").exists()
    (tmp_path / "rank-00003.lock").touch()  # left by one that was killed
    with sole_run(tmp_path):
        assert not (tmp_path / "rank-00003.lock").exists()


def test_processes_stop_when_their_launcher_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, alone = OneOf(0, 2), Ranks()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    answerer = ScriptedAnswerer()
    with pytest.raises(OSError, match="The launcher of process 0 has ended. What is answered so far is kept"):
        run(tmp_path / "run", answerer, ranks=ranks)
    assert answerer.calls == [["q0", "q3"]]
    assert len(read_json_lines(tmp_path / "run" / "predictions.rank-00000.jsonl")) == 2
    assert len(run(tmp_path / "run", ranks=alone)) == 6  # a shell that is closed ends nothing


def test_other_settings_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    other = {"bench": "bench-q", "settings": {"num_frames": 16}}
    with pytest.raises(ValueError, match=r"settings.num_frames 8 \(now 16\)"):
        answer_bench(ScriptedAnswerer(), made_up_bench(), tmp_path / "run", other)


def test_unfinished_runs_are_told_from_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="an unfinished run; start its command again"):
        read_run(tmp_path)


def test_one_process_needs_no_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarking, "PartialState", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks()
    ranks.wait()
    assert (ranks.rank, ranks.num_processes, ranks.device) == (0, 1, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError, match="pip install accelerate"):
        Ranks()
