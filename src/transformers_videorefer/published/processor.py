"""The processor of a checkpoint in a published layout, which has tokenizer files only."""

import inspect
import os
from typing import Any

from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from transformers import Qwen2Tokenizer

from transformers_videorefer.checkpoints.components import HUB_ARGUMENTS, hub_arguments
from transformers_videorefer.checkpoints.loading import IMAGE_SETTINGS
from transformers_videorefer.inputs.keywords import VideoReferVideoProcessorKwargs, as_python, check_keywords
from transformers_videorefer.models.videorefer.processing_videorefer import VideoReferProcessor

from .conversion import DescribedCheckpoint, describe_published


# What `from_pretrained` of a processor takes. The settings of `__init__` but for the parts, which are made here:
PROCESSOR_SETTINGS = frozenset(inspect.signature(VideoReferProcessor.__init__).parameters) - {
    "self",
    "image_processor",
    "tokenizer",
    "video_processor",
}
# Settings of the video processor, without what makes sense for a single call only.
VIDEO_SETTINGS = frozenset(VideoReferVideoProcessorKwargs.__annotations__) - {
    "return_metadata",
    "return_tensors",
    "video_metadata",
}
TOKENIZER_SETTINGS = frozenset(
    {
        "add_prefix_space",
        "additional_special_tokens",
        "bos_token",
        "clean_up_tokenization_spaces",
        "eos_token",
        "errors",
        "extra_special_tokens",
        "model_max_length",
        "pad_token",
        "padding_side",
        "split_special_tokens",
        "truncation_side",
        "unk_token",
    }
)
# Keywords that pipelines and other libraries hand to every `from_pretrained`; they change nothing here.
LIBRARY_ARGUMENTS = frozenset(
    {
        "attn_implementation",
        "backend",
        "code_revision",
        "config",
        "device_map",
        "dtype",
        "low_cpu_mem_usage",
        "max_memory",
        "mirror",
        "offload_folder",
        "quantization_config",
        "repo_type",
        "resume_download",
        "torch_dtype",
        "trust_remote_code",
        "use_auth_token",
        "use_fast",
        "use_safetensors",
        "user_agent",
    }
)


def load_published_processor(
    checkpoint: str | os.PathLike,
    vision_tower: str | os.PathLike | None = None,
    described: DescribedCheckpoint | None = None,
    **kwargs: Any,
) -> VideoReferProcessor | None:
    """Make the processor of a checkpoint in a published layout, which has tokenizer files only.

    Args:
        checkpoint (`str` or `os.PathLike`): Folder or Hub id.
        vision_tower (`str` or `os.PathLike`, *optional*): Folder or Hub id to use instead of what it names.
        described ([`DescribedCheckpoint`], *optional*): What is known of the checkpoint, if its model was just loaded.
        kwargs: Where on the Hub to look, and settings to change: those of [`VideoReferProcessor`], of its video and
            image processors, and of the tokenizer.

    Returns:
        [`VideoReferProcessor`], `None` for a checkpoint in another layout.

    Raises:
        OSError: If the configuration cannot be translated, or the tokenizer files are missing.
        TypeError: If a keyword is unknown.
        ValueError: If a setting is out of range.
    """
    hub_kwargs = hub_arguments(kwargs)
    if described is None:
        described = describe_published(checkpoint, None, vision_tower, **hub_kwargs)
    if described is None:
        return None
    settings = {name: value for name, value in kwargs.items() if not name.startswith("_")}
    check_keywords(
        settings,
        {*HUB_ARGUMENTS, *LIBRARY_ARGUMENTS, *PROCESSOR_SETTINGS, *VIDEO_SETTINGS, *TOKENIZER_SETTINGS},
        "`from_pretrained` of the processor",
    )
    config = described.config
    video_settings = {name: as_python(settings[name]) for name in VIDEO_SETTINGS & set(settings)}
    try:
        validate_typed_dict(VideoReferVideoProcessorKwargs, video_settings)
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from error
    tokenizer_settings = {name: settings[name] for name in TOKENIZER_SETTINGS & set(settings)}
    # Size and scale are those of both kinds of pictures.
    shared = {name: video_settings[name] for name in IMAGE_SETTINGS if name in video_settings}
    return VideoReferProcessor.from_parts(
        tokenizer=Qwen2Tokenizer.from_pretrained(checkpoint, **hub_kwargs, **tokenizer_settings),
        image_settings={**described.find_tower().image_settings(), **shared},
        num_frames=config.num_frames,
        video_settings=video_settings,
        **{
            "patch_size": config.vision_config.patch_size,
            "connector_downsample": config.connector_downsample,
            "num_region_tokens": config.num_region_tokens,
            **{name: settings[name] for name in PROCESSOR_SETTINGS & set(settings)},
        },
    )


__all__ = ["load_published_processor"]
