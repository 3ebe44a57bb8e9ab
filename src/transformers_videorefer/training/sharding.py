"""Training with sharded parameters, where every process has to call the same parts of the model in the same order."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import FSDPModule

from .batches import EXTRA_FRAMES, IGNORED, IMAGES, REGION_TARGETS, REGIONS, VIDEOS, MediaSizes


def kinds_in_use(batch: Mapping[str, Any], modules: Sequence[str]) -> torch.Tensor:
    """Tell which kinds of media the forward pass of a batch encodes; each is a pass of the vision tower.

    Args:
        batch (`dict[str, Any]`): The batch of one process.
        modules (`Sequence[str]`): The parts that learn, which are to be called in any case.

    Returns:
        `torch.LongTensor` of shape `(3,)`: 1 or 0 for videos, images, and frames of regions.
    """
    has_images = "pixel_values" in batch
    has_videos = "pixel_values_videos" in batch or ("connector" in modules and not has_images)
    has_regions = "region_lengths" in batch or "region_encoder" in modules
    return torch.tensor([has_videos, has_images, has_regions], dtype=torch.long)


def add_made_up_row(batch: Mapping[str, Any], sizes: MediaSizes, kinds: Sequence[int]) -> dict[str, Any]:
    """Append a row with media of the kinds that a batch lacks and other processes have.

    With FSDP and ZeRO-3 the processes gather the parameters of a part whenever one of them calls it: if one passes the
    vision tower once for videos and another a second time for frames of regions, they wait for different things. The
    row carries no labels, so that neither loss nor any gradient changes.

    Args:
        batch (`dict[str, Any]`): A batch that is padded on the right, with `sample_counts`.
        sizes ([`MediaSizes`]): Form of the made-up media.
        kinds (`Sequence[int]`): How many processes have videos, images, and regions, see [`kinds_in_use`].

    Returns:
        `dict[str, Any]`: The batch itself if nothing is missing, otherwise a new one.
    """
    needs_video = bool(kinds[0]) and "pixel_values_videos" not in batch
    needs_image = bool(kinds[1]) and "pixel_values" not in batch
    # Regions may lie on scene frames in one process and on frames of their own in another, so all get such a frame.
    needs_region = bool(kinds[2]) and "region_pixel_values" not in batch
    if not (needs_video or needs_image or needs_region):
        return dict(batch)
    batch = dict(batch)
    device = batch["input_ids"].device
    frame = torch.zeros((1, 3, sizes.image_size, sizes.image_size), device=device)
    counts = [0, 0, 0, 0]
    ids: list[int] = []
    if needs_video:
        batch["pixel_values_videos"] = frame.expand(1, sizes.num_frames, -1, -1, -1)
        counts[VIDEOS] = 1
        ids += [sizes.video_token_id] * sizes.num_video_tokens
    if needs_image:
        batch["pixel_values"] = frame
        counts[IMAGES] = 1
        ids += [sizes.image_token_id] * sizes.num_image_tokens
    if needs_region:
        # The frames of a row are counted through: scene frames of its video, its image, then the frame of the region.
        _add_region(batch, counts[VIDEOS] * sizes.num_frames + counts[IMAGES], sizes, device)
        batch["region_pixel_values"] = frame
        counts[EXTRA_FRAMES] = counts[REGIONS] = 1
        ids += [sizes.region_token_id]
    _add_row(batch, ids, counts, sizes.pad_token_id)
    return batch


def _add_region(batch: dict[str, Any], frame_index: int, sizes: MediaSizes, device: torch.device) -> None:
    made_up = {
        "region_masks": torch.ones((1, sizes.num_patches), dtype=torch.bool, device=device),
        "region_frame_index": torch.tensor([frame_index], device=device),
        "region_lengths": torch.ones(1, dtype=torch.long, device=device),
        "region_num_tokens": torch.ones(1, dtype=torch.long, device=device),
    }
    for name, value in made_up.items():
        batch[name] = torch.cat([batch[name], value.to(batch[name])]) if name in batch else value
    if REGION_TARGETS in batch:  # nothing is known of it
        batch[REGION_TARGETS] = {
            key: F.pad(targets, (0, 0, 0, 1), value=torch.nan) for key, targets in batch[REGION_TARGETS].items()
        }


def _add_row(batch: dict[str, Any], ids: list[int], counts: list[int], pad_token_id: int) -> None:
    """Append a row of ids without labels, and pad all rows to one length."""
    length = max(batch["input_ids"].shape[1], len(ids))
    row = {
        "input_ids": F.pad(torch.tensor(ids), (0, length - len(ids)), value=pad_token_id),
        "attention_mask": F.pad(torch.ones(len(ids), dtype=torch.long), (0, length - len(ids))),
        "labels": torch.full((length,), IGNORED),
    }
    for name, filler in (("input_ids", pad_token_id), ("attention_mask", 0), ("labels", IGNORED)):
        value = batch[name]
        value = F.pad(value, (0, length - value.shape[1]), value=filler)
        batch[name] = torch.cat([value, row[name][None].to(value)])
    batch["sample_counts"] = torch.cat([batch["sample_counts"], torch.tensor([counts]).to(batch["sample_counts"])])


def gather_head(model: nn.Module) -> None:
    """Gather the weights of the language model's head before the loss reads them.

    TRL computes the loss from the weights and never calls the head, so that FSDP2 would neither gather them nor average
    their gradients over the processes: each would keep its own.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model; one whose head is no sharded unit is left alone.
    """
    head = model.get_output_embeddings()
    if isinstance(head, FSDPModule):
        head.unshard()
