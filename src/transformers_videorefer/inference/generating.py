"""Answers of a model to inputs that its processor made: the only place that generates."""

from dataclasses import dataclass

import torch
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin, set_seed
from transformers.generation import BaseStreamer


DEFAULT_MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text (`str`): The answer without special tokens and space around it.
        is_complete (`bool`): Whether the model ended it itself; otherwise it was cut at the longest length.
    """

    text: str
    is_complete: bool


def check_max_new_tokens(max_new_tokens: int) -> None:
    """Find an impossible length of answers.

    Args:
        max_new_tokens (`int`): Longest answer.

    Raises:
        ValueError: If it is below 1.
    """
    if max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` is {max_new_tokens}. Pass at least 1.")


def generate_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    inputs: BatchFeature,
    *,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    sample: bool = False,
    seed: int | None = None,
    repetition_penalty: float | None = None,
    streamer: BaseStreamer | None = None,
    memory_advice: str | None = None,
) -> list[Answer]:
    """Generate, with one beam and greedily, whatever the checkpoint's `generation_config` says of beams and sampling.

    Args:
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its processor.
        inputs (`BatchFeature`): Inputs of one or several samples, padded on the left; they are moved to the device of
            the model, and numbers with a fraction to its precision.
        max_new_tokens (`int`, *optional*, defaults to 512): Longest answer.
        sample (`bool`, *optional*, defaults to `False`): Draw each token, instead of taking the most likely one.
        seed (`int`, *optional*): Seed of all random numbers from here on; they go on as they are by default.
        repetition_penalty (`float`, *optional*): Penalty on repeated tokens; the checkpoint's by default.
        streamer (`BaseStreamer`, *optional*): Gets the tokens as they come, those of the prompt first. It takes a
            single sample.
        memory_advice (`str`, *optional*): What to do when the memory of the device is too small. With it a MemoryError
            says so; otherwise the error of torch comes through, for callers that try again with less.

    Returns:
        `list[Answer]`: The answers, one for each sample.

    Raises:
        ValueError: If `max_new_tokens` is below 1, or the inputs do not fit the model.
        MemoryError: If the memory of the device is too small, with `memory_advice`.
    """
    check_max_new_tokens(max_new_tokens)
    if seed is not None:
        set_seed(seed)
    options = {"max_new_tokens": max_new_tokens, "do_sample": sample, "num_beams": 1, "streamer": streamer}
    if repetition_penalty is not None:
        options["repetition_penalty"] = repetition_penalty
    try:
        with torch.inference_mode():
            output = model.generate(**inputs.to(model.device, dtype=model.dtype), **options)
    except torch.OutOfMemoryError as error:
        if memory_advice is None:
            raise
        raise MemoryError(f"{model.device} ran out of memory. {memory_advice}") from error
    new_ids = output[:, inputs["input_ids"].shape[1] :].tolist()
    end_ids = model.generation_config.eos_token_id
    end_ids = set(end_ids) if isinstance(end_ids, list) else {end_ids}
    texts = processor.tokenizer.batch_decode(new_ids, skip_special_tokens=True)
    return [
        # Answers of a batch are as long as its longest one: what stands behind an end is padding.
        Answer(text.strip(), is_complete=len(ids) < max_new_tokens or not end_ids.isdisjoint(ids))
        for text, ids in zip(texts, new_ids, strict=True)
    ]
