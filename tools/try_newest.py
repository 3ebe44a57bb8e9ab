"""Try the newest release of every library, pre-releases too, whatever our bounds say: for the day of a release.

    python tools/try_newest.py --torch torch==2.13.0 --output report.md
    python tools/try_newest.py --tests "tests/models/videorefer/test_generation.py -x" --keep

In a fresh environment it installs torch, the newest of all direct dependencies, and this package without its bounds; then
it runs the tests and the quickstart. A page says what breaks. Exit code 0: nothing does. Nothing is left behind.
"""

import argparse
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from deprecation_notes import VARIABLE, Note, read_notes
from fresh_environment import ROOT, FreshEnvironment, StepError, temporary_folder
from lowest_requirements import direct_requirements, spell_range
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from suite_report import SuiteResult, cut, group_failures


# What fits on a page.
MOST_GROUPS, MOST_TESTS, MOST_NOTES, MOST_ELSEWHERE = 15, 3, 15, 5
NOTE_LENGTH = 200
_ASK_INDEX = """
import subprocess, sys
for name in sys.argv[1:]:
    subprocess.run([sys.executable, "-m", "pip", "index", "versions", "--pre", name])
"""


@dataclass
class Findings:
    """What a run found out, as far as it came.

    Args:
        versions (`dict[str, str]`): What was installed, by name as package indexes compare it.
        newest (`dict[str, str]`): The newest that the index has, for the direct dependencies.
        suite (`SuiteResult`, *optional*): The tests.
        quickstart (`str`, *optional*): What was wrong with the quickstart.
        notes (`Counter[Note]`): What libraries called deprecated.
        stopped (`str`, *optional*): Why the run stopped early.
    """

    versions: dict[str, str] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)
    suite: SuiteResult | None = None
    quickstart: str | None = None
    notes: Counter[Note] = field(default_factory=Counter)
    stopped: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing broke."""
        if self.stopped or self.quickstart or self.suite is None:
            return False
        return not self.suite.failures and self.suite.passed > 0


def try_newest(folder: Path, torch: str, tests: str) -> Findings:
    """Install, test, and note what happens.

    Args:
        folder (`Path`): An empty folder for everything that is written.
        torch (`str`): What to install first, such as `"torch==2.13.0"`.
        tests (`str`): More arguments of pytest.

    Returns:
        `Findings`: What was found.
    """
    findings, notes = Findings(), folder / "notes.jsonl"
    names = [name for name in direct_requirements() if name != "torch"]
    try:
        environment = FreshEnvironment(folder)
        # First and by itself: any later "torch" would be taken as it is.
        environment.pip("torch", torch)
        environment.pip("newest libraries", "--pre", "--upgrade", *names)
        environment.pip("package", "--no-deps", "--editable", ROOT)
        findings.versions = environment.versions()
        findings.newest = newest_releases(environment, names)
        findings.quickstart = environment.quickstart()
        plugin_path = {VARIABLE: str(notes), "PYTHONPATH": str(Path(__file__).parent)}
        findings.suite = environment.suite(tests, "-p", "deprecation_notes", **plugin_path)
    except StepError as error:
        findings.stopped = str(error)
    findings.notes = read_notes(notes)
    return findings


def newest_releases(environment: FreshEnvironment, names: Sequence[str]) -> dict[str, str]:
    """Ask the index for the newest release of every library, pre-releases too.

    Args:
        environment (`FreshEnvironment`): Whose pip to ask.
        names (`Sequence[str]`): The libraries.

    Returns:
        `dict[str, str]`: Version by name, for those that the index knows.
    """
    _, output = environment.run("newest releases", [environment.python, "-c", _ASK_INDEX, *names], can_fail=True)
    return dict(re.findall(r"^(\S+) \(([^)]+)\)$", output, re.MULTILINE))


def write_page(findings: Findings, requirements: Mapping[str, SpecifierSet]) -> str:
    """Put everything on one page.

    Args:
        findings (`Findings`): What was found.
        requirements (`Mapping[str, SpecifierSet]`): Our ranges.

    Returns:
        `str`: The page, in Markdown.
    """
    lines = [f"# The newest releases, {date.today().isoformat()}", ""]
    lines += [f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores.", ""]
    lines += _result(findings)
    if findings.versions:
        lines += ["", *_versions(findings, requirements)]
    if findings.suite is not None and findings.suite.failures:
        lines += ["", *_failures(findings.suite)]
    if findings.notes:
        lines += ["", *_deprecations(findings.notes)]
    return "\n".join(lines) + "\n"


def _result(findings: Findings) -> list[str]:
    lines = [f"Tests: {findings.suite or 'not run'}."]
    for title, problem in (("Stopped", findings.stopped), ("Quickstart", findings.quickstart)):
        if problem:
            lines += ["", f"{title}:", "", "```", problem, "```"]
    if findings.suite is not None and not findings.quickstart:
        lines += ["", "Quickstart: the README's answers."]
    return lines


def _versions(findings: Findings, requirements: Mapping[str, SpecifierSet]) -> list[str]:
    lines = ["| library | our range | installed | |", "|---|---|---|---|"]
    for name, tested in requirements.items():
        installed = findings.versions.get(canonicalize_name(name), "")
        newest = findings.newest.get(name, "")
        remarks = []
        if not installed:
            remarks.append("**missing**")
        # Local parts such as `+cpu` don't count, and the first pre-release of the upper end lies outside.
        elif not tested.contains(Version(installed).base_version, prereleases=True):
            remarks.append("**outside**")
        if installed and Version(installed).is_prerelease:
            remarks.append("pre-release")
        if installed and newest and Version(newest) > Version(installed):
            remarks.append(f"{newest} is out, but another library or this Python does not take it")
        lines.append(f"| {name} | {spell_range(tested)} | {installed} | {'; '.join(remarks)} |")
    return lines


def _failures(suite: SuiteResult) -> list[str]:
    groups = []
    for error, tests in group_failures(suite.failures):
        shown = cut([f"  - {test}" for test in tests], MOST_TESTS, "  - ")
        groups.append("\n".join([f"- {len(tests)} x `{error.replace('`', chr(39))}`", *shown]))
    return ["## What fails, by the first line of the error", "", *cut(groups, MOST_GROUPS, "- ")]


def _deprecations(notes: Counter[Note]) -> list[str]:
    lines = ["## What is called deprecated"]
    for is_ours, title, most in ((True, "By our lines:", MOST_NOTES), (False, "Elsewhere:", MOST_ELSEWHERE)):
        found = [(note, times) for note, times in notes.most_common() if note.is_ours is is_ours]
        if found:
            entries = [f"- {note.place} ({times} x): {_shortened(note.text)}" for note, times in found]
            lines += ["", title, "", *cut(entries, most, "- ")]
    return lines


def _shortened(text: str) -> str:
    return text if len(text) <= NOTE_LENGTH else f"{text[: NOTE_LENGTH - 3]}..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and write the page.

    Args:
        arguments (`Sequence[str]`, *optional*): The command line.

    Returns:
        `int`: Exit code: 1 if something breaks.
    """
    parser = argparse.ArgumentParser(description="Try the newest release of every library, whatever our bounds say.")
    parser.add_argument(
        "--torch",
        default="torch",
        metavar="REQUIREMENT",
        help="what to install as torch (default: torch, which pip may take as a build of gigabytes for GPUs)",
    )
    parser.add_argument("--tests", default="", metavar="ARGS", help="more arguments of pytest, as one text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the page there too")
    parser.add_argument("--keep", action="store_true", help="leave environment and logs where they are")
    options = parser.parse_args(arguments)
    with temporary_folder(options.keep) as folder:
        findings = try_newest(folder, options.torch, options.tests)
    page = write_page(findings, direct_requirements())
    print(page, end="")
    if options.output is not None:
        options.output.write_text(page, encoding="utf-8")
    return 0 if findings.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
