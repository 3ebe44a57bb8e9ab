"""Rows from wherever they are: published files, JSON lines, Parquet files and folders, or the Hub."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers_videorefer.data.json_files.json_stream import BrokenRecord, iterate_entries, iterate_records
from transformers_videorefer.data.wording import count_of


ROW, RECORD, ENTRY, BROKEN = "row", "record", "entry", "broken"
FILE_SUFFIXES = (".json", ".jsonl", ".gz", ".parquet")


@dataclass(frozen=True)
class SourceItem:
    """What stands at one place of a source.

    Attributes:
        where (`str`): File and number of the row, for messages.
        position (`int`): Bytes of a JSON file, or rows of Parquet files, that lie before it.
        kind (`str`): "row" (of ours), "record" (published), "entry" (of HC-STVG: `value` is name and annotation) or
            "broken" (a line that is no JSON: `value` is the reason).
        value (`Any`): The content.
        config (`str`): Config that the row belongs to, whose ids differ from each other; empty for files.
    """

    where: str
    position: int
    kind: str
    value: Any
    config: str = ""


@dataclass(frozen=True)
class RowSource:
    """Rows of one file or dataset, read one after the other.

    Attributes:
        name (`str`): File, folder or Hub id.
        files (`tuple[str, ...]`): Parquet files; empty for JSON.
        total (`int`): Rows of Parquet files, or bytes of a JSON file.
        unit (`str`): What `total` and the positions of items count: "row" or "B".
        splits (`tuple[tuple[str, tuple[str, ...]], ...]`): `files` once more by split, each after the name of its
            config. Rows are numbered within a split.
    """

    name: str
    files: tuple[str, ...]
    total: int
    unit: str
    splits: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __iter__(self) -> Iterator[SourceItem]:
        if self.files:
            from transformers_videorefer.data.tables.parquet_source import iterate_parquet

            has_configs = len({config for config, _ in self.splits}) > 1
            position = 0
            for config, files in self.splits:
                folder = f"{config}/" if has_configs else ""
                for where, row in iterate_parquet(list(files)):
                    yield SourceItem(folder + where, position, ROW, row, config)
                    position += 1
            return
        file = Path(self.name).name
        if _holds_entries(self.name):
            for number, (offset, key, value) in enumerate(iterate_entries(self.name)):
                yield SourceItem(f"{file}, row {number} ({key!r:.80})", offset, ENTRY, (key, value))
            return
        for number, (offset, record) in enumerate(iterate_records(self.name)):
            where = f"{file}, row {number}"
            if isinstance(record, BrokenRecord):
                yield SourceItem(where, offset, BROKEN, record.reason)
            else:
                yield SourceItem(where, offset, ROW if is_row(record) else RECORD, record)

    def read(self, index: int) -> SourceItem:
        """Read one row.

        Args:
            index (`int`): Its number, from 0.

        Returns:
            [`SourceItem`].

        Raises:
            ValueError: If there are not that many rows.
            OSError: If the file cannot be read.
        """
        if index < 0:
            raise ValueError(f"Row {index} does not exist. Rows are counted from 0.")
        if self.files:
            from transformers_videorefer.data.tables.parquet_source import read_parquet_row

            if index < self.total:
                return SourceItem(f"row {index}", index, ROW, read_parquet_row(list(self.files), index))
            num_rows = self.total
        else:
            num_rows = 0
            for num_rows, item in enumerate(self, start=1):
                if num_rows > index:
                    return item
        numbered = f", numbered 0 to {num_rows - 1}" if num_rows > 1 else ""
        raise ValueError(f"Row {index} does not exist: {self.name} has {count_of(num_rows, 'row')}{numbered}.")


def open_source(name: str, *, config: str | None = None, split: str | None = None, every: bool = False) -> RowSource:
    """Find out what a name stands for.

    Args:
        name (`str`): Published file, JSON lines (both also gzipped), Parquet file or folder, or Hub id of a dataset.
        config (`str`, *optional*): Config of a dataset in Parquet files; may be left out where there is one.
        split (`str`, *optional*): Split; may be left out where there is one, or one is "train".
        every (`bool`, *optional*, defaults to `False`): Take all configs and splits together, unless one is named.

    Returns:
        [`RowSource`].

    Raises:
        FileNotFoundError: If there is no such file, folder or dataset.
        ValueError: If config or split is unknown or missing, or the folder holds no Parquet files.
        ImportError: If Parquet files are meant and `datasets` is missing.
    """
    path = Path(name)
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) and path.suffix.lower() not in FILE_SUFFIXES
    if not path.exists() and not is_hub_id:
        raise FileNotFoundError(f"There is no file or folder {name}. Check the path.")
    if path.is_file() and path.suffix != ".parquet":
        if config or split:
            raise ValueError(f"{name} is one file of rows; configs and splits are for datasets in Parquet files.")
        return RowSource(name, (), os.path.getsize(name), "B")
    # Only Parquet files need `datasets`, which is optional and slow to import.
    from transformers_videorefer.data.tables.parquet_source import choose_files, count_rows, list_configs

    if every and config is None and split is None:
        configs = list_configs(name)
        splits = tuple((config, tuple(files)) for config, splits in configs.items() for files in splits.values())
    else:
        splits = ((config or "", tuple(choose_files(name, config, split))),)
    files = [file for _, files in splits for file in files]
    return RowSource(name, tuple(files), count_rows(files), "row", splits)


def is_row(record: Any) -> bool:
    """Tell a row of ours from a published record.

    Args:
        record (`Any`): Content of a JSON file.

    Returns:
        `bool`: True for a dict with the columns of our rows.
    """
    if not isinstance(record, dict) or "conversations" in record or "Question" in record:
        return False
    return "messages" in record or "question" in record or "regions" in record


def _holds_entries(path: str) -> bool:
    """Tell one object with an entry for each video (HC-STVG) from JSON lines, which begin with a brace, too."""
    with Path(path).open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            if file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
                return False
    try:
        first = next(iterate_entries(path), None)
    except ValueError:
        return False
    return first is not None and isinstance(first[2], dict)
