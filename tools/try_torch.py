"""Try a release of torch beside the lowest releases of everything else: for the lower end of its range.

    python tools/try_torch.py 2.6.0

In a fresh environment it installs that torch as pip finds it (for Linux a build for GPUs, of gigabytes), this package with
constraints/lowest.txt, and runs the tests and the quickstart. The last line is the result, for docs/compatibility.md; what
fails is listed before it. Exit code 0: nothing does. Nothing is left behind.
"""

import argparse
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from fresh_environment import ROOT, FreshEnvironment, StepError, say, temporary_folder
from lowest_requirements import EXTRA, LOWEST
from suite_report import cut, group_failures


MOST_GROUPS, MOST_TESTS = 15, 3


def try_torch(folder: Path, version: str, tests: str) -> tuple[str, bool]:
    """Install, test, and say how it went.

    Args:
        folder (`Path`): An empty folder for everything that is written.
        version (`str`): The release of torch.
        tests (`str`): More arguments of pytest.

    Returns:
        `tuple[str, bool]`: The result, and whether all is well.
    """
    try:
        environment = FreshEnvironment(folder)
        environment.pip("torch", f"torch=={version}")
        # Named again, so that no other library moves it.
        environment.pip("lowest libraries", "-c", LOWEST, f"torch=={version}", "--editable", f"{ROOT}[{EXTRA}]")
        suite = environment.suite(tests)
        for error, names in group_failures(suite.failures)[:MOST_GROUPS]:
            say("\n".join([f"{len(names)} x {error}", *cut([f"    {name}" for name in names], MOST_TESTS, "    ")]))
        wrong = environment.quickstart()
        installed = environment.versions()["torch"]
    except StepError as error:
        say(str(error))
        return str(error).splitlines()[0], False
    answers = "the quickstart gives the README's answers" if wrong is None else "the quickstart fails"
    say(wrong or "")
    return f"{installed}: {suite}; {answers}", wrong is None and not suite.failures and suite.passed > 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print the result.

    Args:
        arguments (`Sequence[str]`, *optional*): The command line.

    Returns:
        `int`: Exit code: 1 if something fails.
    """
    parser = argparse.ArgumentParser(description="Try a release of torch beside the lowest releases of all else.")
    parser.add_argument("version", help="the release, such as 2.6.0")
    parser.add_argument("--tests", default="", metavar="ARGS", help="more arguments of pytest, as one text")
    parser.add_argument("--keep", action="store_true", help="leave environment and logs where they are")
    options = parser.parse_args(arguments)
    with temporary_folder(options.keep) as folder:
        result, is_good = try_torch(folder, options.version, options.tests)
    print(f"{date.today().isoformat()}, Python {platform.python_version()}, torch {result}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
