"""What a run starts from: parts of a checkpoint made anew, and a region encoder scaled to the features it will see."""

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from .guards import REPORT
from .scenes import unshare_media
from .stages import check_modules, module_of_parameter


logger = logging.getLogger(__name__)

_SMALLEST_DEVIATION = 1e-4
_REGION_INPUTS = (
    "region_masks",
    "region_frame_index",
    "region_lengths",
    "region_num_tokens",
    "region_pixel_values",
    "pixel_values_videos",
    "pixel_values",
    "sample_counts",
)


def start_anew(model: PreTrainedModel, parts: Iterable[str]) -> None:
    """Give parts of a model new random weights.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model; changed in place.
        parts (`Iterable[str]`): Of `connector`, `region_encoder`, `language_model` and `lm_head`. With tied embeddings
            the matrix that `language_model` and `lm_head` share is new if either is named.

    Raises:
        ValueError: If a name is unknown, or is the vision tower.
    """
    parts = set(parts)
    check_modules(parts, "new_modules")
    if not parts:
        return
    new = dict(type(model)(model.config).named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, value in model.named_parameters(remove_duplicate=False):
            if module_of_parameter(name) in parts:
                value.copy_(new[name])


def first_rows(dataset: Any, num_rows: int) -> list[Mapping[str, Any]]:
    """Take rows from all over a set; of a streamed one the first.

    Args:
        dataset (`Dataset` or `IterableDataset`): The set.
        num_rows (`int`): How many rows.

    Returns:
        `list[Mapping]`: Rows, fewer if there are no more.
    """
    if not hasattr(dataset, "__len__"):
        return list(itertools.islice(dataset, num_rows))
    step = max(len(dataset) // num_rows, 1)
    return [dataset[row] for row in range(0, len(dataset), step)][:num_rows]


@torch.no_grad()
def standardize_regions(
    model: PreTrainedModel,
    rows: Sequence[Mapping[str, Any]],
    collator: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]],
    batch_size: int,
) -> None:
    """Fold mean and deviation of pooled region features into the first layer of a new region encoder.

    The features of a frozen tower lie far from zero and differ little between objects; a new layer learns to tell them
    apart much sooner when it sees them standardized. The architecture stays as it is.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model, not wrapped; its region encoder is changed in place.
        rows (`Sequence[Mapping]`): Rows to measure on.
        collator (`Callable`): Makes batches of them.
        batch_size (`int`): Rows at once.

    Raises:
        ValueError: If the rows have fewer than two region frames, or the weights are split among processes.
    """
    layer = model.model.region_encoder.linear_1
    if is_deepspeed_zero3_enabled():
        raise ValueError(
            "`region_statistics_rows` changes whole weights before the first step, which ZeRO-3 has not. Leave it out, or "
            "prepare the region encoder in a run without sharding."
        )
    pooled: list[torch.Tensor] = []
    for start in range(0, len(rows), batch_size):
        batch = unshare_media(collator([rows[i] for i in range(start, min(start + batch_size, len(rows)))]))
        batch.pop(REPORT, None)
        if "region_lengths" not in batch:
            continue
        inputs = {name: batch[name].to(model.device) for name in _REGION_INPUTS if name in batch}
        pooled.append(model.get_region_features(**inputs).last_hidden_state.double().cpu())
    if not pooled:
        raise ValueError("`region_statistics_rows` found no regions in the rows it looked at. Leave it out.")
    features = torch.cat(pooled)
    if len(features) < 2:
        raise ValueError(
            "`region_statistics_rows` found one region frame in the rows it looked at, which has no deviation. Pass more "
            "rows, or leave it out."
        )
    deviation, mean = torch.std_mean(features, dim=0)
    scale = (1 / deviation.clamp_min(_SMALLEST_DEVIATION)).to(layer.weight)
    layer.weight.mul_(scale)
    layer.bias.sub_(layer.weight @ mean.to(layer.weight))
    logger.info("The region encoder starts from the mean and deviation of %d region frames.", len(features))
