"""Reads what pytest wrote about a run, and puts what failed in groups by the first line of the error."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


LINE_LENGTH = 160
# What makes two equal errors look different.
_CHANGING = (
    (re.compile(r"0x[0-9a-f]{4,}"), "0x..."),
    (re.compile(r"(?<![\w.])(?:/[^\s/'\",:]+)+/(?=[^\s/'\",:]+)"), ".../"),
)


@dataclass(frozen=True)
class Failure:
    """A test that failed.

    Args:
        test (`str`): How pytest names it, such as `tests/test_a.py::test_b[c]`.
        error (`str`): First line of the error.
    """

    test: str
    error: str


@dataclass(frozen=True)
class SuiteResult:
    """What a run of the tests came to.

    Args:
        passed (`int`): Tests that passed.
        failed (`int`): Tests that failed.
        errors (`int`): Tests that could not be collected, set up or cleaned up.
        skipped (`int`): Tests that were skipped.
        seconds (`float`): How long it took.
        failures (`tuple[Failure, ...]`): Those that failed, and errors.
    """

    passed: int
    failed: int
    errors: int
    skipped: int
    seconds: float
    failures: tuple[Failure, ...]

    def __str__(self) -> str:
        counts = [f"{self.passed} passed", f"{self.failed} failed"]
        counts += [f"{self.errors} errors"] if self.errors else []
        return f"{', '.join([*counts, f'{self.skipped} skipped'])} in {self.seconds:.0f} s"


def read_junit(path: Path) -> SuiteResult:
    """Read a report that pytest wrote with `--junitxml`.

    Args:
        path (`Path`): The file, of the family `xunit1`.

    Returns:
        `SuiteResult`: Counts and failures.
    """
    root = ElementTree.parse(path).getroot()
    counts = dict.fromkeys(("passed", "failure", "error", "skipped"), 0)
    failures = []
    for case in root.iter("testcase"):
        outcome = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
        counts[outcome] += 1
        if outcome in ("failure", "error"):
            found = case.find(outcome)
            failures.append(Failure(_name(case), first_line(found.get("message", ""), found.text or "")))
    seconds = sum(float(suite.get("time", 0)) for suite in root.iter("testsuite"))
    return SuiteResult(
        counts["passed"], counts["failure"], counts["error"], counts["skipped"], seconds, tuple(failures)
    )


def _name(case: ElementTree.Element) -> str:
    """Spell the test as pytest takes it on its command line."""
    file, of_class, name = case.get("file"), case.get("classname", ""), case.get("name", "")
    if file is None:  # a module that could not be imported has only a name
        return f"{of_class}::{name}" if of_class else name
    module = file.removesuffix(".py").replace("/", ".")
    return "::".join([file, *(part for part in of_class.removeprefix(module).split(".") if part), name])


def first_line(message: str, text: str) -> str:
    """Find the first line of an error.

    Args:
        message (`str`): What pytest says in short.
        text (`str`): The traceback.

    Returns:
        `str`: The line, without what differs from run to run (addresses, folders).
    """
    during = re.fullmatch(r'failed on (?:setup|teardown) with "(.*)"', message, re.DOTALL)
    lines = [line.strip() for line in (during.group(1) if during else message).split("\n") if line.strip()] or [""]
    line = lines[0]
    if re.fullmatch(r"[^:]*:\W*", line):  # nothing but rules and carets: the end of an output says more
        line = next((rest for rest in reversed(lines) if re.search(r"\w", rest)), line)
    if line in ("", "collection failure"):
        errors = re.findall(r"^E\s+(.+)$", text, re.MULTILINE)
        line = next((error for error in errors if re.match(r"[\w.]*(Error|Exception|Warning)\b", error)), "")
        line = line or next(iter(errors or text.strip().split("\n")), "")
    for pattern, replacement in _CHANGING:
        line = pattern.sub(replacement, line)
    return line if len(line) <= LINE_LENGTH else f"{line[: LINE_LENGTH - 3]}..."


def group_failures(failures: Iterable[Failure]) -> list[tuple[str, list[str]]]:
    """Put failures with the same error together.

    Args:
        failures (`Iterable[Failure]`): The failures.

    Returns:
        `list[tuple[str, list[str]]]`: Error and names of its tests; the error of most tests first.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for failure in failures:
        groups[failure.error].append(failure.test)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


def cut(entries: list[str], most: int, indent: str = "") -> list[str]:
    """Cut a list to what fits on a page.

    Args:
        entries (`list[str]`): Lines.
        most (`int`): How many may stay.
        indent (`str`, *optional*): What the line that counts the rest starts with.

    Returns:
        `list[str]`: The first lines, and how many more there are.
    """
    return entries if len(entries) <= most else [*entries[:most], f"{indent}and {len(entries) - most} more"]
