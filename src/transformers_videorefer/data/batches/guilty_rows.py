"""Which row of a batch is at fault: one search for collators, training and evaluation."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar


Row = TypeVar("Row")
Batch = TypeVar("Batch")
Errors = tuple[type[Exception], ...]


def find_guilty_row(
    rows: Sequence[Row], process: Callable[[list[Row]], Any], error: Exception, errors: Errors
) -> tuple[int, Exception] | None:
    """Find the row that a batch fails on, by trying rows by themselves.

    Decoding takes long, so the row that the error speaks of is tried first. That is a hint only: a video that several
    rows share goes by the number of the first one. Where a collator has searched already, among as many rows, its finding is
    believed.

    Args:
        rows (`Sequence`): The rows of the batch.
        process (`Callable`): What fails on them.
        error (`Exception`): How it fails.
        errors (`tuple`): Kinds of errors that a row can be at fault for.

    Returns:
        `tuple[int, Exception]`, *optional*: Position of the row, and the error that it gives by itself; `None` where
        every row by itself is fine.
    """
    if len(rows) == 1:
        return 0, error
    suspect = getattr(error, "sample", None)
    if suspect is not None and getattr(error, "num_rows", None) == len(rows):
        return suspect, error
    for position in sorted(range(len(rows)), key=lambda position: position != suspect):
        try:
            process([rows[position]])
        except errors as found:
            return position, found
    return None


def process_good_rows(
    rows: Sequence[Row],
    process: Callable[[list[Row]], Batch],
    errors: Errors,
    on_failure: Callable[[int, Exception], None],
) -> tuple[Batch | None, list[int]]:
    """Process a batch without the rows that it fails on.

    Args:
        rows (`Sequence`): The rows.
        process (`Callable`): Makes a batch of rows.
        errors (`tuple`): Kinds of errors that a row can be at fault for.
        on_failure (`Callable`): Gets position and error of each row that is left out, at once: an error keeps what was
            read of its batch in memory.

    Returns:
        `tuple`: The batch, `None` where no row is left, and the positions of the rows in it.

    Raises:
        Exception: That of the batch, where every row by itself is fine.
    """
    positions = list(range(len(rows)))
    while positions:
        left = [rows[position] for position in positions]
        try:
            return process(left), positions
        except errors as error:
            found = find_guilty_row(left, process, error, errors)
            if found is None:
                raise  # something else is wrong, which must not be hidden
            place, reason = found
            on_failure(positions.pop(place), reason)
    return None, positions
