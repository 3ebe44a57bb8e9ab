"""Paths of media files in rows: relative to a data root, and never outside it."""

import os
import re


_SEPARATORS = re.compile(r"[/\\]+")
# `file:`, `https:`, `concat:` and drive letters (`C:`): whatever stands before a colon at the very beginning.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


def is_unsafe_path(path: str) -> bool:
    """Tell whether a path could name something outside the folder that it is relative to.

    The check looks at the text only, so links inside a data root may point wherever its owner wants. Backslashes
    count as separators on every system, because rows travel between systems.

    Args:
        path (`str`): Path of a media file or folder as a row holds it.

    Returns:
        `bool`: True for an empty path, absolute paths (also of Windows: drives, network shares), URLs, a home folder
        (`~`), control characters, and `..` that leaves the folder or leads back to the folder itself.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        return True
    if _SCHEME.match(path) or path.startswith(("/", "\\", "~")):
        return True
    depth = 0
    for part in _SEPARATORS.split(path):
        if part in ("", "."):
            continue
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return depth == 0


def resolve_media(path: str, data_root: str | os.PathLike | None) -> str:
    """Return where the media file of a row lies.

    Args:
        path (`str`): Path as the row holds it.
        data_root (`str` or `os.PathLike`, *optional*): Folder that paths of rows are relative to. Without it the path
            is taken as it is, unchecked.

    Returns:
        `str`: The joined path; `..` inside it is resolved by its text, so that a link on the way cannot lead out.

    Raises:
        TypeError: If the path is no text.
        ValueError: If the path is not below `data_root`.
    """
    if not isinstance(path, str):
        raise TypeError(f"The path of a medium must be text, got {type(path).__name__}. Give a path or leave it out.")
    if data_root is None:
        return path
    if is_unsafe_path(path):
        raise ValueError(
            f"The media path {path!r} is not a path below the data root. "
            "Write it relative to the data root, without `..` that leaves it, or pass no `data_root`."
        )
    # `./` keeps a name such as `concat:x` from being read as a protocol where the data root is the current folder.
    return os.path.join(os.fspath(data_root) or ".", os.path.normpath(path))
