"""A repository saved by an older release, whose code fails on today's transformers, is repaired by converting it."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import FIXTURES

from transformers_videorefer import VideoReferConfig, cli


# Saved at commit eda3490 under transformers 5.23, and what it answered there (see fixtures/README.md).
ANSWER = [121, 40, 52, 305, 40, 84, 23, 304]
PROCESS = """
import sys, json

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "transformers_videorefer":
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
import numpy as np
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
video = (np.arange(6 * 40 * 60 * 3).reshape(6, 40, 60, 3) % 251).astype(np.uint8)
inputs = processor(
    text="<|im_start|>user\\n<video>\\nWhat is <region> doing?<|im_end|>\\n<|im_start|>assistant\\n",
    videos=video, regions=[{"frames": [{"frame_index": 2, "box": [5, 5, 40, 30]}]}], return_tensors="pt",
)
output = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)
print(json.dumps(output[0, -8:].tolist()))
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURES / "saved_before_cache_rename.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "saved"


def answer_without_the_package(folder: Path, tmp_path: Path) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder)],
        env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("library_settings")
def test_converted_it_answers_as_before(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    assert cli.main(["convert", str(old), str(new)]) == 0
    assert (new / "model.safetensors").read_bytes() == (old / "model.safetensors").read_bytes()
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (old, new))
    assert "tested_transformers" not in before
    assert after["tested_transformers"] == VideoReferConfig.package_range
    finished = answer_without_the_package(new, tmp_path)
    assert (finished.returncode, json.loads(finished.stdout or "null")) == (0, ANSWER), finished.stderr[-2000:]
    assert "was tested with transformers" not in finished.stderr


@pytest.mark.usefixtures("library_settings")
def test_outside_its_range_a_repository_warns_once_by_both_versions(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert cli.main(["convert", str(old), str(new)]) == 0
    config = json.loads((new / "config.json").read_text())
    (new / "config.json").write_text(json.dumps({**config, "tested_transformers": ">=4.0,<5.0"}))
    finished = answer_without_the_package(new, tmp_path)
    assert json.loads(finished.stdout) == ANSWER
    # Configuration, model and processor each come with a copy of the code of their own.
    assert finished.stderr.count("was tested with transformers >=4.0,<5.0, but transformers 5.") == 1
