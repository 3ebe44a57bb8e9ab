from collections.abc import Sequence
from typing import Any

import pytest
import torch
from eval_helpers import ScriptedAnswerer, made_up_bench

from transformers_videorefer.evaluation.runner import Outcome, describe_error, iterate_answers, plan_batches


class PreparedAnswerer(ScriptedAnswerer):
    """Answers in two steps; preparing fails for some ids, answering for batches that hold others."""

    def __init__(self, unpreparable: Sequence[str] = (), unanswerable: Sequence[str] = ()):
        super().__init__()
        self.prepare = Preparation(unpreparable)
        self.unanswerable = unanswerable

    def __call__(self, rows: Sequence[Any]) -> list[str]:
        return self.answer(self.prepare(rows))

    def answer(self, inputs: list[str]) -> list[str]:
        self.calls.append(inputs)
        if set(inputs) & set(self.unanswerable):
            raise torch.OutOfMemoryError("too large")
        return [f"answer {name}" for name in inputs]


class Preparation:
    def __init__(self, unpreparable: Sequence[str]):
        self.unpreparable = unpreparable

    def __call__(self, rows: Sequence[Any]) -> list[str]:
        for row in rows:
            if row["id"] in self.unpreparable:
                raise OSError(f"There is no video of {row['id']}.")
        return [row["id"] for row in rows]


def run(answerer: Any, bench: Any, batch_size: int = 3, num_workers: int = 0) -> dict[int, Outcome]:
    batches = plan_batches(bench.groups(), batch_size)
    found = iterate_answers(answerer, bench, batches, num_workers=num_workers)
    return dict(pair for outcomes in found for pair in outcomes)


def test_rows_of_one_video_stand_together() -> None:
    assert plan_batches(["a", "b", "a", "c", "b", "a"], 2) == [[0, 2], [5, 1], [4, 3]]
    assert plan_batches(["a", "b"], 8) == [[0, 1]]
    assert plan_batches([], 2) == []
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        plan_batches(["a"], 0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_row_gets_its_answer(num_workers: int) -> None:
    expected = {index: Outcome(answer=f"answer q{index}") for index in range(6)}
    assert run(PreparedAnswerer(), made_up_bench(), num_workers=num_workers) == expected


def test_a_plain_callable_answers_too() -> None:
    answerer = ScriptedAnswerer()
    assert run(answerer, made_up_bench(4))[3] == Outcome(answer="(A) q3")
    assert answerer.calls == [["q0", "q3", "q1"], ["q2"]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_rows_give_errors_and_spare_the_others(num_workers: int) -> None:
    answerer = PreparedAnswerer(unpreparable=["q1"])
    outcomes = run(answerer, made_up_bench(6, unreadable=[4]), num_workers=num_workers)
    assert outcomes[1].error == "There is no video of q1."
    assert outcomes[4].error == "the record is broken"
    assert [index for index in sorted(outcomes) if outcomes[index].answer] == [0, 2, 3, 5]
    # Batches were planned with the bad rows: [0, 3, 1] and [4, 2, 5].
    assert answerer.calls == [["q0", "q3"], ["q2", "q5"]]


def test_a_batch_that_is_too_large_is_asked_row_by_row() -> None:
    answerer = PreparedAnswerer(unanswerable=["q3"])
    outcomes = run(answerer, made_up_bench(3 + 1))
    assert outcomes[3].error == "OutOfMemoryError: too large"
    assert [outcomes[index].answer for index in (0, 1, 2)] == ["answer q0", "answer q1", "answer q2"]
    assert answerer.calls == [["q0", "q3", "q1"], ["q0"], ["q3"], ["q1"], ["q2"]]


def test_a_plain_callable_that_fails_is_asked_row_by_row() -> None:
    def refuse(row: Any) -> str:
        if row["id"] == "q0":
            raise ValueError("this row is wrong")
        return "yes"

    outcomes = run(ScriptedAnswerer(refuse), made_up_bench(2), batch_size=2)
    assert outcomes == {0: Outcome(error="this row is wrong"), 1: Outcome(answer="yes")}
    assert run(ScriptedAnswerer(refuse), made_up_bench(1))[0].error == "this row is wrong"


def test_rows_that_fail_only_together_all_get_the_error() -> None:
    class Together(Preparation):
        def __call__(self, rows: Sequence[Any]) -> list[str]:
            if len(rows) > 1:
                raise ValueError("these do not fit together")
            return super().__call__(rows)

    answerer = PreparedAnswerer()
    answerer.prepare = Together(())
    assert {one.error for one in run(answerer, made_up_bench(3)).values()} == {"these do not fit together"}


def test_errors_of_the_program_end_the_run() -> None:
    def crash(row: Any) -> str:
        raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="device-side assert"):
        run(ScriptedAnswerer(crash), made_up_bench(2))

    class Short(ScriptedAnswerer):
        def __call__(self, rows: Sequence[Any]) -> list[str]:
            return ["one"]

    with pytest.raises(RuntimeError, match="Short gave 1 answers for 2 rows"):
        run(Short(), made_up_bench(2))


def test_errors_are_worded_in_one_line() -> None:
    assert describe_error(ValueError("two\n lines")) == "two lines"
    assert describe_error(KeyError("name")) == "KeyError: 'name'"
    assert describe_error(MemoryError()) == "MemoryError"
