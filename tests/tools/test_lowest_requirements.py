"""Lower ends of the ranges in pyproject.toml, as constraints."""

import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import lowest_requirements  # noqa: E402


PROJECT = """
[project]
name = "Our_Package"
dependencies = ["torch>=2.6", "Zebra>=1.2,<2", "apple_pie[cream]>=3.0"]

[project.optional-dependencies]
data = ["zebra>=1.10"]
train = ["our-package[data]", "apple.pie>=2.5", "marked~=0.4 ; python_version >= '3'"]
test = ["our-package[data,train]", "checker==7.1"]
quality = ["formatter>=9"]
"""


@pytest.fixture
def pyproject(tmp_path: Path) -> Path:
    path = tmp_path / "pyproject.toml"
    path.write_text(PROJECT)
    return path


def test_the_file_of_the_repository_is_up_to_date(capsys):
    assert lowest_requirements.main(["--check"]) == 0, capsys.readouterr().err
    lines = (ROOT / "constraints" / "lowest.txt").read_text().splitlines()
    pinned = [line.split("==")[0] for line in lines if not line.startswith("#")]
    assert {"transformers", "trl", "pycocotools", "datasets", "evaluate", "pytest"} <= set(pinned)
    assert not {"torch", "ruff", "transformers-videorefer"} & set(pinned)
    assert pinned == sorted(pinned)


def test_extras_are_followed_and_spelling_is_no_difference(pyproject):
    assert lowest_requirements.direct_requirements(pyproject) == {
        "apple_pie": SpecifierSet(">=3.0,>=2.5"),
        "checker": SpecifierSet("==7.1"),
        "marked": SpecifierSet("~=0.4"),
        "torch": SpecifierSet(">=2.6"),
        "Zebra": SpecifierSet(">=1.2,<2,>=1.10"),
    }


def test_of_two_lower_ends_the_higher_counts(pyproject):
    text = lowest_requirements.constraints(lowest_requirements.direct_requirements(pyproject))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    # 1.10 is higher than 1.2, though not as text; torch is left out.
    assert lines == ["apple_pie==3.0", "checker==7.1", "marked==0.4", "Zebra==1.10"]


@pytest.mark.parametrize("bounds", ["", "<2", "!=1.5,<2", ">1"])
def test_a_range_without_lower_end(bounds):
    with pytest.raises(ValueError, match=r"`numpy.*` has no lower end. Write `numpy>=`"):
        lowest_requirements.lower_end("numpy", SpecifierSet(bounds))


def test_ranges_are_spelled_from_low_to_high():
    assert lowest_requirements.spell_range(SpecifierSet("<5.25,>=5.23")) == ">=5.23,<5.25"
    assert lowest_requirements.spell_range(SpecifierSet("")) == ""
    twice = lowest_requirements.direct_requirements()["accelerate"]
    assert lowest_requirements.spell_range(twice).count(">=") == 1


def test_a_stale_file_is_told_and_written_anew(pyproject, tmp_path, capsys):
    files = {"pyproject": pyproject, "output": tmp_path / "constraints" / "lowest.txt"}
    assert lowest_requirements.main(["--check"], **files) == 1  # none yet
    assert not files["output"].exists()
    assert lowest_requirements.main([], **files) == 0
    assert lowest_requirements.main(["--check"], **files) == 0
    capsys.readouterr()
    pyproject.write_text(PROJECT.replace("==7.1", "==7.2"))
    assert lowest_requirements.main(["--check"], **files) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "lowest.txt is stale. Run `python tools/lowest_requirements.py`." in line
