"""A two-layer VideoRefer with random weights and a matching processor, for tests that need no golden numbers."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_videorefer import VideoReferConfig, VideoReferForConditionalGeneration
from transformers_videorefer.models.videorefer.processing_videorefer import VideoReferProcessor
from transformers_videorefer.models.videorefer.video_processing_videorefer import VideoReferVideoProcessor


TOKENIZER = Path(__file__).parent / "fixtures" / "reference" / "videorefer-tiny"
SIZE = {"height": 56, "width": 56}
NUM_FRAMES = 4


def tiny_config(**overrides) -> VideoReferConfig:
    """Return a configuration of about 100,000 parameters: 4 x 4 patches, 4 scene frames, the golden tokenizer's ids."""
    settings = {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        "text_config": {
            "vocab_size": 330,
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "bos_token_id": 326,
            "eos_token_id": 328,
            "pad_token_id": 326,
            "initializer_range": 0.2,
        },
        "connector_depth": 1,
        "num_frames": NUM_FRAMES,
        "region_token_id": 329,
        "video_token_id": 330,
        "image_token_id": 331,
    }
    return VideoReferConfig(**{**settings, **overrides})


def tiny_model(**overrides) -> VideoReferForConditionalGeneration:
    """Return a seeded model in float32 whose outputs react clearly to their inputs."""
    torch.manual_seed(0)
    model = VideoReferForConditionalGeneration(tiny_config(**overrides)).eval()
    with torch.no_grad():  # object and scene tokens as large as the embeddings, so that wrong ones change the answer
        for layer in (model.model.region_encoder.linear_2, model.model.connector.mlp[-1]):
            layer.weight.mul_(5)
    model.generation_config.pad_token_id = 326
    return model


def tiny_processor(**overrides) -> VideoReferProcessor:
    """Return the processor of [`tiny_model`]."""
    return VideoReferProcessor(
        SiglipImageProcessorPil(size=SIZE, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        AutoTokenizer.from_pretrained(TOKENIZER),
        VideoReferVideoProcessor(size=SIZE, num_frames=NUM_FRAMES),
        **{"num_image_frames": NUM_FRAMES, **overrides},
    )


def noise_video(num_frames: int = 12, height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """Return `(num_frames, height, width, 3)` uint8 noise: no two frames are alike."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def box_region(frame_indices: list[int], shift: int = 0, **extra) -> dict:
    """Return a region that is a box of 24 x 20 pixels in each of the frames."""
    frames = [{"frame_index": i, "box": [shift + i % 7, 5, shift + i % 7 + 24, 25]} for i in frame_indices]
    return {"frames": frames, **extra}
