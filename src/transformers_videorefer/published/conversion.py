"""Published checkpoints: describing them to the Auto classes, and writing repositories of our own from them."""

import dataclasses
import functools
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import PreTrainedConfig

from transformers_videorefer.checkpoints.components import (
    check_tensors,
    component_files,
    component_of_key,
    find_file,
    read_component,
    rename_key,
)
from transformers_videorefer.checkpoints.layouts import PublishedCheckpoint
from transformers_videorefer.checkpoints.repository import give_usual_modes, write_card, write_code
from transformers_videorefer.models.videorefer.configuration_videorefer import AUTO_MAP, VideoReferConfig
from transformers_videorefer.models.videorefer.modeling_videorefer import VideoReferForConditionalGeneration
from transformers_videorefer.models.videorefer.processing_videorefer import VideoReferProcessor
from transformers_videorefer.models.videorefer.region_encoder_videorefer import VideoReferRegionEncoder

from .layout import (
    PUBLISHED_MODEL_TYPES,
    LazyTensor,
    VisionTower,
    find_tower,
    iterate_tensors,
    key_mapping,
    read_config_dict,
    translate_config,
    weight_files,
)


logger = logging.getLogger(__name__)


class PublishedConfig(PreTrainedConfig):
    """Stands for a published `config.json` in `AutoConfig`: reading one gives a [`VideoReferConfig`]."""

    model_type = "videorefer_qwen2"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Translate a published configuration, see `PreTrainedConfig.from_dict`.

        Args:
            config_dict (`dict[str, Any]`): Content of `config.json`.
            kwargs: `name_or_path` of the checkpoint, `vision_tower`, and fields of [`VideoReferConfig`] to change.

        Returns:
            [`VideoReferConfig`], with `return_unused_kwargs=True` beside the keywords that are not its fields.

        Raises:
            OSError: If the configuration cannot be translated.
        """
        # `vision_tower` stays among the unused keywords: the model that is loaded next needs it, too.
        translated = translate_config_dict(
            config_dict, str(kwargs.get("name_or_path", "")), kwargs.get("vision_tower")
        )
        return VideoReferConfig.from_dict(translated, **kwargs)


class PublishedBaseConfig(PublishedConfig):
    """The same for VideoLLaMA 2.1, which VideoRefer training starts from."""

    model_type = "videollama2_qwen2"


def translate_config_dict(
    config_dict: dict[str, Any],
    checkpoint: str | os.PathLike,
    vision_tower: str | os.PathLike | None = None,
    **hub_kwargs: Any,
) -> dict[str, Any]:
    """Translate the content of a `config.json` if it is in a published layout; [`VideoReferConfig`] calls it.

    Args:
        config_dict (`dict[str, Any]`): Content of the file.
        checkpoint (`str` or `os.PathLike`): Folder or Hub id it comes from, or the file itself.
        vision_tower (`str` or `os.PathLike`, *optional*): Folder or Hub id to use instead of what it names.
        hub_kwargs: Where on the Hub to look.

    Returns:
        `dict[str, Any]`: Fields of [`VideoReferConfig`]; `config_dict` itself if it is in another layout.

    Raises:
        OSError: If the configuration cannot be translated.
    """
    if config_dict.get("model_type") not in PUBLISHED_MODEL_TYPES:
        return config_dict
    if os.path.isfile(checkpoint):
        checkpoint = os.path.dirname(checkpoint) or os.curdir
    return translate_config(
        config_dict, checkpoint, lambda: _tower_of(config_dict, checkpoint, vision_tower, hub_kwargs), **hub_kwargs
    )


def _tower_of(
    published: Mapping[str, Any],
    checkpoint: str | os.PathLike,
    vision_tower: str | os.PathLike | None,
    hub_kwargs: Mapping[str, Any],
) -> VisionTower:
    return find_tower(published["mm_vision_tower"], checkpoint, vision_tower, **hub_kwargs)


@dataclasses.dataclass(frozen=True)
class DescribedCheckpoint(PublishedCheckpoint):
    """A described checkpoint and its vision tower.

    Args:
        find_tower (`Callable[[], VisionTower]`): Looks the tower up, at most once.
    """

    find_tower: Callable[[], VisionTower] = dataclasses.field(kw_only=True)


def describe_published(
    checkpoint: str | os.PathLike,
    config: VideoReferConfig | None = None,
    vision_tower: str | os.PathLike | None = None,
    **hub_kwargs: Any,
) -> DescribedCheckpoint | None:
    """Say how to load a checkpoint in a published layout; the models call it in `from_pretrained`.

    Args:
        checkpoint (`str` or `os.PathLike`): Folder or Hub id.
        config ([`VideoReferConfig`], *optional*): Its configuration, if it is translated already.
        vision_tower (`str` or `os.PathLike`, *optional*): Folder or Hub id to use instead of what it names.
        hub_kwargs: Where on the Hub to look.

    Returns:
        [`DescribedCheckpoint`], `None` for a checkpoint in another layout.

    Raises:
        OSError: If the configuration cannot be translated.
    """
    published = read_config_dict(checkpoint, **hub_kwargs)
    new_components = PUBLISHED_MODEL_TYPES.get(published.get("model_type"))
    if new_components is None:
        return None
    tower = functools.cache(lambda: _tower_of(published, checkpoint, vision_tower, hub_kwargs))
    if config is None:
        config = VideoReferConfig(**translate_config(published, checkpoint, tower, **hub_kwargs))
    return DescribedCheckpoint(
        config,
        key_mapping(config.connector_depth),
        lambda names: tower().read(names),
        new_components,
        find_tower=tower,
    )


def convert_checkpoint(
    source: str | os.PathLike,
    output: str | os.PathLike,
    component: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    vision_tower: str | os.PathLike | None = None,
    dtype: torch.dtype | str | None = None,
    **hub_kwargs: Any,
) -> Path:
    """Write a repository that loads with `trust_remote_code=True` and without this package.

    The weights are converted file by file, so memory stays near the size of one of them.

    Args:
        source (`str` or `os.PathLike`): Folder or Hub id of a checkpoint, in a published layout or in ours.
        output (`str` or `os.PathLike`): Folder to write, which must not exist or be empty.
        component (`str`, `os.PathLike` or a list of them, *optional*): Component files, or folders or Hub ids with
            one, to take instead of the connector or region encoder of `source`.
        vision_tower (`str` or `os.PathLike`, *optional*): Folder or Hub id of the vision tower to use instead of what
            a published `source` names.
        dtype (`torch.dtype` or `str`, *optional*): Dtype of the weights written; that of `source` by default.
        hub_kwargs: Where on the Hub `source` is, such as `revision` and `token`.

    Returns:
        `Path`: The folder.

    Raises:
        OSError: If something cannot be found, or `output` holds files.
        ValueError: If keys or shapes do not fit, or `dtype` is unknown. Nothing is left in `output` then.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OSError(f"`output` ({output}) exists and is not empty. Choose another folder.")
    if isinstance(dtype, str):
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(f"`dtype` must name a dtype of PyTorch, such as 'bfloat16', got {dtype!r}.")
        dtype = getattr(torch, dtype)
    described = describe_published(source, None, vision_tower, **hub_kwargs)
    if described is None:
        config = VideoReferConfig.from_pretrained(source, **hub_kwargs)
        described = PublishedCheckpoint(config, {}, lambda names: {})
    conversion = _Conversion(source, described, dtype, hub_kwargs)
    components = [component] if isinstance(component, (str, os.PathLike)) else component or ()
    conversion.collect(components)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and moved at the end, so that there is never half a repository.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        folder = Path(scratch, "repository")
        folder.mkdir()
        conversion.write_weights(folder)
        _write_settings(folder, described.config, dtype, source, vision_tower, hub_kwargs)
        if output.exists():
            output.rmdir()
        os.replace(folder, output)
    return output


class _Conversion:
    """Renames the tensors of a checkpoint, adds what it lacks, and writes them file by file."""

    def __init__(
        self,
        source: str | os.PathLike,
        described: PublishedCheckpoint,
        dtype: torch.dtype | None,
        hub_kwargs: Mapping[str, Any],
    ):
        self.source, self.described, self.dtype = source, described, dtype
        self.files = weight_files(source, **hub_kwargs)
        if not self.files:
            found = component_files(source, **hub_kwargs)
            raise OSError(
                f"`{source}` holds no weights of a whole model"
                + (f", only {found}. Convert the model these belong to, with `component=`." if found else ".")
            )
        with torch.device("meta"):
            model = VideoReferForConditionalGeneration(described.config)
        tied = set(model.all_tied_weights_keys)
        self.wanted = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
        # The vision tower behind the feature layer, and copies of tied weights.
        self.surplus = [*model._keys_to_ignore_on_load_unexpected, *(f"^{re.escape(name)}$" for name in tied)]
        self.extra: dict[str, torch.Tensor] = {}
        self.replaced: set[str] = set()

    def collect(self, components: Sequence[str | os.PathLike]) -> None:
        """Read everything that does not come from the files of the checkpoint, and check that nothing lacks."""
        for path in components:
            name, tensors = read_component(path, None, self.described.config.connector_depth)
            self._add_component(name, tensors)
        names = {name for file in self.files for name, _ in self._tensors_of(file)}
        for name in self.described.new_components:
            if name not in self.replaced and not any(component_of_key(key) == name for key in names):
                logger.warning("The checkpoint has no %s: it starts fresh and must be trained.", name)
                self._add_component(name, _fresh_region_encoder(self.described.config))
        tower = {name for name in self.wanted if name.startswith("model.vision_tower.")}
        if not tower & names:
            read = self.described.read_tower([name.removeprefix("model.vision_tower.") for name in sorted(tower)])
            self.extra.update({f"model.vision_tower.{name}": tensor for name, tensor in read.items()})
        found = {name: tensor for file in self.files for name, tensor in self._tensors_of(file)}
        check_tensors("its configuration", {**found, **self.extra}, self.wanted, self.source)

    def _add_component(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        self.replaced.add(name)
        self.extra.update({f"model.{name}.{key}": tensor for key, tensor in tensors.items()})

    def _tensors_of(self, file: str) -> Iterator[tuple[str, LazyTensor]]:
        """Go through the tensors of a file that are wanted, by our names."""
        for key, tensor in iterate_tensors(file):
            name = rename_key(key, self.described.key_mapping)
            is_surplus = any(re.search(pattern, name) for pattern in self.surplus)
            if not is_surplus and component_of_key(name) not in self.replaced:
                yield name, tensor

    def write_weights(self, folder: Path) -> None:
        """Write the weights and, for more than one file, their index."""
        paths, weight_map, num_bytes = [], {}, 0
        for file in tqdm([*self.files, None], desc="Converting weights", unit="file", disable=None):
            if file is None:
                # What was added gets the dtype of the rest, as far as that is known.
                dtype = self.dtype or self.described.config.dtype
                tensors = {name: _prepare(tensor, dtype) for name, tensor in self.extra.items()}
            else:
                tensors = {name: _prepare(tensor.read(), self.dtype) for name, tensor in self._tensors_of(file)}
            if not tensors:
                continue
            paths.append(folder / f"part-{len(paths)}.safetensors")
            save_file(tensors, paths[-1], metadata={"format": "pt"})
            give_usual_modes(paths[-1:])
            weight_map.update(dict.fromkeys(tensors, len(paths) - 1))
            num_bytes += sum(tensor.nbytes for tensor in tensors.values())
            del tensors  # before the next file is read
        if len(paths) == 1:
            paths[0].rename(folder / "model.safetensors")
            return
        names = [f"model-{number + 1:05}-of-{len(paths):05}.safetensors" for number in range(len(paths))]
        for path, name in zip(paths, names, strict=True):
            path.rename(folder / name)
        index = {
            "metadata": {"total_size": num_bytes},
            "weight_map": {name: names[number] for name, number in sorted(weight_map.items())},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _prepare(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype if dtype is not None else tensor.dtype).contiguous()


def _fresh_region_encoder(config: VideoReferConfig) -> dict[str, torch.Tensor]:
    """Initialise a region encoder as training does, the same for every conversion."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VideoReferRegionEncoder(config).state_dict()


def _write_settings(
    folder: Path,
    config: VideoReferConfig,
    dtype: torch.dtype | None,
    source: str | os.PathLike,
    vision_tower: str | os.PathLike | None,
    hub_kwargs: Mapping[str, Any],
) -> None:
    """Write everything but the weights."""
    config.architectures = [VideoReferForConditionalGeneration.__name__]
    config.auto_map = dict(AUTO_MAP)
    config.dtype = dtype or config.dtype
    config.save_pretrained(folder)
    VideoReferProcessor.from_pretrained(source, vision_tower=vision_tower, **hub_kwargs).write_settings(folder)
    generation_config = find_file(source, "generation_config.json", **hub_kwargs)
    if generation_config is not None:
        shutil.copyfile(generation_config, folder / "generation_config.json")
    write_code(folder, AUTO_MAP)
    write_card(folder, source)


__all__ = [
    "PublishedBaseConfig",
    "PublishedConfig",
    "convert_checkpoint",
    "describe_published",
    "translate_config_dict",
]
