"""Export by reach: the modules that a model needs, as siblings that import each other."""

import ast
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


PACKAGE = "transformers_videorefer"
# This module travels too. What came with a saved repository is flat already, and is passed on as it is.
_IS_COPY = __name__.split(".")[0] != PACKAGE
_ROOT = Path(__file__).parent if _IS_COPY else Path(__file__).parents[1]


def flatten_code(modules: Iterable[str], folder: str | os.PathLike) -> None:
    """Write the modules that a saved repository starts at, and all that they import of ours, into one folder.

    `from transformers_videorefer.regions.rle import x` leads on to `regions/rle.py`. It is written as `regions_rle.py`,
    and the statement as `from .regions_rle import x`; nothing else of a file changes. Files of `models/<family>/` keep
    their names. Code that came with a saved repository is copied as it is.

    Args:
        modules (`Iterable[str]`): Names of modules of a model family, such as `"modeling_videorefer"`.
        folder (`str` or `os.PathLike`): Where to. Other files there stay.

    Raises:
        FileNotFoundError: If a module does not exist. Nothing is written then.
        ValueError: If a file imports the package in a form that cannot be followed. Nothing is written then.
    """
    ahead = [file for module in modules for file in _find_module(module)]
    texts: dict[Path, bytes] = {}
    while ahead:
        file = ahead.pop()
        if file not in texts:
            texts[file], reached = _flatten(file)
            ahead += reached
    for file, text in texts.items():
        target = Path(folder, _flat_name(file))
        if not (target.exists() and target.samefile(file)):
            target.write_bytes(text)


def _find_module(module: str) -> list[Path]:
    """Find a module of a model family by its name."""
    if _IS_COPY:
        # A process that only loaded the processor has no copy of the model's code, and its save needs none.
        return [file for file in [_ROOT / f"{module}.py"] if file.exists()]
    files = list(_ROOT.glob(f"models/*/{module}.py"))
    if len(files) != 1:
        raise FileNotFoundError(f"{len(files)} files of `{PACKAGE}/models` are named `{module}.py`; one is needed.")
    return files


def _flat_name(file: Path) -> str:
    """Name a file where all files lie in one folder."""
    parts = file.relative_to(_ROOT).parts
    return parts[-1] if parts[0] == "models" else "_".join(parts)


def _flatten(file: Path) -> tuple[bytes, list[Path]]:
    """Make the imports of our modules relative, and list the files they lead to."""
    source = file.read_bytes()
    lines, reached = source.decode().split("\n"), []
    for node, target in _imports_of_ours(ast.parse(source), file):
        if not target.is_file():
            raise FileNotFoundError(f"`{ast.unparse(node)}` of {file.name} leads to no file. Name a module.")
        reached.append(target)
        if not node.level:
            line, head = lines[node.lineno - 1], f"from {node.module} import"
            if head not in line:
                raise ValueError(f"`{ast.unparse(node)}` of {file.name} must start on one line, to be rewritten.")
            lines[node.lineno - 1] = line.replace(head, f"from .{Path(_flat_name(target)).stem} import", 1)
    return "\n".join(lines).encode(), reached


def _imports_of_ours(tree: ast.AST, file: Path) -> Iterator[tuple[ast.ImportFrom, Path]]:
    """Yield the imports of our modules, inside of functions too, and where each leads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        level = getattr(node, "level", 0)
        if not level and all(name.split(".")[0] != PACKAGE for name in names):
            continue
        if isinstance(node, ast.Import) or level != int(_IS_COPY) or not names[0]:
            raise ValueError(
                f"`{ast.unparse(node)}` of {file.name} cannot be exported. Write `from {PACKAGE}.folder.module import "
                "name`."
            )
        yield node, _ROOT.joinpath(*names[0].removeprefix(f"{PACKAGE}.").split(".")).with_suffix(".py")


__all__ = ["flatten_code"]
