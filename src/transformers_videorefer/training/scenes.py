"""Videos and frames that several rows of a batch share: sent and encoded once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_videorefer.inputs.layout import REGION_INPUTS, resolve_region_frames

from .batches import INDEX_OF_PIXELS, CollatorWrapper


class SharingCollator(CollatorWrapper):
    """Calls a collator and leaves out every video and extra frame that the batch holds already."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): The rows.

        Returns:
            `dict[str, Any]`: What the collator makes of them, in the form of `share_media`.
        """
        return share_media(self.collator(rows))


def share_media(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Keep each video and each extra frame of a batch once.

    Equal pictures are what counts, so the same file with other options is another video.

    Args:
        batch (`dict[str, Any]`): A batch.

    Returns:
        `dict[str, Any]`: The batch; where videos came again, `pixel_values_videos` holds the distinct ones and
        `video_index` of shape `(num_videos,)` tells which of them each video of the batch is. `region_pixel_values` and
        `region_pixel_index` likewise.
    """
    shared = dict(batch)
    for name, index_name in INDEX_OF_PIXELS.items():
        if name not in shared or index_name in shared:
            continue
        firsts, index = _find_distinct(shared[name])
        if len(firsts) < len(index):
            shared[name] = shared[name][firsts]
            shared[index_name] = torch.tensor(index)
    return shared


def unshare_media(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `share_media`.

    Args:
        batch (`dict[str, Any]`): A batch.

    Returns:
        `dict[str, Any]`: The batch with every video and extra frame as often as its rows have it.
    """
    batch = dict(batch)
    for name, index_name in INDEX_OF_PIXELS.items():
        if index_name in batch:
            batch[name] = batch[name][batch.pop(index_name)]
    return batch


def _find_distinct(pixels: torch.Tensor) -> tuple[list[int], list[int]]:
    """Return where each distinct picture comes first, and for every picture which of these it is."""
    # Equal pictures have equal sums; the few that share a sum are compared.
    candidates: dict[float, list[int]] = {}
    firsts: list[int] = []
    index: list[int] = []
    for position, total in enumerate(pixels.flatten(1).sum(dim=1).tolist()):
        same_sum = candidates.setdefault(total, [])
        found = next((place for place in same_sum if torch.equal(pixels[firsts[place]], pixels[position])), None)
        if found is None:
            found = len(firsts)
            firsts.append(position)
            same_sum.append(found)
        index.append(found)
    return firsts, index


def encode_shared_media(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Encode shared media once, as a forward pre-hook of [`VideoReferModel`].

    In the model's own forward pass, because wrappers for several processes gather parameters and look for unused ones
    there.

    Args:
        model ([`VideoReferModel`]): The model.
        args (`tuple`): Positional inputs.
        kwargs (`dict[str, Any]`): Inputs by name, as `share_media` left them.

    Returns:
        `tuple` or `None`: The inputs with `mm_encoder_outputs` in place of media; `None` if nothing is shared.
    """
    if not any(kwargs.get(name) is not None for name in INDEX_OF_PIXELS.values()):
        return None
    kwargs = dict(kwargs)
    videos, images, frames = (
        kwargs.pop(name, None) for name in ("pixel_values_videos", "pixel_values", "region_pixel_values")
    )
    distinct = model.encode_media(pixel_values_videos=videos, pixel_values=images)
    device = next(pixels.device for pixels in (videos, images, frames) if pixels is not None)
    video_index = _index(kwargs.pop("video_index", None), videos, device)
    frame_index = _index(kwargs.pop("region_pixel_index", None), frames, device)
    outputs = dict(distinct)
    if videos is not None:
        # Patch features stay as they are: regions read them off the distinct videos.
        outputs["video"] = BaseModelOutputWithPooling(pooler_output=distinct["video"].pooler_output[video_index])
    regions = {name: kwargs.pop(name, None) for name in REGION_INPUTS}
    if regions["region_lengths"] is not None:
        num_scene_frames = 0 if videos is None else videos.shape[1]
        num_images = 0 if images is None else len(images)
        rows = resolve_region_frames(
            regions["region_frame_index"],
            regions["region_lengths"],
            kwargs.get("sample_counts"),
            num_rows={"videos": len(video_index), "images": num_images, "extra frames": len(frame_index)},
            num_frames_per_video=num_scene_frames,
        )
        num_distinct = 0 if videos is None else videos.shape[0] * num_scene_frames
        scene_frames = video_index[:, None] * num_scene_frames + torch.arange(num_scene_frames, device=rows.device)
        image_rows = num_distinct + torch.arange(num_images, device=rows.device)
        distinct_rows = torch.cat([scene_frames.flatten(), image_rows, num_distinct + num_images + frame_index])
        # All distinct frames as one sample, whose frames are counted through.
        outputs["region"] = model.get_region_features(
            **{**regions, "region_frame_index": distinct_rows[rows]},
            region_pixel_values=frames,
            mm_encoder_outputs=distinct,
        )
    return args, {**kwargs, "mm_encoder_outputs": outputs}


def _index(index: torch.Tensor | None, pixels: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """Return which picture each one of the batch is, also where none came again."""
    if index is not None:
        return index
    return torch.arange(0 if pixels is None else len(pixels), device=device)
