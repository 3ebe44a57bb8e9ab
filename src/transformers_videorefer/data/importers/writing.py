"""Imported rows as a folder of Parquet files with a card, which appears only when it is whole."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from transformers_videorefer import __version__
from transformers_videorefer.data.defects import DefectReport
from transformers_videorefer.data.tables.cards import CardConfig, write_card
from transformers_videorefer.data.tables.features import conversation_features
from transformers_videorefer.data.tables.parquet import ParquetRowWriter
from transformers_videorefer.data.wording import count_of


SPLIT = "train"
DATA_FOLDER, REPORT_FILE = "data", "import.json"
# Uncompressed; a file of this size downloads and loads in one go.
SHARD_BYTES = 500_000_000
_BATCH_ROWS = 16
_CARD = """---
task_categories:
- video-text-to-text
tags:
- videorefer
- region-understanding
pretty_name: {title}
---

# {name}

Objects of videos, one a row: a question with the mark `<region>`, the answer where the annotations hold one, and where the
object is in which frames. Columns are those of VideoRefer-700K. Imported from annotations in the format `{source}`; their
licence is that of the annotations.

```python
from datasets import load_dataset

rows = load_dataset("{name}", split="train")
```

`video` is a path relative to the folder of videos. Frame numbers count from 0; with `edit_list` "apply" they count the
frames that players show.
"""


@dataclass
class ImportCounts:
    """What was written.

    Attributes:
        num_rows (`int`): Rows.
        num_unanswered (`int`): Rows that end with the turn of the user.
        num_frames (`int`): Frames of all regions.
        videos (`set[str]`): Videos and images.
        num_bytes (`int`): Bytes in memory.
    """

    num_rows: int = 0
    num_unanswered: int = 0
    num_frames: int = 0
    videos: set[str] = field(default_factory=set)
    num_bytes: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Count a row.

        Args:
            row (`dict`): The row.
        """
        self.num_rows += 1
        self.num_unanswered += row["messages"][-1]["role"] != "assistant"
        self.num_frames += sum(len(region["frames"]) for region in row["regions"])
        self.videos.update(name for name in (row["video"], row["image"]) if name)

    def describe(self) -> str:
        """Say in one line what was written.

        Returns:
            `str`: Rows, videos, frames, and rows without an answer.
        """
        rows, videos = count_of(self.num_rows, "row"), count_of(len(self.videos), "video")
        frames, unanswered = count_of(self.num_frames, "marked frame"), count_of(self.num_unanswered, "row")
        return f"{rows} of {videos}, {frames}, {unanswered} without an answer"


def write_import(
    rows: Iterable[dict[str, Any]],
    output: Path,
    *,
    source: str,
    report: DefectReport,
    settings: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> ImportCounts:
    """Write rows as Parquet files and a card into a new folder.

    The folder grows under a hidden name beside its own, so an interrupted import leaves nothing that looks whole.

    Args:
        rows (`Iterable[dict]`): Rows of the conversation schema; read once.
        output (`Path`): Folder to make.
        source (`str`): Name of the format.
        report ([`DefectReport`]): What was found wrong while `rows` were read; written beside the card.
        settings (`str`, *optional*): What the card says of how the import was made.
        shard_bytes (`int`, *optional*, defaults to 500,000,000): Uncompressed size at which a new file begins.

    Returns:
        [`ImportCounts`].

    Raises:
        FileExistsError: If the folder exists and holds something.
        ValueError: If there is no row to write.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{str(output)!r} exists. Pass a new folder, or remove that one first.")
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / DATA_FOLDER).mkdir(parents=True)
        counts = ImportCounts()
        download_size = _write_shards(rows, part / DATA_FOLDER, counts, shard_bytes)
        if not counts.num_rows:
            raise ValueError(f"There is no row to write: {report.summary()}")
        _write_card(part / "README.md", output.name, source, counts, download_size, settings, report)
        (part / REPORT_FILE).write_text(json.dumps(report.to_dict(), indent=2, ensure_ascii=False), encoding="utf-8")
        if output.exists():
            output.rmdir()
        part.replace(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return counts


def _write_card(
    path: Path, name: str, source: str, counts: ImportCounts, download_size: int, settings: str, report: DefectReport
) -> None:
    config = CardConfig(
        "default",
        conversation_features(),
        {SPLIT: f"{DATA_FOLDER}/{SPLIT}-*.parquet"},
        {SPLIT: counts.num_rows},
        {SPLIT: counts.num_bytes},
        download_size,
    )
    about = f"Made with transformers-videorefer {__version__}: {counts.describe()}.\n{settings}\n\n"
    about += f"```\n{report.summary()}\n```\n" if report.counts else ""
    text = _CARD.replace("{title}", json.dumps(name)).replace("{name}", name).replace("{source}", source)
    write_card(path, text, [config], about_this_copy=about)


def _write_shards(rows: Iterable[dict[str, Any]], folder: Path, counts: ImportCounts, shard_bytes: int) -> int:
    """Write numbered files, give them their final names once their number is known, and return their size."""
    rows = iter(rows)
    shards: list[Path] = []
    for first in rows:
        path = folder / f"{len(shards):05d}.parquet"
        with ParquetRowWriter(path, conversation_features()) as writer:
            for batch in _batches(chain([first], rows)):
                writer.write(batch)
                for row in batch:
                    counts.add(row)
                if writer.num_bytes >= shard_bytes:
                    break
        counts.num_bytes += writer.num_bytes
        shards.append(path)
    for number, path in enumerate(shards):
        path.rename(folder / f"{SPLIT}-{number:05d}-of-{len(shards):05d}.parquet")
    return sum(path.stat().st_size for path in folder.iterdir())


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


__all__ = ["ImportCounts", "write_import"]
