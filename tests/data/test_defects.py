import json
import pickle
from pathlib import Path

import pytest

from transformers_videorefer.data.defects import (
    DEFECT_KINDS,
    HARMLESS_KINDS,
    Defect,
    DefectReport,
    RecordError,
    check_bad_rows,
    describe,
    make_defect,
)


def test_the_three_policies_are_known() -> None:
    for policy in ("raise", "skip", "keep"):
        check_bad_rows(policy)
    with pytest.raises(ValueError, match="`bad_rows` must be one of 'raise', 'skip', 'keep', got 'drop'"):
        check_bad_rows("drop")


def test_kinds_that_do_not_hinder_a_row_are_harmless() -> None:
    assert HARMLESS_KINDS < DEFECT_KINDS.keys()
    assert not make_defect("empty_answer", "x").is_fatal
    assert make_defect("broken_rle", "x") == Defect("broken_rle", "x", True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "'a'"),
        (None, "None"),
        (True, "True"),
        (float("nan"), "nan"),
        ([1, 2], "a list of 2"),
        ({}, "a dict of 0"),
        (object(), "a value of type object"),
    ],
)
def test_values_of_any_kind_are_named(value: object, expected: str) -> None:
    assert describe(value) == expected


def test_numbers_that_python_refuses_to_print_are_named() -> None:
    assert describe(10**5000) == "a number of more than 80 digits"


def test_long_texts_are_cut() -> None:
    assert len(describe("x" * 10**6)) == 80
    assert describe("x" * 10**6).endswith("...")


def test_the_error_names_place_reasons_and_remedy_and_survives_pickling() -> None:
    defects = [make_defect("broken_rle", f"reason {number}") for number in range(7)]
    error = RecordError(defects, where="train.json, byte 12", hint="Mend it.")
    expected = "train.json, byte 12: reason 0; reason 1; reason 2; reason 3; reason 4; and 2 more. Mend it."
    assert str(error) == expected
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.defects) == (expected, defects)


def test_the_report_counts_and_keeps_few_examples() -> None:
    report = DefectReport()
    for number in range(9):
        report.num_rows += 1
        report.add([make_defect("empty_answer", "answer 1 is empty")], where=f"byte {number}")
    report.add([make_defect("broken_rle", "cut")], where="byte 9")
    report.skip([make_defect("broken_rle", "cut"), make_defect("empty_answer", "e")], position=9, row_id="7", file="f")
    assert report.counts == {"empty_answer": 9, "broken_rle": 1}
    assert report.examples["empty_answer"] == [f"byte {number}: answer 1 is empty" for number in range(5)]
    reasons = [{"kind": "broken_rle", "message": "cut"}]
    assert report.skipped == [{"file": "f", "position": 9, "id": "7", "reasons": reasons}]
    lines = report.summary().splitlines()
    assert lines[0] == "9 rows read, 1 skipped, 10 defects"
    assert lines[1].split() == ["9", "empty_answer:", "an", "answer", "is", "empty"]
    assert lines[2].strip() == "e.g. byte 0: answer 1 is empty"
    assert json.loads(json.dumps(report.to_dict()))["skipped"] == report.skipped


def test_many_skips_go_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_text("old\n")
    report = DefectReport(path)
    defects = [make_defect("broken_rle", "cut")]
    for position in range(2500):
        report.skip(defects, position=position)
        assert len(report._skipped) < 1000
    assert [entry["position"] for entry in report.iterate_skipped()] == list(range(2500))
    assert len(path.read_text().splitlines()) == report.num_skipped == 2500
    assert report.to_dict()["skipped"] == "skipped.jsonl"


@pytest.mark.parametrize("with_file", [False, True])
def test_reports_of_processes_are_merged(tmp_path: Path, with_file: bool) -> None:
    parts = []
    for number in range(2):
        part = DefectReport(tmp_path / f"part{number}.jsonl" if with_file else None)
        part.num_rows = 10
        part.add([make_defect("broken_rle", str(number))] * 4, where="x")
        part.skip([make_defect("broken_rle", str(number))], position=number)
        parts.append(pickle.loads(pickle.dumps(part)))
    whole = DefectReport(tmp_path / "whole.jsonl" if with_file else None)
    for part in parts:
        whole.merge(part)
    assert (whole.num_rows, whole.num_skipped, whole.counts) == (20, 2, {"broken_rle": 8})
    assert whole.examples == {"broken_rle": ["x: 0"] * 4 + ["x: 1"]}
    assert [entry["position"] for entry in whole.skipped] == [0, 1]
