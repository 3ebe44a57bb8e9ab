"""Asks an answerer about many rows: in batches, with inputs made in loader workers, and with errors kept to their row."""

import logging
import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from transformers_videorefer.data.batches.guilty_rows import process_good_rows
from transformers_videorefer.data.file_errors import FILE_ERRORS

from .answering import Answerer, PreparingAnswerer, Row


logger = logging.getLogger(__name__)

# What a row can be at fault for while its inputs are made. Lookup, attribute and arithmetic errors come from rows that
# no check foresaw, the others from broken files: some decoders report them as if the program were wrong.
ROW_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RuntimeError),
    *FILE_ERRORS,
)
# While the model runs only its own checks and the size of the inputs can speak of a row.
ANSWER_ERRORS = (ValueError, TypeError, OSError, MemoryError, torch.OutOfMemoryError)


def default_num_workers(most: int) -> int:
    """Choose how many loader workers read videos where nobody says.

    Args:
        most (`int`): Most workers that are of use.

    Returns:
        `int`: That many, but not more than this process may use processors.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(most, available or 1)


def hide_folders(message: str, folders: Sequence[str | os.PathLike]) -> str:
    """Take the names of folders out of a message that others will read.

    Args:
        message (`str`): The message.
        folders (`Sequence[str]`): The folders; what lies in them keeps its relative path.

    Returns:
        `str`: The message without them.
    """
    for folder in folders:
        message = message.replace(os.path.join(os.fspath(folder), ""), "")
    return message


@dataclass(frozen=True)
class Outcome:
    """What came of a row: one of both.

    Attributes:
        answer (`str`, *optional*): The answer.
        error (`str`, *optional*): Why there is none.
    """

    answer: str | None = None
    error: str | None = None


def plan_batches(groups: Sequence[Hashable], batch_size: int) -> list[list[int]]:
    """Put rows into batches such that rows of one group (of one video) stand together.

    The plan depends on nothing but its arguments. A run that was interrupted, or that several processes share, so
    answers every row beside the same others, which keeps answers equal to the last bit of the arithmetic.

    Args:
        groups (`Sequence[Hashable]`): What each row has in common with others.
        batch_size (`int`): Rows of a batch.

    Returns:
        `list[list[int]]`: Positions of rows: groups in the order of their first rows, rows of a group in their order.

    Raises:
        ValueError: If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` is {batch_size}. Pass at least 1.")
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    order = [index for indices in members.values() for index in indices]
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def iterate_answers(
    answerer: Answerer, rows: Sequence[Row], batches: Sequence[Sequence[int]], *, num_workers: int = 0
) -> Iterator[list[tuple[int, Outcome]]]:
    """Answer batches one after the other; the inputs of the next ones are made meanwhile.

    A row that cannot be read or answered does not end the run: the others of its batch are asked without it.

    Args:
        answerer ([`Answerer`]): What answers. With a [`PreparingAnswerer`] inputs are made in loader workers.
        rows (`Sequence[Mapping]`): The rows; looking up one that cannot be read raises.
        batches (`Sequence[Sequence[int]]`): Positions of the rows that are answered together.
        num_workers (`int`, *optional*, defaults to 0): Loader workers; with 0 this process does all.

    Yields:
        `list[tuple[int, Outcome]]`: Position and outcome of every row of a batch.
    """
    prepare = answerer.prepare if isinstance(answerer, PreparingAnswerer) else None
    loader = DataLoader(
        _PreparedBatches(rows, batches, prepare),
        batch_size=None,  # an item is a batch already
        num_workers=num_workers,
        prefetch_factor=1 if num_workers else None,  # a prepared batch may hold hundreds of megabytes of frames
        collate_fn=_as_it_is,
    )
    for prepared in loader:
        outcomes = dict(prepared.outcomes)
        if prepared.positions:
            readable = [rows[position] for position in prepared.positions]
            answers = _answer(answerer, readable, prepared.inputs if prepare is not None else readable)
            outcomes |= zip(prepared.positions, answers, strict=True)
        yield list(outcomes.items())


@dataclass(frozen=True)
class _Prepared:
    """A batch on its way: inputs for the rows at `positions`, outcomes of those that failed."""

    positions: list[int]
    inputs: Any
    outcomes: dict[int, Outcome]


class _PreparedBatches(Dataset):
    """Batches of which each is made when it is looked up, in a loader worker."""

    def __init__(self, rows: Sequence[Row], batches: Sequence[Sequence[int]], prepare: Any):
        self._rows = rows
        self._batches = batches
        self._prepare = prepare

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> _Prepared:
        rows: dict[int, Row] = {}
        outcomes: dict[int, Outcome] = {}
        for position in self._batches[number]:
            try:
                rows[position] = self._rows[position]
            except ROW_ERRORS as error:
                outcomes[position] = Outcome(error=describe_error(error))
        if self._prepare is None or not rows:
            return _Prepared(list(rows), None, outcomes)
        positions = list(rows)

        def note(place: int, error: Exception) -> None:
            outcomes[positions[place]] = Outcome(error=describe_error(error))

        try:
            inputs, used = process_good_rows(list(rows.values()), self._prepare, ROW_ERRORS, note)
        except ROW_ERRORS as error:  # together they fail for another reason than each by itself
            together = Outcome(error=describe_error(error))
            return _Prepared([], None, dict.fromkeys(positions, together) | outcomes)
        return _Prepared([positions[place] for place in used], inputs, outcomes)


def _as_it_is(prepared: _Prepared) -> _Prepared:
    return prepared


def _answer(answerer: Answerer, rows: Sequence[Row], inputs: Any) -> list[Outcome]:
    """Answer a batch; where that fails, row by row."""
    try:
        answers = answerer.answer(inputs) if isinstance(answerer, PreparingAnswerer) else answerer(rows)
    except ANSWER_ERRORS as error:
        if len(rows) == 1:
            return [Outcome(error=describe_error(error))]
        logger.warning("A batch of %d failed and is asked row by row: %s", len(rows), error)
        return [_answer_one(answerer, row) for row in rows]
    if len(answers) != len(rows):
        raise RuntimeError(
            f"{type(answerer).__name__} gave {len(answers)} answers for {len(rows)} rows. It must give one for each."
        )
    return [Outcome(answer=answer) for answer in answers]


def _answer_one(answerer: Answerer, row: Row) -> Outcome:
    try:
        (answer,) = answerer([row])
    except ANSWER_ERRORS as error:
        return Outcome(error=describe_error(error))
    return Outcome(answer=answer)


def describe_error(error: BaseException) -> str:
    """Word an error as one line.

    Args:
        error (`BaseException`): The error.

    Returns:
        `str`: Its message; its kind goes before where the message alone says nothing.
    """
    message = " ".join(str(error).split())
    is_spoken = isinstance(error, (ValueError, TypeError, OSError)) and message
    return message if is_spoken else f"{type(error).__name__}: {message}".rstrip(": ")
