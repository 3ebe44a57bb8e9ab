"""The training script runs from nothing to a checkpoint that loads and is measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_quick_run_ends_with_a_checkpoint_and_a_report(tmp_path: Path) -> None:
    script, checkpoint, report = str(ROOT / "examples" / "train_tiny.py"), tmp_path / "tiny", tmp_path / "report.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, script, "--output", str(checkpoint), "--quick"], check=True, env=environment)
    subprocess.run(
        [sys.executable, script, "--evaluate", str(checkpoint), "--quick", "--report", str(report)],
        check=True,
        env=environment,
    )
    assert {"model", "blind", "other object's mask", "single frame"} <= set(json.loads(report.read_text()))
