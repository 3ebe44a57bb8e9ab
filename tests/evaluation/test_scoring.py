"""Scores of small made-up runs, worked out by hand."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from eval_helpers import TYPES, description_line, own_cache, question_line

from transformers_videorefer.evaluation import scoring
from transformers_videorefer.evaluation.scoring import JudgeError, check_metrics, load_metric, score_run


pytest.importorskip("evaluate")


@pytest.fixture(autouse=True)
def _metric_cache() -> Iterator[None]:
    with own_cache():
        yield


def test_questions_by_type_and_over_all() -> None:
    lines = [
        question_line(0, "(A)", video="a.mp4"),
        question_line(1, "A", video="b.mp4"),
        question_line(2, "(B)", video="c.mp4", kind=TYPES[1]),
        question_line(3, "An umbrella", video="d.mp4", kind=TYPES[1]),  # the released scorer reads the first letter
    ]
    scores = score_run("bench-q", lines)
    assert {name: entry["value"] for name, entry in scores.values.items()} == {
        TYPES[0]: 1.0,
        TYPES[1]: 0.5,
        "accuracy": 0.75,
        "accuracy_strict": 0.5,
    }
    # Four videos, three right: as in test_statistics.
    assert scores.values["accuracy"]["interval"] == [0.25, 1.0]
    assert scores.values[TYPES[0]]["interval"] == [1.0, 1.0]
    assert scores.values[TYPES[1]]["num_samples"] == 2
    assert scores.samples[3] == {"accuracy": 1.0, "accuracy_strict": 0.0}
    assert scores.details["num_unanswered"] == 0
    assert scores.details["num_unanswered_strict"] == 1


def test_failed_samples_are_wrong_and_stay_in_the_count() -> None:
    failed = [question_line(2, None), {**question_line(3, None), "reference": None, "type": "unknown"}]
    scores = score_run("bench-q", [question_line(0, "A"), question_line(1, "A"), *failed])
    assert scores.values["accuracy"]["value"] == scores.values["accuracy_strict"]["value"] == 0.5
    assert scores.values["unknown"]["value"] == 0.0
    assert scores.details["num_failed"] == 2
    assert scores.details["num_unanswered"] == 2


def judge(messages: list[dict[str, str]]) -> Any:
    """Give what the prediction says, or nothing that can be read."""
    prediction = json.loads(messages[-1]["content"])["prediction"]
    return prediction and json.loads(prediction)


def test_descriptions_by_a_judge() -> None:
    lines = [
        description_line(0, '{"SC": 5, "AD": 4, "TD": 3, "HD": 4}'),
        description_line(1, '{"SC": 1, "AD": 0, "TD": 1, "HD": 2}'),
        description_line(2, '"nothing"'),
        description_line(3, None),
    ]
    scores = score_run("bench-d", lines, judge={"judge": judge})
    values = {name: entry["value"] for name, entry in scores.values.items()}
    assert values == {"SC": 1.5, "AD": 1.0, "TD": 1.0, "HD": 1.5, "average": 1.25}
    assert scores.details["average_scored"] == 2.5
    assert scores.details["num_unscored"] == 1
    assert scores.details["unscored"][0]["index"] == 2
    assert scores.details["num_failed"] == 1
    assert scores.samples[3] == dict.fromkeys(("SC", "AD", "TD", "HD", "average"), 0.0)
    assert scores.values["SC"]["num_samples"] == 4


def test_failed_descriptions_are_not_sent_to_the_judge() -> None:
    asked = []
    score_run("bench-d", [description_line(0, None)], judge={"judge": asked.append})
    assert asked == []


def test_a_judge_that_scores_nothing_gives_no_zeros() -> None:
    lines = [description_line(0, '"nothing"'), description_line(1, '"no idea"'), description_line(2, None)]
    with pytest.raises(JudgeError, match="scored none of 2 descriptions. The last reason: the reply holds neither"):
        score_run("bench-d", lines, judge={"judge": judge})
    with pytest.raises(JudgeError, match="scored none of 1 description. "):
        score_run("bench-d", lines[1:], judge={"judge": judge})


def test_a_judge_that_is_not_there_gives_no_zeros() -> None:
    pytest.importorskip("openai")
    nobody = {"model": "judge-2024-01-01", "base_url": "http://127.0.0.1:1/v1", "max_retries": 0}
    with pytest.raises(JudgeError, match=r"scored none of 1 description.*APIConnectionError: Connection error\.$"):
        score_run("bench-d", [description_line(0, "A dog.")], judge=nobody)


def test_half_characters_do_not_make_a_run_unscorable() -> None:
    asked = []

    def remember(messages: list[dict[str, str]]) -> dict[str, int]:
        asked.append(json.loads(messages[-1]["content"]))
        return {"SC": 5, "AD": 4, "TD": 3, "HD": 4}

    lines = [description_line(0, "A dog \ud83d.", "\udc36 runs"), description_line(1, "A \ud83d\udc36.")]
    scores = score_run("bench-d", lines, judge={"judge": remember})
    assert scores.values["average"]["value"] == 4.0
    assert asked == [
        {"prediction": "A dog \ufffd.", "reference": "\ufffd runs"},
        {"prediction": "A \U0001f436.", "reference": "A dog."},
    ]
    question = question_line(0, "A \ud83d", kind="\ud83d") | {"reference": "(A) \ud83d"}
    assert score_run("bench-q", [question]).values["accuracy"]["value"] == 1.0


def test_half_characters_in_captions() -> None:
    pytest.importorskip("pycocoevalcap")
    lines = [description_line(0, "a dog \ud83d", "a dog \ud83d")]
    scores = score_run("hc-stvg", lines, caption_metrics=["ROUGE_L"], tokenizer="none")
    assert scores.values["ROUGE_L"]["value"] == 1.0


def test_descriptions_wait_for_a_judge() -> None:
    scores = score_run("bench-d", [description_line(0, "A cat."), description_line(1, None)])
    assert scores.values == {}
    assert scores.details == {"num_samples": 2, "num_failed": 1}


def test_the_synthetic_bench_compares_descriptions_letter_by_letter() -> None:
    lines = [
        question_line(0, "A"),
        description_line(1, "A dog."),
        description_line(2, "a dog"),
        description_line(3, None),
        description_line(4, "red") | {"form": "open question", "type": "basic", "reference": "red"},
        description_line(5, "Red") | {"form": "open question", "type": "basic", "reference": "red"},
    ]
    scores = score_run("synthetic", lines)
    assert scores.values["exact_open"]["value"] == 0.5
    assert scores.samples[4:] == [{"exact_open": 1.0}, {"exact_open": 0.0}]
    assert scores.values["exact_match"]["value"] == pytest.approx(1 / 3)
    assert scores.values["accuracy"] == {"value": 1.0, "interval": [1.0, 1.0], "num_samples": 1, "num_videos": 1}


def test_captions_by_the_standard_metrics() -> None:
    """ROUGE_L by hand: equal texts give 1; "a dog" of "a dog runs" has precision 1 and recall 2/3, beta 1.2."""
    pytest.importorskip("pycocoevalcap")
    lines = [description_line(0, "a dog runs", "a dog runs"), description_line(1, "a dog", "a dog runs")]
    scores = score_run("hc-stvg", lines, caption_metrics=["ROUGE_L", "BLEU@4"], tokenizer="none")
    second = (1 + 1.2**2) * 1 * (2 / 3) / (2 / 3 + 1.2**2 * 1)
    assert scores.values["ROUGE_L"]["value"] == pytest.approx((1 + second) / 2)
    assert scores.samples[1]["ROUGE_L"] == pytest.approx(second)
    assert scores.values["ROUGE_L"]["interval"] == pytest.approx([second, 1.0])
    assert scores.values["BLEU@4"]["interval"] is None
    assert math.isfinite(scores.values["BLEU@4"]["value"])
    assert scores.details["tokenizer"] == "none"


def test_failed_captions_stay_in_the_count() -> None:
    pytest.importorskip("pycocoevalcap")
    lines = [description_line(0, "a dog runs", "a dog runs"), description_line(1, None, "a dog runs")]
    scores = score_run("hc-stvg", lines, caption_metrics=["ROUGE_L"], tokenizer="none")
    assert scores.values["ROUGE_L"]["value"] == pytest.approx(0.5)


def test_what_scores_need_is_found_out_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    check_metrics("bench-q")
    monkeypatch.setattr(scoring, "_METRIC_FOLDERS", ())
    with pytest.raises(FileNotFoundError, match="The metric module videorefer_bench_q is not installed"):
        check_metrics("synthetic")
    monkeypatch.setitem(__import__("sys").modules, "evaluate", None)
    with pytest.raises(ImportError, match=r"pip install transformers-videorefer\[eval\]"):
        load_metric("videorefer_bench_q")


def test_missing_programs_of_caption_metrics_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ImportError, match="Java does not run here, but these need it: METEOR"):
        check_metrics("hc-stvg", ["METEOR"], "none")
    check_metrics("hc-stvg", ["ROUGE_L"], "none")
