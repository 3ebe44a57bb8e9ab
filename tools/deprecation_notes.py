"""A pytest plugin that notes what libraries call deprecated, one JSON line each in the file `$DEPRECATION_NOTES`.

    DEPRECATION_NOTES=notes.jsonl PYTHONPATH=tools pytest -p deprecation_notes

Libraries say it by warnings and by messages of their loggers; both are noted, with the place they name. For a message that
is the innermost line of this repository among its callers.
"""

import json
import logging
import os
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("accelerate", "datasets", "evaluate", "huggingface_hub", "peft", "transformers", "trl")
SAYS_SO = re.compile(r"deprecat|will be removed|removed in (?:v|version )?\d", re.IGNORECASE)
KINDS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
VARIABLE = "DEPRECATION_NOTES"


@dataclass(frozen=True)
class Note:
    """Something a library calls deprecated.

    Args:
        text (`str`): What it says, in one line.
        place (`str`): File and line; relative to this repository if it is one of ours.
        is_ours (`bool`): Whether the place is in this repository.
    """

    text: str
    place: str
    is_ours: bool


def make_note(text: str, file: str, line: int) -> Note:
    """Make a note of a text and a place.

    Args:
        text (`str`): What the library says.
        file (`str`): The file that it names.
        line (`int`): The line in it.

    Returns:
        `Note`: The note.
    """
    path = Path(file)
    is_ours = path.is_relative_to(ROOT) and "site-packages" not in path.parts
    named = path.relative_to(ROOT) if is_ours else Path(*path.parts[-2:])
    return Note(" ".join(text.split()), f"{named}:{line}", is_ours)


def read_notes(path: Path) -> Counter[Note]:
    """Read what the plugin wrote.

    Args:
        path (`Path`): The file; it need not exist.

    Returns:
        `Counter[Note]`: Notes and how often each was met.
    """
    if not path.is_file():
        return Counter()
    return Counter(Note(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())


def _write(note: Note) -> None:
    # One short line at the end of the file: workers don't cut into each other's.
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
        file.write(json.dumps(vars(note)) + "\n")


class _Listener(logging.Handler):
    """Notes messages of the libraries' loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not SAYS_SO.search(text):
            return
        frame = sys._getframe(1)
        while frame is not None:
            note = make_note(text, frame.f_code.co_filename, frame.f_lineno)
            if note.is_ours and Path(frame.f_code.co_filename) != Path(__file__):
                return _write(note)
            frame = frame.f_back
        _write(make_note(text, record.pathname, record.lineno))


class _WarningNotes:
    """Notes warnings that pytest caught."""

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        text = str(warning_message.message)
        if issubclass(warning_message.category, KINDS) or SAYS_SO.search(text):
            text = f"{warning_message.category.__name__}: {text}"
            _write(make_note(text, warning_message.filename, warning_message.lineno))


def pytest_configure(config: pytest.Config) -> None:
    """Listen to loggers and warnings.

    Args:
        config (`pytest.Config`): Settings of the run.
    """
    for name in LIBRARIES:
        logging.getLogger(name).addHandler(_Listener())
    # Warnings of workers reach the process that started them too: each is noted where it was met.
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.register(_WarningNotes())
