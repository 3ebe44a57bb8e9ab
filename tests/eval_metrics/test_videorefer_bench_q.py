"""Accuracy on Bench-Q: both ways of reading letters, counts, order, empty input, several processes."""

import multiprocessing
import random

import pytest
from conftest import load_json
from metric_modules import load_metric, sibling


# The strict reading of the answers that the published scorer was recorded on, worked out by hand: "?" where several
# letters are named, "" where none is.
STRICT_ANSWERS = "A B B B B B B C C ? | | ? D D D D D D D A A A A A B A D | | | A | | ? ? A A".replace(
    "|", "-"
).split()
BASIC = "Basic Questions"


@pytest.fixture
def metric():
    return load_metric("videorefer_bench_q")


@pytest.fixture(scope="module")
def recorded():
    return load_json("metrics/scorers.json")["bench_q_results"]


def columns(records):
    return {
        "predictions": [record["pred"] for record in records],
        "references": [record["Answer"] for record in records],
        "types": [record["type"] for record in records],
    }


def test_published_mode_gives_every_recorded_letter_and_count(metric, recorded):
    records = recorded["per_record"]
    result = metric.compute(**columns(records), return_per_sample=True)
    for record, sample in zip(records, result["per_sample"], strict=True):
        assert (sample["answer"], sample["reference"]) == (record["answer_used"], record["gt_used"]), record
        assert sample["correct"] is record["correct"], record
    assert result["accuracy"] == 19 / 38
    assert result["num_samples"] == 38
    assert result["num_unanswered"] == 0
    assert result["num_ambiguous"] == 1  # "all of (B) and (A)", of which the first counts
    expected = {kind: right / total for kind, (right, total) in recorded["totals_right_all"].items()}
    assert result["accuracy_by_type"] == expected
    assert list(result["accuracy_by_type"]) == list(expected)  # in the order of the paper
    lines = recorded["aggregate"]["stdout"].splitlines()
    assert lines[-1] == f"accuracy:  {result['accuracy']}"


def test_accuracy_is_taken_over_questions_and_not_over_types(metric):
    references, types = ["(A) x"] * 4, [BASIC, "Other", "Other", "Other"]
    result = metric.compute(predictions=["A", "B", "B", "B"], references=references, types=types)
    assert result["accuracy"] == 0.25
    assert result["accuracy_by_type"] == {BASIC: 1.0, "Other": 0.0}


def test_answers_that_stop_the_published_scorer_count_as_wrong_and_unanswered(metric, recorded):
    stopping = [
        crash["record"]["pred"] for crash in recorded["crashes"] if crash["name"] in ("empty", "only_dot", "dots")
    ]
    assert len(stopping) == 3
    predictions = [*stopping, None, "A"]
    result = metric.compute(predictions=predictions, references=["(A) a"] * 5, types=[BASIC] * 5)
    assert (result["accuracy"], result["num_unanswered"], result["num_samples"]) == (0.2, 4, 5)


@pytest.mark.parametrize("mode", ["published", "strict"])
def test_no_questions_give_zero(metric, mode):
    result = metric.compute(predictions=[], references=[], types=[], mode=mode)
    assert result == {
        "accuracy": 0.0,
        "accuracy_by_type": {},
        "num_unanswered": 0,
        "num_ambiguous": 0,
        "num_samples": 0,
    }


def test_strict_mode_on_the_recorded_answers(metric, recorded):
    records = recorded["per_record"]
    result = metric.compute(**columns(records), mode="strict", return_per_sample=True)
    read = ["?" if s["is_ambiguous"] else s["answer"] or "-" for s in result["per_sample"]]
    assert read == STRICT_ANSWERS
    assert result["num_ambiguous"] == STRICT_ANSWERS.count("?")
    assert result["num_unanswered"] == STRICT_ANSWERS.count("-")
    # By hand: whatever is read is right (the reference "(A) (B)" counts as A).
    assert result["accuracy"] == (38 - 4 - STRICT_ANSWERS.count("-")) / 38


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("**D**", "D"),
        ("(b)", "B"),
        ("[ c ]", "C"),
        ("\n d.\n", "D"),
        ("b. a red car", "B"),
        ("B: yes", "B"),
        ("(B) A helmet", "B"),
        ("The answer is C.", "C"),
        ("**Answer:** (C)", "C"),
        ("answer: b", "B"),
        ("option c looks right", "C"),
        ("$\\boxed{B}$", "B"),
        ("A, because it is red", "A"),
        ("A is right", "A"),
        ("B because it is red", "B"),
        ("I think it's C", "C"),
        ("答案：B。", "B"),
        ("答案是B", "B"),
        ("(B) Vitamin C", "B"),
        ("I'd go with B", "B"),
        ("It is red, so B.", "B"),
    ],
)
def test_strict_mode_reads_one_letter(metric, text, letter):
    assert sibling(metric, "videorefer_bench_q").read_strict(text) == (letter, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "123",
        "A man is walking",
        "the answer is a helmet",
        "It is a",
        "USA) is",
        "a T-shirt",
        "the U.S. flag",
        "D's car",
        "e.g. a dog",
        "X",
        "Vitamin C",
        "It shows vitamin C.",
        "They follow plan B",
        "20 C",
        "(ABBA)",
    ],
)
def test_strict_mode_takes_words_for_no_letter(metric, text):
    assert sibling(metric, "videorefer_bench_q").read_strict(text) == (None, False)


@pytest.mark.parametrize(
    "text",
    ["(A) or (B)", "A and B", "A/B", "C is right, not (A)", "either (a) or (b)", "A\nB"]
    + ["(AB)", "(a, b)", "[C/D]", "AB", "BC.", "The answer is (BD)", "A, C", "both A and C"],
)
def test_strict_mode_counts_several_letters_as_wrong(metric, text):
    assert sibling(metric, "videorefer_bench_q").read_strict(text) == (None, True)
    result = metric.compute(predictions=[text], references=["(A) a"], types=[BASIC], mode="strict")
    assert (result["accuracy"], result["num_ambiguous"], result["num_unanswered"]) == (0.0, 1, 0)


def test_offered_letters_can_be_named(metric):
    answers = {"predictions": ["E", "N"], "references": ["(A) a", "(N) no"], "types": [BASIC] * 2, "mode": "strict"}
    # "E" is no option of four; the letter of a reference always is one.
    assert metric.compute(**answers, letters="ABCD")["num_unanswered"] == 1
    assert metric.compute(**answers)["num_unanswered"] == 0
    assert metric.compute(**answers)["accuracy"] == 0.5


def test_order_and_batches_do_not_matter(metric, recorded):
    records = list(recorded["per_record"])
    expected = metric.compute(**columns(records))
    random.Random(0).shuffle(records)
    for start in range(0, len(records), 7):
        metric.add_batch(**columns(records[start : start + 7]))
    assert metric.compute() == expected


def _second_process(records, folder):
    metric = load_metric("videorefer_bench_q", num_process=2, process_id=1, experiment_id="two", cache_dir=folder)
    metric.add_batch(**columns(records))
    assert metric.compute() is None


def test_two_processes_give_the_result_of_one(metric, recorded, tmp_path):
    records = recorded["per_record"]
    context = multiprocessing.get_context("fork")  # the child has everything imported
    child = context.Process(target=_second_process, args=(records[25:], str(tmp_path)))
    child.start()
    first = load_metric(
        "videorefer_bench_q", num_process=2, process_id=0, experiment_id="two", cache_dir=str(tmp_path)
    )
    first.add_batch(**columns(records[:25]))
    result = first.compute()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert result == metric.compute(**columns(records))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "lenient"}, "`mode` is 'lenient'. Use one of published, strict"),
        ({"letters": "1-4"}, "`letters` is '1-4'"),
        ({"references": ["a helmet"], "mode": "strict"}, r"`references\[0\]` is 'a helmet', which names no option"),
        ({"predictions": ["A", "B"]}, "Mismatch in the number|don't match the expected format"),
    ],
)
def test_wrong_arguments_are_refused(metric, change, reason):
    arguments = {"predictions": ["A"], "references": ["(A) a"], "types": [BASIC], **change}
    with pytest.raises(ValueError, match=reason):
        metric.compute(**arguments)
