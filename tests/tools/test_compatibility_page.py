"""docs/compatibility.md says what pyproject.toml says."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from lowest_requirements import direct_requirements, lower_end  # noqa: E402


PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([\w-]+) \| ([^|]*[0-9][^|]*) \| ([^|]+) \|$", PAGE, re.MULTILINE)


def test_every_range_stands_in_the_table():
    assert {name: SpecifierSet(tested) for name, tested, _ in ROWS} == direct_requirements()
    assert len(ROWS) == len(direct_requirements())
    assert all(reason.strip() for *_, reason in ROWS)


def test_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={re.search(r'Python ([0-9.]+) or newer', PAGE).group(1)}"


def test_the_lower_end_of_torch_is_the_one_that_was_tried():
    lowest = lower_end("torch", direct_requirements()["torch"])
    tried = re.search(r"try_torch\.py ([0-9.]+)`", PAGE).group(1)
    assert tried == lowest or tried.startswith(f"{lowest}.")
    result = rf"20\d\d-\d\d-\d\d, torch {re.escape(tried)}: \d+ passed, 0 failed"
    assert re.search(result, PAGE), "the page says when, and what came out"


def test_the_line_for_a_release_day_names_the_first_release_outside():
    tested = direct_requirements()["transformers"]
    (upper,) = [bound.version for bound in tested if bound.operator == "<"]
    assert f'pip install . && pip install "transformers=={upper}.0"' in PAGE
    assert f"{','.join(sorted(map(str, tested)))}, but you have transformers {upper}.0" in PAGE.replace("\n", " ")
