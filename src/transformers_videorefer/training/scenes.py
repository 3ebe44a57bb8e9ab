"""Videos and frames that several rows of a batch share: sent and encoded once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from transformers_videorefer.inputs.layout import REGION_INPUTS, VIDEO_KEYS, BatchLayout, read_at_once, take_rows

from .batches import INDEX_OF_PIXELS, CollatorWrapper


class IndexingCollator(CollatorWrapper):
    """Calls a collator and names the row of each video by its position in place of its key."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): The rows.

        Returns:
            `dict[str, Any]`: What the collator makes of them; where rows share videos, `video_index` as in `share_media`
            stands for `video_ids` and `video_row_ids`.
        """
        batch = dict(self.collator(rows))
        if "video_ids" in batch and "pixel_values_videos" in batch:
            num_rows = len(batch["pixel_values_videos"])
            keys = read_at_once(*(batch.pop(name, None) for name in VIDEO_KEYS))
            index = BatchLayout(None, None, *keys).video_rows(num_rows)
            if not np.array_equal(index, np.arange(num_rows)):
                batch["video_index"] = torch.from_numpy(index)
        return batch


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
    video_index, frame_index = read_at_once(kwargs.pop("video_index", None), kwargs.pop("region_pixel_index", None))
    video_index = np.arange(_length(videos)) if video_index is None else video_index
    frame_index = np.arange(_length(frames)) if frame_index is None else frame_index
    outputs = dict(distinct)
    if videos is not None:
        # Patch features stay as they are: regions read them off the distinct videos.
        outputs["video"] = take_rows(distinct["video"], video_index)
    regions = {name: kwargs.pop(name, None) for name in REGION_INPUTS}
    if regions["region_lengths"] is not None:
        num_scene_frames = 0 if videos is None else videos.shape[1]
        rows = BatchLayout.read({**regions, "sample_counts": kwargs.get("sample_counts")}).region_rows(
            video_rows=video_index,
            num_video_rows=_length(videos),
            num_images=_length(images),
            num_extra_frames=len(frame_index),
            num_frames=num_scene_frames,
        )
        first_extra = _length(videos) * num_scene_frames + _length(images)
        is_extra = rows >= first_extra
        rows[is_extra] = first_extra + frame_index[rows[is_extra] - first_extra]
        # All distinct frames as one sample, whose frames are counted through.
        outputs["region"] = model.get_region_features(
            **{**regions, "region_frame_index": torch.from_numpy(rows)},
            region_pixel_values=frames,
            mm_encoder_outputs=distinct,
        )
    return args, {**kwargs, "mm_encoder_outputs": outputs}


def _length(pixels: torch.Tensor | None) -> int:
    return 0 if pixels is None else len(pixels)
