"""A virtual environment in a temporary folder, and what the scripts of this folder run in it."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from suite_report import SuiteResult, read_junit


ROOT = Path(__file__).resolve().parents[1]
LOG_LINES = 15


class StepError(Exception):
    """A command in the environment failed; the message holds its last lines."""


@contextmanager
def temporary_folder(keep: bool) -> Iterator[Path]:
    """Make a folder that is gone afterwards, also when the script is interrupted or terminated.

    Args:
        keep (`bool`): Leave it there and say where it lies.

    Yields:
        `Path`: The folder.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    folder = Path(tempfile.mkdtemp(prefix="videorefer-"))
    try:
        yield folder
    finally:
        if keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
        signal.signal(signal.SIGTERM, before)


def say(text: str) -> None:
    """Write a line of progress; standard output is for the result.

    Args:
        text (`str`): The line.
    """
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class FreshEnvironment:
    """A virtual environment with this Python, of which nothing lies outside of one folder.

    Args:
        folder (`Path`): An empty folder. Environment, temporary files, Hub cache and logs go there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "env" / "bin" / "python"
        (folder / "tmp").mkdir()
        dropped = ("PYTHONPATH", "PYTHONHOME", "PIP_CONSTRAINT", "PYTEST_ADDOPTS")
        self._variables = {key: value for key, value in os.environ.items() if key not in dropped}
        self._variables |= {
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "VIRTUAL_ENV": str(folder / "env"),
            "TMPDIR": str(folder / "tmp"),
            "HF_HOME": str(folder / "hf_home"),
            "HF_HUB_OFFLINE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.run("environment", [sys.executable, "-m", "venv", folder / "env"])

    def run(
        self, step: str, command: Sequence[str | Path], *, can_fail: bool = False, **variables: str
    ) -> tuple[int, str]:
        """Run a command from the root of the repository and keep its output as `<step>.log`.

        Args:
            step (`str`): What the step is called.
            command (`Sequence[str | Path]`): Program and arguments.
            can_fail (`bool`, *optional*, defaults to `False`): Return an exit code other than 0.
            variables: More environment variables.

        Returns:
            `tuple[int, str]`: Exit code and output.

        Raises:
            StepError: If the command fails and may not.
        """
        say(f"== {step}")
        started = time.monotonic()
        log = self.folder / f"{step.replace(' ', '_')}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=self._variables | variables,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, so that workers of a stopped run can be ended with it
            )
            try:
                code = process.wait()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        say(f"   {time.monotonic() - started:.0f} s")
        output = log.read_text(encoding="utf-8", errors="replace")
        if code and not can_fail:
            raise StepError(f"{step} failed with exit code {code}:\n{last_lines(output)}")
        return code, output

    def pip(self, step: str, *arguments: str | Path) -> None:
        """Run `pip install`.

        Args:
            step (`str`): What the step is called.
            arguments: Arguments of `pip install`.

        Raises:
            StepError: If nothing can be installed.
        """
        self.run(step, [self.python, "-m", "pip", "install", "--progress-bar", "off", *arguments])

    def versions(self) -> dict[str, str]:
        """List what is installed.

        Returns:
            `dict[str, str]`: Name, as package indexes compare it -> version.
        """
        code = (
            "import importlib.metadata as m, json, re\n"
            "print(json.dumps({re.sub('[-_.]+', '-', d.name).lower(): d.version for d in m.distributions()}))"
        )
        return json.loads(self.run("versions", [self.python, "-c", code])[1])

    def suite(self, arguments: str = "", *plugin: str, **variables: str) -> SuiteResult:
        """Run the tests on all cores.

        Args:
            arguments (`str`, *optional*): More arguments of pytest, as a shell takes them.
            plugin: Arguments that load a plugin.
            variables: More environment variables.

        Returns:
            `SuiteResult`: What passed and failed.

        Raises:
            StepError: If pytest stopped before it ran tests.
        """
        report = self.folder / "junit.xml"
        command = [self.python, "-m", "pytest", "-n", "auto", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
        command += [f"--junitxml={report}", f"--basetemp={self.folder / 'pytest'}", *plugin, *shlex.split(arguments)]
        _, output = self.run("tests", command, can_fail=True, **variables)
        if not report.is_file():
            raise StepError(f"pytest stopped before the tests:\n{last_lines(output)}")
        return read_junit(report)

    def quickstart(self) -> str | None:
        """Run `videorefer quickstart` and compare its answers with the README's.

        Returns:
            `str` or `None`: What is wrong; `None` if the answers are those of the README.
        """
        command = [self.python.parent / "videorefer", "quickstart", "--output", self.folder / "quickstart.png"]
        code, output = self.run("quickstart", command, can_fail=True)
        if code:
            return f"exit code {code}:\n{last_lines(output)}"
        return None if readme_answers() in output else f"other answers than in the README:\n{last_lines(output)}"


def readme_answers() -> str:
    """Read the questions and answers of the quickstart from the README.

    Returns:
        `str`: The lines.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"^```\n(What is \[A\].*?)^```", text, re.DOTALL | re.MULTILINE).group(1)


def last_lines(output: str) -> str:
    """Cut an output to its end, where errors stand.

    Args:
        output (`str`): All of it.

    Returns:
        `str`: The last lines that are not blank.
    """
    return "\n".join([line.rstrip() for line in output.splitlines() if line.strip()][-LOG_LINES:])
