"""Imports point one way only, without circles, and the folders that travel with a model stand alone."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from exported_code import FOLDERS, PACKAGE, exported_files


MODULES = sorted(PACKAGE.rglob("*.py"))
EXPORTED = sorted(exported_files().values())
# Reading videos and regions starts without torch and transformers, which take seconds to import.
LIGHT = [file for folder in ("video", "regions") for file in sorted((PACKAGE / folder).glob("*.py"))]
REQUIRED = {"torch", "numpy", "PIL", "transformers", "huggingface_hub"}
OPTIONAL = {"av", "pycocotools"}
MODEL = set(FOLDERS)
# Folder or module -> what it may import of ours, beside itself. Later parts of the package have their line already.
ARROWS = {
    "video": set(),
    "regions": {"video"},
    "inputs": {"video", "regions"},
    "checkpoints": set(),
    "models": {"video", "regions", "inputs", "checkpoints"},
    "published": MODEL,
    "inference": MODEL | {"published", "bundled"},
    "preview": MODEL,
    "bundled": set(),
    "segmentation": {"video", "regions"},
    "data": MODEL | {"published"},
    "training": MODEL | {"published", "bundled", "data"},
    "evaluation": MODEL | {"published", "inference", "preview", "bundled", "data"},
    "engine": MODEL | {"published", "inference", "segmentation", "data"},
    "serving": MODEL | {"published", "inference", "segmentation"},
    "demo": MODEL | {"published", "inference", "segmentation", "preview"},
    "hub": MODEL | {"published", "data"},
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


def name_of(file: Path) -> str:
    """Name a file in the ids of tests."""
    return file.relative_to(PACKAGE).as_posix()


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(file: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield every import of a file, and whether it stands in a top-level `try` that catches ImportError."""
    tree = tree_of(file)
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


def modules_named(node: ast.Import | ast.ImportFrom) -> list[str]:
    """List the modules that an absolute import names."""
    return [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]


def is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.ImportFrom) and node.level:
        return True
    return any(name.split(".")[0] == "transformers_videorefer" for name in modules_named(node))


def test_the_exported_set_is_found() -> None:
    names = {file.name for file in EXPORTED}
    assert {"configuration_videorefer.py", "modeling_videorefer.py", "processing_videorefer.py", "rle.py"} <= names


@pytest.mark.parametrize("file", EXPORTED, ids=name_of)
def test_exported_files_import_only_what_every_machine_has(file: Path) -> None:
    for node, is_guarded in imports_of(file):
        for name in [] if is_ours(node) else modules_named(node):
            root = name.split(".")[0]
            if root in OPTIONAL:
                assert is_guarded, f"`{ast.unparse(node)}` must stand in a top-level try"
            else:
                assert root in sys.stdlib_module_names | REQUIRED, ast.unparse(node)
                assert root != "__future__", "annotations as text break the loading of the code from the Hub"


@pytest.mark.parametrize("file", EXPORTED, ids=name_of)
def test_exported_files_import_each_other_in_one_form(file: Path) -> None:
    for node, _ in imports_of(file):
        if is_ours(node):
            statement = ast.unparse(node)
            assert isinstance(node, ast.ImportFrom) and not node.level, (
                f"`{statement}`: write `from package.x.y import z`"
            )
            path = PACKAGE.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
            assert path in EXPORTED, f"`{statement}`: name a module of an exported folder"


@pytest.mark.parametrize("file", LIGHT, ids=name_of)
def test_videos_and_regions_start_without_torch(file: Path) -> None:
    tree = tree_of(file)
    later = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for statement in function.body
        for node in ast.walk(statement)
    }
    for node, _ in imports_of(file):
        if id(node) in later:
            continue
        if is_ours(node):
            assert node.module.split(".")[1] in ("video", "regions"), ast.unparse(node)
        else:
            roots = {name.split(".")[0] for name in modules_named(node)}
            assert not roots & {"torch", "transformers"}, ast.unparse(node)


def targets_of(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each module of ours that a file imports, such as `regions.rle`, and the import."""
    place = file.relative_to(PACKAGE).with_suffix("").parts
    for node, _ in imports_of(file):
        if not is_ours(node):
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            bases = [".".join([*place[: len(place) - node.level], *([node.module] if node.module else [])])]
        else:
            bases = [name.removeprefix("transformers_videorefer").lstrip(".") for name in modules_named(node)]
        for base in bases:
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            # A name may be a module of the folder, or something that the folder's __init__ exports.
            modules = [target for name in names if file_of(target := f"{base}.{name}".lstrip(".")) is not None]
            for target in modules if len(modules) == len(names) > 0 else [base, *modules]:
                yield target, f"{name_of(file)}: {ast.unparse(node)}"


def file_of(module: str) -> Path | None:
    """Find the file of a module or folder of ours."""
    path = PACKAGE.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_arrows_point_one_way(file: Path) -> None:
    part = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if part not in ARROWS:  # the command line and the package itself may import everything
        return
    for target, statement in targets_of(file):
        # The package itself stands where what it imports stands.
        assert (target or "published").split(".")[0] in ARROWS[part] | {part}, statement


# What loads models for other ends than asking them, or is what `from_pretrained` calls.
LOADS_OTHERWISE = {"checkpoints", "models", "published", "training"}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_only_inference_loads_a_model_to_ask_it_and_generates(file: Path) -> None:
    part = file.relative_to(PACKAGE).with_suffix("").parts[0]
    called = {
        node.func.attr
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    if part not in {"inference", "models"}:
        assert "generate" not in called
    if part not in LOADS_OTHERWISE | {"inference"}:
        assert "from_pretrained" not in called


def test_there_are_no_circles() -> None:
    """Of modules, imports inside of functions included. The package's own file is left out: it imports what it exports."""
    package = PACKAGE / "__init__.py"
    graph = {
        file: {file_of(target) for target, _ in targets_of(file) if target and file_of(target)} - {package}
        for file in MODULES
        if file != package
    }
    order = [name_of(file) for file in TopologicalSorter(graph).static_order()]  # a CycleError names the circle
    assert order.index("video/reader.py") < order.index("models/videorefer/modeling_videorefer.py")


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
