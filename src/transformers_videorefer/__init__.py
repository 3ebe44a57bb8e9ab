"""VideoRefer for transformers: ask a video language model about any region of a video.

Importing this package registers the model with the Auto classes of transformers and lets them load the published
checkpoints as they are.
"""

from importlib import import_module
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor  # the top-level name needs torchvision

from .checkpoints.layouts import PublishedLayouts, register_layouts
from .models.videorefer.configuration_videorefer import VideoReferConfig
from .models.videorefer.modeling_videorefer import (
    VideoReferForConditionalGeneration,
    VideoReferModel,
)
from .models.videorefer.modeling_videorefer import (
    VideoReferPreTrainedModel as VideoReferPreTrainedModel,
)
from .models.videorefer.processing_videorefer import VideoReferProcessor
from .models.videorefer.video_processing_videorefer import VideoReferVideoProcessor
from .published.conversion import (
    PublishedBaseConfig,
    PublishedConfig,
    convert_checkpoint,
    describe_published,
    translate_config_dict,
)
from .published.processor import load_published_processor
from .version import __version__ as __version__
from .version import tested_range


# Imported when first asked for: training needs libraries that the model does without.
_LAZY = {
    "VideoReferDataCollator": "data",
    "VideoReferSFTConfig": "training",
    "VideoReferSFTTrainer": "training",
    "merge_and_export": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def register() -> None:
    """Make the Auto classes know the model and the published layouts. Importing the package does this."""
    for config_class in (VideoReferConfig, PublishedConfig, PublishedBaseConfig):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(VideoReferConfig, VideoReferModel, exist_ok=True)
    for auto_class in (AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForCausalLM):
        auto_class.register(VideoReferConfig, VideoReferForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(VideoReferConfig, VideoReferProcessor, exist_ok=True)
    AutoVideoProcessor.register(VideoReferConfig, VideoReferVideoProcessor, exist_ok=True)
    VideoReferConfig.package_range = tested_range("transformers")
    register_layouts(
        PublishedLayouts(
            translate_config=translate_config_dict,
            describe=describe_published,
            load_processor=load_published_processor,
        )
    )


register()

__all__ = [
    "VideoReferConfig",
    "VideoReferDataCollator",
    "VideoReferForConditionalGeneration",
    "VideoReferModel",
    "VideoReferProcessor",
    "VideoReferVideoProcessor",
    "convert_checkpoint",
    "register",
]
