"""The VideoRefer model: SigLIP tower, STC connector, spatial-temporal object encoder and Qwen2."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator
from transformers.generation.logits_process import LogitsProcessorList, RepetitionPenaltyLogitsProcessor
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import can_return_tuple

from transformers_videorefer.checkpoints.library import CACHE_NAME, accept_old_cache_name
from transformers_videorefer.checkpoints.loading import (
    RememberedProcessor,
    VideoReferLoadingMixin,
    add_mark_tokens,
    read_vision_config,
)
from transformers_videorefer.checkpoints.saving import VideoReferSavingMixin
from transformers_videorefer.inputs.layout import (
    MEDIA_INPUTS,
    REGION_INPUTS,
    BatchLayout,
    check_no_unknown_media_keys,
    read_at_once,
    starts_of_runs,
    take_rows,
)
from transformers_videorefer.models.videorefer.configuration_videorefer import AUTO_MAP, VideoReferConfig
from transformers_videorefer.models.videorefer.connector_videorefer import VideoReferSTCConnector
from transformers_videorefer.models.videorefer.processing_videorefer import VideoReferProcessor
from transformers_videorefer.models.videorefer.region_encoder_videorefer import VideoReferRegionEncoder


@dataclass
class VideoReferModelOutputWithPast(BaseModelOutputWithPast):
    """Output of [`VideoReferModel`]: that of the language model, and what replaced the placeholders.

    Args:
        video_hidden_states (`torch.Tensor` of shape `(num_videos, num_tokens, hidden_size)`, *optional*): Scene
            tokens of the videos.
        image_hidden_states (`torch.Tensor` of shape `(num_images, num_tokens, hidden_size)`, *optional*): Scene tokens
            of the images.
        region_hidden_states (`torch.Tensor` of shape `(sum(region_num_tokens), hidden_size)`, *optional*): Object
            tokens, region after region.
        video_outputs (`BaseModelOutputWithPooling`, *optional*): The whole output of `get_video_features`. Like the
            next two only outside of training, where mixed precision would copy the patch features in float32.
        image_outputs (`BaseModelOutputWithPooling`, *optional*): The same of `get_image_features`.
        region_outputs (`BaseModelOutputWithPooling`, *optional*): The same of `get_region_features`.
    """

    video_hidden_states: torch.Tensor | None = None
    image_hidden_states: torch.Tensor | None = None
    region_hidden_states: torch.Tensor | None = None
    video_outputs: BaseModelOutputWithPooling | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    region_outputs: BaseModelOutputWithPooling | None = None


@dataclass
class VideoReferCausalLMOutputWithPast(CausalLMOutputWithPast):
    """Output of [`VideoReferForConditionalGeneration`]: the library's, and what [`VideoReferModelOutputWithPast`] adds."""

    video_hidden_states: torch.Tensor | None = None
    image_hidden_states: torch.Tensor | None = None
    region_hidden_states: torch.Tensor | None = None
    video_outputs: BaseModelOutputWithPooling | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    region_outputs: BaseModelOutputWithPooling | None = None


class VideoReferPreTrainedModel(VideoReferLoadingMixin, VideoReferSavingMixin, PreTrainedModel):
    """Loading, saving and initialisation shared by the VideoRefer models."""

    config: VideoReferConfig
    auto_map = AUTO_MAP
    processor_class = VideoReferProcessor
    base_model_prefix = "model"
    input_modalities = ("video", "image", "text")
    supports_gradient_checkpointing = True
    # The layers of tower and language model are named by their own classes.
    _no_split_modules = ["VideoReferConnectorBlock"]
    _can_compile_fullgraph = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Connector and object encoder start as in the published training: with the layers' own default scheme. The
        # library's normal(0, 0.02) would make the depthwise 3x3 kernels vanish.
        if not getattr(module, "keeps_default_init", False):
            super()._init_weights(module)
        elif isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


def cut_vision_tower(tower: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """Remove what lies behind the feature layer: later layers, the final norm and the pooling head.

    The tower keeps its published configuration, which the library finds it by (`set_attn_implementation`).

    Args:
        tower (`SiglipVisionModel`): The tower; changed in place.
        num_layers (`int`): Layers to keep.

    Returns:
        `SiglipVisionModel`: The same tower, whose `last_hidden_state` now is the feature layer.
    """
    del tower.encoder.layers[num_layers:]
    tower.post_layernorm = nn.Identity()
    if tower.use_head:
        del tower.head
        tower.use_head = False
    return tower


def _map_tensors(
    output: BaseModelOutputWithPooling, change: Callable[[torch.Tensor], torch.Tensor]
) -> BaseModelOutputWithPooling:
    """Apply a function to every tensor of an output of the vision tower, those of its layers included."""
    return type(output)(
        **{
            name: change(value) if isinstance(value, torch.Tensor) else tuple(change(layer) for layer in value)
            for name, value in output.items()
        }
    )


def _drop_what_is_encoded(
    outputs: Mapping[str, BaseModelOutputWithPooling] | None, inputs: Mapping[str, torch.Tensor]
) -> tuple[dict[str, BaseModelOutputWithPooling], dict[str, torch.Tensor]]:
    """Return the outputs there are, and the inputs of which they hold nothing yet."""
    outputs = {kind: output for kind, output in (outputs or {}).items() if output is not None}
    kind_of = {"pixel_values_videos": "video", "pixel_values": "image"}
    return outputs, {
        name: value
        for name, value in inputs.items()
        if kind_of.get(name, "region" if name.startswith("region_") else None) not in outputs
    }


class VideoReferModel(VideoReferPreTrainedModel):
    """VideoRefer without a language modelling head (VideoRefer, figure 3).

    Every distinct frame passes the vision tower once. Its patch features give scene tokens through the connector and
    object tokens through the region encoder; both replace their placeholders in the text.

    Args:
        config ([`VideoReferConfig`]): Configuration.
    """

    def __init__(self, config: VideoReferConfig):
        super().__init__(config)
        self.vision_tower = cut_vision_tower(AutoModel.from_config(config.vision_config), config.num_vision_layers)
        self.connector = VideoReferSTCConnector(config)
        self.region_encoder = VideoReferRegionEncoder(config)
        for module in (*self.connector.modules(), *self.region_encoder.modules()):
            module.keeps_default_init = True  # see `_init_weights`
        self.language_model = AutoModel.from_config(config.text_config)
        # Published checkpoints hold the whole tower; what lies behind the feature layer is never used.
        surplus = range(config.num_vision_layers, config.vision_config.num_hidden_layers)
        self._keys_to_ignore_on_load_unexpected = [
            r"^lm_head\.",  # of a whole checkpoint, loaded into the base model
            r"vision_tower\.(vision_model\.)?(post_layernorm|head)\.",
            *(rf"vision_tower\.(vision_model\.)?encoder\.layers\.{layer}\." for layer in surplus),
        ]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the language model."""
        self.language_model.set_input_embeddings(value)

    def generate(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the base model has no head.

        Raises:
            TypeError: Always; it names the class to load instead.
        """
        raise TypeError(
            "`VideoReferModel` has no language modelling head and cannot generate. Load the checkpoint with "
            "`VideoReferForConditionalGeneration` or `AutoModelForImageTextToText`."
        )

    def _encode_frames(
        self, pixel_values: torch.Tensor, is_new: np.ndarray | None = None, asked: Mapping[str, Any] | None = None
    ) -> BaseModelOutputWithPooling:
        """Run the vision tower over `(num_frames, 3, H, W)`; `last_hidden_state` is `(num_frames, num_patches, size)`.

        `is_new` says which frames differ from the one before, where that was read already; of `asked` the keywords of the
        tower count.
        """
        pixel_values = pixel_values.to(self.vision_tower.embeddings.patch_embedding.weight.dtype)
        kwargs = {name: value for name, value in (asked or {}).items() if name.startswith("output_")}
        if is_new is None:
            (is_new,) = read_at_once(starts_of_runs(pixel_values))
        if is_new.all():
            return self.vision_tower(pixel_values, return_dict=True, **kwargs)
        # Each run of equal frames is encoded once.
        firsts, run_ids = (
            torch.as_tensor(rows, device=pixel_values.device) for rows in (np.flatnonzero(is_new), is_new.cumsum() - 1)
        )
        output = self.vision_tower(pixel_values.index_select(0, firsts), return_dict=True, **kwargs)
        return _map_tensors(output, lambda tensor: tensor.index_select(0, run_ids))

    def _encode_videos(
        self, pixel_values: torch.Tensor, is_new: np.ndarray | None = None, asked: Mapping[str, Any] | None = None
    ) -> BaseModelOutputWithPooling:
        """Encode scene frames `(num_videos, num_frames, 3, H, W)`, see [`get_video_features`]."""
        size = pixel_values.shape[:2]
        output = self._encode_frames(pixel_values.flatten(0, 1), is_new, asked)
        output = _map_tensors(output, lambda tensor: tensor.unflatten(0, size))
        output.pooler_output = self.connector(output.last_hidden_state)
        return output

    def _encode_images(
        self, pixel_values: torch.Tensor, is_new: np.ndarray | None = None, asked: Mapping[str, Any] | None = None
    ) -> BaseModelOutputWithPooling:
        """Encode still images `(num_images, 3, H, W)`, see [`get_image_features`]."""
        output = self._encode_frames(pixel_values, is_new, asked)
        output.pooler_output = self.connector.forward_images(output.last_hidden_state)
        return output

    @can_return_tuple
    def get_video_features(self, pixel_values_videos: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode the scene frames of videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(num_videos, num_frames, 3, height, width)`): Scene frames.
            kwargs: `output_hidden_states` and `output_attentions` of the vision tower. Others are ignored, so that all
                outputs of the processor may be passed.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` of shape `(num_videos, num_tokens, hidden_size)` are the
            scene tokens, `last_hidden_state` of shape `(num_videos, num_frames, num_patches, vision_size)` the patch
            features that regions on scene frames are pooled from. Where asked for, `hidden_states` are those of the
            embeddings and of each of the `config.num_vision_layers` layers that are built, and `attentions` those of
            the layers, both with (num_videos, num_frames) in front.
        """
        return self._encode_videos(pixel_values_videos, asked=kwargs)

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode still images.

        Args:
            pixel_values (`torch.Tensor` of shape `(num_images, 3, height, width)`): Images.
            kwargs: As in [`get_video_features`].

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` of shape `(num_images, num_tokens, hidden_size)` are the
            scene tokens, `last_hidden_state` of shape `(num_images, num_patches, vision_size)` the patch features;
            `hidden_states` and `attentions` as in [`get_video_features`], with num_images in front.
        """
        return self._encode_images(pixel_values, asked=kwargs)

    @can_return_tuple
    def get_region_features(
        self,
        region_masks: torch.Tensor,
        region_frame_index: torch.Tensor,
        region_lengths: torch.Tensor,
        region_num_tokens: torch.Tensor,
        region_pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        sample_counts: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        video_ids: torch.Tensor | None = None,
        video_row_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode regions. Shapes and meanings of the inputs are those of [`VideoReferModel.forward`].

        Frames that `mm_encoder_outputs` already holds patch features of do not pass the tower again.

        Args:
            region_masks (`torch.BoolTensor` of shape `(num_region_frames, num_patches)`): Masks on the patch grid.
            region_frame_index (`torch.LongTensor` of shape `(num_region_frames,)`): Frame of each mask.
            region_lengths (`torch.LongTensor` of shape `(num_regions,)`): Frames of each region.
            region_num_tokens (`torch.LongTensor` of shape `(num_regions,)`): Tokens each region gives.
            region_pixel_values (`torch.Tensor` of shape `(num_extra_frames, 3, height, width)`, *optional*): Frames
                with regions that are no scene frames.
            pixel_values_videos (`torch.Tensor` of shape `(num_videos, num_frames, 3, height, width)`, *optional*):
                Scene frames; not needed where `mm_encoder_outputs` has them.
            pixel_values (`torch.Tensor` of shape `(num_images, 3, height, width)`, *optional*): Still images, likewise.
            sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): Videos, images, extra frames and
                regions of each sample; needed for more than one sample.
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*): Outputs of
                [`get_video_features`] under `"video"` and of [`get_image_features`] under `"image"`.
            video_ids (`torch.LongTensor` of shape `(num_videos,)`, *optional*): Key of what each video mark shows.
            video_row_ids (`torch.LongTensor` of shape `(num_video_rows,)`, *optional*): Key of each encoded video.
            kwargs: Ignored, so that all outputs of the processor may be passed.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` is a tuple with one tensor of shape
            `(region_num_tokens[i], hidden_size)` for each region, `last_hidden_state` of shape
            `(num_region_frames, vision_size)` holds the float32 frame tokens before the merge.

        Raises:
            ValueError: If counts, indices or shapes do not fit together.
        """
        inputs = {
            "region_masks": region_masks,
            "region_frame_index": region_frame_index,
            "region_lengths": region_lengths,
            "region_num_tokens": region_num_tokens,
            "region_pixel_values": region_pixel_values,
            "pixel_values_videos": pixel_values_videos,
            "pixel_values": pixel_values,
            "video_ids": video_ids,
            "video_row_ids": video_row_ids,
        }
        encoded = {kind: output for kind, output in (mm_encoder_outputs or {}).items() if kind != "region"}
        return self.encode_media(encoded, sample_counts, **inputs)["region"]

    def _encode_regions(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, BaseModelOutputWithPooling],
        layout: BatchLayout,
    ) -> BaseModelOutputWithPooling:
        """Pool, merge and project regions from the patch features of encoded videos and images and of extra frames."""
        patches = {}  # of all frames of the batch: videos, images, extra frames
        for kind in ("video", "image"):
            patches[kind] = outputs[kind].last_hidden_state if kind in outputs else None
            if kind in outputs and patches[kind] is None:
                raise ValueError(
                    f'`mm_encoder_outputs["{kind}"]` has no `last_hidden_state`, which regions are pooled from. Pass '
                    f"the output of `get_{kind}_features` as it is, or add the output of `get_region_features` under "
                    '"region".'
                )
        layout.check_regions(inputs["region_masks"], num_patches=self.config.grid_size**2)
        videos, extra = patches["video"], inputs.get("region_pixel_values")
        num_video_rows, num_frames = (0, 0) if videos is None else videos.shape[:2]
        rows = layout.region_rows(
            video_rows=layout.video_rows(num_video_rows, is_encoded="pixel_values_videos" not in inputs),
            num_video_rows=num_video_rows,
            num_images=0 if patches["image"] is None else len(patches["image"]),
            num_extra_frames=0 if extra is None else len(extra),
            num_frames=num_frames,
        )
        if extra is not None:
            patches["extra"] = self._encode_frames(extra, layout.is_new["region_pixel_values"]).last_hidden_state
        features = torch.cat([part.flatten(0, -3) for part in patches.values() if part is not None])
        masks = inputs["region_masks"].to(features.device)
        tokens, frame_tokens = self.region_encoder(features, masks, rows, layout.lengths, layout.num_tokens)
        return BaseModelOutputWithPooling(
            last_hidden_state=frame_tokens, pooler_output=tokens.split(layout.num_tokens.tolist())
        )

    def encode_media(
        self,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        sample_counts: torch.Tensor | None = None,
        **inputs: torch.Tensor | None,
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Encode whatever a batch holds that `mm_encoder_outputs` does not hold yet; what it holds goes first.

        Args:
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*): What is encoded already, under
                `"video"`, `"image"` and `"region"`. Not changed. One video may stand for all videos of the batch.
            sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): See [`VideoReferModel.forward`].
            inputs (`torch.Tensor`, *optional*): The media inputs of [`VideoReferModel.forward`] by name.

        Returns:
            `dict[str, BaseModelOutputWithPooling]`: The outputs under `"video"`, `"image"` and `"region"`, as far as
            the batch has them: scene and object tokens once for each mark.

        Raises:
            ValueError: If region inputs are incomplete or do not fit, or a video has no row.
        """
        inputs = {name: value for name, value in inputs.items() if value is not None}
        outputs, inputs = _drop_what_is_encoded(mm_encoder_outputs, inputs)
        layout = BatchLayout.read({**inputs, "sample_counts": sample_counts})
        return self._encode_media(outputs, inputs, layout)

    def _encode_media(
        self,
        outputs: dict[str, BaseModelOutputWithPooling],
        inputs: Mapping[str, torch.Tensor],
        layout: BatchLayout,
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Encode inputs beside what is encoded already; the result has one entry per mark."""
        missing = sorted(set(REGION_INPUTS) - set(inputs))
        has_regions = any(name.startswith("region_") for name in inputs)
        if has_regions and missing:
            raise ValueError(f"{', '.join(f'`{name}`' for name in missing)} missing beside the other region inputs.")
        outputs = dict(outputs)
        for kind, name, encode in (
            ("video", "pixel_values_videos", self._encode_videos),
            ("image", "pixel_values", self._encode_images),
        ):
            if name in inputs:
                outputs[kind] = encode(inputs[name], layout.is_new[name])
        if has_regions:
            outputs["region"] = self._encode_regions(inputs, outputs, layout)
        if "video" in outputs:
            video = outputs["video"]
            rows = layout.video_rows(len(video.pooler_output), is_encoded="pixel_values_videos" not in inputs)
            if not np.array_equal(rows, np.arange(len(video.pooler_output))):
                # Patch features stay as they are: only the tokens are needed once for each mark.
                outputs["video"] = take_rows(video, rows)
                outputs["video"].last_hidden_state = video.last_hidden_state
        return outputs

    def _embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Look up token embeddings; placeholder ids beyond the table read row 0, which is overwritten or rejected."""
        return self.get_input_embeddings()(self.replace_ids_beyond_table(input_ids))

    def replace_ids_beyond_table(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Replace placeholder ids that have no row in the embedding table by 0.

        Args:
            input_ids (`torch.LongTensor`): Ids of any shape.

        Returns:
            `torch.LongTensor`: Ids of the same shape.
        """
        num_embeddings = self.get_input_embeddings().num_embeddings
        for token_id in self._placeholder_ids():
            if token_id >= num_embeddings:
                input_ids = input_ids.masked_fill(input_ids == token_id, 0)
        return input_ids

    def _placeholder_ids(self) -> tuple[int, int, int]:
        return self.config.video_token_id, self.config.image_token_id, self.config.region_token_id

    def _fill_placeholders(
        self, input_ids: torch.Tensor, outputs: dict[str, BaseModelOutputWithPooling], num_prompt_tokens: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Embed ids, with scene and object tokens in the place of their placeholders; return also those tokens."""
        inputs_embeds, tokens = self._embed_tokens(input_ids), {}
        for kind, output in outputs.items():
            features = output.pooler_output
            if not isinstance(features, torch.Tensor):
                features = torch.cat(tuple(features))
            tokens[kind] = features.to(inputs_embeds)
            mask = input_ids == getattr(self.config, f"{kind}_token_id")
            mask[:, num_prompt_tokens:] = False
            inputs_embeds = inputs_embeds.masked_scatter(mask.unsqueeze(-1), tokens[kind])
        return inputs_embeds, tokens

    @staticmethod
    def _is_decoding_step(
        input_ids: torch.Tensor, num_prompt_tokens: int | None, cache: Cache | None, *, has_media: bool
    ) -> bool:
        """Whether ids stand behind the prompt, so that a placeholder among them was generated or proposed."""
        if num_prompt_tokens is not None or has_media or cache is None:
            return num_prompt_tokens == 0
        # One token needs no look at the length, which a static cache keeps as a tensor: the step compiles whole.
        return input_ids.shape[1] == 1 or cache.get_seq_length() > 0

    @can_return_tuple
    @accept_old_cache_name
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        region_pixel_values: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        region_frame_index: torch.LongTensor | None = None,
        region_lengths: torch.LongTensor | None = None,
        region_num_tokens: torch.LongTensor | None = None,
        sample_counts: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        num_prompt_tokens: int | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        video_ids: torch.LongTensor | None = None,
        video_row_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> VideoReferModelOutputWithPast:
        r"""Run the model. All inputs beside the usual ones are made by [`VideoReferProcessor`].

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, sequence)`, *optional*): Token ids with placeholders.
            attention_mask (`torch.Tensor` of shape `(batch, sequence)`, *optional*): 0 at padding.
            position_ids (`torch.LongTensor` of shape `(batch, sequence)`, *optional*): Positions.
            past_key_values (`Cache`, *optional*): Keys and values of earlier tokens, under the name that transformers
                5.23 has for them.
            inputs_embeds (`torch.Tensor` of shape `(batch, sequence, hidden_size)`, *optional*): Embeddings in place of
                `input_ids`, with scene and object tokens filled in.
            pixel_values_videos (`torch.Tensor` of shape `(num_videos, num_frames, 3, height, width)`, *optional*):
                Scene frames.
            pixel_values (`torch.Tensor` of shape `(num_images, 3, height, width)`, *optional*): Still images.
            region_pixel_values (`torch.Tensor` of shape `(num_extra_frames, 3, height, width)`, *optional*): Frames
                that carry a region and are no scene frames.
            region_masks (`torch.BoolTensor` of shape `(num_region_frames, num_patches)`, *optional*): One mask for each
                (region, frame) on the patch grid, row by row.
            region_frame_index (`torch.LongTensor` of shape `(num_region_frames,)`, *optional*): Frame of each mask,
                counted within its own sample: scene frames of its videos, then its images, then its extra frames.
            region_lengths (`torch.LongTensor` of shape `(num_regions,)`, *optional*): Frames of each region; regions in
                the order of their placeholders.
            region_num_tokens (`torch.LongTensor` of shape `(num_regions,)`, *optional*): Tokens each region gives.
            sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): Videos, images, extra frames and
                regions of each sample. May be left out for one sample, or when there are no regions.
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*): Outputs of `get_video_features`,
                `get_image_features` and `get_region_features` under `"video"`, `"image"` and `"region"`. They go before
                the inputs of the same kind, which may be left out. Regions may be given as `region_*` inputs beside
                encoded videos or images. Features of one video may stand for every video of the batch.
            num_prompt_tokens (`int`, *optional*): Only the first so many ids can be placeholders; what follows was
                generated. Set by `generate`.
            use_cache (`bool`, *optional*): Whether to return the cache.
            cache (`Cache`, *optional*): Keys and values of earlier tokens, under the name of transformers 5.24 and
                later. It goes before `past_key_values`.
            video_ids (`torch.LongTensor` of shape `(num_videos,)`, *optional*): Key of what each video mark shows. With
                `video_row_ids` a video that several marks show has one row in `pixel_values_videos`.
            video_row_ids (`torch.LongTensor` of shape `(num_video_rows,)`, *optional*): Key of each row of
                `pixel_values_videos`, which then need not be one per mark.
            kwargs: Library arguments, passed to the language model.

        Returns:
            [`VideoReferModelOutputWithPast`].

        Raises:
            ValueError: If placeholders and features differ in number, an input has a wrong shape, or a media input is
                unknown.
        """
        check_no_unknown_media_keys(kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of `input_ids` and `inputs_embeds`.")
        cache = past_key_values if cache is None else cache
        inputs = {
            "pixel_values_videos": pixel_values_videos,
            "pixel_values": pixel_values,
            "region_pixel_values": region_pixel_values,
            "region_masks": region_masks,
            "region_frame_index": region_frame_index,
            "region_lengths": region_lengths,
            "region_num_tokens": region_num_tokens,
            "video_ids": video_ids,
            "video_row_ids": video_row_ids,
        }
        inputs = {name: value for name, value in inputs.items() if value is not None}
        outputs, inputs = _drop_what_is_encoded(mm_encoder_outputs, inputs)
        tokens: dict[str, torch.Tensor] = {}
        if inputs_embeds is not None:
            if outputs or inputs:
                raise ValueError(
                    f"`inputs_embeds` came with {sorted({*outputs, *inputs})}, but their placeholders can only be found in "
                    "`input_ids`. Pass `input_ids` in place of `inputs_embeds`, or embeddings that hold the features "
                    "already and no media inputs."
                )
        elif self._is_decoding_step(input_ids, num_prompt_tokens, cache, has_media=bool(outputs or inputs)):
            inputs_embeds = self._embed_tokens(input_ids)
        else:
            num_prompt_tokens = input_ids.shape[1] if num_prompt_tokens is None else num_prompt_tokens
            layout = BatchLayout.read(
                {**inputs, "sample_counts": sample_counts},
                prompt_ids=input_ids[:, :num_prompt_tokens],
                config=self.config,
            )
            layout.check_counts_given(len(input_ids), 0 if region_lengths is None else len(region_lengths))
            outputs = self._encode_media(outputs, inputs, layout)
            layout.check_placeholders(outputs)
            inputs_embeds, tokens = self._fill_placeholders(input_ids, outputs, num_prompt_tokens)
        language_outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **{CACHE_NAME: cache},
            **kwargs,
        )
        return VideoReferModelOutputWithPast(
            **language_outputs,
            **{f"{kind}_hidden_states": value for kind, value in tokens.items()},
            **({} if self.training else {f"{kind}_outputs": output for kind, output in outputs.items()}),
        )


class VideoReferForConditionalGeneration(VideoReferPreTrainedModel, GenerationMixin):
    """VideoRefer with its language modelling head: answers questions about regions of a video.

    Args:
        config ([`VideoReferConfig`]): Configuration.
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: VideoReferConfig):
        super().__init__(config)
        self.model = VideoReferModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
        self._keys_to_ignore_on_load_unexpected.discard(r"^lm_head\.")  # collected from the base model

    @classmethod
    def from_vision_text_pretrained(
        cls, vision: str, text: str, *, dtype: torch.dtype | str | None = None, **config_kwargs: Any
    ) -> "VideoReferForConditionalGeneration":
        """Start a new model from a SigLIP and a Qwen2 checkpoint; connector and region encoder are fresh.

        Args:
            vision (`str`): Folder or Hub id of a SigLIP checkpoint, whole or vision part only.
            text (`str`): Folder or Hub id of a Qwen2 checkpoint with its tokenizer.
            dtype (`torch.dtype` or `str`, *optional*): Dtype of the weights; that of the text checkpoint by default.
            config_kwargs: Fields of [`VideoReferConfig`], such as `num_frames`.

        Returns:
            [`VideoReferForConditionalGeneration`]: The model, whose placeholder ids are the next free ids of the
            tokenizer of `text`.

        Raises:
            OSError: If a checkpoint cannot be found.
        """
        vision_config = read_vision_config(vision)
        text_model = AutoModelForCausalLM.from_pretrained(text, dtype=dtype if dtype is not None else "auto")
        text_config = text_model.config.to_dict() | {"_name_or_path": ""}
        config = VideoReferConfig(
            vision_config=vision_config.to_dict(),
            text_config=text_config,
            **add_mark_tokens(AutoTokenizer.from_pretrained(text)),
            **config_kwargs,
        )
        config.dtype = text_model.dtype
        with torch.device("meta"):
            model = cls(config)
        base = model.model
        tower = type(base.vision_tower).from_pretrained(vision, config=config.vision_config, dtype=text_model.dtype)
        base.vision_tower = cut_vision_tower(tower, config.num_vision_layers)
        base.language_model, model.lm_head = text_model.model, text_model.lm_head
        for part in (base.connector, base.region_encoder):
            part.to_empty(device=text_model.device).to(text_model.dtype)
            for module in part.modules():
                model._init_weights(module)
        model.generation_config = text_model.generation_config
        model.tie_weights()
        model.processor_factory = RememberedProcessor.read(
            lambda: cls.processor_class.from_vision_text_pretrained(
                vision,
                text,
                num_frames=config.num_frames,
                num_region_tokens=config.num_region_tokens,
                connector_downsample=config.connector_downsample,
            )
        )
        return model.eval()

    def get_video_features(self, pixel_values_videos: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """See [`VideoReferModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos, **kwargs)

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """See [`VideoReferModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_region_features(self, **kwargs: Any) -> BaseModelOutputWithPooling:
        """See [`VideoReferModel.get_region_features`]."""
        return self.model.get_region_features(**kwargs)

    @can_return_tuple
    @accept_old_cache_name
    def forward(  # noqa: D417 (the shared inputs are documented at the base model)
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        region_pixel_values: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        region_frame_index: torch.LongTensor | None = None,
        region_lengths: torch.LongTensor | None = None,
        region_num_tokens: torch.LongTensor | None = None,
        sample_counts: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        num_prompt_tokens: int | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        video_ids: torch.LongTensor | None = None,
        video_row_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> VideoReferCausalLMOutputWithPast:
        r"""Run the model. The inputs that are not listed here are those of [`VideoReferModel.forward`].

        Args:
            labels (`torch.LongTensor` of shape `(batch, sequence)`, *optional*): Ids to predict; -100 and placeholder
                ids are ignored.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to `0`): Compute only the last so many logits,
                or those at the given positions; 0 keeps all.
            kwargs: Library arguments.

        Returns:
            [`VideoReferCausalLMOutputWithPast`].

        Example:
        ```python
        >>> messages = [{"role": "user", "content": [
        ...     {"type": "video", "path": "dog.mp4"},
        ...     {"type": "text", "text": "What is "},
        ...     {"type": "region", "frames": [{"frame_index": 0, "box": [300, 0, 800, 430]}]},
        ...     {"type": "text", "text": " doing?"}]}]
        >>> inputs = processor.apply_chat_template(
        ...     messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ... )
        >>> output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        ```
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pixel_values_videos=pixel_values_videos,
            pixel_values=pixel_values,
            region_pixel_values=region_pixel_values,
            region_masks=region_masks,
            region_frame_index=region_frame_index,
            region_lengths=region_lengths,
            region_num_tokens=region_num_tokens,
            sample_counts=sample_counts,
            mm_encoder_outputs=mm_encoder_outputs,
            num_prompt_tokens=num_prompt_tokens,
            use_cache=use_cache,
            video_ids=video_ids,
            video_row_ids=video_row_ids,
            return_dict=True,
            **{CACHE_NAME: past_key_values if cache is None else cache},
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            for token_id in self.model._placeholder_ids():
                labels = labels.masked_fill(labels == token_id, -100)
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return VideoReferCausalLMOutputWithPast(loss=loss, logits=logits, **rest)

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        # The library's version knows images and videos only, and would run the tower without handing its patch
        # features to the regions.
        media = {name: model_kwargs.pop(name, None) for name in MEDIA_INPUTS}
        model_kwargs["mm_encoder_outputs"] = self.model.encode_media(
            model_kwargs.get("mm_encoder_outputs"), model_kwargs.get("sample_counts"), **media
        )
        return model_kwargs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        outputs = model_kwargs.pop("mm_encoder_outputs", None) or {}
        sample_counts = model_kwargs.pop("sample_counts", None)
        # Ids beside `inputs_embeds` are only there to stand in the answer: the embeddings hold the features already.
        if input_ids is not None and input_ids.numel() and model_kwargs.get("inputs_embeds") is None:
            # Checked here, where whole prompts are at hand: a chunk of a prompt has fewer placeholders than features.
            num_prompt_tokens = model_kwargs.setdefault("num_prompt_tokens", input_ids.shape[1])
            num_cached = _num_cached_ids(input_ids, model_kwargs)
            layout = BatchLayout.read(
                {"sample_counts": sample_counts},
                prompt_ids=input_ids[:, num_cached:num_prompt_tokens],
                config=self.config,
            )
            if num_cached:
                outputs, layout = layout.keep_last(outputs)
            if "region" in outputs:
                layout.check_counts_given(len(input_ids), len(outputs["region"].pooler_output))
            layout.check_placeholders(outputs)
            if expand_size > 1 and outputs:
                outputs = layout.repeat_samples(outputs, expand_size)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        if outputs:
            model_kwargs["mm_encoder_outputs"] = outputs
        return input_ids, model_kwargs

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        num_prompt_tokens: int | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Prepare one step; see `GenerationMixin`.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, sequence)`): All ids so far, or one chunk of the prompt.
            num_prompt_tokens (`int`, *optional*): Length of the whole prompt.
            inputs_embeds (`torch.Tensor` of shape `(batch, sequence, hidden_size)`, *optional*): Embeddings of the
                prompt, in place of ids.
            kwargs: What the library hands over.

        Returns:
            `dict[str, Any]`: Arguments of `forward`.
        """
        model_inputs = super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)
        step_ids = model_inputs.get("input_ids")
        if step_ids is not None and num_prompt_tokens is not None:
            # Ids that the cache holds already were cut off on the left.
            num_cut = input_ids.shape[1] - step_ids.shape[1]
            model_inputs["num_prompt_tokens"] = max(num_prompt_tokens - num_cut, 0)
        outputs, cache = kwargs.get("mm_encoder_outputs"), kwargs.get(CACHE_NAME)
        # The library takes no step of an assistant for its first one, and leaves the features out. (One token is no
        # prompt: then the length of the cache, a tensor in a static one, is not read.)
        is_dropped = outputs and "mm_encoder_outputs" not in model_inputs and step_ids.shape[1] > 1
        if is_dropped and cache is not None and cache.get_seq_length() == 0:
            if all(output.pooler_output[0].shape[-1] == self.lm_head.in_features for output in outputs.values()):
                model_inputs["mm_encoder_outputs"] = outputs
            else:  # those of a model of another width: the assistant guesses without them
                model_inputs["num_prompt_tokens"] = 0
        return model_inputs

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        generator = super()._get_candidate_generator(*args, **kwargs)
        assistant = getattr(generator, "assistant_model", None)
        if assistant is not None:
            # The library keeps the features from the chunks of an assistant, so its prompt goes in whole.
            generator.generation_config.prefill_chunk_size = None
            assistant.generation_config.prefill_chunk_size = None
            if not hasattr(assistant, "get_region_features"):  # of another kind: it knows nothing of media
                for name in ("num_prompt_tokens", "mm_encoder_outputs"):
                    generator.assistant_kwargs.pop(name, None)
        if isinstance(generator, PromptLookupCandidateGenerator):
            # It copies candidates from the prompt and indexes made-up logits with them, which placeholder ids beyond
            # the vocabulary would leave.
            get_candidates = generator.get_candidates

            def get_candidates_in_table(input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                candidates, logits = get_candidates(self.model.replace_ids_beyond_table(input_ids), *args, **kwargs)
                return torch.cat([input_ids, candidates[:, input_ids.shape[1] :]], dim=1), logits

            generator.get_candidates = get_candidates_in_table
        return generator

    def _get_logits_processor(
        self,
        generation_config: Any,
        input_ids_seq_length: int | None = None,
        logits_processor: LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> LogitsProcessorList:
        processors = super()._get_logits_processor(
            generation_config=generation_config,
            input_ids_seq_length=input_ids_seq_length,
            logits_processor=logits_processor,
            **kwargs,
        )
        # The published model generates from embeddings, so its penalty never sees the prompt; a penalty the caller made
        # is left alone.
        for processor in processors:
            is_own = not any(processor is other for other in logits_processor or ())
            if isinstance(processor, RepetitionPenaltyLogitsProcessor) and is_own:
                processor.prompt_ignore_length = input_ids_seq_length or 0
        return processors


def _num_cached_ids(input_ids: torch.Tensor, model_kwargs: Mapping[str, Any]) -> int:
    """Tell how many ids of a call of `generate` stand in the cache that came with it."""
    cache = model_kwargs.get(CACHE_NAME)
    # Beside the new ids only, mask and positions still cover the whole sequence. (The library drops a mask of ones.)
    whole = next(
        (model_kwargs[name] for name in ("attention_mask", "position_ids") if model_kwargs.get(name) is not None),
        input_ids,
    )
    if cache is None or whole.shape[-1] != input_ids.shape[1]:
        return 0
    return min(int(cache.get_seq_length()), input_ids.shape[1])


__all__ = ["VideoReferForConditionalGeneration", "VideoReferModel", "VideoReferPreTrainedModel"]
