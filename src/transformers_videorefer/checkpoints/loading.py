"""Loading: strict about keys, from our layout or, where the package is imported, from a published one."""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_utils import PILImageResampling
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_videorefer.checkpoints.components import (
    WEIGHT_FILES,
    component_files,
    component_of_key,
    find_file,
    hub_arguments,
    load_component,
)
from transformers_videorefer.checkpoints.layouts import PublishedCheckpoint, known_layouts


logger = logging.getLogger(__name__)

# In this order they take the next free ids of a tokenizer that lacks them.
MARK_TOKENS = ("<region>", "<video>", "<image>")
IMAGE_SETTINGS = (
    "do_resize",
    "size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


@dataclasses.dataclass(frozen=True)
class RememberedProcessor:
    """The processor of a checkpoint, read together with it, so that a save needs neither the source nor the network.

    Without a processor, `problem` says why there is none.
    """

    processor: ProcessorMixin | None = None
    problem: str | None = None

    @classmethod
    def read(cls, load: Callable[[], ProcessorMixin]) -> "RememberedProcessor":
        """Load a processor, or remember why it cannot be loaded."""
        try:
            return cls(load())
        except Exception as error:  # noqa: BLE001 (damaged files raise anything, and the model must load all the same)
            is_plain = isinstance(error, (OSError, ValueError, TypeError, ImportError))
            return cls(problem=str(error) if is_plain else f"{type(error).__name__}: {error}")

    def __call__(self) -> ProcessorMixin:
        """Return the processor, or raise a LookupError that says why there is none."""
        if self.processor is None:
            raise LookupError(self.problem)
        return self.processor


def add_mark_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Give a tokenizer the marks it lacks, and return `region_token_id`, `video_token_id` and `image_token_id`."""
    tokenizer.add_tokens(list(MARK_TOKENS), special_tokens=True)
    return {f"{mark.strip('<>')}_token_id": tokenizer.convert_tokens_to_ids(mark) for mark in MARK_TOKENS}


def read_vision_config(vision: str | os.PathLike) -> PreTrainedConfig:
    """Read the configuration of the vision part of a SigLIP checkpoint, free of the path it was read from."""
    config = AutoConfig.from_pretrained(vision)
    config = getattr(config, "vision_config", config)
    if config.model_type != "siglip_vision_model":
        raise ValueError(f"`vision` must be a SigLIP checkpoint, got `{vision}` of type `{config.model_type}`.")
    config.name_or_path = ""
    return config


def read_image_settings(
    vision: str | os.PathLike | None, image_size: int | None = None, **hub_kwargs: Any
) -> dict[str, Any]:
    """Read how the vision tower wants its pictures: size, resampling filter, scale, mean and deviation.

    With `image_size`, the pixels per side, a checkpoint that is out of reach or has no file of image settings gets those
    that all published SigLIP checkpoints share.
    """
    if image_size is None or (vision is not None and find_file(vision, "preprocessor_config.json", **hub_kwargs)):
        processor = SiglipImageProcessorPil.from_pretrained(vision, **hub_kwargs)
    else:
        processor = SiglipImageProcessorPil(
            size={"height": image_size, "width": image_size}, resample=PILImageResampling.BICUBIC
        )
    settings = {name: getattr(processor, name) for name in IMAGE_SETTINGS}
    settings["size"] = {side: settings["size"][side] for side in ("height", "width")}
    return settings


class VideoReferLoadingMixin:
    """`from_pretrained` and `load_component` of the VideoRefer models."""

    # Class of the processor that belongs to the model.
    processor_class: ClassVar[type[ProcessorMixin]]
    # Makes the processor that a save writes beside the model; given when a model is loaded or started from parts.
    processor_factory: Callable[[], ProcessorMixin] | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike | None = None,
        vision_tower: str | os.PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint, see `PreTrainedModel.from_pretrained`. Every weight must be in it.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Folder or Hub id; `None` with `state_dict`.
            model_args: Passed on.
            config (`PreTrainedConfig`, `str` or `os.PathLike`, *optional*): Configuration to use instead.
            vision_tower (`str` or `os.PathLike`, *optional*): Folder or Hub id of the SigLIP checkpoint, for
                checkpoints in a published layout whose own reference to it leads nowhere.
            ignore_mismatched_sizes (`bool`, *optional*, defaults to `False`): Initialise weights of another shape.
            output_loading_info (`bool`, *optional*, defaults to `False`): Also return the library's report.
            kwargs: Arguments of the library, or fields of the configuration.

        Returns:
            The model; with `output_loading_info` a tuple of it and the report.

        Raises:
            OSError: If the checkpoint cannot be found, holds components only, or does not hold exactly the keys of
                the model (layers of the vision tower behind the feature layer may be there); the keys are named.
        """
        source = pretrained_model_name_or_path
        hub_kwargs = hub_arguments(kwargs)
        published = None
        if source is not None:
            known = config if isinstance(config, PreTrainedConfig) else None
            published = known_layouts().describe(source, config=known, vision_tower=vision_tower, **hub_kwargs)
        if published is not None:
            kwargs["key_mapping"] = {**(kwargs.get("key_mapping") or {}), **published.key_mapping}
            if not isinstance(config, PreTrainedConfig):
                config = _with_fields(published.config, kwargs)
        elif vision_tower is not None:
            logger.warning("`vision_tower` is ignored: `%s` has its own vision tower.", source)
        try:
            model, info = super().from_pretrained(
                source,
                *model_args,
                config=config,
                ignore_mismatched_sizes=True,  # reported below, together with the other keys
                output_loading_info=True,
                **kwargs,
            )
        except OSError as error:
            if source is not None:
                _explain_components_only(source, error, hub_kwargs)
            raise
        if published is not None:
            _complete(model, info, published)
        _check_keys(model, info, source, ignore_mismatched_sizes)
        if source is not None and model.config.name_or_path:
            model.processor_factory = RememberedProcessor.read(
                lambda: cls._load_processor(model.config.name_or_path, published, vision_tower, hub_kwargs)
            )
        return (model, info) if output_loading_info else model

    @classmethod
    def _load_processor(
        cls,
        source: str | os.PathLike,
        published: PublishedCheckpoint | None,
        vision_tower: str | os.PathLike | None,
        hub_kwargs: Mapping[str, Any],
    ) -> ProcessorMixin:
        """Load the processor of the checkpoint that a model was just loaded from."""
        if published is not None:
            return known_layouts().load_processor(source, described=published, **hub_kwargs)
        # Code of a repository trusts the repository it came from.
        trust = {"trust_remote_code": True} if cls.__module__.startswith("transformers_modules.") else {}
        return cls.processor_class.from_pretrained(source, vision_tower=vision_tower, **hub_kwargs, **trust)

    def load_component(self, path_or_id: str | os.PathLike, *, component: str | None = None, **hub_kwargs: Any) -> str:
        """Load the connector or the region encoder from a file of its own.

        Args:
            path_or_id (`str` or `os.PathLike`): `region_encoder.bin`, `mm_projector.bin`, what `save_component` has
                written, or a folder or Hub id that holds one of them.
            component (`str`, *optional*): `"connector"` or `"region_encoder"`, where a folder holds both.
            hub_kwargs: Where on the Hub to look, such as `revision` and `token`.

        Returns:
            `str`: `"connector"` or `"region_encoder"`: what was loaded.

        Raises:
            OSError: If there is no such file, or it does not hold tensors.
            ValueError: If a key is missing or unknown, or a shape differs; nothing is loaded then.

        Example:
        ```python
        >>> model.load_component("DAMO-NLP-SG/VideoRefer-7B-stage2")
        'region_encoder'
        ```
        """
        return load_component(
            getattr(self, self.base_model_prefix, self),
            path_or_id,
            component=component,
            connector_depth=self.config.connector_depth,
            **hub_kwargs,
        )


def _explain_components_only(source: str | os.PathLike, error: OSError, hub_kwargs: Mapping[str, Any]) -> None:
    """Raise a better error if a checkpoint could not be loaded because it holds components only."""
    try:
        files = component_files(source, **hub_kwargs)
        has_weights = any(find_file(source, name, **hub_kwargs) for name in WEIGHT_FILES)
    except OSError as lookup_error:
        logger.debug("Cannot tell whether `%s` holds components only: %s", source, lookup_error)
        return
    if files and not has_weights:
        choice = ", component=...)` once for each" if len(files) > 1 else ")`"
        raise OSError(
            f"`{source}` holds no whole model but only {files}. Load the model these belong to with "
            f"`from_pretrained`, then call `model.load_component({os.fspath(source)!r}{choice}."
        ) from error


def _with_fields(config: PreTrainedConfig, kwargs: dict[str, Any]) -> PreTrainedConfig:
    """Take the fields of the configuration out of the keywords of `from_pretrained`."""
    names = {field.name for field in dataclasses.fields(config)} - {"dtype"}  # the library settles the dtype itself
    for name in names & set(kwargs):
        setattr(config, name, kwargs.pop(name))
    return config


def _complete(model: nn.Module, info: dict[str, Any], published: PublishedCheckpoint) -> None:
    """Fill in the vision tower that a published checkpoint lacks, and accept components that start fresh."""
    prefix = "" if model.base_model_prefix not in dict(model.named_children()) else f"{model.base_model_prefix}."
    tower = f"{prefix}vision_tower."
    wanted = {key for key in model.state_dict() if key.startswith(tower)}
    if wanted and wanted <= set(info["missing_keys"]):
        tensors = published.read_tower([key.removeprefix(tower) for key in sorted(wanted)])
        for key in wanted:
            _copy_into(model, key, tensors[key.removeprefix(tower)])
        info["missing_keys"] = set(info["missing_keys"]) - wanted
        logger.info("The vision tower was read from its own checkpoint.")
    for name in published.new_components:
        fresh = {key for key in model.state_dict() if component_of_key(key) == name}
        if fresh <= set(info["missing_keys"]):
            info["missing_keys"] = set(info["missing_keys"]) - fresh
            logger.warning("The checkpoint has no %s: it starts fresh and must be trained.", name)


def _copy_into(model: nn.Module, key: str, tensor: torch.Tensor) -> None:
    parameter = model.get_parameter(key)
    if parameter.shape != tensor.shape:
        raise OSError(
            f"`{key}` of the vision tower has shape {tuple(tensor.shape)} instead of {tuple(parameter.shape)}. Pass "
            "`vision_tower=` with the tower that this checkpoint was trained with."
        )
    if parameter.is_meta or not parameter.is_floating_point():
        raise OSError(
            "The checkpoint has no weights of its vision tower, and those of the tower's own checkpoint cannot be put "
            "into an offloaded or quantised model. Run `videorefer convert` first and load what it writes."
        )
    with torch.no_grad():
        parameter.copy_(tensor)


def _check_keys(model: nn.Module, info: dict[str, Any], source: Any, ignore_mismatched_sizes: bool) -> None:
    """Raise unless the checkpoint held the keys of the model and no others."""
    if not hasattr(model, "lm_head"):
        # The base model of a whole checkpoint.
        info["unexpected_keys"] = {key for key in info["unexpected_keys"] if not key.startswith("lm_head.")}
    mismatched = [] if ignore_mismatched_sizes else info["mismatched_keys"]
    problems = [
        f"{len(keys)} {kind}: {', '.join(sorted(keys))}"
        for kind, keys in (
            ("missing", list(info["missing_keys"])),
            ("unknown", list(info["unexpected_keys"])),
            ("of another shape", [f"{key} {tuple(found)} instead of {tuple(own)}" for key, found, own in mismatched]),
        )
        if keys
    ]
    if problems:
        raise OSError(
            f"The keys of `{source}` are not those of {type(model).__name__}; {'; '.join(problems)}. Check that the "
            "checkpoint is complete and belongs to this configuration."
        )


__all__ = [
    "MARK_TOKENS",
    "RememberedProcessor",
    "VideoReferLoadingMixin",
    "add_mark_tokens",
    "read_image_settings",
    "read_vision_config",
]
