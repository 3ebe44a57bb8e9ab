"""JSON files that may hold anything anywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers_videorefer.data.json_files.json_window import lenient_int


def load_json(path: Path) -> Any:
    """Read a JSON file as a whole.

    Args:
        path (`Path`): The file.

    Returns:
        `Any`: Its content.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON; the message names line and column.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, parse_int=lenient_int)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path.name}, line {error.lineno}, column {error.colno}: no JSON: {error.msg}. Export the file again."
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON text: {error}. Export the file again.") from error


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and nothing in the place of anything else that a broken file may hold.

    Args:
        value (`Any`): The value.

    Returns:
        `list`: The value, or an empty list.
    """
    return value if isinstance(value, list) else []


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object as it is, and an empty one in the place of anything else.

    Args:
        value (`Any`): The value.

    Returns:
        `Mapping`: The value, or an empty dict.
    """
    return value if isinstance(value, Mapping) else {}


__all__ = ["as_list", "as_mapping", "load_json"]
