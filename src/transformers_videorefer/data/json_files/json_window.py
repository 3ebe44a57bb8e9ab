"""The text of a JSON file piece by piece: opening, finding the first character, and parsing one value after the other."""

import codecs
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from transformers_videorefer.data.defects import RecordError, describe, make_defect


PIECE_BYTES = 1 << 21
# A record that goes on this long is taken for a broken file, so that memory stays bounded.
MAX_RECORD_BYTES = 1 << 30
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
_BOM = codecs.BOM_UTF8
_GZIP = b"\x1f\x8b"
_WHITESPACE = re.compile(r"[ \t\n\r]*")
# A parser that runs out of text stops this close to its end, except inside a text.
_CUT_MARGIN = 16


def lenient_int(digits: str) -> int | float:
    """Read a whole number; one of thousands of digits, which Python refuses, becomes infinite."""
    return int(digits) if len(digits) < 4000 else float(digits)


class RepeatedKeys(dict):
    """A JSON object in which a key stands more than once; the last value counts.

    Attributes:
        repeated (`list[str]`): Those keys, in their order.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs, and keep in mind which keys it repeats."""
    value = dict(pairs)
    return value if len(value) == len(pairs) else RepeatedKeys(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_to_object)
_LENIENT_DECODER = json.JSONDecoder(object_pairs_hook=_to_object, parse_int=lenient_int)


@contextmanager
def open_json(path: Path) -> Iterator[tuple[IO[bytes], bool]]:
    """Open a file for reading bytes, unpacked where it is gzipped; also tell whether it is."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == _GZIP
        raw.seek(0)
        if not is_gzip:
            yield raw, False
            return
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield unpacked, True


def _read(file: IO[bytes], num_bytes: int, path: Path, offset: int) -> bytes:
    """Read bytes; a damaged gzip file is a damaged file."""
    try:
        return file.read(num_bytes)
    except GZIP_ERRORS as error:
        raise file_error(path, offset, f"the gzip data is damaged ({error})") from error


def file_error(path: Path, offset: int, reason: str) -> RecordError:
    """Make the error for a file that cannot be read on."""
    return RecordError(
        [make_defect("broken_json", f"{reason}.")],
        where=f"{path.name}, byte {offset}",
        hint="Fetch the file again or cut the broken part out.",
    )


def find_first(file: IO[bytes], path: Path) -> tuple[int, bytes]:
    """Return the place of the first byte that is neither a byte order mark nor white space, and that byte."""
    offset = 0
    while True:
        piece = _read(file, 4096, path, offset)
        if offset == 0 and piece.startswith(_BOM):
            piece, offset = piece[len(_BOM) :], len(_BOM)
        stripped = piece.lstrip(b" \t\r\n")
        if stripped or not piece:
            return offset + len(piece) - len(stripped), stripped[:1]
        offset += len(piece)


class JsonWindow:
    """The part of a text that is in memory, with the place in the file of the next character."""

    def __init__(self, file: IO[bytes], path: Path, offset: int) -> None:
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._is_ascii = True
        self._position = 0
        self._num_read = offset
        self._at_end = False
        self.offset = offset

    def _advance(self, position: int) -> None:
        if self._is_ascii:
            self.offset += position - self._position
        else:
            self.offset += len(self._text[self._position : position].encode("utf-8"))
        self._position = position

    def _read_more(self) -> None:
        """Forget what was used and read as much again as is left, at least one piece."""
        left = self._text[self._position :]
        if len(left) > MAX_RECORD_BYTES:
            raise self.error(f"a record is longer than {MAX_RECORD_BYTES} bytes")
        piece = _read(self._file, max(PIECE_BYTES, len(left)), self._path, self._num_read)
        self._at_end = not piece
        try:
            more = self._decoder.decode(piece, final=self._at_end)
        except UnicodeDecodeError as error:
            place = self._num_read + error.start
            raise file_error(self._path, place, f"the text is no UTF-8 ({error.reason})") from error
        self._num_read += len(piece)
        self._text = left + more
        self._position = 0
        self._is_ascii = self._text.isascii()

    def skip_whitespace(self) -> int:
        """Go to the next character that is no white space and return its place in the file."""
        while True:
            self._advance(_WHITESPACE.match(self._text, self._position).end())
            if self._position < len(self._text) or self._at_end:
                return self.offset
            self._read_more()

    def take_if(self, character: str) -> bool:
        """Go behind the next character if it is this one."""
        self.skip_whitespace()
        found = self._text.startswith(character, self._position)
        if found:
            self._advance(self._position + 1)
        return found

    def take(self, character: str) -> None:
        """Go behind the next character, which must be this one."""
        if not self.take_if(character):
            found = describe(self._text[self._position : self._position + 1]) if not self.is_done() else "the end"
            raise self.error(f"expected {character!r}, found {found}")

    def is_done(self) -> bool:
        """Tell whether only white space is left."""
        self.skip_whitespace()
        return self._position >= len(self._text)

    def expect_end(self) -> None:
        """Check that only white space is left."""
        if not self.is_done():
            raise self.error("the file goes on behind the end of its JSON")

    def parse(self) -> Any:
        """Parse the value that begins here and go behind it."""
        while True:
            try:
                value, end = raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _CUT_MARGIN
                if self._at_end or not is_cut:
                    raise self._parse_error(error) from error
            except RecursionError as error:
                raise self.error("a record is nested too deeply") from error
            else:
                # A number near the end of the text may go on: of "1.5", "1." may be there already.
                is_whole = end < len(self._text) - _CUT_MARGIN or isinstance(value, (list, dict, str))
                if is_whole or self._at_end:
                    self._advance(end)
                    return value
            self._read_more()

    def error(self, reason: str) -> RecordError:
        """Make the error for a text that is not as expected here."""
        return file_error(self._path, self.offset, reason)

    def _parse_error(self, error: json.JSONDecodeError) -> RecordError:
        offset = self.offset + len(self._text[self._position : error.pos].encode("utf-8"))
        ended = " (the file ends early)" if self._at_end and error.pos >= len(self._text) - _CUT_MARGIN else ""
        return file_error(self._path, offset, f"the record at byte {self.offset} is no JSON: {error.msg}{ended}")


def raw_decode(text: str, position: int) -> tuple[Any, int]:
    """Parse the value at a position; numbers of thousands of digits do not stop it."""
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _LENIENT_DECODER.raw_decode(text, position)
