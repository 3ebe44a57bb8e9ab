"""What pytest wrote about a run, in groups."""

import sys
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import suite_report  # noqa: E402
from suite_report import Failure  # noqa: E402


JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="2" failures="3" skipped="1" tests="7" time="61.5">
<testcase classname="tests.test_a" name="test_good" file="tests/test_a.py" line="3" time="0.1" />
<testcase classname="tests.test_a" name="test_skipped" file="tests/test_a.py" line="4" time="0">
  <skipped type="pytest.skip" message="no accelerator">reason</skipped></testcase>
<testcase classname="tests.data.test_b.TestRows" name="test_bad[1]" file="tests/data/test_b.py" line="5" time="1">
  <failure message="TypeError: got an unexpected keyword argument 'cache'&#10;in the call">traceback</failure></testcase>
<testcase classname="tests.test_a" name="test_bad" file="tests/test_a.py" line="6" time="1">
  <failure message="TypeError: got an unexpected keyword argument 'cache'">traceback</failure></testcase>
<testcase classname="tests.test_a" name="test_other" file="tests/test_a.py" line="7" time="1">
  <failure message="AssertionError: assert &lt;Thing at 0x7f00aa&gt; is None">traceback</failure></testcase>
<testcase classname="tests.test_a" name="test_setup" file="tests/test_a.py" line="8" time="1">
  <error message='failed on setup with "TypeError: got an unexpected keyword argument &apos;cache&apos;"'>text</error>
</testcase>
<testcase classname="" name="tests.test_c" time="0">
  <error message="collection failure">tests/test_c.py:3: in &lt;module&gt;
    from library import gone
E   ImportError: cannot import name 'gone' from 'library' (/somewhere/else/env/library/__init__.py)</error></testcase>
</testsuite></testsuites>
"""
UNEXPECTED = "TypeError: got an unexpected keyword argument 'cache'"


@pytest.fixture
def result(tmp_path: Path) -> suite_report.SuiteResult:
    (tmp_path / "junit.xml").write_text(JUNIT)
    return suite_report.read_junit(tmp_path / "junit.xml")


def test_counts(result):
    assert (result.passed, result.failed, result.errors, result.skipped) == (1, 3, 2, 1)
    assert str(result) == "1 passed, 3 failed, 2 errors, 1 skipped in 62 s"


def test_failures_with_one_error_are_one_group_and_large_groups_come_first(result):
    assert suite_report.group_failures(result.failures) == [
        (UNEXPECTED, ["tests/data/test_b.py::TestRows::test_bad[1]", "tests/test_a.py::test_bad",
                      "tests/test_a.py::test_setup"]),
        ("AssertionError: assert <Thing at 0x...> is None", ["tests/test_a.py::test_other"]),
        ("ImportError: cannot import name 'gone' from 'library' (.../__init__.py)", ["tests.test_c"]),
    ]  # fmt: skip


def test_no_failures(tmp_path):
    path = tmp_path / "junit.xml"
    path.write_text('<testsuites><testsuite name="pytest" tests="0" time="0.2" /></testsuites>')
    result = suite_report.read_junit(path)
    assert suite_report.group_failures(result.failures) == []
    assert str(result) == "0 passed, 0 failed, 0 skipped in 0 s"


@pytest.mark.parametrize(
    ("message", "text", "line"),
    [
        ("", "a.py:3: in f\nE   assert 3 == 4\nE    +  where", "assert 3 == 4"),
        ("", "", ""),
        ("AssertionError: ^^^^\n  File x\nRuntimeError: of the process\n  ^^^", "", "RuntimeError: of the process"),
        ("AssertionError: \n*****\nthe end\n", "", "the end"),
        ("AssertionError", "", "AssertionError"),
        ("KeyError: '<'", "", "KeyError: '<'"),
        (
            "worker 'gw0' crashed while running 'tests/a.py::b'",
            "",
            "worker 'gw0' crashed while running 'tests/a.py::b'",
        ),
        ("OSError: no /one/run/tests-3/clip.mp4", "", "OSError: no .../clip.mp4"),
        ("ValueError: " + "x" * 200, "", "ValueError: " + "x" * 145 + "..."),
    ],
)
def test_first_line(message, text, line):
    assert suite_report.first_line(message, text) == line


def test_lists_are_cut_to_a_page():
    assert suite_report.cut(["a", "b"], 2) == ["a", "b"]
    assert suite_report.cut(["a", "b", "c", "d"], 2, "- ") == ["a", "b", "- and 2 more"]
    assert suite_report.group_failures([Failure("t", "e")]) == [("e", ["t"])]
