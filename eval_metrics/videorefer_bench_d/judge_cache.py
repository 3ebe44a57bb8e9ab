"""Replies of a judge on the disk, so that nothing is asked and paid for twice."""

import hashlib
import json
import logging
import numbers
import os
import tempfile
from pathlib import Path
from typing import Any


logger = logging.getLogger(__name__)


class ReplyCache:
    """One JSON file per reply, named by the hash of everything the reply depends on.

    Several processes may share a folder: files appear whole or not at all.

    Args:
        folder (`str` or `os.PathLike`, *optional*): Where the files are. Without it nothing is kept.
    """

    def __init__(self, folder: str | os.PathLike | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def _path(self, request: dict[str, Any]) -> Path:
        text = json.dumps(request, sort_keys=True, separators=(",", ":"))
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    def get(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Look up a reply.

        Args:
            request (`dict[str, Any]`): Everything that decides the reply.

        Returns:
            `dict[str, Any]`: What `put` was given, or None.
        """
        if self.folder is None or not (path := self._path(request)).exists():
            return None
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            return entry["reply"] if entry["request"] == request else None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            logger.warning("The cached reply %s can't be read and is asked for again.", path.name)
            return None

    def put(self, request: dict[str, Any], reply: dict[str, Any]) -> None:
        """Keep a reply.

        Args:
            request (`dict[str, Any]`): Everything that decides the reply.
            reply (`dict[str, Any]`): What to keep, as JSON types; numbers of other libraries become plain ones.
        """
        if self.folder is None:
            return
        text = json.dumps({"request": request, "reply": reply}, default=_plain)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.folder, suffix=".part", delete=False) as file:
            file.write(text)
        os.replace(file.name, self._path(request))


def _plain(value: Any) -> int | float | str:
    """Return what JSON can hold of a value that it does not know, such as a NumPy number."""
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else str(value)
