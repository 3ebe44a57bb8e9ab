"""Published files as checked rows, under one policy on bad rows, in bounded memory."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers_videorefer.data.defects import (
    Defect,
    DefectReport,
    RecordError,
    check_bad_rows,
    describe,
    make_defect,
)
from transformers_videorefer.data.json_files.json_stream import BrokenRecord, iterate_entries, iterate_records
from transformers_videorefer.data.paths import is_unsafe_path
from transformers_videorefer.data.rle_checks import broken_rles
from transformers_videorefer.data.rows.hc_stvg import salvage_hc_stvg
from transformers_videorefer.data.rows.record_masks import drop_masks, has_polygons, mask_frames
from transformers_videorefer.data.rows.records import merge_defects, salvage
from transformers_videorefer.video.options import check_edit_list


RECORD_KINDS = ("conversations", "bench_d", "bench_q", "hc_stvg")
# Rows are collected up to this many characters of masks, or this many rows, and checked at once.
BATCH_CHARACTERS = 1 << 21
BATCH_ROWS = 256
_HINT = (
    'Mend the record, or pass bad_rows="skip" (--bad-rows skip) to leave such rows out or "keep" to keep them without broken '
    "parts."
)


def iterate_rows(
    path: str | os.PathLike[str],
    *,
    kind: str,
    bad_rows: str = "raise",
    report: DefectReport | None = None,
    shard: tuple[int, int] | None = None,
    task: str | None = None,
    source: str | None = None,
    edit_list: str = "ignore",
    video_size: Callable[[str], tuple[int, int] | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Read a published file as rows.

    Args:
        path (`str` or `os.PathLike`): JSON array, JSON lines, or for HC-STVG one JSON object; gzipped or not.
        kind (`str`): "conversations" (VideoRefer-700K), "bench_d", "bench_q" or "hc_stvg".
        bad_rows (`str`, *optional*, defaults to `"raise"`): What happens to a row that cannot be used as it is:
            "raise" stops with an error, "skip" leaves it out and lists it in the report, "keep" keeps it without its
            broken parts and leaves out only those of which nothing can be kept.
        report ([`DefectReport`], *optional*): Takes every defect found.
        shard (`tuple[int, int]`, *optional*): Range of bytes from `split_file`; the whole file by default. Ids that
            repeat are looked for in whole files only, so that reports do not depend on the ranges.
        task (`str`, *optional*): What the column `task` says.
        source (`str`, *optional*): What the column `source` says.
        edit_list (`str`, *optional*, defaults to `"ignore"`): What the column `edit_list` says.
        video_size (`Callable`, *optional*): Called with the path of a video or image as the record has it; returns
            height and width in pixels, or `None`. Asked for records with polygons and no size.

    Yields:
        `dict`: Rows in the order of the file, every mask checked.

    Raises:
        RecordError: If a row is bad and `bad_rows` is "raise", or, under any policy, if an array cannot be read on
            because its text is no JSON. Names file, byte, id and reason.
        ValueError: If `kind`, `bad_rows` or `edit_list` is unknown.
        OSError: If the file cannot be read.
    """
    batches = iterate_row_batches(
        path,
        kind=kind,
        bad_rows=bad_rows,
        report=report,
        shard=shard,
        task=task,
        source=source,
        edit_list=edit_list,
        video_size=video_size,
    )
    for batch in batches:
        yield from batch


def iterate_row_batches(
    path: str | os.PathLike[str],
    *,
    kind: str,
    bad_rows: str = "raise",
    report: DefectReport | None = None,
    shard: tuple[int, int] | None = None,
    task: str | None = None,
    source: str | None = None,
    edit_list: str = "ignore",
    video_size: Callable[[str], tuple[int, int] | None] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Read a published file as lists of rows, as many as are checked at once.

    Args:
        path (`str` or `os.PathLike`): As in [`iterate_rows`].
        kind (`str`): As in [`iterate_rows`].
        bad_rows (`str`, *optional*, defaults to `"raise"`): As in [`iterate_rows`].
        report ([`DefectReport`], *optional*): As in [`iterate_rows`].
        shard (`tuple[int, int]`, *optional*): As in [`iterate_rows`].
        task (`str`, *optional*): As in [`iterate_rows`].
        source (`str`, *optional*): As in [`iterate_rows`].
        edit_list (`str`, *optional*, defaults to `"ignore"`): As in [`iterate_rows`].
        video_size (`Callable`, *optional*): As in [`iterate_rows`].

    Yields:
        `list[dict]`: Rows in the order of the file; never an empty list.

    Raises:
        RecordError: As in [`iterate_rows`].
        ValueError: If `kind`, `bad_rows` or `edit_list` is unknown.
        OSError: If the file cannot be read.
    """
    check_bad_rows(bad_rows)
    if kind not in RECORD_KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(RECORD_KINDS)}, got {kind!r}.")
    check_edit_list(edit_list)
    options = {"task": task, "source": source, "edit_list": edit_list}
    sorter = _Sorter(Path(path).name, bad_rows, report, finds_repeated_ids=shard is None)
    return _row_batches(Path(path), kind, shard, options, video_size, sorter)


class _Sorter:
    """Decides what becomes of rows and keeps the report."""

    def __init__(self, file: str, bad_rows: str, report: DefectReport | None, *, finds_repeated_ids: bool) -> None:
        self.file = file
        self.bad_rows = bad_rows
        self.report = report
        self.seen_ids: set[int] | None = set() if finds_repeated_ids else None

    def accept(self, row: dict[str, Any] | None, defects: list[Defect], offset: int) -> bool:
        """Tell whether a row goes on."""
        row_id = None if row is None else row["id"]
        where = f"{self.file}, byte {offset}" + (f", id {describe(row_id)}" if row_id is not None else "")
        if self.report is not None:
            self.report.num_rows += 1
            if row_id is not None and self.seen_ids is not None:
                number = hash(row_id)  # ids may be long, their hashes are not
                if number in self.seen_ids:
                    defects = [*defects, make_defect("duplicate_id", f"`id` {describe(row_id)} stands there before")]
                self.seen_ids.add(number)
            self.report.add(defects, where=where)
        is_bad = row is None or any(defect.is_fatal for defect in defects)
        if is_bad and self.bad_rows == "raise":
            raise RecordError([defect for defect in defects if defect.is_fatal], where=where, hint=_HINT)
        if row is None or (is_bad and self.bad_rows == "skip"):
            if self.report is not None:
                self.report.skip(defects, position=offset, row_id=row_id, file=self.file)
            return False
        return True


def _row_batches(
    path: Path,
    kind: str,
    shard: tuple[int, int] | None,
    options: dict[str, Any],
    video_size: Callable[[str], tuple[int, int] | None] | None,
    sorter: _Sorter,
) -> Iterator[list[dict[str, Any]]]:
    """Collect rows until there are enough masks to check at once."""
    pending: list[tuple[int, dict[str, Any] | None, list[Defect]]] = []
    frames: list[dict[str, Any]] = []
    num_characters = 0
    for offset, row, defects in _read_rows(path, kind, shard, options, video_size):
        pending.append((offset, row, defects))
        if row is not None:
            of_row = mask_frames(row)
            frames.extend(of_row)
            num_characters += sum(len(frame["rle"]["counts"]) for frame in of_row)
        if num_characters >= BATCH_CHARACTERS or len(pending) >= BATCH_ROWS:
            yield from _finish(pending, frames, sorter)
            pending, frames, num_characters = [], [], 0
    if pending:
        yield from _finish(pending, frames, sorter)


def _read_rows(
    path: Path,
    kind: str,
    shard: tuple[int, int] | None,
    options: dict[str, Any],
    video_size: Callable[[str], tuple[int, int] | None] | None,
) -> Iterator[tuple[int, dict[str, Any] | None, list[Defect]]]:
    """Read records and make rows of them, run lengths unchecked."""
    if kind == "hc_stvg":
        for offset, name, entry in iterate_entries(path):
            row, defects = salvage_hc_stvg(name, entry, edit_list=options["edit_list"])
            yield offset, row, defects
        return
    for offset, record in iterate_records(path, shard=shard):
        if isinstance(record, BrokenRecord):
            yield offset, None, [make_defect("broken_json", record.reason)]
            continue
        size = None if video_size is None else _ask_size(record, video_size)
        row, defects = salvage(record, kind=kind, video_size=size, check_masks=False, **options)
        yield offset, row, defects


def _ask_size(record: Any, video_size: Callable[[str], tuple[int, int] | None]) -> tuple[int, int] | None:
    """Ask for the size of a record's picture if it has polygons and names no size."""
    if not isinstance(record, dict) or not (record.get("height") is None or record.get("width") is None):
        return None
    path = record.get("video") or record.get("image")
    if not isinstance(path, str) or is_unsafe_path(path) or not has_polygons(record):
        return None
    try:
        return video_size(path)
    except (OSError, ValueError):  # the file is missing or broken: the polygons are reported as such without size
        return None


def _finish(
    pending: list[tuple[int, dict[str, Any] | None, list[Defect]]], frames: list[dict[str, Any]], sorter: _Sorter
) -> Iterator[list[dict[str, Any]]]:
    """Check all masks of some rows at once and yield those that go on."""
    broken = {id(frames[index]): reason for index, reason in broken_rles([frame["rle"] for frame in frames])}
    rows = []
    for offset, row, defects in pending:
        if row is not None:
            if broken:
                defects = defects + drop_masks(row, broken)
            defects = merge_defects(defects, row)
        try:
            is_accepted = sorter.accept(row, defects, offset)
        except RecordError:
            if rows:
                yield rows  # what stands before the bad record is good
            raise
        if is_accepted:
            rows.append(row)
    if rows:
        yield rows
