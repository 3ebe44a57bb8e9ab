"""Rows as Parquet files that `datasets` loads with no code of ours: built column by column, never half written."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any


try:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError("Parquet files need the library `datasets`. Install it with `pip install datasets`.") from error

# Streaming readers take a row group at a time: small groups keep them small, much smaller ones cost speed.
ROW_GROUP_BYTES = 16_000_000
COMPRESSION = "zstd"
COMPRESSION_LEVEL = 1
# Strings that repeat, the only ones for which a dictionary pays.
DICTIONARY_COLUMNS = ("edit_list", "task", "source", "video", "image")


def rows_to_table(rows: Sequence[dict[str, Any]], features: "datasets.Features") -> pa.Table:
    """Turn rows into an Arrow table with the schema of `features`, column by column.

    The writer of `datasets` visits every value of every row in turn; flat lists and offsets give the same table many
    times faster, which matters where a row holds 32 masks.

    Args:
        rows (`Sequence[dict[str, Any]]`): Rows with at least the columns of `features`; a column a row lacks is null.
        features (`datasets.Features`): Columns; plain values, lists of them, `Json`, `ClassLabel` and `regions`.

    Returns:
        `pyarrow.Table`: One row each, schema `features.arrow_schema` with the metadata that `datasets` reads.

    Raises:
        ValueError: If a value does not fit its column.
    """
    schema = features.arrow_schema
    columns = []
    for field in schema:
        try:
            columns.append(_column([row.get(field.name) for row in rows], field, features[field.name]))
        except (pa.ArrowException, OverflowError, TypeError, UnicodeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"The column `{field.name}` does not fit its type: {error}. Give rows as `from_published` makes them."
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], field: pa.Field, feature: Any) -> pa.Array:
    if isinstance(feature, datasets.Json):
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        return pa.ExtensionArray.from_storage(field.type, pa.array(texts, field.type.storage_type))
    if isinstance(feature, datasets.ClassLabel):
        numbers = [feature.str2int(value) if isinstance(value, str) else value for value in values]
        return pa.array(numbers, field.type)
    return _array(values, field.type)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Build lists and structs from flat children; leave plain values to Arrow."""
    if not (pa.types.is_list(kind) or pa.types.is_struct(kind)):
        return pa.array(values, kind)
    is_null = [value is None for value in values]
    has_null = True in is_null
    if has_null and False not in is_null:
        return pa.nulls(len(values), kind)
    mask = pa.array(is_null, pa.bool_()) if has_null else None
    if pa.types.is_list(kind):
        parts = [() if value is None else value for value in values] if has_null else values
        offsets = pa.array(list(accumulate(map(len, parts), initial=0)), pa.int32())
        return pa.ListArray.from_arrays(
            offsets, _array(list(chain.from_iterable(parts)), kind.value_type), type=kind, mask=mask
        )
    empty: dict[str, Any] = {}
    parts = [empty if value is None else value for value in values] if has_null else values
    children = [_array(_take(parts, field.name), field.type) for field in kind]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)


def _take(parts: list[dict[str, Any]], name: str) -> list[Any]:
    """Return one value of each dict, None where it has none."""
    try:
        return list(map(itemgetter(name), parts))
    except KeyError:
        return [part.get(name) for part in parts]


class ParquetRowWriter:
    """Writes rows to one Parquet file that appears under its name only when it is whole.

    The file grows under `part_path`, is flushed to the disk and then renamed; where an exception leaves the `with`
    block, it is removed.

    Args:
        path (`str` or `os.PathLike`): The file to be made; an older one is replaced at the end.
        features (`datasets.Features`): Columns, see [`rows_to_table`].
        part_path (`str` or `os.PathLike`, *optional*): Name while it grows, on the same file system. Defaults to a
            hidden name beside `path`, which loaders of folders pass over.
        row_group_bytes (`int`, *optional*, defaults to 16,000,000): Uncompressed size at which a row group is closed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        features: "datasets.Features",
        *,
        part_path: str | os.PathLike | None = None,
        row_group_bytes: int = ROW_GROUP_BYTES,
    ) -> None:
        if row_group_bytes < 1:
            raise ValueError(f"`row_group_bytes` is {row_group_bytes}. Give a positive number of bytes.")
        self.path = Path(path)
        self.part_path = Path(part_path) if part_path else self.path.with_name(f".{self.path.name}.part")
        self.features = features
        self.row_group_bytes = row_group_bytes
        self.num_rows = 0
        self.num_bytes = 0  # uncompressed, in memory
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "ParquetRowWriter":
        self.part_path.parent.mkdir(parents=True, exist_ok=True)
        schema = self.features.arrow_schema
        self._writer = pq.ParquetWriter(
            self.part_path,
            schema,
            compression=COMPRESSION,
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=[name for name in DICTIONARY_COLUMNS if name in schema.names],
            # Smallest and largest masks would only be copied into every footer.
            write_statistics=[field.name for field in schema if not pa.types.is_nested(field.type)],
        )
        return self

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows.

        Args:
            rows (`Sequence[dict[str, Any]]`): Rows in their order.

        Raises:
            ValueError: If a value does not fit its column.
        """
        if not rows:
            return
        table = rows_to_table(rows, self.features)
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        self.num_rows += table.num_rows
        self.num_bytes += table.nbytes
        if self._waiting_bytes >= self.row_group_bytes:
            self._write_waiting()

    def _write_waiting(self) -> None:
        table = pa.concat_tables(self._waiting)
        # Rows are split evenly, so that a large batch still gives groups of about the wanted size.
        num_groups = max(1, round(self._waiting_bytes / self.row_group_bytes))
        self._writer.write_table(table, row_group_size=max(1, -(-table.num_rows // num_groups)))
        self._waiting, self._waiting_bytes = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._waiting:
                self._write_waiting()
            self._writer.close()
            if error is None:
                flush_to_disk(self.part_path)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.part_path, self.path)
                flush_to_disk(self.path.parent)
        finally:
            self.part_path.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a rename never stands before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_parquet(
    path: str | os.PathLike,
    batches: Iterable[Sequence[dict[str, Any]]],
    features: "datasets.Features",
    *,
    part_path: str | os.PathLike | None = None,
    row_group_bytes: int = ROW_GROUP_BYTES,
    on_batch: Callable[[int], None] | None = None,
) -> ParquetRowWriter:
    """Write batches of rows to one Parquet file that is whole or absent.

    Args:
        path (`str` or `os.PathLike`): The file to be made.
        batches (`Iterable[Sequence[dict[str, Any]]]`): Rows in their order, some at a time.
        features (`datasets.Features`): Columns, see [`rows_to_table`].
        part_path (`str` or `os.PathLike`, *optional*): Name while it grows, see [`ParquetRowWriter`].
        row_group_bytes (`int`, *optional*, defaults to 16,000,000): Uncompressed size of a row group.
        on_batch (`Callable`, *optional*): Called with the number of rows of each batch once it is taken.

    Returns:
        [`ParquetRowWriter`]: The closed writer; `num_rows` and `num_bytes` (uncompressed) say what it wrote.

    Raises:
        ValueError: If a value does not fit its column.
    """
    with ParquetRowWriter(path, features, part_path=part_path, row_group_bytes=row_group_bytes) as writer:
        for rows in batches:
            writer.write(rows)
            if on_batch:
                on_batch(len(rows))
    return writer
