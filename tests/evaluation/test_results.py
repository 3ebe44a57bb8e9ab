"""Files of made-up runs and their comparison, worked out by hand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_helpers import TYPES, description_line, own_cache, question_line, read_json_lines, write_run
from PIL import Image

from transformers_videorefer.evaluation.results import compare_runs, format_comparison, write_results
from transformers_videorefer.evaluation.scoring import score_run


pytest.importorskip("evaluate")
HARDWARE = {"device": "an abacus", "num_processes": 1}


@pytest.fixture(autouse=True)
def _metric_cache() -> Iterator[None]:
    with own_cache():
        yield


def scored_run(folder: Path, predictions: list[str | None], **settings: Any) -> Path:
    lines = [
        question_line(index, prediction, video=f"{index}.mp4", kind=TYPES[index % 2])
        for index, prediction in enumerate(predictions)
    ]
    write_run(folder, lines, **settings)
    write_results(folder, score_run("bench-q", lines), hardware=HARDWARE)
    return folder


def test_all_files_of_a_run(tmp_path: Path) -> None:
    folder = scored_run(tmp_path / "miniature", ["A", "A", "A", None])
    results = json.loads((folder / "results.json").read_text())
    assert results["scores"]["accuracy"] == {"value": 0.75, "interval": [0.25, 1.0], "num_samples": 4, "num_videos": 4}
    assert results["failures"] == [{"index": 3, "id": "3", "error": "the video is missing"}]
    assert results["hardware"] == HARDWARE
    assert {"torch", "transformers", "python"} <= results["versions"].keys()
    assert results["code"]["version"]
    table = (folder / "results.md").read_text()
    assert "**75.0 [25.0, 100.0]**" in table
    assert "| VideoRefer-7B | single | 75.4 | 68.6 | 71.9 | - | published by others |" in table
    assert "4 samples; 1 could not be read or answered (each counts 0)" in table
    assert "- sample 3 (id 3): the video is missing" in table
    assert read_json_lines(folder / "scores.jsonl")[3]["scores"] == {"accuracy": 0.0, "accuracy_strict": 0.0}
    with Image.open(folder / "results.png") as picture:
        assert picture.format == "PNG"
        assert picture.height == 960


def test_a_run_without_scores_says_so(tmp_path: Path) -> None:
    lines = [description_line(0, "A cat.")]
    write_run(tmp_path / "run", lines, bench="bench-d")
    write_results(tmp_path / "run", score_run("bench-d", lines), hardware=HARDWARE)
    assert "Not scored yet: `videorefer eval score" in (tmp_path / "run" / "results.md").read_text()
    assert not (tmp_path / "run" / "results.png").exists()
    with pytest.raises(ValueError, match="is not scored. Score it with `videorefer eval score"):
        compare_runs(tmp_path / "run", tmp_path / "run")


def test_scores_that_are_taken_back_leave_nothing_behind(tmp_path: Path) -> None:
    lines = [description_line(0, "A cat.")]
    judged = score_run("bench-d", lines, judge={"judge": lambda messages: {"SC": 1, "AD": 2, "TD": 3, "HD": 4}})
    for name in ("run", "other"):
        write_run(tmp_path / name, lines, bench="bench-d")
        write_results(tmp_path / name, judged, hardware=HARDWARE)
    assert compare_runs(tmp_path / "run", tmp_path / "other")["scores"]["average"]["values"] == [2.5, 2.5]
    left_over = (tmp_path / "run" / "scores.jsonl").read_text()
    write_results(tmp_path / "run", score_run("bench-d", lines))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "predictions.jsonl", "results.json", "results.md", "run.json",
    ]  # fmt: skip
    (tmp_path / "run" / "scores.jsonl").write_text(left_over)  # as an older version left it
    for pair in (("run", "other"), ("other", "run")):
        with pytest.raises(ValueError, match="run is not scored. Score it with `videorefer eval score .*run"):
            compare_runs(*(tmp_path / name for name in pair))


def test_half_characters_get_into_no_file(tmp_path: Path) -> None:
    lines = [question_line(0, "A"), {**question_line(1, None), "id": "\ud83d", "error": "no video \udc36"}]
    write_run(tmp_path / "run", lines)
    results = write_results(tmp_path / "run", score_run("bench-q", lines), hardware=HARDWARE)
    assert results["failures"] == [{"index": 1, "id": "\ufffd", "error": "no video \ufffd"}]
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert "- sample 1 (id \ufffd): no video \ufffd" in (tmp_path / "run" / "results.md").read_text()


def test_later_scores_keep_what_the_run_was_made_on(tmp_path: Path) -> None:
    lines = [description_line(0, "A cat.")]
    write_run(tmp_path / "run", lines, bench="bench-d")
    with pytest.raises(FileNotFoundError, match="has no results.json"):
        write_results(tmp_path / "run", score_run("bench-d", lines))
    write_results(tmp_path / "run", score_run("bench-d", lines), hardware=HARDWARE)
    scores = score_run("bench-d", lines, judge={"judge": lambda messages: {"SC": 1, "AD": 2, "TD": 3, "HD": 4}})
    results = write_results(tmp_path / "run", scores)
    assert results["hardware"] == HARDWARE
    assert results["scores"]["average"]["value"] == 2.5
    assert (
        "| VideoRefer-7B | multi | 4.44 | 3.27 | 3.10 | 3.04 | 3.46 |" in (tmp_path / "run" / "results.md").read_text()
    )


def test_two_runs_compared(tmp_path: Path) -> None:
    """Of ten questions A has two right, B nine of the others too: 1 against 8 differ, p = 2 (1 + 9) / 2^9."""
    first = scored_run(tmp_path / "a", ["A", "A"] + ["B"] * 8, num_frames=8)
    second = scored_run(tmp_path / "b", ["B", "A"] + ["A"] * 8, num_frames=16)
    comparison = compare_runs(first, second)
    entry = comparison["scores"]["accuracy"]
    assert entry["values"] == [0.2, 0.9]
    assert entry["difference"] == pytest.approx(0.7)
    expected = {"num_first_better": 1, "num_second_better": 8, "num_equal": 1, "p_value": 20 / 512}
    assert entry["sign_test"] == expected
    assert comparison["scores"][TYPES[1]]["values"] == [0.2, 1.0]
    assert list(comparison["scores"]) == [*TYPES, "accuracy", "accuracy_strict"]
    text = format_comparison(comparison)
    assert "| all | 10 | 20.0 | 90.0 | +70.0 [" in text
    assert "| 1 : 8 | 0.0391 |" in text
    assert "Settings that differ: num_frames: A 8, B 16." in text
    assert "# VideoRefer-Bench-Q: A = a (a), B = b (b)" in text


@pytest.mark.parametrize("num_videos", [19, 20])
def test_few_videos_are_told(tmp_path: Path, num_videos: int) -> None:
    lines = [question_line(index, "A", video=f"{index % num_videos}.mp4") for index in range(40)]
    for name in ("a", "b"):
        write_run(tmp_path / name, lines)
        write_results(tmp_path / name, score_run("bench-q", lines), hardware=HARDWARE)
    texts = [
        (tmp_path / "a" / "results.md").read_text(),
        format_comparison(compare_runs(tmp_path / "a", tmp_path / "b")),
    ]
    assert ["here as few as 19" in text for text in texts] == [num_videos == 19] * 2
    assert ["too narrow" in text for text in texts] == [num_videos == 19] * 2


def test_runs_on_other_samples_are_refused(tmp_path: Path) -> None:
    first = scored_run(tmp_path / "a", ["A", "A"])
    with pytest.raises(ValueError, match="a has 2 samples, .*b has 3"):
        compare_runs(first, scored_run(tmp_path / "b", ["A"] * 3))
    other = scored_run(tmp_path / "c", ["A", "A"])
    lines = read_json_lines(other / "predictions.jsonl")
    lines[1]["question"] = "Why?"
    (other / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="Sample 1 has another question in"):
        compare_runs(first, other)
    lines = [description_line(0, "A"), description_line(1, "B")]
    write_run(tmp_path / "d", lines, bench="synthetic")
    write_results(tmp_path / "d", score_run("synthetic", lines), hardware=HARDWARE)
    with pytest.raises(ValueError, match="is a run of bench-q, .* one of synthetic"):
        compare_runs(first, tmp_path / "d")
    with pytest.raises(FileNotFoundError, match="has no results.json"):
        compare_runs(first, tmp_path / "none")
