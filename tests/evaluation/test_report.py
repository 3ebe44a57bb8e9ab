from typing import Any

from transformers_videorefer.evaluation.published_results import PUBLISHED_ROWS
from transformers_videorefer.evaluation.report import format_results, format_score, format_table


RESULTS: dict[str, Any] = {
    "bench": "hc-stvg",
    "model": {"name": "someone/model", "revision": "abc", "fingerprint": None},
    "data": {"name": "test.json", "num_samples": 30, "fingerprint": "123"},
    "settings": {"mode": "multi", "num_frames": 8},
    "code": {"version": "1.0", "commit": None},
    "versions": {"torch": "2.6"},
    "hardware": {"device": "cpu", "num_processes": 2},
    "date": "2026-01-01",
    "scores": {
        "BLEU@4": {"value": 0.1654, "interval": None, "num_samples": 30, "num_videos": 30},
        "CIDEr": {"value": 0.686, "interval": [0.61, 0.75], "num_samples": 30, "num_videos": 30},
    },
    "details": {"num_samples": 30, "num_failed": 12, "tokenizer": "ptb"},
    "failures": [{"index": index, "id": f"v{index}", "error": "gone"} for index in range(12)],
}


def test_scores_are_percent_or_points() -> None:
    assert format_score("accuracy", {"value": 0.7189, "interval": [0.691, 0.7456]}) == "71.9 [69.1, 74.6]"
    assert format_score("average", {"value": 3.424, "interval": [3.3, 3.55]}) == "3.42 [3.30, 3.55]"
    assert format_score("METEOR", {"value": 0.187, "interval": None}) == "18.7"


def test_bars_in_cells_do_not_break_tables() -> None:
    assert format_table(["a", "b"], [["1|2", "3"]]) == ["| a | b |", "|---|---|", "| 1\\|2 | 3 |"]


def test_a_document_tells_everything() -> None:
    text = format_results(RESULTS)
    assert "| **this run** | multi | **16.5** | **68.6 [61.0, 75.0]** | measured here |" in text
    assert "| VideoRefer-7B | - | 16.5 | 68.6 | published by others |" in text
    assert "BLEU@4: no mean over samples, so no interval." in text
    assert "were not measured here" in text
    assert text.count(": gone") == 10
    assert "- and 2 more, see results.json" in text
    for line in ("revision abc", "fingerprint 123", "num_frames 8", "commit unknown (no git checkout)", "torch 2.6"):
        assert line in text


def test_one_is_no_plural() -> None:
    details = {"num_samples": 1, "num_failed": 0, "num_unanswered": 1, "num_unscored": 1, "average_scored": None}
    data = {**RESULTS["data"], "num_samples": 1}
    text = format_results({**RESULTS, "details": details, "data": data, "failures": []})
    assert "\n1 sample; 0 could not be read or answered (each counts 0); 1 answer without a letter " in text
    assert "; 1 description without a readable score (counted as 0).\n" in text
    assert "test.json, 1 sample, fingerprint" in text
    assert "30 samples; 12 could not be read or answered (each counts 0).\n" in format_results(RESULTS)


def test_cider_is_explained_where_it_stands() -> None:
    assert "Shares and caption metrics in percent (CIDEr x 100). " in format_results(RESULTS)
    scores = {name: entry for name, entry in RESULTS["scores"].items() if name != "CIDEr"}
    text = format_results({**RESULTS, "scores": scores})
    assert "Shares and caption metrics in percent. " in text
    assert "CIDEr" not in text


def test_judged_runs_name_judge_and_unscored_samples() -> None:
    scores = {"average": {"value": 3.0, "interval": [2.9, 3.1], "num_samples": 30, "num_videos": 30}}
    details = {"num_samples": 30, "num_failed": 0, "num_unscored": 2, "average_scored": 3.21, "judge": "j-2024-01-01"}
    text = format_results({**RESULTS, "bench": "bench-d", "scores": scores, "details": details, "failures": []})
    assert "2 descriptions without a readable score (counted as 0)" in text
    assert "Average of the scored ones alone: 3.21." in text
    assert "Judge: j-2024-01-01." in text
    assert "| GPT-4o | multi | 3.25 | published by others |" in text


def test_published_averages_follow_from_their_dimensions() -> None:
    for row in PUBLISHED_ROWS["bench-d"]:
        dimensions = [row.scores[name] for name in ("SC", "AD", "TD", "HD") if name in row.scores]
        if dimensions:
            assert abs(sum(dimensions) / 4 - row.scores["average"]) < 0.006
