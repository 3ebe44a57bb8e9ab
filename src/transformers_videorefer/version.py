"""The version of this package, and the ranges of the libraries it was tested with."""

import importlib.metadata
import re


__version__ = "0.1.0.dev0"

# The name the package is installed under.
DISTRIBUTION = "transformers-videorefer"


def tested_range(library: str) -> str | None:
    """Return the releases of a library that this package was tested with, as its metadata states them.

    Args:
        library (`str`): Name of the library on the package index, such as `"transformers"`.

    Returns:
        `str` or `None`: A range such as `">=5.23,<5.25"`; `None` where the package is not installed but only on the
        path, or does not name the library.
    """
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    wanted = _normalized(library)
    for requirement in requirements:
        name, specifiers = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*([^;]*).*", requirement).groups()
        if _normalized(name) == wanted:
            # Build tools write the two ends in either order.
            return ",".join(sorted((part.strip() for part in specifiers.split(",")), reverse=True)) or None
    return None


def _normalized(name: str) -> str:
    """Spell a name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


__all__ = ["DISTRIBUTION", "__version__", "tested_range"]
