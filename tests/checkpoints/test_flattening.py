"""Export by reach: what is written, what changes in it, and what is refused."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from exported_code import exported_files
from transformers.dynamic_module_utils import get_imports, get_relative_import_files, get_relative_imports

from transformers_videorefer.checkpoints import repository
from transformers_videorefer.checkpoints.repository import flatten_code
from transformers_videorefer.models.videorefer.configuration_videorefer import AUTO_MAP


STARTS = sorted({entry.split(".")[0] for entry in AUTO_MAP.values()})
SOURCES = exported_files()


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All code of the model as it is written beside its weights."""
    folder = tmp_path_factory.mktemp("flat")
    flatten_code(STARTS, folder)
    return folder


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def contents_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def is_import_of_ours(node: ast.AST) -> bool:
    is_absolute = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers_videorefer.")
    return is_absolute or (isinstance(node, ast.ImportFrom) and node.level > 0)


class WithoutOurs(ast.NodeTransformer):
    """Takes the imports of our modules out of a tree."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if is_import_of_ours(node) else node


def test_every_exported_file_is_reached_from_the_model(flat: Path) -> None:
    assert names_in(flat) == set(SOURCES)
    reached = {Path(name).name for name in get_relative_import_files(flat / "modeling_videorefer.py")}
    assert reached | {"modeling_videorefer.py"} == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_only_imports_of_ours_change(flat: Path, name: str) -> None:
    written, source = (ast.parse(file.read_text(encoding="utf-8")) for file in (flat / name, SOURCES[name]))
    imports = [
        [
            ([ast.unparse(alias) for alias in node.names], node.module.removeprefix("transformers_videorefer."))
            for node in ast.walk(tree)
            if is_import_of_ours(node)
        ]
        for tree in (written, source)
    ]
    for (names, module), (names_of_source, module_of_source) in zip(*imports, strict=True):
        assert names == names_of_source
        parts = module_of_source.split(".")
        assert module == (parts[-1] if parts[0] == "models" else "_".join(parts))
    assert ast.dump(WithoutOurs().visit(written)) == ast.dump(WithoutOurs().visit(source))
    lines = [file.read_text(encoding="utf-8").splitlines() for file in (flat / name, SOURCES[name])]
    changed = [(new, old) for new, old in zip(*lines, strict=True) if new != old]
    assert all(old.lstrip().startswith("from transformers_videorefer.") for _, old in changed)


@pytest.mark.parametrize("name", SOURCES)
def test_the_library_finds_exactly_the_real_imports(flat: Path, name: str) -> None:
    """It searches the text, so a line of a docstring that looks like an import would count."""
    tree = ast.parse((flat / name).read_text(encoding="utf-8"))
    real = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert set(get_relative_imports(flat / name)) == real
    assert "transformers_videorefer" not in get_imports(flat / name)  # it would be asked to be installed


def test_only_what_is_reached_is_written(tmp_path: Path) -> None:
    flatten_code(["configuration_videorefer"], tmp_path)
    reached = {Path(name).name for name in get_relative_import_files(tmp_path / "configuration_videorefer.py")}
    assert names_in(tmp_path) == reached | {"configuration_videorefer.py"}
    assert "checkpoints_components.py" in reached
    assert not reached & {"modeling_videorefer.py", "regions_rle.py", "inputs_loading.py"}


# Code that came with a saved repository


def load_copy(folder: Path) -> ModuleType:
    """Load the module as the library does with a repository's code."""
    name = "transformers_modules.somebody.checkpoints_repository"
    spec = importlib.util.spec_from_file_location(name, folder / "checkpoints_repository.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_copy_passes_its_files_on_as_they_are(flat: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    for name, content in contents_of(flat).items():
        (here / name).write_bytes(content.replace(b"\n", b"\r\n"))
    (here / "left_by_another_release.py").write_text("")
    load_copy(here).flatten_code(STARTS, there)
    expected = contents_of(here)
    del expected["left_by_another_release.py"]
    assert contents_of(there) == expected


def test_a_copy_that_saves_where_it_lies_changes_nothing(flat: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in flat.iterdir() if file.is_file()}
    load_copy(flat).flatten_code(STARTS, flat)
    assert {file: file.stat().st_mtime_ns for file in flat.iterdir() if file.is_file()} == before


def test_a_copy_of_a_part_passes_on_what_it_has(tmp_path: Path) -> None:
    part, there = tmp_path / "part", tmp_path / "there"
    part.mkdir()
    there.mkdir()
    flatten_code(["processing_videorefer"], part)
    load_copy(part).flatten_code(STARTS, there)
    assert contents_of(there) == contents_of(part)
    assert "modeling_videorefer.py" not in names_in(there)


# A house of its own


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in which `models/one/modeling_one.py` is the only model."""
    for name in ("regions/rle.py", "regions/unused.py", "regions/__init__.py", "video/reader.py"):
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text("x = 1\n")
    (tmp_path / "house" / "models" / "one").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(repository, "_ROOT", tmp_path / "house")
    return tmp_path / "house"


def write_model(house: Path, text: str) -> None:
    (house / "models" / "one" / "modeling_one.py").write_text(text, newline="")


def test_imports_are_followed_and_rewritten_wherever_they_stand(house: Path, tmp_path: Path) -> None:
    write_model(
        house,
        '"""Not an import: from transformers_videorefer.regions.unused import x"""\n'
        "import os\n"
        "from transformers_videorefer.regions.rle import (\n    x as y,  # é\n)\n"
        "def f():\n    é = 'from transformers_videorefer.video.reader import x'\n"
        "    from transformers_videorefer.video.reader import x\n    return é, x\n",
    )
    flatten_code(["modeling_one"], tmp_path / "out")
    assert names_in(tmp_path / "out") == {"modeling_one.py", "regions_rle.py", "video_reader.py"}
    assert (tmp_path / "out" / "modeling_one.py").read_text() == (
        '"""Not an import: from transformers_videorefer.regions.unused import x"""\n'
        "import os\n"
        "from .regions_rle import (\n    x as y,  # é\n)\n"
        "def f():\n    é = 'from transformers_videorefer.video.reader import x'\n"
        "    from .video_reader import x\n    return é, x\n"
    )


def test_circles_end_and_line_ends_stay(house: Path, tmp_path: Path) -> None:
    write_model(house, "from transformers_videorefer.regions.rle import x\r\ny = 2\x0c\r\n")
    (house / "regions" / "rle.py").write_text("from transformers_videorefer.models.one.modeling_one import y\n")
    flatten_code(["modeling_one"], tmp_path / "out")
    assert contents_of(tmp_path / "out") == {
        "modeling_one.py": b"from .regions_rle import x\r\ny = 2\x0c\r\n",
        "regions_rle.py": b"from .modeling_one import y\n",
    }


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        (
            "import transformers_videorefer.regions.rle",
            "`import transformers_videorefer.regions.rle` of modeling_one.py",
        ),
        ("from .other import x", r"`from \.other import x` of modeling_one.py cannot be exported"),
        ("from transformers_videorefer.regions import rle", "leads to no file. Name a module"),
        ("from transformers_videorefer import x", "leads to no file. Name a module"),
        ("from transformers_videorefer.regions.gone import x", "leads to no file. Name a module"),
        ("from \\\n  transformers_videorefer.regions.rle import x", "must start on one line"),
    ],
)
def test_forms_that_cannot_be_followed_are_refused(house: Path, tmp_path: Path, statement: str, match: str) -> None:
    write_model(house, f"{statement}\n")
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        flatten_code(["modeling_one"], tmp_path / "out")
    assert not names_in(tmp_path / "out")


def test_module_must_be_in_one_family(house: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"0 files of `transformers_videorefer/models` are named `modeling_two.py`"
    ):
        flatten_code(["modeling_two"], tmp_path / "out")
    write_model(house, "")
    (house / "models" / "two").mkdir()
    (house / "models" / "two" / "modeling_one.py").write_text("")
    with pytest.raises(FileNotFoundError, match="2 files"):
        flatten_code(["modeling_one"], tmp_path / "out")
