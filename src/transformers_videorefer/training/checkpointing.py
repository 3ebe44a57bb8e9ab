"""Complete and half-written checkpoints told apart: a marker that lists all files is written last."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


MARKER = "complete.json"
_FOLDER = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def mark_complete(folder: str | os.PathLike) -> None:
    """Say that a checkpoint is complete: list its files and their sizes, in a file that appears at once.

    Args:
        folder (`str` or `os.PathLike`): The checkpoint, in which nothing is written any more.
    """
    folder = Path(folder)
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in _files(folder)}
    unfinished = folder / f"{MARKER}.part"
    with unfinished.open("w", encoding="utf-8") as stream:
        json.dump({"files": sizes}, stream, indent=2, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(folder / MARKER)


def unmark(folder: str | os.PathLike) -> None:
    """Say that a checkpoint is being written; does nothing if there is none.

    Args:
        folder (`str` or `os.PathLike`): The checkpoint.
    """
    Path(folder, MARKER).unlink(missing_ok=True)


def what_is_missing(folder: str | os.PathLike) -> str | None:
    """Say what a checkpoint lacks.

    Args:
        folder (`str` or `os.PathLike`): The checkpoint.

    Returns:
        `str` or `None`: What is wrong with it; `None` if it is complete.
    """
    folder = Path(folder)
    try:
        sizes = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"it has no {MARKER}, which is written last"
    except (ValueError, KeyError, TypeError):
        return f"its {MARKER} cannot be read"
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            return f"it lacks {name}"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
    return None


def find_checkpoints(folder: str | os.PathLike) -> tuple[str | None, list[tuple[str, str]]]:
    """Find the last complete checkpoint of a run.

    Args:
        folder (`str` or `os.PathLike`): The output folder of the run.

    Returns:
        `tuple[str | None, list[tuple[str, str]]]`: Its path, `None` if there is none, and the name of each later
        checkpoint with what is wrong with it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return None, []
    found = sorted(
        (
            (int(match[1]), path)
            for path in folder.iterdir()
            if (match := _FOLDER.fullmatch(path.name)) and path.is_dir()
        ),
        reverse=True,
    )
    passed_over = []
    for _, path in found:
        problem = what_is_missing(path)
        if problem is None:
            return str(path), passed_over
        passed_over.append((path.name, problem))
    return None, passed_over


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(MARKER))
