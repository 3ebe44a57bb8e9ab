"""Files of JSON lines that grow while a run goes on, and that a run which was killed can be continued from."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout


class LineWriter:
    """Appends JSON lines to a file; each is in the file as soon as it is written.

    Args:
        path (`Path`): The file, made if there is none.
    """

    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            line (`Mapping[str, Any]`): Content that JSON can hold.
        """
        self._file.write(to_text(line))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


@contextmanager
def only_writer(lock: Path, place: Path) -> Iterator[None]:
    """Keep other processes from writing to a place.

    The operating system holds the lock for as long as this process lives, so one that was killed blocks nobody. The
    files of the lock are removed behind the block.

    Args:
        lock (`Path`): Lock file; its folder is made if there is none.
        place (`Path`): What it stands for, in messages.

    Raises:
        ValueError: If another process writes there; the message names it.
        OSError: If the lock file cannot be made.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Beside the lock and not in it, because some systems close a locked file to everybody else.
    owner = lock.with_suffix(".pid")
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise ValueError(
            f"{place} is in use by {_read_owner(owner)}. Wait until it has ended, or end it, or write elsewhere."
        ) from error
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        with suppress(OSError):  # some systems keep files that are open
            lock.unlink()
        held.release()


def _read_owner(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8") or "another process"
    except OSError:  # it came or went a moment ago
        return "another process"


def to_text(line: Mapping[str, Any]) -> str:
    """Write a line.

    Args:
        line (`Mapping[str, Any]`): Content that JSON can hold.

    Returns:
        `str`: JSON and a line end.
    """
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half characters of broken texts; their escapes can be written
        text = json.dumps(line)
    return f"{text}\n"


def read_lines(path: Path) -> dict[int, dict[str, Any]]:
    """Read the finished lines of a file. A last line without its end, left by a run that was killed, does not count.

    Args:
        path (`Path`): The file; it may be missing.

    Returns:
        `dict[int, dict]`: The lines by their `index`, in the order of the file.

    Raises:
        ValueError: If a finished line is no JSON object with an `index`.
    """
    return {line["index"]: line for line in _finished_lines(path)}


def _finished_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                return
            try:
                line = json.loads(text)
            except ValueError as error:
                raise _broken_line(path, number) from error
            if not isinstance(line, dict) or type(line.get("index")) is not int:
                raise _broken_line(path, number)
            yield line


def _broken_line(path: Path, number: int) -> ValueError:
    return ValueError(
        f"{path}, line {number}, is no line of a run. Remove the line and start again; its sample is answered anew."
    )


def drop_unfinished_line(path: Path) -> None:
    """Cut off what stands behind the last line end of a file, so that appending begins a line of its own.

    Args:
        path (`Path`): The file; it may be missing.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        file.truncate(end)


def write_whole(path: Path, text: str) -> None:
    """Write a file such that an interruption leaves either the old one or the new one.

    Args:
        path (`Path`): The file.
        text (`str`): Its content.
    """
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def check_settings(path: Path, settings: Mapping[str, Any], *, what: str) -> None:
    """Write the settings of a run beside its lines, or compare them with those it was begun with.

    Args:
        path (`Path`): File of the settings.
        settings (`Mapping[str, Any]`): What answers depend on; nested dictionaries of JSON values.
        what (`str`): The flag that named the place, for messages.

    Raises:
        ValueError: If the run was begun with other settings; the message names each difference.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        return
    try:
        begun_with = _flatten(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} holds no settings of a run. Pass another {what}.") from error
    wanted = _flatten(json.loads(json.dumps(settings)))  # tuples become lists, as they did in the file
    names = sorted(name for name in begun_with.keys() | wanted.keys() if begun_with.get(name) != wanted.get(name))
    if names:
        differences = ", ".join(f"{name} {begun_with.get(name)!r} (now {wanted.get(name)!r})" for name in names)
        raise ValueError(
            f"{path.parent} holds a run with other settings: {differences}. Repeat those to go on with it, or pass "
            f"another {what}."
        )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
