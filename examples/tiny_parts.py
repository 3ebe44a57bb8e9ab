"""Tokenizer, processor, model and optimisers of the miniature."""

import json
from collections.abc import Iterable, Sequence

import torch
from tiny_clips import IMAGE_SIZE, NUM_SCENE_FRAMES, PATCH_SIZE
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import Qwen2Tokenizer
from transformers.image_utils import PILImageResampling
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from transformers_videorefer import VideoReferConfig, VideoReferForConditionalGeneration, VideoReferProcessor


VOCAB_SIZE = 512
NUM_REGION_TOKENS = 8
CONNECTOR_DOWNSAMPLE = (2, 4, 4)
NUM_MARKS = 3
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def build_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer.

    Args:
        texts (`Iterable[str]`): Prompts and answers.

    Returns:
        `Qwen2Tokenizer`: With room for the three marks below `VOCAB_SIZE`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS) - NUM_MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
    )


def build_processor(tokenizer: Qwen2Tokenizer) -> VideoReferProcessor:
    """Put the processor together.

    Args:
        tokenizer (`Qwen2Tokenizer`): The tokenizer.

    Returns:
        [`VideoReferProcessor`].
    """
    settings = {
        "do_resize": True,
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": PILImageResampling.BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return VideoReferProcessor.from_parts(
        tokenizer=tokenizer,
        image_settings=settings,
        patch_size=PATCH_SIZE,
        num_frames=NUM_SCENE_FRAMES,
        num_region_frames=NUM_SCENE_FRAMES,
        num_region_tokens=NUM_REGION_TOKENS,
        connector_downsample=CONNECTOR_DOWNSAMPLE,
    )


def build_model(processor: VideoReferProcessor) -> VideoReferForConditionalGeneration:
    """Make a model with random weights.

    Args:
        processor ([`VideoReferProcessor`]): Its processor, for the ids of the marks.

    Returns:
        [`VideoReferForConditionalGeneration`].
    """
    tokenizer = processor.tokenizer
    config = VideoReferConfig(
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 5,  # the feature layer is the last but one
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "initializer_range": 0.06,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        connector_depth=1,
        connector_downsample=CONNECTOR_DOWNSAMPLE,
        num_region_tokens=NUM_REGION_TOKENS,
        num_frames=NUM_SCENE_FRAMES,
        video_token_id=processor.video_token_id,
        image_token_id=processor.image_token_id,
        region_token_id=processor.region_token_id,
    )
    model = VideoReferForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # with bfloat16 on a CPU twice as fast as the fused kernel
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = None
    return model


def fast_math() -> torch.autocast:
    """Matrix products in bfloat16, which take half the time; attention has to be eager for that."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


class Optimizers:
    """Muon for the weight matrices, AdamW for everything else, with one schedule.

    Args:
        modules (`Sequence[nn.Module]`): What is trained.
        heads (`Sequence[nn.Module]`): Auxiliary heads, trained with AdamW.
        muon_lr (`float`): Highest learning rate of the matrices.
        adam_lr (`float`): Highest learning rate of the rest.
        num_steps (`int`): Length of the schedule.
        warmup (`int`): Steps of linear warm-up.
        hold (`float`): Share of the schedule before the linear decay to 3 %.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        *,
        muon_lr: float,
        adam_lr: float,
        num_steps: int,
        warmup: int,
        hold: float,
    ):
        matrices, rest = [], [parameter for head in heads for parameter in head.parameters()]
        seen: set[int] = set()
        for module in modules:
            for child in module.modules():
                for parameter in child.parameters(recurse=False):
                    if not parameter.requires_grad or id(parameter) in seen:
                        continue
                    seen.add(id(parameter))
                    is_matrix = isinstance(child, nn.Linear)
                    (matrices if is_matrix and parameter.ndim == 2 else rest).append(parameter)
        self.parameters = matrices + rest
        self.optimizers = [
            torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.05),
            torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.05),
        ]

        def factor(step: int) -> float:
            done = step / num_steps
            decay = 1.0 if done < hold else 1 - 0.97 * (done - hold) / (1 - hold)
            return min(1.0, (step + 1) / warmup) * decay

        self.schedules = [torch.optim.lr_scheduler.LambdaLR(one, factor) for one in self.optimizers]

    def step(self, loss: torch.Tensor) -> None:
        """Compute gradients of `loss`, clip them, and take one step."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for one in (*self.optimizers, *self.schedules):
            one.step()
        for one in self.optimizers:
            one.zero_grad(set_to_none=True)
