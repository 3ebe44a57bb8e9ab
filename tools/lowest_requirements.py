"""Write constraints/lowest.txt: the lower end of every range that pyproject.toml declares for a direct dependency.

python tools/lowest_requirements.py            # after a bound has changed
python tools/lowest_requirements.py --check    # exit code 1 if the file is not what pyproject.toml says
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version


ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
LOWEST = ROOT / "constraints" / "lowest.txt"
# Pulls in every extra that the default tests need.
EXTRA = "test"
# CPU builds of older releases are not to be had everywhere.
LEFT_OUT = "torch"
HEADER = f"""\
# The lower end of the tested range of every direct dependency that the tests need.
# Made by `python tools/lowest_requirements.py` from pyproject.toml; change the bounds there and run it again.
# {LEFT_OUT} is left out: CPU builds of its older releases are not to be had everywhere. Its lower end is tried by
# `python tools/try_torch.py`, see docs/compatibility.md.
"""


def direct_requirements(pyproject: Path = PYPROJECT) -> dict[str, SpecifierSet]:
    """Collect the direct dependencies of a project and of its extra for tests.

    Extras that name the project itself are followed.

    Args:
        pyproject (`Path`, *optional*): The file to read; this repository's by default.

    Returns:
        `dict[str, SpecifierSet]`: Name as it is spelled there -> range, in alphabetical order. A library that is
        required more than once has to satisfy all of its ranges.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    waiting.append(Requirement(f"{project['name']}[{EXTRA}]"))
    names: dict[str, str] = {}
    ranges: dict[str, SpecifierSet] = {}
    followed: set[str] = set()
    for requirement in waiting:  # grows while it is walked
        key = canonicalize_name(requirement.name)
        if key == canonicalize_name(project["name"]):
            for extra in sorted(requirement.extras - followed):
                waiting += [Requirement(text) for text in project["optional-dependencies"][extra]]
            followed |= requirement.extras
            continue
        names.setdefault(key, requirement.name)
        # Joined as a set: the same bound may be written twice.
        bounds = {str(bound) for bound in (*ranges.get(key, ()), *requirement.specifier)}
        ranges[key] = SpecifierSet(",".join(sorted(bounds)))
    return {names[key]: ranges[key] for key in sorted(ranges)}


def lower_end(name: str, tested: SpecifierSet) -> str:
    """Return the lowest version that a range allows.

    Args:
        name (`str`): The library, for the error.
        tested (`SpecifierSet`): Its range. Of several lower ends the highest counts.

    Returns:
        `str`: The version, spelled as in the range.

    Raises:
        ValueError: If the range has no lower end.
    """
    ends = [specifier.version for specifier in tested if specifier.operator in (">=", "==", "~=")]
    if not ends:
        raise ValueError(
            f"`{name}{tested}` has no lower end. Write `{name}>=` and the lowest version that was tested."
        )
    return max(ends, key=Version)


def spell_range(tested: SpecifierSet) -> str:
    """Spell a range with its lower end first.

    Args:
        tested (`SpecifierSet`): The range.

    Returns:
        `str`: Such as `">=5.23,<5.25"`.
    """
    return ",".join(sorted((str(specifier) for specifier in tested), key=lambda text: (text[0] == "<", text)))


def constraints(requirements: Mapping[str, SpecifierSet]) -> str:
    """Write the constraints that hold every library at its lower end.

    Args:
        requirements (`Mapping[str, SpecifierSet]`): What [`direct_requirements`] returns.

    Returns:
        `str`: The text of the file.

    Raises:
        ValueError: If a range has no lower end.
    """
    lines = [f"{name}=={lower_end(name, tested)}\n" for name, tested in requirements.items() if name != LEFT_OUT]
    return HEADER + "".join(lines)


def main(arguments: Sequence[str] | None = None, *, pyproject: Path = PYPROJECT, output: Path = LOWEST) -> int:
    """Write the file, or check it.

    Args:
        arguments (`Sequence[str]`, *optional*): The command line.
        pyproject (`Path`, *optional*): The file to read.
        output (`Path`, *optional*): The file to write or check.

    Returns:
        `int`: Exit code: 1 if a checked file is stale.
    """
    parser = argparse.ArgumentParser(description="Write the lower ends of all direct dependencies as constraints.")
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    is_check = parser.parse_args(arguments).check
    text = constraints(direct_requirements(pyproject))
    if is_check:
        if output.is_file() and output.read_text(encoding="utf-8") == text:
            return 0
        print(f"{output} is stale. Run `python tools/lowest_requirements.py`.", file=sys.stderr)
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
