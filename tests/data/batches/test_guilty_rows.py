"""The search for the row that a batch fails on: who is tried, in which order, and what comes back."""

from collections.abc import Callable

import pytest

from transformers_videorefer.data.batches.guilty_rows import find_guilty_row, process_good_rows
from transformers_videorefer.regions.errors import MediaError


ERRORS = (ValueError, TypeError)


def failing_on(*bad: str, calls: list[list[str]], name_sample: bool = False) -> Callable[[list[str]], str]:
    """Make a process that fails on some rows, and can say on which one of a batch."""

    def process(rows: list[str]) -> str:
        calls.append(rows)
        for position, row in enumerate(rows):
            if row in bad:
                raise MediaError(f"{row} is bad", **({"sample": position} if name_sample else {}))
        return "".join(rows)

    return process


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (ValueError("something"), [["a"], ["b"], ["c"]]),
        (MediaError("something", sample=2), [["c"]]),
        (MediaError("something", sample=1), [["b"], ["a"], ["c"]]),  # a hint that is wrong
        (MediaError("something", sample=9), [["a"], ["b"], ["c"]]),  # positions of something else
    ],
)
def test_the_row_that_the_error_speaks_of_is_tried_first(error: Exception, tried: list[list[str]]) -> None:
    calls: list[list[str]] = []
    position, found = find_guilty_row("abcd", failing_on("c", calls=calls), error, ERRORS)
    assert (position, str(found)) == (2, "c is bad")
    assert calls == tried


def test_what_another_search_found_is_confirmed() -> None:
    calls: list[list[str]] = []
    error = MediaError("bad", origin="Row 'b'", sample=1)
    position, _ = find_guilty_row("abc", failing_on("b", calls=calls), error, ERRORS)
    assert (position, calls) == (1, [["b"]])
    # A collator that was called on the second half counts from there.
    position, _ = find_guilty_row(
        "abcd", failing_on("d", calls=[]), MediaError("bad", origin="Row 'd'", sample=1), ERRORS
    )
    assert position == 3


def test_what_another_search_found_among_as_many_rows_is_believed() -> None:
    calls: list[list[str]] = []
    error = MediaError("bad", origin="Row 'b'", sample=1, num_rows=3)
    assert find_guilty_row("abc", failing_on("b", calls=calls), error, ERRORS) == (1, error)
    assert calls == []


def test_a_row_alone_is_not_tried_again() -> None:
    calls: list[list[str]] = []
    alone = ValueError("bad")
    assert find_guilty_row("b", failing_on("b", calls=calls), alone, ERRORS) == (0, alone)
    assert calls == []


def test_no_row_is_guilty_where_each_by_itself_is_fine() -> None:
    assert find_guilty_row("abc", failing_on(calls=[]), ValueError("they do not fit together"), ERRORS) is None


def test_errors_of_other_kinds_end_the_search() -> None:
    def process(rows: list[str]) -> str:
        raise KeyError(rows[0])

    with pytest.raises(KeyError):
        find_guilty_row("ab", process, ValueError("bad"), ERRORS)


@pytest.mark.parametrize(
    ("name_sample", "expected"),
    [
        (True, [["a", "b", "c", "d"], ["b"], ["a", "c", "d"], ["d"], ["a", "c"]]),
        (False, [["a", "b", "c", "d"], ["a"], ["b"], ["a", "c", "d"], ["a"], ["c"], ["d"], ["a", "c"]]),
    ],
)
def test_good_rows_are_processed_without_the_others(name_sample: bool, expected: list[list[str]]) -> None:
    calls: list[list[str]] = []
    failures: dict[int, Exception] = {}
    process = failing_on("b", "d", calls=calls, name_sample=name_sample)
    assert process_good_rows("abcd", process, ERRORS, failures.__setitem__) == ("ac", [0, 2])
    assert {position: error.text for position, error in failures.items()} == {1: "b is bad", 3: "d is bad"}
    assert calls == expected


def test_nothing_is_left_of_bad_rows_only() -> None:
    failures: dict[int, Exception] = {}
    assert process_good_rows("ab", failing_on("a", "b", calls=[]), ERRORS, failures.__setitem__) == (None, [])
    assert sorted(failures) == [0, 1]


def test_an_error_of_no_row_is_not_hidden() -> None:
    def process(rows: list[str]) -> str:
        if "b" in rows:
            raise ValueError("b is bad")
        if len(rows) > 1:
            raise ValueError("they do not fit together")
        return ""

    failures: dict[int, Exception] = {}
    with pytest.raises(ValueError, match="they do not fit together"):
        process_good_rows("abc", process, ERRORS, failures.__setitem__)
    assert list(failures) == [1]
