"""One Parquet file of an export: made from a byte range of a published file, and recognised when it is there."""

import gc
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers_videorefer.data.defects import DefectReport
from transformers_videorefer.data.sources.published import FEATURES, video_sizes
from transformers_videorefer.data.sources.reading import iterate_row_batches
from transformers_videorefer.data.tables.parquet import flush_to_disk, write_parquet


# Holds the files that wait, and nothing else: it is renamed once all are there.
FILES_FOLDER = "files"


@dataclass(frozen=True)
class ShardTask:
    """One Parquet file to be made from one byte range of a published file.

    Args:
        name (`str`): Name of the Parquet file.
        split (`str`): Split it belongs to.
        path (`str`): Published file.
        begin (`int`): First byte of the range.
        end (`int`): The byte behind the last.
        kind (`str`): Kind of the records.
        task (`str`, *optional*): Value of the column `task`.
        source (`str`): Value of the column `source`.
        bad_rows (`str`): `"raise"`, `"skip"` or `"keep"`.
        videos (`str`, *optional*): Folder of the videos, for polygons without a size.
        row_group_bytes (`int`): Uncompressed size of a row group.
        folder (`str`): Where its state stands, and in `files` the file, until its configuration is whole.
        fingerprint (`str`): What it is made from and how; another value means another file.
    """

    name: str
    split: str
    path: str
    begin: int
    end: int
    kind: str
    task: str | None
    source: str
    bad_rows: str
    videos: str | None
    row_group_bytes: int
    folder: str
    fingerprint: str = ""


def digest(value: Any) -> str:
    """Return a short text that differs for every other value.

    Args:
        value (`Any`): Plain values.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Let Python look for reference cycles less often, and not among what lives already.

    Rows are many small objects without cycles. Looking through them and the hundred thousands of objects of the
    imported libraries, again and again, would take a quarter of the time.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def write_shard(task: ShardTask, on_batch: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Make one shard and note that it is finished.

    Args:
        task ([`ShardTask`]): What to make.
        on_batch (`Callable`, *optional*): Called with the number of rows of each batch.

    Returns:
        `dict`: `fingerprint`, `name`, `split`, `num_rows`, `num_bytes` (in memory), `file_bytes` and `report`.

    Raises:
        RecordError: If a record is bad and the policy is `"raise"`.
    """
    waiting = Path(task.folder)
    report = DefectReport(waiting / f"{task.name}.skipped.jsonl")
    batches = iterate_row_batches(
        task.path,
        kind=task.kind,
        bad_rows=task.bad_rows,
        report=report,
        shard=(task.begin, task.end),
        task=task.task,
        source=task.source,
        video_size=video_sizes(task.videos),
    )
    features = FEATURES[task.kind]()
    with _rare_collection():
        writer = write_parquet(
            waiting / FILES_FOLDER / task.name,
            batches,
            features,
            row_group_bytes=task.row_group_bytes,
            on_batch=on_batch,
        )
    state = {
        "fingerprint": task.fingerprint,
        "name": task.name,
        "split": task.split,
        "num_rows": writer.num_rows,
        "num_bytes": writer.num_bytes,
        "file_bytes": writer.path.stat().st_size,
        "report": report.to_dict(),
    }
    write_state(waiting / f"{task.name}.json", state)
    return state


def finished_shard(task: ShardTask, folder: Path) -> dict[str, Any] | None:
    """Return the state of a shard that an interrupted run finished.

    Args:
        task ([`ShardTask`]): The shard.
        folder (`Path`): Where its file is expected: still waiting, or published already.

    Returns:
        `dict` or None: As [`write_shard`] returned it; None if the shard is to be made.
    """
    state = read_state(Path(task.folder) / f"{task.name}.json")
    if not state or state["fingerprint"] != task.fingerprint or not (folder / task.name).exists():
        return None
    return state if (folder / task.name).stat().st_size == state["file_bytes"] else None


def read_state(path: Path) -> dict[str, Any] | None:
    """Read what was noted.

    Args:
        path (`Path`): File of [`write_state`].

    Returns:
        `dict` or None: None if there is no such file.
    """
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Note something in a file that is whole or absent.

    Args:
        path (`Path`): The file.
        state (`dict`): Plain values.
    """
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(state), encoding="utf-8")
    flush_to_disk(part)
    os.replace(part, path)
