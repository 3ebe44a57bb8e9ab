"""Rows of Parquet files, one after the other or by number, in bounded memory: local files and folders, or the Hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


try:
    import datasets
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError("Parquet files need the library `datasets`. Install it with `pip install datasets`.") from error

# Rows that are in memory at the same time: one may hold a megabyte of masks.
BATCH_SIZE = 64
_NO_DATASET = "{name} holds no dataset in Parquet files. Pass a folder that an export wrote."


def list_configs(name: str) -> dict[str, dict[str, list[str]]]:
    """Find the Parquet files of a dataset.

    Args:
        name (`str`): Parquet file, folder with Parquet files (and a card that sorts them into configs), or Hub id.

    Returns:
        `dict[str, dict[str, list[str]]]`: Files by config and split; a single file is the split "train" of "default".

    Raises:
        ValueError: If the dataset holds no Parquet files.
        OSError: If it does not exist or cannot be read.
    """
    if Path(name).is_file():
        return {"default": {"train": [name]}}
    configs = {}
    # The library names a dataset after the last part of its path, which "." and ".." lack.
    path = str(Path(name).resolve()) if Path(name).exists() else name
    try:
        for config in datasets.get_dataset_config_names(path):
            data_files = datasets.load_dataset_builder(path, config).config.data_files or {}
            configs[config] = {str(split): [str(file) for file in files] for split, files in data_files.items()}
    except (ConnectionError, FileNotFoundError) as error:
        if Path(name).exists():
            raise ValueError(_NO_DATASET.format(name=name)) from error
        raise FileNotFoundError(
            f"There is no file or folder {name}, and the Hub gives no dataset of that name ({error}). Check the name."
        ) from error
    files = [file for splits in configs.values() for files in splits.values() for file in files]
    if not files or any(not file.endswith(".parquet") for file in files):
        raise ValueError(_NO_DATASET.format(name=name))
    return configs


def choose_files(name: str, config: str | None, split: str | None) -> list[str]:
    """Find the Parquet files of one split.

    Args:
        name (`str`): As in `list_configs`.
        config (`str`, *optional*): Config; may be left out where there is one.
        split (`str`, *optional*): Split; may be left out where there is one, or one is "train".

    Returns:
        `list[str]`: Paths, or addresses of the Hub.

    Raises:
        ValueError: If config or split is missing or unknown; the message lists what there is.
        OSError: If the dataset cannot be read.
    """
    configs = list_configs(name)
    if config is None and len(configs) == 1:
        config = next(iter(configs))
    if config not in configs:
        given = "The config is missing" if config is None else f"There is no config {config!r}"
        raise ValueError(f"{given}: {name} has {', '.join(configs)}. Pass one of them.")
    splits = configs[config]
    if split is None:
        split = "train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else None
    if split not in splits:
        given = "The split is missing" if split is None else f"There is no split {split!r}"
        raise ValueError(f"{given}: {name} ({config}) has {', '.join(splits)}. Pass one of them.")
    return splits[split]


def count_rows(files: list[str]) -> int:
    """Count the rows of Parquet files without reading them.

    Args:
        files (`list[str]`): Paths or addresses.

    Returns:
        `int`: Number of rows.

    Raises:
        ValueError: If a file is no Parquet file.
        OSError: If a file cannot be read.
    """
    return sum(file.metadata.num_rows for _, file in _open_each(files))


def iterate_parquet(files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the rows of Parquet files.

    Args:
        files (`list[str]`): Paths or addresses.

    Yields:
        `tuple[str, dict]`: Where the row stands ("train-00001.parquet, row 1012", numbered over all files as in
        `read_parquet_row`), and the row.

    Raises:
        ValueError: If a file is no Parquet file.
        OSError: If a file cannot be read.
    """
    number = 0
    for name, file in _open_each(files):
        for batch in file.iter_batches(batch_size=BATCH_SIZE):
            for row in _to_rows(pa.Table.from_batches([batch], schema=file.schema_arrow)):
                yield f"{name}, row {number}", row
                number += 1


def read_parquet_row(files: list[str], index: int) -> dict[str, Any]:
    """Read one row; only the row group that it lies in is read.

    Args:
        files (`list[str]`): Paths or addresses.
        index (`int`): Number of the row over all files.

    Returns:
        `dict`: The row.

    Raises:
        IndexError: If there are not that many rows.
        ValueError: If a file is no Parquet file.
        OSError: If a file cannot be read.
    """
    first = 0
    for _, file in _open_each(files):
        for group in range(file.num_row_groups):
            num_rows = file.metadata.row_group(group).num_rows
            if first <= index < first + num_rows:
                return next(_to_rows(file.read_row_group(group).slice(index - first, 1)))
            first += num_rows
    raise IndexError(first)


def _open_each(files: list[str]) -> Iterator[tuple[str, pq.ParquetFile]]:
    for path in files:
        name = path.rsplit("/", 1)[-1]
        with fsspec.open(path, "rb") as content:
            try:
                file = pq.ParquetFile(content)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{path} is no whole Parquet file: {error}. Export or download it again.") from error
            yield name, file


def _to_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Turn a table into rows as `load_dataset` gives them, with the names of classes in the place of their numbers."""
    dataset = datasets.Dataset(datasets.table.InMemoryTable(table))
    classes = {name: feature for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)}
    for row in dataset:
        for name, feature in classes.items():
            if row[name] is not None and 0 <= row[name] < feature.num_classes:
                row[name] = feature.int2str(row[name])
        # Files that were not written by `datasets` hold the messages as plain text.
        if isinstance(row.get("messages"), str):
            row["messages"] = json.loads(row["messages"])
        yield row
