"""Every metric module: it loads offline from the repository, has a card and a Space, and imports nothing of ours."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from metric_modules import FOLDER, NAMES, load_metric, own_cache


# Run in a process of its own, from the root of the repository.
LOADED_ELSEWHERE = """
import json, sys
import evaluate

sys.modules["transformers_videorefer"] = None  # importing it fails
inputs = json.loads(sys.argv[1])
results = {name: evaluate.load(f"eval_metrics/{name}").compute(**given) for name, given in inputs.items()}
bench_d = evaluate.load("eval_metrics/videorefer_bench_d")
judge = lambda messages: {"SC": 4, "AD": 3, "TD": 2, "HD": 1}
results["videorefer_bench_d"] = bench_d.compute(predictions=["a"], references=["b"], judge=judge)
print(json.dumps(results))
"""


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


def test_modules_load_offline_by_their_path(tmp_path):
    pytest.importorskip("evaluate")
    pytest.importorskip("pycocoevalcap")
    inputs = {
        "videorefer_bench_q": {"predictions": ["A"], "references": ["(A) a"], "types": ["Basic Questions"]},
        "region_captioning": {
            "predictions": ["a b"],
            "references": [["a b"]],
            "metrics": ["ROUGE_L"],
            "tokenizer": "none",
        },
    }
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    command = [sys.executable, "-c", LOADED_ELSEWHERE, json.dumps(inputs)]
    run = subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout.splitlines()[-1])
    assert results["videorefer_bench_q"]["accuracy"] == 1.0
    assert results["videorefer_bench_d"]["average"] == 2.5
    assert results["region_captioning"]["ROUGE_L"] == 1.0
    assert (tmp_path / "modules" / "evaluate_modules").is_dir()


def test_modules_import_nothing_of_ours(name):
    files = sorted((FOLDER / name).glob("*.py"))
    assert {f"{name}.py", "app.py"} <= {file.name for file in files}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("transformers_videorefer") for alias in node.names), file
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert not node.module.startswith("transformers_videorefer"), file


def test_the_module_names_all_its_siblings(name):
    """The library copies only those that the module itself imports."""
    tree = ast.parse((FOLDER / name / f"{name}.py").read_text(encoding="utf-8"))
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}
    assert named == {file.stem for file in (FOLDER / name).glob("*.py")} - {name, "app"}


def test_cards_open_with_the_fields_of_a_space(name):
    text = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    header = re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL).group(1)
    fields = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    assert (fields["sdk"], fields["app_file"]) == ("gradio", "app.py")
    assert fields["sdk_version"].startswith("6.")
    for section in ("How to use", "Inputs", "Output", "Limitations", "Citation"):
        assert f"## {section}" in text, section


def test_python_of_the_cards_runs(name):
    """The block of each card that starts with `import evaluate`; what it prints stands in its comments."""
    pytest.importorskip("evaluate")
    if name == "region_captioning":
        pytest.importorskip("pycocoevalcap")
    text = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import evaluate\n.*?)```", text, flags=re.DOTALL)
    printed = []
    space = {"print": lambda *values: printed.append(" ".join(map(str, values))), "load_metric": load_metric}
    code = re.sub(r'evaluate\.load\("eval_metrics/(\w+)"\)', r'load_metric("\1")', code)
    exec(compile(code, f"{name}/README.md", "exec"), space)
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    assert expected
    assert printed == expected


@pytest.fixture
def app(name):
    """Import the Space of a metric, which loads it by the path of its file."""
    pytest.importorskip("gradio")
    if name == "region_captioning":
        pytest.importorskip("pycocoevalcap")
    spec = importlib.util.spec_from_file_location(f"{name}_app", FOLDER / name / "app.py")
    module = importlib.util.module_from_spec(spec)
    with own_cache():
        spec.loader.exec_module(module)
    return module


def test_spaces_build_and_score_their_example(name, app):
    import gradio as gr

    assert isinstance(app.build(), gr.Blocks)
    if name == "videorefer_bench_q":
        table, result = app.score(app.EXAMPLE, "published")
        assert table == [["Basic Questions", 100.0], ["Future Predictions", 0.0], ["All questions", 50.0]]
        assert app.score(app.EXAMPLE, "strict")[1]["accuracy"] == 1.0
        assert result["num_samples"] == 2
    elif name == "videorefer_bench_d":
        assert app.score(app.EXAMPLE, "", "")["average"] == (5 + 3 + 4 + 5) / 4
        with pytest.raises(gr.Error, match="needs your key"):
            app.score(app.EXAMPLE, "judge-2024-01-01", " ")
    else:
        result = app.score(app.EXAMPLE, ["ROUGE_L"], "regex")
        assert 0 < result["ROUGE_L"] < 1
    with pytest.raises(gr.Error, match="can't be scored"):
        app.score("{}", *({"videorefer_bench_q": ["strict"], "videorefer_bench_d": ["", ""]}.get(name, [[], "none"])))
