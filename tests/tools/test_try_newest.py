"""The page about the newest releases, and what the run that makes it leaves behind."""

import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import deprecation_notes  # noqa: E402
import fresh_environment  # noqa: E402
import try_newest  # noqa: E402
from deprecation_notes import Note, make_note, read_notes  # noqa: E402
from suite_report import Failure, SuiteResult  # noqa: E402
from try_newest import Findings, write_page  # noqa: E402


RANGES = {
    "huggingface_hub": SpecifierSet(">=2.0,<3"),
    "torch": SpecifierSet(">=2.6"),
    "transformers": SpecifierSet(">=5.23,<5.25"),
    "trl": SpecifierSet(">=1.16,<1.17"),
}
VERSIONS = {"huggingface-hub": "2.4.0", "torch": "2.13.0+cpu", "transformers": "5.25.0rc1"}
FAILURES = tuple(Failure(f"tests/test_a.py::test_{number}", "TypeError: `cache`") for number in range(5))


def failing() -> Findings:
    notes = Counter({Note("FutureWarning: old name", "src/transformers_videorefer/a.py:3", True): 7})
    notes[Note("DeprecationWarning: theirs", "library/b.py:4", False)] = 9
    return Findings(
        versions=VERSIONS,
        newest={"huggingface_hub": "3.0.0", "transformers": "5.25.0rc1"},
        suite=SuiteResult(10, 5, 0, 2, 100, FAILURES),
        notes=notes,
    )


def test_versions_stand_beside_our_ranges():
    lines = write_page(failing(), RANGES).splitlines()
    assert (
        "| huggingface_hub | >=2.0,<3 | 2.4.0 | 3.0.0 is out, but another library or this Python does not take it |"
        in (lines)
    )
    assert "| torch | >=2.6 | 2.13.0+cpu |  |" in lines
    # The first pre-release of the upper end lies outside, although 5.25.0rc1 < 5.25.
    assert "| transformers | >=5.23,<5.25 | 5.25.0rc1 | **outside**; pre-release |" in lines
    assert "| trl | >=1.16,<1.17 |  | **missing** |" in lines


def test_failures_and_deprecations_are_cut_to_a_page():
    page = write_page(failing(), RANGES)
    assert "Tests: 10 passed, 5 failed, 2 skipped in 100 s." in page
    assert "Quickstart: the README's answers." in page
    assert "- 5 x `TypeError: 'cache'`\n  - tests/test_a.py::test_0\n" in page
    assert "test_2\n  - and 2 more\n" in page
    assert page.index("By our lines:") < page.index("a.py:3 (7 x): FutureWarning: old name") < page.index("Elsewhere:")
    assert not failing().is_good


def test_nothing_breaks():
    findings = Findings(versions=VERSIONS, suite=SuiteResult(10, 0, 0, 2, 100, ()))
    assert findings.is_good
    page = write_page(findings, RANGES)
    assert "What fails" not in page
    assert "deprecated" not in page


def test_a_run_that_stops_has_a_page_too():
    findings = Findings(stopped="newest libraries failed with exit code 1:\nERROR: ResolutionImpossible")
    assert not findings.is_good
    page = write_page(findings, RANGES)
    assert "Tests: not run." in page
    assert "Stopped:\n\n```\nnewest libraries failed" in page
    assert not Findings().is_good
    assert not Findings(suite=SuiteResult(0, 0, 0, 2, 1, ())).is_good
    assert not Findings(suite=SuiteResult(1, 0, 0, 0, 1, ()), quickstart="exit code 1:").is_good


def test_main_writes_the_page_and_leaves_no_folder(monkeypatch, tmp_path, capsys):
    folders = []

    def run(folder: Path, torch: str, tests: str) -> Findings:
        folders.append(folder)
        (folder / "something").write_text(f"{torch} {tests}")
        return failing()

    monkeypatch.setattr(try_newest, "try_newest", run)
    assert try_newest.main(["--output", str(tmp_path / "report.md")]) == 1
    assert (tmp_path / "report.md").read_text() == capsys.readouterr().out
    assert not folders[0].exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert try_newest.main(["--keep", "--torch", "torch==2.13.0", "--tests", "-k cache"]) == 1
    assert (folders[1] / "something").read_text() == "torch==2.13.0 -k cache"
    assert f"kept: {folders[1]}" in capsys.readouterr().err


def test_a_terminated_run_leaves_neither_folder_nor_process(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from fresh_environment import FreshEnvironment, temporary_folder\n"
        "with temporary_folder(False) as folder:\n"
        "    FreshEnvironment.run.__globals__['ROOT'] = folder\n"
        "    environment = FreshEnvironment.__new__(FreshEnvironment)\n"
        "    environment.folder, environment._variables = folder, {}\n"
        "    environment.run('sleeping', [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'])\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(ROOT / "tools")], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr.readline() == "== sleeping\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    process.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_step_tells_its_last_lines(tmp_path):
    environment = fresh_environment.FreshEnvironment.__new__(fresh_environment.FreshEnvironment)
    environment.folder, environment._variables = tmp_path, {}
    command = [sys.executable, "-c", "print('\\n'.join(map(str, range(99)))); raise SystemExit(3)"]
    with pytest.raises(fresh_environment.StepError, match=r"a step failed with exit code 3:\n84\n85\n[\d\n]*98$"):
        environment.run("a step", command)
    assert environment.run("a step", command, can_fail=True)[0] == 3
    assert (tmp_path / "a_step.log").read_text().startswith("0\n1\n")


def test_answers_of_the_readme():
    assert fresh_environment.readme_answers().splitlines()[:2] == ["What is [A] doing?", "  It moves right."]


def test_notes_name_our_line_or_the_library(tmp_path):
    ours = make_note("two\n  lines", str(ROOT / "src" / "a.py"), 3)
    assert ours == Note("two lines", f"{Path('src', 'a.py')}:3", True)
    theirs = make_note("text", "/env/lib/site-packages/library/b.py", 4)
    assert (theirs.place, theirs.is_ours) == (f"{Path('library', 'b.py')}:4", False)
    assert make_note("", str(ROOT / ".venv" / "site-packages" / "c.py"), 1).is_ours is False
    assert read_notes(tmp_path / "missing.jsonl") == Counter()


def test_warnings_and_messages_of_loggers_are_noted(tmp_path):
    tests = tmp_path / "test_sample.py"
    tests.write_text(
        "import logging, warnings\n"
        "def test_warns():\n"
        "    warnings.warn('old name', FutureWarning)\n"
        "    warnings.warn('will be removed in 9', UserWarning)\n"
        "    warnings.warn('something else', UserWarning)\n"
        "    logging.getLogger('transformers.models').warning('`a` is deprecated')\n"
        "    logging.getLogger('transformers.models').warning('all is well')\n"
    )
    notes = tmp_path / "notes.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), deprecation_notes.VARIABLE: str(notes)}
    for workers in ("0", "1"):
        notes.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "deprecation_notes", "-n", workers, str(tests)]
        finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stdout
        assert sorted((note.text, times) for note, times in read_notes(notes).items()) == [
            ("FutureWarning: old name", 1),
            ("UserWarning: will be removed in 9", 1),
            ("`a` is deprecated", 1),
        ]


def test_messages_are_noted_with_our_innermost_line(monkeypatch, tmp_path):
    monkeypatch.setenv(deprecation_notes.VARIABLE, str(tmp_path / "notes.jsonl"))
    logger = logging.Logger("library")
    logger.addHandler(deprecation_notes._Listener())
    logger.warning("`b` is deprecated")
    (note,) = read_notes(tmp_path / "notes.jsonl")
    assert note.is_ours
    assert note.place.startswith(f"{Path('tests', 'tools', 'test_try_newest.py')}:")
