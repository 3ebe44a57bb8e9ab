"""`videorefer eval`: the recorded predictions of the released scripts, and whole runs of the tiny checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PUBLISHED, REFERENCE, load_json
from eval_helpers import JudgeServer, own_cache, read_json_lines
from stderr_lines import without_slow_steps

from transformers_videorefer.cli import main
from transformers_videorefer.commands import eval_bench, eval_score
from transformers_videorefer.evaluation.benchmarking import sole_run


pytest.importorskip("evaluate")
ROOT = Path(__file__).parents[2]
DATA = {bench: str(REFERENCE / "annotations" / f"{bench.replace('-', '_')}.json") for bench in ("bench-q", "bench-d")}
MODEL = ["--model", str(PUBLISHED), "--videos", str(REFERENCE / "media"), "--num-workers", "0", "--batch-size", "2"]
SPECIAL = ("<region>", "<video>", "<image>")
CLIPS_OF_CARD = 200


@pytest.fixture(autouse=True)
def _own_cache(library_settings: None) -> Iterator[None]:
    """Keep metric modules in a cache of their own."""
    with own_cache():
        yield


def evaluate(capsys: pytest.CaptureFixture, *arguments: Any) -> str:
    code = main(["eval", *map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def fail(capsys: pytest.CaptureFixture, *arguments: Any) -> str:
    assert main(["eval", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def recorded(run: str) -> list[str]:
    """Return recorded predictions without special tokens, which the released scripts' slow tokenizer leaves in."""
    answers = [record["pred"] for record in load_json("bench/inference.json")[run]["records_written"]]
    for mark in SPECIAL:
        answers = [answer.replace(mark, "") for answer in answers]
    return [answer.strip() for answer in answers]


@pytest.mark.parametrize("mode", ["single", "multi"])
@pytest.mark.parametrize("bench", ["bench-q", "bench-d"])
def test_predictions_of_the_released_scripts(
    bench: str, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = evaluate(
        capsys, bench, *MODEL, "--data", DATA[bench], "--preset", "published", "--mode", mode,
        "--max-new-tokens", 12, "--no-judge", "--output", tmp_path / "run",
    )  # fmt: skip
    lines = read_json_lines(tmp_path / "run" / "predictions.jsonl")
    assert [line["prediction"] for line in lines] == recorded(f"{bench[-1]}_{mode}")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    expected = {"num_frames": 8, "empty_masks": "keep", "edit_list": "ignore", "repetition_penalty": 1.05}
    assert expected.items() <= settings.items()
    assert table == (tmp_path / "run" / "results.md").read_text()
    assert (tmp_path / "run" / "results.png").exists() == (bench == "bench-q")


def test_without_the_preset_a_surplus_object_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["bench-q", *MODEL, "--data", DATA["bench-q"], "--max-new-tokens", 4, "--output", tmp_path / "run"]
    evaluate(capsys, *arguments)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [failure["index"] for failure in results["failures"]] == [2]
    assert "1 objects but 0 `<region>` marks" in results["failures"][0]["error"]
    assert results["scores"]["Future Predictions"]["value"] == 0.0
    assert results["scores"]["accuracy"]["num_samples"] == 3
    assert str(REFERENCE) not in (tmp_path / "run" / "results.json").read_text()
    error = fail(capsys, *arguments, "--num-frames", 8)
    assert "settings.num_frames 16 (now 8)" in error


def test_missing_videos_are_errors_without_the_places_of_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    records = load_json("annotations/bench_q.json")[:2]
    records[0]["video"] = "gone.mp4"
    (tmp_path / "q.json").write_text(json.dumps(records))
    output = tmp_path / "run"
    evaluate(
        capsys, "bench-q", *MODEL, "--num-workers", 1, "--data", tmp_path / "q.json", "--max-new-tokens", 4,
        "--output", output,
    )  # fmt: skip
    first, second = read_json_lines(output / "predictions.jsonl")
    assert first["error"].startswith("Row '0': There is no video gone.mp4.")
    assert second["prediction"]


def judge_script(prediction: str, num_before: int) -> str:
    return json.dumps({"SC": 5, "AD": 3, "TD": 2, "HD": 2}) if num_before == 0 else "asked twice"


def test_descriptions_are_judged_later_and_only_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    output = tmp_path / "run"
    common = ["bench-d", *MODEL, "--data", DATA["bench-d"], "--max-new-tokens", 4, "--output", output]
    assert "--judge-model" in fail(capsys, *common)
    assert "Not scored yet" in evaluate(capsys, *common, "--no-judge")
    assert "--judge-model" in fail(capsys, "score", output)
    with JudgeServer(judge_script) as server:
        flags = ["--judge-model", "judge-2024-01-01", "--judge-base-url", server.url]
        table = evaluate(capsys, "score", output, *flags)
        num_requests = len(server.requests)
        assert 1 <= num_requests <= 2
        assert evaluate(capsys, *common, *flags).splitlines()[2:5] == table.splitlines()[2:5]
        assert len(server.requests) == num_requests
    assert "**5.00 [5.00, 5.00]** | **3.00 [3.00, 3.00]** | **2.00" in table
    results = json.loads((output / "results.json").read_text())
    assert results["scores"]["average"]["value"] == 3.0
    assert results["details"]["usage"]["num_cached"] == 2


def without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a judge that is not there fail at once; the pauses before that are those of the metric's own tests."""
    options = eval_score.judge_options
    for command in (eval_bench, eval_score):
        monkeypatch.setattr(
            command, "judge_options", lambda *given: (one := options(*given)) and one | {"max_retries": 0}
        )


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("failure", ["not there", "wrong key", "nonsense"])
def test_a_judge_that_fails_costs_neither_answers_nor_earlier_scores(
    failure: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    without_retries(monkeypatch)
    output = tmp_path / "run"
    common = ["bench-d", *MODEL, "--data", DATA["bench-d"], "--max-new-tokens", 4, "--output", output]
    replies = {"wrong key": {"status": 401, "error": {"message": "no\nsuch key"}}, "nonsense": "I would rather not."}
    with JudgeServer(lambda prediction, num_before: replies.get(failure, {})) as server:
        url = "http://127.0.0.1:1/v1" if failure == "not there" else server.url
        wrong = ["--judge-model", "judge-2024-01-01", "--judge-base-url", url]

        def not_judged(*arguments: Any) -> str:
            assert main(["eval", *map(str, arguments)]) == 1
            captured = capsys.readouterr()
            assert captured.out == ""
            error = without_slow_steps(captured.err)
            assert error.startswith("videorefer: error: The judge ")
            assert error.endswith(f"score them with `videorefer eval score {output} --judge-model ...`.\n")
            return error

        reason = {"not there": "APIConnectionError", "wrong key": "refuses requests", "nonsense": "holds neither"}
        for arguments in ([*common, *wrong], ["score", output, *wrong]):
            error = not_judged(*arguments)
            assert reason[failure] in error
            assert error.count("\n") == 1
            assert files_of(output).keys() == {"run.json", "predictions.jsonl", "results.json", "results.md"}
            assert "Not scored yet" in (output / "results.md").read_text()
            assert json.loads((output / "results.json").read_text())["scores"] == {}
        with JudgeServer(judge_script) as working:
            flags = ["--judge-model", "judge-2024-01-01", "--judge-base-url", working.url]
            assert "**3.00 [3.00, 3.00]**" in evaluate(capsys, "score", output, *flags)
        scored = files_of(output)
        assert {"scores.jsonl", "results.png"} <= scored.keys()
        for arguments in ([*common, *wrong], ["score", output, *wrong]):
            not_judged(*arguments)
            assert files_of(output) == scored
    assert "Not scored yet" in evaluate(capsys, *common, "--no-judge")
    assert files_of(output).keys() == {"run.json", "predictions.jsonl", "results.json", "results.md"}
    assert f"{output} is not scored. Score it" in fail(capsys, "compare", output, output)


def test_two_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, mode in (("a", "single"), ("b", "multi")):
        flags = ["--preset", "published", "--max-new-tokens", 12, "--mode", mode, "--output", tmp_path / name]
        evaluate(capsys, "bench-q", *MODEL, "--data", DATA["bench-q"], *flags)
    assert "Settings that differ: mode: A single, B multi." in evaluate(
        capsys, "compare", tmp_path / "a", tmp_path / "b"
    )
    found = json.loads(evaluate(capsys, "compare", "--json", tmp_path / "a", tmp_path / "b"))
    assert found["scores"]["accuracy"]["num_samples"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench-q", "--model", "m", "--output", "o"], "--data is missing"),
        (["bench-q", "--model", "m", "--output", "o", "--data", "d"], "--videos is missing"),
        (["bench-q", "--model", "m", "--output", "o", "--data", "d", "--videos", "none"], "no such folder"),
        (
            ["bench-q", "--model", "m", "--output", "o", "--data", "d", "--videos", ".", "--open-questions"],
            "no effect",
        ),
        (["synthetic", "--model", "m", "--output", "o", "--data", "d"], "synthetic makes its own data"),
        (["synthetic", "--model", "m", "--output", "o", "--batch-size", "0"], "`--batch-size 0`: pass at least 1"),
        (["synthetic", "--model", "m", "--output", "o", "--judge-base-url", "u"], "without --judge-model"),
        (["synthetic", "--model", "m", "--output", "o", "--no-judge", "--judge-model", "j"], "exclude each other"),
        (["synthetic", "--model", "m", "--output", "o", "--num-frames", "0"], "`num_frames` is 0"),
        (["synthetic", "--model", "m", "--output", "o", "--num-region-frames", "x"], "neither a number nor `all`"),
        (["synthetic", "--model", "m", "--output", "o", "--num-clips", "0"], "`--num-clips 0`: pass at least 1"),
        (["compare", "a", "b"], "has no results.json"),
        (["score", "a"], "holds no run"),
        (["bench-x"], "invalid choice"),
    ],
)
def test_wrong_flags_are_explained(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fail(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_found_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model", "no/such/folder", "--videos", tmp_path, "--data", "none.json", "--output", tmp_path / "run"]
    assert "`--device warp`: torch cannot use it" in fail(capsys, "bench-q", *flags, "--device", "warp")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--model", "no/such/folder", "--videos", tmp_path, "--data", "none.json", "--output", tmp_path / "run"]
    with sole_run(tmp_path / "run"):
        error = fail(capsys, "bench-q", *flags)
        (tmp_path / "run" / "run.json").write_text('{"bench": "bench-q"}')
        (tmp_path / "run" / "predictions.jsonl").write_text("")
        scoring_error = fail(capsys, "score", tmp_path / "run")
    assert f"{tmp_path}/run is in use by process {os.getpid()} on " in error
    assert f"{tmp_path}/run is in use by process {os.getpid()} on " in scoring_error
    assert "none.json" in fail(capsys, "bench-q", *flags)


def test_the_synthetic_bench_needs_nothing_but_a_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "run"
    flags = ["--model", "tiny", "--num-clips", 1, "--num-workers", 0, "--max-new-tokens", 8, "--output", output]
    table = evaluate(capsys, "synthetic", *flags)
    lines = read_json_lines(output / "predictions.jsonl")
    assert {line["form"] for line in lines} == {"question", "description"}
    assert all(line["prediction"] for line in lines)
    assert "# Synthetic bench: videorefer-tiny" in table
    assert sorted(path.name for path in output.iterdir()) == [
        "clips", "predictions.jsonl", "results.json", "results.md", "results.png", "run.json", "scores.jsonl",
    ]  # fmt: skip


def test_the_miniature_answers_open_questions_as_its_card_says(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The card: 94.6 to 100 % of the open questions of each kind are answered word for word."""
    flags = ["--model", "tiny", "--num-clips", 2, "--open-questions", "--num-workers", 0, "--max-new-tokens", 24]
    table = evaluate(capsys, "synthetic", *flags, "--output", tmp_path / "run")
    entry = json.loads((tmp_path / "run" / "results.json").read_text())["scores"]["exact_open"]
    assert entry["num_samples"] > 20
    assert entry["value"] > 0.9
    assert f"open questions, exact (n={entry['num_samples']})" in table


def test_people_in_tubes_are_captioned(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("pycocoevalcap")
    entry = {"bbox": [[10, 10, 30, 40]] * 5, "st_frame": 3, "img_num": 40, "height": 64, "width": 96}
    entries = {"clip.mp4": {**entry, "caption": "He walks."}, "gone.mp4": {**entry, "caption": "He sits."}}
    (tmp_path / "test.json").write_text(json.dumps(entries))
    flags = ["--max-new-tokens", 4, "--caption-metrics", "BLEU@4", "ROUGE_L", "--caption-tokenizer", "regex"]
    table = evaluate(
        capsys, "hc-stvg", *MODEL, "--data", tmp_path / "test.json", *flags, "--output", tmp_path / "run"
    )  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["details"] == {"num_samples": 2, "num_failed": 1, "tokenizer": "regex"}
    assert results["scores"].keys() == {"BLEU@4", "ROUGE_L"}
    assert "| VideoRefer-7B | - | 16.5 | 42.4 | published by others |" in table


@pytest.mark.parametrize("control", ["text-only", "no-region"])
def test_controls_answer_the_same_samples(control: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--preset", "published", "--max-new-tokens", 4, "--control", control, "--output", tmp_path / "run"]
    table = evaluate(capsys, "bench-q", *MODEL, "--data", DATA["bench-q"], *flags)
    assert [line["index"] for line in read_json_lines(tmp_path / "run" / "predictions.jsonl")] == [0, 1, 2]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["failures"] == []
    assert f"control {control}" in table


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_another_architecture_is_shown_outlines(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from other_models import llava_onevision

    other = (*llava_onevision(), {"name": "llava", "revision": None, "fingerprint": "0"})
    monkeypatch.setattr(eval_bench, "load_checkpoint", lambda arguments, ranks: other)
    flags = ["--data", DATA["bench-q"], "--preset", "published", "--max-new-tokens", 4, "--mode", mode]
    table = evaluate(capsys, "bench-q", *MODEL, *flags, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["failures"] == []
    assert len(read_json_lines(tmp_path / "run" / "predictions.jsonl")) == 3
    settings = results["settings"]
    assert (settings["method"], settings["num_frames"]) == ("outlines", 1 if mode == "single" else 16)
    assert "# VideoRefer-Bench-Q: llava" in table


def start(*arguments: Any, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    script = str(ROOT / "examples" / "evaluate_bench.py")
    command = [sys.executable, *launcher, script, "synthetic", "--model", "tiny", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_shared_and_undisturbed_runs_agree(tmp_path: Path) -> None:
    flags = ["--num-clips", 3, "--batch-size", 3, "--num-workers", 1, "--device", "cpu", "--mode", "multi"]
    undisturbed = start(*flags, "--output", tmp_path / "one")
    assert undisturbed.wait(300) == 0, undisturbed.stderr.read()

    killed = start(*flags, "--output", tmp_path / "two")
    part = tmp_path / "two" / "predictions.rank-00000.jsonl"
    deadline = time.monotonic() + 300
    while not part.exists() or part.read_bytes().count(b"\n") < 4:
        assert killed.poll() is None, killed.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    num_kept = part.read_bytes().count(b"\n")
    part.write_bytes(part.read_bytes() + b'{"index": 9, "predict')  # what a kill in the middle of a line leaves
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    resumed = start(*flags, "--output", tmp_path / "two", launcher=torchrun)
    assert resumed.wait(300) == 0, resumed.stderr.read()

    expected = (tmp_path / "one" / "predictions.jsonl").read_bytes()
    assert 4 <= num_kept < expected.count(b"\n")
    assert (tmp_path / "two" / "predictions.jsonl").read_bytes() == expected
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert results[0]["scores"] == results[1]["scores"]
    assert [result["hardware"]["num_processes"] for result in results] == [1, 2]


@pytest.mark.slow
def test_accuracies_of_the_miniature_are_those_of_its_card(tmp_path: Path) -> None:
    """The card lists multiple choice by topic, two questions of each of 200 test clips: numbers of right answers."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from transformers_videorefer.bundled import TINY_CHECKPOINT
    from transformers_videorefer.data import bench_q_rows, iterate_clips, write_clip
    from transformers_videorefer.evaluation import VideoReferAnswerer
    from transformers_videorefer.evaluation.benches import BenchSamples, Sample
    from transformers_videorefer.evaluation.benchmarking import answer_bench
    from transformers_videorefer.evaluation.scoring import score_run

    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from tiny_evaluation import draw_questions
    finally:
        sys.path.pop(0)
    samples = []
    for clip in iterate_clips("test", CLIPS_OF_CARD):
        write_clip(clip, tmp_path / "clips")
        drawn = {f"{clip.scene.seed:08d}-{position:03d}" for position in draw_questions(clip)}
        samples += [Sample(row) for row in bench_q_rows(clip) if row["id"] in drawn]
    model = AutoModelForImageTextToText.from_pretrained(TINY_CHECKPOINT).eval()
    answerer = VideoReferAnswerer(
        model, AutoProcessor.from_pretrained(TINY_CHECKPOINT), data_root=tmp_path / "clips", max_new_tokens=24
    )
    lines = answer_bench(answerer, BenchSamples("bench-q", "card", samples), tmp_path / "run", {}, batch_size=8)
    scores = score_run("bench-q", lines).values
    right = {
        name: (round(entry["value"] * entry["num_samples"]), entry["num_samples"]) for name, entry in scores.items()
    }
    assert right == {
        "Basic Questions": (9 + 16, 50 + 77),  # color 18.0 % of 50, shape 20.8 % of 77
        "Sequential Questions": (16, 40),  # motion 40.0 %
        "Relationship Questions": (8 + 28 + 16 + 32, 13 + 60 + 35 + 60),  # faster, horizontal, larger, vertical
        "Reasoning Questions": (2, 7),  # race 28.6 %
        "Future Predictions": (22, 58),  # next 37.9 %
        "accuracy": (149, 400),  # 37.2 %
        "accuracy_strict": (149, 400),
    }
