"""What the trainer makes for itself where it is given nothing: the model of a name, and the collator."""

from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from transformers_videorefer.data.batches.collator import VideoReferDataCollator
from transformers_videorefer.models.videorefer.modeling_videorefer import VideoReferForConditionalGeneration

from .batches import MediaSizes
from .config import VideoReferSFTConfig
from .guards import GuardedCollator
from .scenes import IndexingCollator, SharingCollator


def load_model(name: str, args: VideoReferSFTConfig, quantization_config: Any = None) -> PreTrainedModel:
    """Load the model that a trainer got the name of.

    Args:
        name (`str`): Folder or Hub id.
        args ([`VideoReferSFTConfig`]): Settings; `model_init_kwargs` are used up.
        quantization_config (`BitsAndBytesConfig`, *optional*): Load with quantized weights.

    Returns:
        [`VideoReferForConditionalGeneration`]: The model, in float32 unless the settings say otherwise.
    """
    kwargs = dict(args.model_init_kwargs or {})
    kwargs.setdefault("dtype", "float32")
    if quantization_config is not None:
        kwargs["quantization_config"] = quantization_config
    args.model_init_kwargs = None  # used up here
    return VideoReferForConditionalGeneration.from_pretrained(name, **kwargs)


def make_collator(processor: ProcessorMixin, args: VideoReferSFTConfig, sizes: MediaSizes) -> SharingCollator:
    """Make the collator that the settings describe.

    Args:
        processor ([`VideoReferProcessor`]): The processor.
        args ([`VideoReferSFTConfig`]): Settings.
        sizes ([`MediaSizes`]): Form of media and padding.

    Returns:
        [`SharingCollator`] around a [`GuardedCollator`].
    """
    options = {
        name: getattr(args, name)
        for name in ("num_frames", "num_region_frames", "num_region_tokens")
        if getattr(args, name) is not None
    }
    collator = VideoReferDataCollator(
        processor,
        data_root=args.data_root,
        multi_frame_ratio=args.multi_frame_ratio,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        empty_masks=args.empty_masks,
        **options,
    )
    guarded = GuardedCollator(
        IndexingCollator(collator),
        sizes,
        max_length=args.max_length,
        max_visual_tokens=args.max_visual_tokens_per_batch,
    )
    return SharingCollator(guarded)
