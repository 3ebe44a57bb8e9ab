"""The manifest of an audit: a Parquet file with one row for each video."""

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from transformers_videorefer.data.tables.parquet import write_parquet

from .audit import VideoRecord


try:
    import datasets
except ImportError as error:
    raise ImportError("Parquet files need the library `datasets`. Install it with `pip install datasets`.") from error

_BATCH_SIZE = 1000


def manifest_features() -> "datasets.Features":
    """Return the columns of a manifest.

    Returns:
        `datasets.Features`: The attributes of [`VideoRecord`].
    """
    text, whole, number = datasets.Value("string"), datasets.Value("int64"), datasets.Value("float64")
    flag = datasets.Value("bool")
    return datasets.Features(
        {
            "video": text,
            "status": text,
            "message": text,
            "num_rows": whole,
            "edit_list": text,
            "highest_frame_index": whole,
            "annotation_fits": text,
            "mask_size_fits": flag,
            "has_edit_list": flag,
            "num_frames_applied": whole,
            "num_frames_ignored": whole,
            "fps": number,
            "width": whole,
            "height": whole,
            "duration_seconds": number,
            "num_bytes": whole,
            "sha256": text,
        }
    )


def write_manifest(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Write a manifest; the file is whole or absent.

    Args:
        path (`str` or `os.PathLike`): The file to be made.
        records (`Iterable[VideoRecord]`): What an audit found.

    Raises:
        OSError: If the file cannot be written.
    """
    write_parquet(path, _batch(records), manifest_features())


def _batch(records: Iterable[VideoRecord]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(records)
    while batch := [record.to_dict() for record in itertools.islice(remaining, _BATCH_SIZE)]:
        yield batch
