"""Every Python snippet of the README, docs/usage.md and docs/data.md runs as written, with the marked commands between."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from transformers_videorefer.cli import main


ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/data.md", "docs/usage.md")
# Needs the published weights.
NEEDS_WEIGHTS = 'from_pretrained("DAMO-NLP-SG/VideoRefer-7B", dtype='
# Commands behind this comment run offline and leave only new files in the current folder.
RUNS_OFFLINE = "<!-- runs offline -->"
BLOCKS = re.compile(rf"^(?:{RUNS_OFFLINE}\n```bash|```(python))\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def copy_of_repository(monkeypatch, tmp_path):
    """A folder that looks like the root of the repository, to work in without leaving anything there."""
    for entry in ("examples", "dataset_scripts", "tests", "eval_metrics", "src"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as Python has it there
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def run_commands(block, monkeypatch):
    for line in block.strip().replace("\\\n", " ").split("\n"):
        program, *arguments = shlex.split(line, comments=True)
        if program == "python":
            with monkeypatch.context() as patch:
                patch.setattr(sys, "argv", arguments)
                patch.setattr(sys, "path", [str(Path(arguments[0]).parent), *sys.path])
                runpy.run_path(arguments[0], run_name="__main__")
        else:
            assert program == "videorefer", line
            assert main(arguments) in (None, 0), line


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.usefixtures("copy_of_repository")
def test_snippets_run(document, monkeypatch, capsys):
    text = (ROOT / document).read_text(encoding="utf-8")
    namespace: dict = {}
    num_run = num_commands = 0
    for is_python, block in BLOCKS.findall(text):
        if not is_python:
            run_commands(block, monkeypatch)
            num_commands += 1
        elif NEEDS_WEIGHTS not in block:
            exec(compile(block, document, "exec"), namespace)  # one document is one session
            num_run += 1
    assert num_run >= 2
    assert num_commands == text.count(RUNS_OFFLINE)
    if document == "README.md":
        assert num_commands >= 2
        assert capsys.readouterr().out.strip(), "the README prints an answer"


def test_regions_of_the_documentation_are_valid():
    from transformers_videorefer.regions.form import parse_region

    text = (ROOT / "docs" / "regions.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.M)
    assert parse_region(eval(snippet)).object_id == "dog"


def test_links_lead_somewhere():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_one_version_everywhere():
    import transformers_videorefer

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {transformers_videorefer.__version__}\n" in citation
