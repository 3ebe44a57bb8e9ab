"""Tiny random models of other families with real processors, and rows to ask them about."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import REFERENCE
from PIL import Image
from transformers import (
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil


SIDE, PATCH = 56, 14
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<{{ part['type'] }}>{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    "vocab_size": 360,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
    "bos_token_id": 326,
    "eos_token_id": 328,
    "pad_token_id": 326,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}


class ImagesOnlyLlavaProcessor(LlavaOnevisionProcessor):
    """Without torchvision there is no video processor, and the library refuses to do without one."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":
            return type(argument)
        return super().check_argument_for_proper_class(argument_name, argument)


def _tokenizer(*tokens: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE / "videorefer-tiny")
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return tokenizer


def llava_onevision() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return a tiny LLaVA-OneVision and its processor; several images cost 17 tokens each."""
    tokenizer = _tokenizer("<image>", "<video>")
    pinpoints = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
    image_id, video_id = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **VISION},
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=image_id,
        video_token_id=video_id,
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    processor = ImagesOnlyLlavaProcessor(
        LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=pinpoints),
        tokenizer,
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(0)
    return LlavaOnevisionForConditionalGeneration(config).eval(), processor


def idefics3() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return a tiny Idefics3, a family whose processors cut images into tiles, and its processor."""
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = _tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles)
    config = Idefics3Config(
        vision_config=VISION,
        text_config={"model_type": "llama", **TEXT},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=326,
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}),
        tokenizer,
        image_seq_len=4,
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(0)
    return Idefics3ForConditionalGeneration(config).eval(), processor


def write_frames(folder: Path, num_frames: int = 8, height: int = 48, width: int = 64) -> None:
    """Write a video as a folder of grey pictures: frame i has the level 10 * i."""
    folder.mkdir(parents=True)
    for index in range(num_frames):
        Image.fromarray(np.full((height, width, 3), 10 * index, dtype=np.uint8)).save(folder / f"{index:05d}.png")


def box_rows() -> list[dict[str, Any]]:
    """Return a question about two objects, one about a single object, and a description; all of the video `clip`."""

    def region(box: list[int], *frames: int) -> dict[str, Any]:
        return {"frames": [{"frame_index": index, "box": box} for index in frames]}

    left, right = region([8, 8, 24, 24], 2, 4, 6), region([40, 24, 56, 40], 4, 6)
    common = {"video": "clip", "frame_index": 4, "edit_list": "ignore"}
    question = {"options": ["(A) yes", "(B) no"], "answer": "(A) yes", "type": "Basic Questions"}
    return [
        {"id": "q0", "question": "Is <region> near <region>?", "regions": [left, right], **question, **common},
        {"id": "q1", "question": "Does <object1><region> move?", "regions": [left], **question, **common},
        # Masks in place of boxes make it a description of VideoRefer-Bench-D, and not one of HC-STVG.
        {"id": "d0", "caption": "A grey box.", "regions": [_as_masks(left)], **common},
    ]


def _as_masks(region: dict[str, Any]) -> dict[str, Any]:
    frames = []
    for frame in region["frames"]:
        x0, y0, x1, y1 = frame["box"]
        # Uncompressed run lengths, column by column: what lies before the box, then inside and outside by turns.
        counts = [x0 * 48 + y0, *([y1 - y0, 48 - (y1 - y0)] * (x1 - x0 - 1)), y1 - y0]
        frames.append({"frame_index": frame["frame_index"], "rle": {"size": [48, 64], "counts": _close(counts)}})
    return {"frames": frames}


def _close(counts: list[int]) -> list[int]:
    """Fill up the last run."""
    return [*counts, 48 * 64 - sum(counts)]
