"""Conversion of published checkpoints into repositories of our own."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import PUBLISHED
from published_files import (
    TOWER,
    assert_weights,
    copy_published,
    expected_weights,
    split_weights,
    without,
)
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
)

from transformers_videorefer import (
    VideoReferProcessor,
    convert_checkpoint,
)


TOWER_KEYS = "model.vision_tower."
REGION_KEYS = "model.region_encoder."
SO400M = "google/siglip-so400m-patch14-384"


# Conversion


def assert_repository(folder: Path) -> None:
    """Check that a folder has everything that loading without the package takes."""
    names = {path.name for path in folder.iterdir()}
    assert {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "configuration_videorefer.py",
        "generation_config.json",
        "modeling_videorefer.py",
        "processing_videorefer.py",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    assert not any(name.endswith(".bin") for name in names)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_conversion_writes_our_layout(num_shards: int, tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    if num_shards > 1:
        split_weights(checkpoint, num_shards)
    output = convert_checkpoint(checkpoint, tmp_path / "output")
    assert output == tmp_path / "output"
    assert_repository(output)
    files = sorted(output.glob("*.safetensors"))
    assert len(files) == num_shards
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    expected = expected_weights()
    assert set(tensors) == set(expected)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    if num_shards > 1:
        index = json.loads((output / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(expected)
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    model, info = AutoModelForImageTextToText.from_pretrained(output, output_loading_info=True)
    assert_weights(model)
    assert not info["unexpected_keys"]
    assert model.generation_config.repetition_penalty == 1.05
    assert type(AutoProcessor.from_pretrained(output)) is VideoReferProcessor


def test_weights_have_the_permissions_of_their_neighbours(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        output = convert_checkpoint(PUBLISHED, tmp_path / "output")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in output.iterdir()} == {0o640}


def test_conversion_leaves_no_path_behind(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    output = convert_checkpoint(checkpoint, tmp_path / "output")
    for file in output.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_conversion_to_another_dtype_with_tower_and_component(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without(TOWER_KEYS, REGION_KEYS))
    tensors = load_file(PUBLISHED / "model.safetensors")
    component = {key: value for key, value in tensors.items() if key.startswith(REGION_KEYS)}
    torch.save(component, tmp_path / "region_encoder.bin")
    moved = tmp_path / "moved"
    shutil.move(tmp_path / TOWER.name, moved)
    output = convert_checkpoint(
        checkpoint, tmp_path / "new" / "output", component=tmp_path / "region_encoder.bin", vision_tower=moved,
        dtype="bfloat16",
    )  # fmt: skip
    tensors = {name: tensor for file in output.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    model = AutoModelForImageTextToText.from_pretrained(output)
    assert model.dtype == torch.bfloat16
    assert_weights(model)


def test_component_replaces_what_the_checkpoint_has(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    zeros = {
        key: torch.zeros_like(value)
        for key, value in load_file(PUBLISHED / "model.safetensors").items()
        if key.startswith(REGION_KEYS)
    }
    torch.save(zeros, tmp_path / "region_encoder.bin")
    output = convert_checkpoint(checkpoint, tmp_path / "output", component=[tmp_path / "region_encoder.bin"])
    model = AutoModelForImageTextToText.from_pretrained(output)
    assert_weights(model, skip=REGION_KEYS)
    assert all(not value.any() for value in model.model.region_encoder.state_dict().values())


def test_base_converts_with_the_same_fresh_region_encoder_every_time(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, config={"model_type": "videollama2_qwen2"}, weights=without(REGION_KEYS))
    outputs = [convert_checkpoint(checkpoint, tmp_path / name) for name in ("first", "second")]
    models = [AutoModelForImageTextToText.from_pretrained(output) for output in outputs]
    for model in models:
        assert_weights(model, skip=REGION_KEYS)
    weights = [model.model.region_encoder.linear_1.weight for model in models]
    assert torch.equal(*weights)
    assert weights[0].abs().max() > 0


def test_our_own_repository_converts_too(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    first = convert_checkpoint(checkpoint, tmp_path / "first")
    second = convert_checkpoint(first, tmp_path / "second", dtype=torch.float16)
    assert_repository(second)
    assert_weights(AutoModelForImageTextToText.from_pretrained(second))


def test_tied_embeddings_are_written_once(tmp_path: Path) -> None:
    def tie(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}

    checkpoint = copy_published(tmp_path, config={"tie_word_embeddings": True}, weights=tie)
    output = convert_checkpoint(checkpoint, tmp_path / "output")
    assert "lm_head.weight" not in load_file(output / "model.safetensors")
    model = AutoModelForImageTextToText.from_pretrained(output)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without("model.norm."))
    with pytest.raises(ValueError, match=r"does not fit its configuration: it lacks model\.language_model\.norm"):
        convert_checkpoint(checkpoint, tmp_path / "output")
    with pytest.raises(ValueError, match="`dtype` must name a dtype of PyTorch"):
        convert_checkpoint(checkpoint, tmp_path / "output", dtype="half a float")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", TOWER.name]


def test_source_without_weights_is_refused(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"holds no weights of a whole model\.$"):
        convert_checkpoint(checkpoint, tmp_path / "output")
    torch.save({"feat_linear.0.weight": torch.zeros(1)}, checkpoint / "region_encoder.bin")
    with pytest.raises(OSError, match=r"only \['region_encoder\.bin'\].*`component="):
        convert_checkpoint(checkpoint, tmp_path / "output")


def test_conversion_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="exists and is not empty"):
        convert_checkpoint(PUBLISHED, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert_repository(convert_checkpoint(PUBLISHED, tmp_path / "empty"))
