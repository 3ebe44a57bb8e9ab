"""Published JSON files of any size as a stream: one top-level array, one top-level object, or JSON lines, also gzipped.

The text is decoded piece by piece, and each record is parsed by the standard library as soon as it is complete, so
memory stays at a few pieces beside the largest record.
"""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from transformers_videorefer.data.defects import describe

from . import json_window
from .json_window import GZIP_ERRORS, MAX_RECORD_BYTES, JsonWindow, file_error, find_first, open_json, raw_decode


# Files of up to this size are split by reading them once; larger ones by looking around the cuts.
READ_TO_SPLIT_BYTES = 1 << 25
# `} , { "letter`: the quote can only open a text, so the braces before it stand outside of any text.
_NEXT_OBJECT = re.compile(rb'\}\s*,\s*(?=\{\s*"[A-Za-z_])')
# Fields that only whole records have, never the objects inside one.
_RECORD_FIELDS = ("conversations", "Question", "caption")


@dataclass(frozen=True)
class BrokenRecord:
    """A line of a JSON-lines file that is no JSON.

    Args:
        reason (`str`): What is wrong with it.
    """

    reason: str


def iterate_records(
    path: str | os.PathLike[str], *, shard: tuple[int, int] | None = None
) -> Iterator[tuple[int, Any]]:
    """Read the records of a JSON array or of JSON lines one after the other, in bounded memory.

    Args:
        path (`str` or `os.PathLike`): The file; the content tells arrays from lines and gzip from plain text.
        shard (`tuple[int, int]`, *optional*): Range of bytes from [`split_file`]; the whole file by default.

    Yields:
        `tuple[int, Any]`: Where the record begins, in bytes of the (unpacked) text, and the record. In JSON lines, a
        line that is no JSON comes as [`BrokenRecord`], and the rest goes on.

    Raises:
        RecordError: If an array is no JSON, ends early or is followed by something; names file and byte.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    with open_json(path) as (file, is_gzip):
        size = None if is_gzip else path.stat().st_size
        start, first = find_first(file, path)
        begin, end = (0, None) if shard is None or is_gzip else shard
        if end is not None and size is not None and end >= size:
            end = None
        if first == b"":
            return
        if first == b"[":
            file.seek(max(begin, start))
            yield from _array_records(JsonWindow(file, path, max(begin, start)), end, has_bracket=begin <= start)
        elif first == b"{":
            file.seek(max(begin, start))
            yield from _line_records(file, path, max(begin, start), end)
        else:
            raise file_error(path, start, f"expected a JSON array or JSON lines, found {describe(first)}")


def iterate_entries(path: str | os.PathLike[str]) -> Iterator[tuple[int, str, Any]]:
    """Read the entries of one top-level JSON object one after the other, in bounded memory.

    Args:
        path (`str` or `os.PathLike`): The file, plain or gzipped.

    Yields:
        `tuple[int, str, Any]`: Where the entry begins, in bytes of the (unpacked) text, its key and its value.

    Raises:
        RecordError: If the file is no JSON object, ends early or goes on behind it; names file and byte.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    with open_json(path) as (file, _):
        start, first = find_first(file, path)
        if first != b"{":
            raise file_error(path, start, "expected one JSON object with an entry for each video")
        file.seek(start)
        window = JsonWindow(file, path, start)
        window.take("{")
        is_first = True
        while not window.take_if("}"):
            if not is_first:
                window.take(",")
            is_first = False
            offset = window.skip_whitespace()
            key = window.parse()
            if not isinstance(key, str):
                raise file_error(path, offset, f"expected the name of a video, found {describe(key)}")
            window.take(":")
            window.skip_whitespace()
            yield offset, key, window.parse()
        window.expect_end()


def split_file(path: str | os.PathLike[str], num_shards: int) -> list[tuple[int, int]]:
    """Cut a file into ranges of bytes of about the same size that begin and end between two records.

    Args:
        path (`str` or `os.PathLike`): JSON array or JSON lines. A gzipped file cannot be cut: it is one range.
        num_shards (`int`): How many ranges, at least 1. There are fewer where the file has fewer records, and none
            for an empty file; no range is empty.

    Returns:
        `list[tuple[int, int]]`: First byte and the byte behind the last one of each range; together they are the
        whole file.

    Raises:
        ValueError: If `num_shards` is less than 1.
        RecordError: If the file is no JSON; files above 32 MB are not read in full here.
        OSError: If the file cannot be read.
    """
    if num_shards < 1:
        raise ValueError(f"`num_shards` must be at least 1, got {num_shards}.")
    path = Path(path)
    with open_json(path) as (file, is_gzip):
        size = path.stat().st_size
        start, first = find_first(file, path)
        if first == b"":
            return []
        if is_gzip or num_shards == 1:
            return [(0, size)]
        targets = [start + (size - start) * shard // num_shards for shard in range(1, num_shards)]
        if first == b"{":
            cuts = [_next_line(file, target) for target in targets]
        elif size <= READ_TO_SPLIT_BYTES:
            cuts = _cuts_by_reading(path, targets)
        else:
            cuts = _cuts_by_looking(file, path, targets)
    borders = sorted({0, size, *(cut for cut in cuts if cut < size)})
    return list(itertools.pairwise(borders))


def _array_records(window: JsonWindow, end: int | None, *, has_bracket: bool) -> Iterator[tuple[int, Any]]:
    """Read records of an array up to a byte, or up to its end."""
    if has_bracket:
        window.take("[")
        if window.take_if("]"):
            window.expect_end()
            return
    while True:
        offset = window.skip_whitespace()
        if end is not None and offset >= end:
            return
        record = window.parse()
        if end is not None and window.offset > end:
            raise window.error("the range of bytes does not end between two records; take it from `split_file`")
        yield offset, record
        if end is None and window.take_if("]"):
            window.expect_end()
            return
        window.take(",")


def _line_records(file: IO[bytes], path: Path, offset: int, end: int | None) -> Iterator[tuple[int, Any]]:
    """Read records of JSON lines up to a byte, or up to the end of the file."""
    is_first = True
    while end is None or offset < end:
        try:
            line = file.readline(MAX_RECORD_BYTES)
        except GZIP_ERRORS as error:
            raise file_error(path, offset, f"the gzip data is damaged ({error})") from error
        if not line:
            return
        if is_first and line.strip() == b"{":
            raise file_error(path, offset, "the file is one JSON object, neither an array nor JSON lines")
        is_first = False
        if line.strip():
            yield offset, _parse_line(line)
        offset += len(line)


def _parse_line(line: bytes) -> Any:
    """Parse one line."""
    try:
        text = line.decode("utf-8").strip()
        value, end = raw_decode(text, 0)
    except RecursionError:
        return BrokenRecord("the line is nested too deeply")
    except ValueError as error:  # broken UTF-8 as well as broken JSON
        return BrokenRecord(f"the line is no JSON: {error}")
    return value if end == len(text) else BrokenRecord("the line goes on behind the end of its JSON")


def _next_line(file: IO[bytes], target: int) -> int:
    """Return where the first line behind a place begins."""
    file.seek(max(target - 1, 0))
    file.readline(MAX_RECORD_BYTES)
    return file.tell()


def _cuts_by_reading(path: Path, targets: list[int]) -> list[int]:
    """Return the first record behind each place, in bytes."""
    cuts: list[int] = []
    for offset, _ in iterate_records(path):
        while len(cuts) < len(targets) and targets[len(cuts)] <= offset:
            cuts.append(offset)
    return cuts


def _cuts_by_looking(file: IO[bytes], path: Path, targets: list[int]) -> list[int]:
    """Return a record behind each place, in bytes, without reading what lies between.

    Braces that follow each other like those of two objects in an array are found at once; whether the array is that of
    the file or one inside a record shows in the fields of the object. A file of other objects is read.
    """
    _, first = next(iterate_records(path), (0, None))
    if not _is_record(first):
        return _cuts_by_reading(path, targets)
    cuts: list[int] = []
    for target in targets:
        if not cuts or cuts[-1] < target:
            cuts.append(_look_for_record(file, path, target))
    return cuts


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and any(field in value for field in _RECORD_FIELDS)


def _look_for_record(file: IO[bytes], path: Path, target: int) -> int:
    """Return the first record behind a place, in bytes; the end of the file if there is none."""
    size = path.stat().st_size
    num_bytes = json_window.PIECE_BYTES
    while True:
        file.seek(target)
        piece = file.read(num_bytes)
        for match in _NEXT_OBJECT.finditer(piece):
            # The piece may end inside of the record, or of a character.
            text = piece[match.end() :].decode("utf-8", errors="replace")
            try:
                value, _ = raw_decode(text, 0)
            except (ValueError, RecursionError):
                break
            if _is_record(value):
                return target + match.end()
        if target + len(piece) >= size or num_bytes > MAX_RECORD_BYTES:
            return size
        num_bytes *= 2


__all__ = ["BrokenRecord", "iterate_entries", "iterate_records", "split_file"]
