"""`videorefer eval similarity` on the recorded checkpoint."""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE
from PIL import Image

from transformers_videorefer.commands import eval_similarity


CLIP = str(REFERENCE / "media" / "clip.mp4")  # 40 frames, 96x64, 10 fps
MODEL = ["--model", str(REFERENCE / "videorefer-tiny"), "--device", "cpu"]
BOXES = [f"--box={10 + index},10,{60 + index},50@{index}" for index in (10, 3, 20, 15, 30)]


pytestmark = pytest.mark.usefixtures("library_settings")


def run(*arguments: str) -> str:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--debug", action="store_true")
    eval_similarity.add_arguments(parser)
    stream = io.StringIO()
    eval_similarity.run(parser.parse_args(arguments), stream)
    return stream.getvalue()


def test_picture_numbers_and_summary(tmp_path: Path) -> None:
    output, numbers = tmp_path / "map.png", tmp_path / "map.json"
    summary = run(CLIP, *BOXES, *MODEL, "--region-tokens", "2", "--output", str(output), "--json", str(numbers))
    found = json.loads(numbers.read_text())
    assert found["frame_indices"] == [3, 10, 15, 20, 30]  # in the order of time, however the flags stand
    matrix = np.array(found["similarity"])
    assert np.allclose(matrix, matrix.T) and np.allclose(np.diag(matrix), 1)
    assert np.allclose(found["adjacent_similarity"], np.diag(matrix, 1), atol=2e-6)
    lowest = int(np.argmin(found["adjacent_similarity"]))
    frames = found["frame_indices"]
    assert found["unions"] == [frames[: lowest + 1], frames[lowest + 1 :]]
    assert summary.startswith("5 frames, similarity of neighbours: mean ")
    assert f"(frames {frames[lowest]} and {frames[lowest + 1]})\n3 of 4 pairs joined:\n  token 1: " in summary
    with Image.open(output) as picture:
        assert picture.format == "PNG" and picture.width > 900


def test_a_masklet_with_a_name(tmp_path: Path) -> None:
    masks = np.zeros((3, 64, 96), dtype=bool)
    masks[:, 10:50, 20:70] = True
    np.savez_compressed(tmp_path / "dog.npz", masks=masks, frame_indices=[0, 20, 39])
    numbers = tmp_path / "map.json"
    summary = run(
        *(CLIP, "--masklet", f"dog={tmp_path / 'dog.npz'}", *MODEL),
        *("--output", str(tmp_path / "map.jpg"), "--json", str(numbers)),
    )
    assert json.loads(numbers.read_text())["object_id"] == "dog"
    assert "0 of 2 pairs joined" in summary  # the checkpoint keeps four tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CLIP, *MODEL], "No object is marked"),
        ([CLIP, "--box=dog=1,1,9,9@0", "--box=cat=1,1,9,9@1", *MODEL], "The flags mark several objects"),
        ([CLIP, "--box=1,1,9,9@0", "--box=1,1,9,9@0", *MODEL], "this frame of the region is marked twice"),
        ([CLIP, BOXES[0], *MODEL], "marked on 1 frame, but a similarity needs two"),
        ([CLIP, "--box=1,1,9,9@0", "--box=1,1,9,9@77", *MODEL], "`--box 1,1,9,9@0 --box 1,1,9,9@77`, frame 77"),
        ([CLIP, *BOXES], "--model is missing"),
        (["missing.mp4", *BOXES, *MODEL], "There is no video missing.mp4"),
        (["missing.mp4", *BOXES, *MODEL[:2], "--device", "warp"], "`--device warp`: torch cannot use it"),
    ],
)
def test_what_cannot_be_drawn(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(*arguments, "--output", str(tmp_path / "map.png"))


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this is no picture format"):
        run(CLIP, *BOXES, *MODEL, "--output", str(tmp_path / "map.txt"))
    with pytest.raises(ValueError, match="--json .*the folder does not exist"):
        run(CLIP, *BOXES, *MODEL, "--output", str(tmp_path / "a.png"), "--json", str(tmp_path / "no" / "a.json"))
