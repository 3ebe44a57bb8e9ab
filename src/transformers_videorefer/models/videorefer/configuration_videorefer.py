"""Configuration of the VideoRefer model."""

import os
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from transformers_videorefer.checkpoints.components import hub_arguments
from transformers_videorefer.checkpoints.layouts import known_layouts
from transformers_videorefer.checkpoints.library import CACHE_NAME, warn_outside


_GENERATOR = "modeling_videorefer.VideoReferForConditionalGeneration"
# The `auto_map` of a saved repository: Auto class -> module and class. The modules are where its code starts.
AUTO_MAP = {
    "AutoConfig": "configuration_videorefer.VideoReferConfig",
    "AutoModel": "modeling_videorefer.VideoReferModel",
    "AutoModelForImageTextToText": _GENERATOR,
    "AutoModelForMultimodalLM": _GENERATOR,
    "AutoModelForCausalLM": _GENERATOR,
    "AutoProcessor": "processing_videorefer.VideoReferProcessor",
    "AutoVideoProcessor": "video_processing_videorefer.VideoReferVideoProcessor",
}


@strict
class VideoReferConfig(PreTrainedConfig):
    r"""Configuration of [`VideoReferModel`] and [`VideoReferForConditionalGeneration`].

    The defaults are those of the published 7B checkpoints (VideoRefer, section 3.2 and appendix B.1).

    Args:
        vision_config (`dict` or `SiglipVisionConfig`, *optional*): The SigLIP vision tower, with its published depth.
            The model builds only the layers that `vision_feature_layer` needs.
        text_config (`dict` or `Qwen2Config`, *optional*): The language model.
        vision_feature_layer (`int`, *optional*, defaults to `-2`): Which hidden state of the tower gives the patch
            features, as an index into (embeddings, layer 1, ..., last layer). No post layer norm is applied to it.
        connector_depth (`int`, *optional*, defaults to `4`): Bottleneck blocks in each of the two stages of the
            spatial-temporal convolution (STC) connector.
        connector_mlp_depth (`int`, *optional*, defaults to `2`): Linear layers of the connector's projection.
        connector_downsample (`list[int]`, *optional*, defaults to `(2, 2, 2)`): Kernel and stride of the connector's
            3-D convolution over (frames, patch rows, patch columns).
        num_region_tokens (`int`, *optional*, defaults to `4`): Most tokens one region gives (u in the paper). Used as
            the processor's default; the model itself obeys the `region_num_tokens` of its inputs.
        num_frames (`int`, *optional*, defaults to `16`): Scene frames the model was trained with. A still image
            counts as a video of this many equal frames.
        video_token_id (`int`, *optional*, defaults to `151647`): Placeholder id of scene tokens of a video.
        image_token_id (`int`, *optional*, defaults to `151648`): Placeholder id of scene tokens of an image.
        region_token_id (`int`, *optional*, defaults to `151646`): Placeholder id of object tokens.
        tie_word_embeddings (`bool`, *optional*, defaults to `False`): Whether input and output embeddings are shared.
        tested_transformers (`str`, *optional*): Range of transformers that the code was tested with. A saved repository
            remembers it and warns outside of it; the package puts its own here.

    Raises:
        ValueError: If a value is out of range, or two placeholder ids are equal.

    Example:
    ```python
    >>> from transformers_videorefer import VideoReferConfig, VideoReferForConditionalGeneration

    >>> config = VideoReferConfig(
    ...     vision_config={"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56},
    ...     text_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300},
    ... )
    >>> model = VideoReferForConditionalGeneration(config)
    ```
    """

    model_type = "videorefer"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="siglip_vision_model",
            init_kwargs={
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "patch_size": 14,
                "image_size": 384,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
            },
        ),
        "text_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="qwen2",
            init_kwargs={
                "vocab_size": 151647,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
        ),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    vision_feature_layer: int = -2
    connector_depth: int = 4
    connector_mlp_depth: int = 2
    connector_downsample: list[int] | tuple[int, ...] = (2, 2, 2)
    num_region_tokens: int = 4
    num_frames: int = 16
    video_token_id: int = 151647
    image_token_id: int = 151648
    region_token_id: int = 151646
    tie_word_embeddings: bool = False
    tested_transformers: str | None = None

    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        CACHE_NAME,
        *(f"{kind}_{what}" for kind in ("video", "image", "region") for what in ("hidden_states", "outputs")),
    ]
    # Set by the package: the range that its metadata states. Code on the Hub keeps what its repository says.
    package_range: ClassVar[str | None] = None

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the fields of a configuration, see `PreTrainedConfig.get_config_dict`.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Folder, Hub id or file. With the package imported
                also one in a published layout, which is translated.
            kwargs: Arguments of the library, and `vision_tower` (`str` or `os.PathLike`, *optional*): folder or Hub
                id of the SigLIP checkpoint of a published one.

        Returns:
            `tuple[dict, dict]`: The fields, and the keywords that are no arguments of the library.

        Raises:
            OSError: If the file cannot be found, or not be translated.
        """
        config_dict, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        config_dict = known_layouts().translate_config(
            config_dict, pretrained_model_name_or_path, kwargs.get("vision_tower"), **hub_arguments(kwargs)
        )
        return config_dict, unused

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.tested_transformers = self.package_range or self.tested_transformers
        warn_outside(self.tested_transformers)
        # Generic code (weight tying, quantisation) reads the flag from the top config only.
        if self.text_config.tie_word_embeddings:
            self.tie_word_embeddings = True
        for name in ("connector_depth", "connector_mlp_depth", "num_region_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if len(self.connector_downsample) != 3 or min(self.connector_downsample) < 1:
            raise ValueError(
                "`connector_downsample` must be three positive numbers (frames, rows, columns), got "
                f"{tuple(self.connector_downsample)}."
            )
        if self.num_frames < self.connector_downsample[0]:
            raise ValueError(
                f"`num_frames` ({self.num_frames}) is smaller than the connector's temporal kernel "
                f"({self.connector_downsample[0]}): no scene token would be left."
            )
        ids = (self.video_token_id, self.image_token_id, self.region_token_id)
        if len(set(ids)) != 3 or min(ids) < 0:
            raise ValueError(
                "`video_token_id`, `image_token_id` and `region_token_id` must be three different non-negative ids, "
                f"got {ids}."
            )
        if not 1 <= self.num_vision_layers <= self.vision_config.num_hidden_layers:
            raise ValueError(
                f"`vision_feature_layer` ({self.vision_feature_layer}) asks for {self.num_vision_layers} layers of a "
                f"vision tower with {self.vision_config.num_hidden_layers}."
            )

    @property
    def num_vision_layers(self) -> int:
        """`int`: Layers of the vision tower that are built: those up to `vision_feature_layer`."""
        if self.vision_feature_layer >= 0:
            return self.vision_feature_layer
        return self.vision_config.num_hidden_layers + 1 + self.vision_feature_layer

    @property
    def grid_size(self) -> int:
        """`int`: Patches per side of a frame; region masks live on a grid of `grid_size` x `grid_size` cells."""
        return self.vision_config.image_size // self.vision_config.patch_size


__all__ = ["AUTO_MAP", "VideoReferConfig"]
