"""Copies of the tiny published checkpoint, changed as a test needs them."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from conftest import PUBLISHED, REFERENCE
from safetensors.torch import load_file, save_file
from torch import nn


TOWER = REFERENCE / "siglip-tiny-patch14-56"
# Files that only newer tokenizers write; the real published folders have none.
FAST_TOKENIZER_FILES = ("tokenizer.json",)


def copy_published(
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    weights: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
    tower: str | None = TOWER.name,
    fast_tokenizer: bool = True,
) -> Path:
    """Copy the checkpoint and its tower into a folder.

    Args:
        folder: Where to; the checkpoint becomes `folder/checkpoint`.
        config: Entries of `config.json` to change.
        weights: Changes the tensors.
        tower: Name of the tower's folder beside the checkpoint, `None` for none.
        fast_tokenizer: Whether to keep `tokenizer.json`.
    """
    target = folder / "checkpoint"
    shutil.copytree(PUBLISHED, target)
    if config is not None:
        edit_json(target / "config.json", config)
    if weights is not None:
        save_file(weights(load_file(PUBLISHED / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    if tower is not None:
        shutil.copytree(TOWER, folder / tower)
    if not fast_tokenizer:
        for name in FAST_TOKENIZER_FILES:
            (target / name).unlink()
    return target


def edit_json(file: Path, changes: Mapping[str, Any]) -> None:
    content = json.loads(file.read_text()) | dict(changes)
    file.write_text(json.dumps(content))


def without(*prefixes: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Drop the tensors whose published key starts with one of the prefixes."""
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(prefixes)}


def split_weights(checkpoint: Path, num_shards: int) -> None:
    """Replace the one file of weights by shards with an index."""
    file = checkpoint / "model.safetensors"
    tensors = sorted(load_file(file).items())
    file.unlink()
    weight_map = {}
    for number in range(num_shards):
        shard = dict(tensors[number::num_shards])
        name = f"model-{number + 1:05}-of-{num_shards:05}.safetensors"
        save_file(shard, checkpoint / name, {"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))


def our_key(key: str) -> str | None:
    """Translate a key of the published file step by step, `None` for what lies behind the feature layer."""
    parts = key.split(".")
    if parts[:2] == ["model", "vision_tower"]:
        inner = parts[4:]
        is_surplus = inner[0] in ("post_layernorm", "head") or inner[:3] == ["encoder", "layers", "2"]
        return None if is_surplus else ".".join(["model.vision_tower", *inner])
    if parts[:2] == ["model", "region_encoder"]:
        return f"model.region_encoder.{ {'0': 'linear_1', '2': 'linear_2'}[parts[3]] }.{parts[4]}"
    if parts[:2] != ["model", "mm_projector"]:
        return key if parts[0] == "lm_head" else f"model.language_model.{key.removeprefix('model.')}"
    part, inner = parts[2], parts[3:]
    if part in ("sampler", "readout"):
        return {"sampler": "model.connector.sampler.", "readout": "model.connector.mlp."}[part] + ".".join(
            inner[1:] if part == "sampler" else inner
        )
    block = f"model.connector.stage{part[1]}.{int(inner[0][1:]) - 1}"
    layer, rest = inner[1], inner[2:]
    if layer == "se":
        return f"{block}.squeeze_excitation.{'.'.join(rest)}"
    kind = {"conv": "conv", "bn": "norm"}[rest[0]]
    return f"{block}.shortcut.{kind}.{rest[1]}" if layer == "downsample" else f"{block}.{kind}{layer[-1]}.{rest[1]}"


def expected_weights() -> dict[str, torch.Tensor]:
    """The published tensors under the names of our model with its head."""
    return {
        name: tensor
        for key, tensor in load_file(PUBLISHED / "model.safetensors").items()
        if (name := our_key(key)) is not None
    }


def assert_weights(model: nn.Module, skip: str = "none", prefix: str = "") -> None:
    """Check that every weight of a model is the published one, but for names that start with `skip`."""
    expected = {name.removeprefix(prefix): tensor for name, tensor in expected_weights().items()}
    found = model.state_dict()
    if prefix:
        expected.pop("lm_head.weight")
    assert set(found) == set(expected)
    for name, tensor in found.items():
        if not name.startswith(skip):
            assert torch.equal(tensor.float(), expected[name].to(tensor.dtype).float()), name
