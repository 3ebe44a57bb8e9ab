"""Rows that cannot be trained on: left out with their reason, counted, and a stop when there are too many."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from transformers_videorefer.data.batches.guilty_rows import process_good_rows
from transformers_videorefer.data.file_errors import FILE_ERRORS
from transformers_videorefer.regions.errors import MediaError

from .batches import IGNORED, CollatorWrapper, MediaSizes, empty_batch, select_rows, visual_tokens_per_row
from .config import VideoReferSFTConfig


logger = logging.getLogger(__name__)

# What a row that does not hold what it should, or whose files do not, makes readers raise.
ROW_ERRORS = (ValueError, TypeError, LookupError, *FILE_ERRORS)
REPORT = "row_report"
# So many unusable rows are named in the log; the file of skipped rows holds all.
MOST_NAMED = 20
# Shares are not judged before so many rows were seen.
FEWEST_ROWS = 100


@dataclass(frozen=True)
class RowReport:
    """What became of the rows of one batch.

    Args:
        kept (`list[str]`): Names of the rows in the batch, in its order.
        unusable (`list[tuple[str, str]]`): Name and reason of each row that cannot be trained on.
        too_long (`list[tuple[str, str]]`): Name and reason of each row that is beyond the budget.
    """

    kept: list[str] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)
    too_long: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class RowCounts:
    """Rows so far.

    Args:
        seen (`int`): All rows.
        unusable (`int`): Those that could not be trained on.
        too_long (`int`): Those beyond the budget.
    """

    seen: int = 0
    unusable: int = 0
    too_long: int = 0

    def save(self, folder: str | os.PathLike) -> None:
        """Write the counts into a checkpoint."""
        Path(folder, "row_counts.json").write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "RowCounts":
        """Read the counts of a checkpoint; zero where it has none."""
        file = Path(folder, "row_counts.json")
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else cls()


def row_name(row: Mapping[str, Any]) -> str:
    """Name a row in messages.

    Args:
        row (`Mapping[str, Any]`): The row.

    Returns:
        `str`: Its id, and the set it comes from where it says so.
    """
    name = repr(row.get("id")) if row.get("id") is not None else f"without id, about {row.get('video')!r:.80}"
    return f"{name} of {row['source']}" if row.get("source") else name


def _name_and_reason(row: Mapping[str, Any], error: Exception) -> tuple[str, str]:
    """Take the row out of the message, because it is named beside it."""
    return row_name(row), " ".join((error.reason if isinstance(error, MediaError) else str(error)).split())


class GuardedCollator(CollatorWrapper):
    """Calls a collator, leaves out the rows it cannot read and those beyond a budget, and reports what it did.

    Nothing takes the place of a row that is left out: batches get smaller. A batch of which nothing is left becomes
    one row of padding whose loss is zero.

    Args:
        collator (`Callable`): Makes a batch, padded on the right, of rows. Where its errors are [`MediaError`]s with
            `origin` and `sample`, the name and the place of the bad row among those it got, the rest is tried again at
            once; otherwise rows are tried one by one.
        sizes ([`MediaSizes`]): Form of media and padding.
        max_length (`int`, *optional*): Most tokens of a row.
        max_visual_tokens (`int`, *optional*): Most patches that the vision tower encodes for a row.
    """

    def __init__(
        self,
        collator: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]],
        sizes: MediaSizes,
        *,
        max_length: int | None = None,
        max_visual_tokens: int | None = None,
    ):
        super().__init__(collator)
        self.sizes = sizes
        self.max_length = max_length
        self.max_visual_tokens = max_visual_tokens

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): The rows.

        Returns:
            `dict[str, Any]`: What the collator makes of the rows that can be used, and a [`RowReport`] under
            `row_report`.
        """
        report = RowReport()
        batch, used = self._without_unreadable(rows, report)
        if batch is not None:
            batch, used = self._without_misfits(batch, used, report)
        report.kept.extend(row_name(row) for row in used)
        batch = empty_batch(self.sizes) if batch is None else dict(batch)
        return {**batch, REPORT: report}

    def _without_unreadable(
        self, rows: Sequence[Mapping[str, Any]], report: RowReport
    ) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
        """Leave out the rows that the collator fails on."""
        reasons: dict[int, tuple[str, str]] = {}

        def note(position: int, error: Exception) -> None:
            reasons[position] = _name_and_reason(rows[position], error)

        batch, positions = process_good_rows(rows, self.collator, ROW_ERRORS, note)
        report.unusable.extend(reasons[position] for position in sorted(reasons))
        return batch, [rows[position] for position in positions]

    def _without_misfits(
        self, batch: Mapping[str, Any], used: list[Mapping[str, Any]], report: RowReport
    ) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
        """Drop rows that teach nothing or are beyond the budget."""
        has_labels = (batch["labels"][:, 1:] != IGNORED).any(dim=1).tolist()
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        loads = visual_tokens_per_row(batch, self.sizes.num_patches)
        kept = []
        for number, row in enumerate(used):
            if not has_labels[number]:
                report.unusable.append((row_name(row), "It has no supervised tokens: no answer to learn from."))
            elif self.max_length is not None and lengths[number] > self.max_length:
                reason = f"It has {lengths[number]} tokens, more than `max_length` of {self.max_length}."
                report.too_long.append((row_name(row), reason))
            elif self.max_visual_tokens is not None and loads[number] > self.max_visual_tokens:
                reason = (
                    f"It has {loads[number]} visual tokens, more than `max_visual_tokens_per_batch` of "
                    f"{self.max_visual_tokens}."
                )
                report.too_long.append((row_name(row), reason))
            else:
                kept.append(number)
        if len(kept) == len(used):
            return batch, used
        return (select_rows(batch, kept) if kept else None), [used[number] for number in kept]


class RowGuard:
    """Keeps count of the rows of a run, records those left out, and stops it when too many cannot be used.

    Args:
        folder (`str` or `os.PathLike`): Output folder of the run. `_logs/skipped_rows.jsonl` is written there; names
            that begin so are never uploaded, because reasons may tell paths of this machine.
        max_bad_share (`float`): Share of unusable rows that is still accepted, in [0, 1].
        process_index (`int`, *optional*, defaults to 0): Number of this process; those after the first write files of
            their own.
        name (`str`, *optional*, defaults to `"skipped_rows"`): Name of that file.
        fewest_rows (`int`, *optional*, defaults to `100`): The share is not judged before so many rows were seen.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        max_bad_share: float,
        *,
        process_index: int = 0,
        name: str = "skipped_rows",
        fewest_rows: int = FEWEST_ROWS,
    ):
        self.file = Path(folder) / "_logs" / (f"{name}-{process_index}.jsonl" if process_index else f"{name}.jsonl")
        self.max_bad_share = max_bad_share
        self._is_first = process_index == 0
        self.fewest_rows = fewest_rows
        self.counts = RowCounts()
        self._last_reason = ""
        self._num_named = 0

    @property
    def place(self) -> str:
        """`str`: The file, as seen from the output folder."""
        return f"{self.file.parent.name}/{self.file.name}"

    def clear(self) -> None:
        """Forget the rows of an earlier run, before one begins anew."""
        self.counts = RowCounts()
        if self._is_first:  # also those of more processes than there are now
            for file in self.file.parent.glob(f"{self.file.stem}*.jsonl"):
                file.unlink(missing_ok=True)

    def record(self, report: RowReport, step: int) -> torch.Tensor:
        """Write down and name the rows of a batch that were left out.

        Args:
            report ([`RowReport`]): What became of the rows of the batch.
            step (`int`): Optimizer steps made so far.

        Returns:
            `torch.Tensor` of shape `(3,)`: Rows seen, unusable and too long in this batch.
        """
        lines = []
        for kind, left_out in (("unusable", report.unusable), ("too long", report.too_long)):
            for name, reason in left_out:
                lines.append(json.dumps({"row": name, "kind": kind, "reason": reason, "step": step}))
                self._name(f"Row {name} is left out ({kind}): {reason}")
        if report.unusable:
            self._last_reason = "Row {}: {}".format(*report.unusable[-1])
        if lines:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write("\n".join(lines) + "\n")
        num_unusable, num_too_long = len(report.unusable), len(report.too_long)
        return torch.tensor([len(report.kept) + num_unusable + num_too_long, num_unusable, num_too_long])

    def _name(self, message: str) -> None:
        self._num_named += 1
        if self._num_named <= MOST_NAMED:
            logger.warning("%s", message)
        if self._num_named == MOST_NAMED:
            logger.warning("Further rows that are left out stand only in %s.", self.place)

    def add(self, seen: int, unusable: int, too_long: int) -> None:
        """Count rows of all processes, and stop if too many of them could not be used.

        Args:
            seen (`int`): All rows.
            unusable (`int`): Those that could not be trained on.
            too_long (`int`): Those beyond the budget.

        Raises:
            ValueError: If the share of unusable rows is above `max_bad_share`.
        """
        self.counts.seen += seen
        self.counts.unusable += unusable
        self.counts.too_long += too_long
        if self.counts.seen >= self.fewest_rows:
            self.check()

    def check(self) -> None:
        """Stop if too many rows could not be used so far.

        Raises:
            ValueError: If the share of unusable rows is above `max_bad_share`, or nothing at all is left.
        """
        counts = self.counts
        last = f" The last one: {self._last_reason}" if self._last_reason else ""
        if counts.unusable > self.max_bad_share * counts.seen:
            raise ValueError(
                f"{counts.unusable} of {counts.seen} rows cannot be trained on, more than `max_bad_row_share` of "
                f"{self.max_bad_share}.{last} Mend or remove the rows named in `{self.place}`, or raise the share."
            )
        if counts.seen and counts.seen == counts.unusable + counts.too_long:
            raise ValueError(
                f"All {counts.seen} rows are left out, {counts.too_long} of them as too long.{last} "
                f"`{self.place}` names the rows. Mend them, or raise `max_length` or `max_visual_tokens_per_batch`."
            )


def make_guards(args: VideoReferSFTConfig, train_dataset: Any) -> tuple[RowGuard, RowGuard]:
    """Make the guards of a run.

    Args:
        args ([`VideoReferSFTConfig`]): Settings.
        train_dataset (`Dataset` or `IterableDataset`): The training rows; of a small set the share is judged sooner.

    Returns:
        `tuple[RowGuard, RowGuard]`: Those of training rows and of evaluation rows, which stop nothing while any row can
        be measured.
    """
    num_rows = len(train_dataset) if hasattr(train_dataset, "__len__") else FEWEST_ROWS
    folder, index = args.output_dir, args.process_index
    return (
        RowGuard(folder, args.max_bad_row_share, process_index=index, fewest_rows=min(FEWEST_ROWS, num_rows)),
        RowGuard(folder, 1.0, process_index=index, name="skipped_eval_rows"),
    )
