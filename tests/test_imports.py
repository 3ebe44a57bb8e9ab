"""Imports point one way only: exported set <- rest of the package <- command line, and the exported set stands alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import transformers_videorefer


PACKAGE = Path(transformers_videorefer.__file__).parent
EXPORTED = sorted(PACKAGE.glob("*_videorefer.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
STANDARD_LIBRARY_AND_REQUIRED = {"torch", "numpy", "PIL", "transformers"}
OPTIONAL = {"av", "pycocotools"}
# Reading videos and regions starts without torch and transformers, which take seconds to import.
LIGHT = {
    f"{name}_videorefer"
    for name in (
        *("reader_base", "video_reader", "container_reader", "packet_index", "file_extent", "display_matrix"),
        *("picture_reader", "video_options", "sampling"),
        *("region_form", "region_values", "region_masks", "regions", "masks", "rle"),
    )
}
# Folder or module -> what it may import of ours, beside itself. Later parts of the package have their line already.
ARROWS = {
    "exported": set(),
    "checkpoints": {"exported"},
    "preview": {"exported"},
    "bundled": set(),
    "data": {"exported", "checkpoints"},
    "training": {"exported", "checkpoints", "bundled", "data"},
    "evaluation": {"exported", "checkpoints", "preview", "data"},
    "engine": {"exported", "checkpoints", "data"},
    "hub": {"exported", "checkpoints", "data"},
    "demo": {"exported", "checkpoints", "data"},
}
# The same for the folders of `data/`; the modules beside them serve all and import none.
ARROWS_OF_DATA = {
    "json_files": set(),
    "rows": {"json_files"},
    "tables": {"rows"},
    "sources": {"json_files", "rows", "tables"},
    "exporting": {"json_files", "rows", "tables", "sources"},
    "checks": {"rows", "tables", "sources"},
    "batches": {"rows"},
    "synthetic": set(),
    "importers": {"json_files", "rows", "tables", "batches"},
}


def imports_of(file: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield every import of a file, and whether it stands in a top-level `try` that catches ImportError."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    guarded = {
        id(node)
        for block in tree.body
        if isinstance(block, ast.Try)
        and any(isinstance(handler.type, ast.Name) and handler.type.id == "ImportError" for handler in block.handlers)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, id(node) in guarded


def part_of(module: str) -> str:
    """Name the part of the package that a module path such as `data.batches.collator` belongs to."""
    first = module.split(".")[0]
    if first.endswith("_videorefer"):
        return "exported"
    if first.startswith("preview_"):
        return "preview"
    return "checkpoints" if first == "published_layout" else first


def test_the_exported_set_is_found() -> None:
    assert {"configuration_videorefer.py", "modeling_videorefer.py", "processing_videorefer.py"} <= {
        file.name for file in EXPORTED
    }


@pytest.mark.parametrize("file", EXPORTED, ids=lambda file: file.name)
def test_exported_files_import_only_what_every_machine_has(file: Path) -> None:
    import sys

    for node, is_guarded in imports_of(file):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, ast.unparse(node)
            assert node.module is not None, f"`{ast.unparse(node)}` is not followed when the code is copied"
            assert re.fullmatch(r"\w+_videorefer", node.module), ast.unparse(node)
            continue
        names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            root = name.split(".")[0]
            if root in OPTIONAL:
                assert is_guarded, f"`{ast.unparse(node)}` must stand in a top-level try"
            elif name != "huggingface_hub.dataclasses":
                assert root in sys.stdlib_module_names | STANDARD_LIBRARY_AND_REQUIRED, ast.unparse(node)
                assert root != "__future__", "annotations as text break the loading of the code from the Hub"


@pytest.mark.parametrize("file", EXPORTED, ids=lambda file: file.name)
def test_the_library_finds_exactly_the_real_imports(file: Path) -> None:
    """It searches the text, so a line of a docstring that looks like an import would count."""
    from transformers.dynamic_module_utils import get_relative_imports

    real = {node.module for node, _ in imports_of(file) if isinstance(node, ast.ImportFrom) and node.level}
    assert set(get_relative_imports(file)) == real


@pytest.mark.parametrize("name", sorted(LIGHT))
def test_videos_and_regions_start_without_torch(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    later = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for statement in function.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)) or id(node) in later:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.module in LIGHT, ast.unparse(node)
            continue
        names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        assert not {name.split(".")[0] for name in names} & {"torch", "transformers"}, ast.unparse(node)


def test_every_exported_file_is_reached_from_the_model() -> None:
    from transformers.dynamic_module_utils import get_relative_import_files

    reached = {Path(name).name for name in get_relative_import_files(PACKAGE / "modeling_videorefer.py")}
    assert reached | {"modeling_videorefer.py"} == {file.name for file in EXPORTED}


def targets_of(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each module of ours that a file imports, such as `data.rle`, and the import."""
    place = file.relative_to(PACKAGE).with_suffix("").parts
    for node, _ in imports_of(file):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(place[: len(place) - node.level])
            names = [node.module] if node.module else [alias.name for alias in node.names]
            targets = [f"{base}.{name}".lstrip(".") for name in names]
        else:
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            targets = [
                name.removeprefix("transformers_videorefer.")
                for name in names
                if name.split(".")[0] == "transformers_videorefer"
            ]
        for target in targets:
            yield target, f"{file.name}: {ast.unparse(node)}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_arrows_point_one_way(file: Path) -> None:
    part = part_of(file.relative_to(PACKAGE).with_suffix("").parts[0])
    if part not in ARROWS:  # the command line and the package itself may import everything
        return
    for target, statement in targets_of(file):
        assert part_of(target) in ARROWS[part] | {part}, statement


def test_arrows_between_the_folders_of_data_point_one_way() -> None:
    folders = {file.parent.name for file in (PACKAGE / "data").glob("*/__init__.py")}
    assert folders == set(ARROWS_OF_DATA)
    for file in (PACKAGE / "data").rglob("*.py"):
        if file == PACKAGE / "data" / "__init__.py":
            continue
        folder = file.parent.name if file.parent.name in folders else None
        for target, statement in targets_of(file):
            aim = target.split(".")[1] if target.startswith("data.") else None
            if aim in folders and aim != folder:
                assert aim in ARROWS_OF_DATA.get(folder, set()), statement
