"""Every Python snippet of the README and of docs/ runs as written, from the root of the repository."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/usage.md")
# Needs the published weights.
NEEDS_WEIGHTS = 'from_pretrained("DAMO-NLP-SG/VideoRefer-7B", dtype='


@pytest.mark.parametrize("document", DOCUMENTS)
def test_snippets_run(document, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    snippets = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.M)
    namespace: dict = {}
    num_run = 0
    for snippet in snippets:
        if NEEDS_WEIGHTS in snippet:
            continue
        exec(compile(snippet, document, "exec"), namespace)  # one document is one session
        num_run += 1
    assert num_run >= 2
    if document == "README.md":
        assert capsys.readouterr().out.strip(), "the README prints an answer"


def test_regions_of_the_documentation_are_valid():
    from transformers_videorefer.regions_videorefer import parse_region

    text = (ROOT / "docs" / "regions.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.M)
    assert parse_region(eval(snippet), where="docs").object_id == "dog"


def test_links_lead_somewhere():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_one_version_everywhere():
    import transformers_videorefer

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {transformers_videorefer.__version__}\n" in citation
