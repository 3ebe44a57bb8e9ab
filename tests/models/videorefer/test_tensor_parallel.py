"""Tensor parallelism: two processes that share the layers answer as one that has them all."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from tiny import box_region, noise_video, tiny_model, tiny_processor


PROCESS = """
import os, sys
import torch
import torch.distributed
import transformers_videorefer
from transformers import AutoModelForImageTextToText
from transformers.distributed import DistributedConfig

torch.set_num_threads(1)
folder, inputs, output = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder, distributed_config=DistributedConfig(tp_plan="auto")).eval()
inputs = torch.load(inputs)
with torch.no_grad():
    logits = model(**inputs).logits
ids = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
if torch.distributed.get_rank() == 0:
    torch.save({"logits": logits, "ids": ids, "head": type(model.lm_head.weight).__name__}, output)
torch.distributed.barrier()
os._exit(0)  # threads of gloo may abort a process that takes its group down
"""


def test_tied_embeddings_on_two_processes(tmp_path: Path) -> None:
    """The head is the embedding table, which the library's plan splits; without a plan of its own it would fail."""
    model, processor = tiny_model(tie_word_embeddings=True), tiny_processor()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    prompt = "<|im_start|>user\n<video>\nWhat is <region> doing?<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(text=prompt, videos=noise_video(), regions=[box_region([0, 3, 6])], return_tensors="pt")
    model.save_pretrained(tmp_path / "model")
    torch.save(dict(inputs), tmp_path / "inputs.pt")
    (tmp_path / "process.py").write_text(PROCESS)
    arguments = [str(tmp_path / name) for name in ("process.py", "model", "inputs.pt", "found.pt")]
    finished = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = torch.load(tmp_path / "found.pt")
    with torch.no_grad():
        expected = model(**inputs).logits
    assert found["head"] == "DTensor"
    torch.testing.assert_close(found["logits"], expected, atol=1e-4, rtol=1e-4)
    answer = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert found["ids"].tolist() == answer.tolist()
