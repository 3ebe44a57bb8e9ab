"""The published layouts: configuration, token ids, vision tower and key names, translated into ours.

A published checkpoint names its vision tower instead of describing it, has no processor files, and keeps `<video>` and
`<image>` outside of its vocabulary.
"""

import dataclasses
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from transformers import Qwen2Config, SiglipVisionConfig

from transformers_videorefer.checkpoints.components import WEIGHT_FILES, find_file, published_key_mapping
from transformers_videorefer.checkpoints.loading import MARK_TOKENS, read_image_settings
from transformers_videorefer.models.videorefer.configuration_videorefer import VideoReferConfig


logger = logging.getLogger(__name__)

# Model type -> components that such a checkpoint has not got yet. VideoRefer training starts from VideoLLaMA 2.1.
PUBLISHED_MODEL_TYPES = {"videorefer_qwen2": (), "videollama2_qwen2": ("region_encoder",)}
TEXT_FIELDS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
)
# Settings that would compute something else if they had another value.
SUPPORTED_SETTINGS = {
    "mm_projector_type": ("stc_connector_v35",),
    "mm_region_encoder_type": ("pooling", None),
    "mm_vision_select_feature": ("patch", None),
}
_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
# The published SigLIP towers by the last part of their name; what is not listed they share.
KNOWN_TOWERS = {
    "siglip-base-patch16-224": {**_BASE, "patch_size": 16, "image_size": 224},
    "siglip-base-patch16-256": {**_BASE, "patch_size": 16, "image_size": 256},
    "siglip-base-patch16-256-multilingual": {**_BASE, "patch_size": 16, "image_size": 256},
    "siglip-base-patch16-384": {**_BASE, "patch_size": 16, "image_size": 384},
    "siglip-base-patch16-512": {**_BASE, "patch_size": 16, "image_size": 512},
    "siglip-large-patch16-256": {**_LARGE, "patch_size": 16, "image_size": 256},
    "siglip-large-patch16-384": {**_LARGE, "patch_size": 16, "image_size": 384},
    "siglip-so400m-patch14-224": {**_SO400M, "patch_size": 14, "image_size": 224},
    "siglip-so400m-patch14-384": {**_SO400M, "patch_size": 14, "image_size": 384},
    "siglip-so400m-patch16-256-i18n": {**_SO400M, "patch_size": 16, "image_size": 256},
}


@dataclasses.dataclass(frozen=True)
class VisionTower:
    """A vision tower that was looked up.

    Args:
        name (`str`): What was looked up.
        config (`SiglipVisionConfig`): Its configuration.
        source (`str`, *optional*): Folder or Hub id of its checkpoint; `None` if only its name is known.
        hub_kwargs (`dict[str, Any]`, *optional*): Where on the Hub to look.
        is_from_table (`bool`, *optional*, defaults to `False`): Whether the built-in table knows it.
    """

    name: str
    config: SiglipVisionConfig
    source: str | None = None
    hub_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_from_table: bool = False

    def image_settings(self) -> dict[str, Any]:
        """Return how it wants its pictures: from its checkpoint, else what all SigLIP towers share."""
        source = None if self.is_from_table else self.source
        return read_image_settings(source, self.config.image_size, **self.hub_kwargs)

    def read(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Read weights of the tower.

        Args:
            names (`Sequence[str]`): Names within a `SiglipVisionModel`.

        Returns:
            `dict[str, torch.Tensor]`: The tensors.

        Raises:
            OSError: If the checkpoint of the tower cannot be reached or lacks one of them.
        """
        try:
            files = [] if self.source is None else weight_files(self.source, **self.hub_kwargs)
        except OSError as error:
            raise OSError(
                f"The checkpoint has no weights of its vision tower `{self.name}`, and `{self.source}` cannot be read: "
                f"{error} Pass `vision_tower=` with a folder or Hub id of the tower."
            ) from error
        wanted, tensors = set(names), {}
        for file in files:
            for key, tensor in iterate_tensors(file):
                # `vision_model.` in a whole SigLIP checkpoint; without it in one of the vision part alone.
                name = key.rpartition("vision_model.")[2]
                if name in wanted and not key.startswith("text_model."):
                    tensors[name] = tensor.read()
        if missing := sorted(wanted - set(tensors)):
            raise OSError(
                f"The checkpoint has no weights of its vision tower `{self.name}`, and "
                + (f"`{self.source}` lacks {missing}." if files else "no file of them was found.")
                + " Pass `vision_tower=` with a folder or Hub id of the tower."
            )
        return tensors


def find_tower(
    name: str, checkpoint: str | os.PathLike, vision_tower: str | os.PathLike | None = None, **hub_kwargs: Any
) -> VisionTower:
    """Look up the vision tower of a published checkpoint.

    Args:
        name (`str`): `mm_vision_tower` of its configuration: a path or Hub id.
        checkpoint (`str` or `os.PathLike`): Folder or Hub id of the checkpoint; a folder is also searched beside.
        vision_tower (`str` or `os.PathLike`, *optional*): Folder or Hub id to use instead.
        hub_kwargs: Where on the Hub the checkpoint is.

    Returns:
        [`VisionTower`].

    Raises:
        OSError: If it is nowhere, or no SigLIP tower.
    """
    wanted = os.fspath(vision_tower) if vision_tower is not None else name
    places = [wanted]
    if vision_tower is None and os.path.isdir(checkpoint):
        beside = Path(checkpoint).resolve().parent
        places += [str(beside / name), str(beside / os.path.basename(name.rstrip("/")))]
    for place in places:
        if os.path.isdir(place):
            return VisionTower(wanted, _read_tower_config(place), place)
    # These belong to the repository of the checkpoint, not to that of the tower.
    hub_kwargs = {key: value for key, value in hub_kwargs.items() if key not in ("revision", "subfolder")}
    known = KNOWN_TOWERS.get(os.path.basename(wanted.rstrip("/")))
    # A Hub id has two parts; asking the Hub for anything else only costs time, and so does asking for what the table
    # says as well: of the published towers only the local cache is asked.
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", wanted) is not None
    lookup = {**hub_kwargs, "local_files_only": True} if known and wanted.startswith("google/") else hub_kwargs
    lookup_error: OSError | None = None
    try:
        is_on_hub = is_hub_id and find_file(wanted, "config.json", **lookup) is not None
    except OSError as error:
        is_on_hub, lookup_error = False, error
    if is_on_hub:
        return VisionTower(wanted, _read_tower_config(wanted, **lookup), wanted, hub_kwargs)
    if known is None:
        reason = "" if lookup_error is None else f" ({lookup_error})"
        raise OSError(
            f"The vision tower `{wanted}` of `{checkpoint}` was found neither as a folder"
            f"{'' if vision_tower is not None else ', nor beside the checkpoint'}, nor on the Hub{reason}. Pass "
            "`vision_tower=` with a folder or Hub id of the tower."
        ) from lookup_error
    source = wanted if is_hub_id else None
    return VisionTower(wanted, SiglipVisionConfig(**known), source, hub_kwargs, is_from_table=True)


def _read_tower_config(source: str, **hub_kwargs: Any) -> SiglipVisionConfig:
    file = find_file(source, "config.json", **hub_kwargs)
    if file is None:
        raise OSError(f"The vision tower `{source}` has no config.json. Pass `vision_tower=` with another one.")
    content = _parse_json(file)
    if content.get("model_type") not in ("siglip", "siglip_vision_model"):
        raise OSError(
            f"The vision tower `{source}` is of type `{content.get('model_type')}`, but only SigLIP towers are "
            "supported. Pass `vision_tower=` with one."
        )
    config = SiglipVisionConfig.from_dict(content.get("vision_config", content))
    config.architectures, config.dtype = None, None
    return config


def placeholder_ids(checkpoint: str | os.PathLike, **hub_kwargs: Any) -> dict[str, int]:
    """Work out the ids of `<region>`, `<video>` and `<image>` from the tokenizer files of a checkpoint.

    Args:
        checkpoint (`str` or `os.PathLike`): Folder or Hub id.
        hub_kwargs: Where on the Hub to look.

    Returns:
        `dict[str, int]`: `region_token_id`, `video_token_id`, `image_token_id`: those that the tokenizer has, else
        its next free ids, in this order. Empty without tokenizer files.
    """
    ids: dict[str, int] = {}
    if vocabulary := _read_json(checkpoint, "vocab.json", **hub_kwargs):
        ids.update(vocabulary)
        ids.update(_read_json(checkpoint, "added_tokens.json", **hub_kwargs))
    elif tokenizer := _read_json(checkpoint, "tokenizer.json", **hub_kwargs):
        ids.update(tokenizer["model"]["vocab"])
        ids.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    if not ids:
        return {}
    settings = _read_json(checkpoint, "tokenizer_config.json", **hub_kwargs)
    ids.update({token["content"]: int(key) for key, token in settings.get("added_tokens_decoder", {}).items()})
    for mark in MARK_TOKENS:
        if mark not in ids:
            ids[mark] = max(ids.values()) + 1
    return {f"{mark.strip('<>')}_token_id": ids[mark] for mark in MARK_TOKENS}


def _read_json(source: str | os.PathLike, filename: str, **hub_kwargs: Any) -> dict[str, Any]:
    file = find_file(source, filename, **hub_kwargs)
    return {} if file is None else _parse_json(file)


def _parse_json(file: str | os.PathLike) -> dict[str, Any]:
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON, or bytes that are no text
        raise OSError(f"`{file}` is not valid JSON: {error}. Download or copy it again.") from error


def translate_config(
    published: dict[str, Any],
    checkpoint: str | os.PathLike,
    tower: Callable[[], VisionTower],
    **hub_kwargs: Any,
) -> dict[str, Any]:
    """Translate a published configuration.

    Args:
        published (`dict[str, Any]`): Content of its `config.json`.
        checkpoint (`str` or `os.PathLike`): Folder or Hub id it comes from.
        tower (`Callable[[], VisionTower]`): Looks up its vision tower.
        hub_kwargs: Where on the Hub to look.

    Returns:
        `dict[str, Any]`: Fields of [`VideoReferConfig`].

    Raises:
        OSError: If the vision tower cannot be found, or the checkpoint has a part that is not supported. (The
            library's Auto classes hide other kinds of errors.)
    """
    for name, supported in SUPPORTED_SETTINGS.items():
        if published.get(name) not in supported:
            raise OSError(f"`{checkpoint}` has `{name}` {published.get(name)!r}; only {supported[0]!r} is supported.")
    try:
        text_config = Qwen2Config(**{name: published[name] for name in TEXT_FIELDS if name in published})
        translated = {
            "vision_config": tower().config.to_dict(),
            "text_config": text_config.to_dict(),
            "vision_feature_layer": published.get("mm_vision_select_layer", -2),
            "num_frames": published.get("num_frames") or 16,
            "tie_word_embeddings": published.get("tie_word_embeddings", False),
            "dtype": published.get("torch_dtype") or published.get("dtype"),
            **placeholder_ids(checkpoint, **hub_kwargs),
        }
        VideoReferConfig(**translated)
    except (KeyError, TypeError, ValueError, StrictDataclassError) as error:
        raise OSError(f"The configuration of `{checkpoint}` cannot be translated: {error!r}") from error
    return translated


def key_mapping(connector_depth: int) -> dict[str, str]:
    """Regular expressions from all published keys to ours, in the order in which they are to be applied."""
    return {
        **published_key_mapping(connector_depth),
        r"^model\.vision_tower\.vision_tower\.(?:vision_model\.)?": "model.vision_tower.",
        r"^model\.(embed_tokens|layers|norm)\.": r"model.language_model.\1.",
    }


def read_config_dict(checkpoint: str | os.PathLike, **hub_kwargs: Any) -> dict[str, Any]:
    """Read the `config.json` of a checkpoint; empty if there is none.

    Args:
        checkpoint (`str` or `os.PathLike`): Folder or Hub id, or the file itself.
        hub_kwargs: Where on the Hub to look.

    Returns:
        `dict[str, Any]`: Its content.

    Raises:
        OSError: If the Hub gives no answer, or the file is no JSON.
    """
    if os.path.isfile(checkpoint):
        return _parse_json(checkpoint) if os.fspath(checkpoint).endswith(".json") else {}
    return _read_json(checkpoint, "config.json", **hub_kwargs)


def weight_files(checkpoint: str | os.PathLike, **hub_kwargs: Any) -> list[str]:
    """List the files with the weights of a checkpoint; empty if there are none.

    Args:
        checkpoint (`str` or `os.PathLike`): Folder or Hub id.
        hub_kwargs: Where on the Hub to look.

    Returns:
        `list[str]`: Paths of the shards in order, or of the one file.

    Raises:
        OSError: If a shard that the index names is missing.
    """
    for name in WEIGHT_FILES:
        file = find_file(checkpoint, name, **hub_kwargs)
        if file is None:
            continue
        if not name.endswith(".index.json"):
            return [file]
        shards = sorted(set(_parse_json(file)["weight_map"].values()))
        paths = [find_file(checkpoint, shard, **hub_kwargs) for shard in shards]
        if None in paths:
            raise OSError(f"`{checkpoint}` lacks {[s for s, p in zip(shards, paths, strict=True) if p is None]}.")
        return paths
    return []


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file.

    Args:
        shape (`tuple[int, ...]`): Its shape.
        read (`Callable[[], torch.Tensor]`): Reads it.
    """

    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


def iterate_tensors(file: str | os.PathLike) -> Iterator[tuple[str, LazyTensor]]:
    """Go through the tensors of a `.safetensors` or `.bin` file without reading them all.

    Args:
        file (`str` or `os.PathLike`): The file.

    Yields:
        `tuple[str, LazyTensor]`: Key and tensor, which can be read until the next one is asked for.
    """
    if os.fspath(file).endswith(".safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (no mapping)
                shape = tuple(tensors.get_slice(key).get_shape())
                yield key, LazyTensor(shape, lambda key=key: tensors.get_tensor(key))
    else:
        for key, tensor in torch.load(file, map_location="cpu", weights_only=True, mmap=True).items():
            yield key, LazyTensor(tuple(tensor.shape), lambda tensor=tensor: tensor)
