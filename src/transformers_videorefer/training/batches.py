"""Operations on whole training batches: pick rows, split by visual load, and keep every learning part in use."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from transformers_videorefer.inputs.layout import EXTRA_FRAMES, IMAGES, REGIONS, VIDEOS, rows_per_sample


IGNORED = -100
# Where rows share media, pixels hold the distinct ones, and the index tells which each one of the batch is.
INDEX_OF_PIXELS = {"pixel_values_videos": "video_index", "region_pixel_values": "region_pixel_index"}
# The inputs whose rows the two are counted like.
_COUNTED_LIKE = {"video_index": "video_ids", "region_pixel_index": "region_pixel_values"}
# What auxiliary losses learn from: name of the loss -> one row per region.
REGION_TARGETS = "region_targets"


@dataclass(frozen=True)
class MediaSizes:
    """What made-up media must look like to pass through a model.

    Args:
        image_size (`int`): Pixels per side of a frame.
        num_patches (`int`): Patches of a frame.
        num_frames (`int`): Fewest scene frames of a video.
        num_video_tokens (`int`): Scene tokens of a video of so many frames.
        num_image_tokens (`int`): Scene tokens of an image.
        video_token_id (`int`): Placeholder of a scene token of a video.
        image_token_id (`int`): Placeholder of a scene token of an image.
        region_token_id (`int`): Placeholder of an object token.
        pad_token_id (`int`): Id that fills rows up.
    """

    image_size: int
    num_patches: int
    num_frames: int
    num_video_tokens: int
    num_image_tokens: int
    video_token_id: int
    image_token_id: int
    region_token_id: int
    pad_token_id: int

    @classmethod
    def from_processor(cls, processor: Any) -> "MediaSizes":
        """Read the sizes off a processor.

        Args:
            processor ([`VideoReferProcessor`]): The processor of the model.

        Returns:
            [`MediaSizes`].
        """
        num_frames = processor.min_scene_frames
        return cls(
            image_size=processor.video_processor.size["height"],
            num_patches=processor.grid_size**2,
            num_frames=num_frames,
            num_video_tokens=processor.num_scene_tokens(num_frames),
            num_image_tokens=processor.num_scene_tokens(processor.num_image_frames),
            video_token_id=processor.video_token_id,
            image_token_id=processor.image_token_id,
            region_token_id=processor.region_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        )


class CollatorWrapper:
    """Calls another collator.

    Args:
        collator (`Callable`): Makes a batch of rows.
    """

    def __init__(self, collator: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]):
        self.collator = collator

    def set_epoch(self, epoch: int) -> None:
        """Tell the collator which epoch begins, if it wants to know.

        Args:
            epoch (`int`): The epoch, counted from 0.
        """
        if hasattr(self.collator, "set_epoch"):
            self.collator.set_epoch(epoch)


def select_rows(batch: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Make a batch of some rows of another, with the media and regions that belong to them.

    Args:
        batch (`dict[str, Any]`): A batch with `sample_counts`. Values that are no tensors are carried over as they
            are.
        rows (`Sequence[int]`): Positions of the rows to keep, in the order wanted.

    Returns:
        `dict[str, Any]`: The new batch. Padding that no row needs any more is cut off on the right; inputs of which
        nothing is left are absent.
    """
    selected = {}
    for name, value in batch.items():
        if name == REGION_TARGETS:
            of_rows = _rows_of(batch, "region_lengths", rows)
            targets = {key: one[of_rows] for key, one in value.items()}
            selected.update({name: targets} if any(map(len, targets.values())) else {})
        elif not isinstance(value, torch.Tensor) or INDEX_OF_PIXELS.get(name) in batch:
            selected[name] = value
        else:
            selected[name] = value[_rows_of(batch, _COUNTED_LIKE.get(name, name), rows)]
    for name, index_name in INDEX_OF_PIXELS.items():
        if index_name in selected:
            kept, selected[index_name] = selected[index_name].unique(return_inverse=True)
            selected[name] = selected[name][kept]
    selected = {
        name: value
        for name, value in selected.items()
        if not (isinstance(value, torch.Tensor) and len(value) == 0 and name != "sample_counts")
    }
    return _cut_padding(selected)


def _rows_of(batch: Mapping[str, Any], name: str, samples: Sequence[int]) -> list[int]:
    """List the rows of an input that belong to some samples, in their order."""
    groups = rows_per_sample(batch, name)
    return [row for sample in samples for row in groups[sample]]


def _cut_padding(batch: dict[str, Any]) -> dict[str, Any]:
    mask = batch.get("attention_mask")
    if mask is None or not len(mask):
        return batch
    length = max(int(mask.any(dim=0).nonzero().max()) + 1, 1)
    for name in ("input_ids", "attention_mask", "labels"):
        if name in batch:
            batch[name] = batch[name][:, :length]
    return batch


def media_per_row(batch: Mapping[str, Any], num_patches: int) -> list[dict[tuple[str, int], int]]:
    """Name the media of each row, and the patches that the vision tower encodes of them.

    Args:
        batch (`dict[str, Any]`): A batch with `sample_counts`.
        num_patches (`int`): Patches of a frame.

    Returns:
        `list[dict]`: For each row (kind, position among the distinct ones) -> patches.
    """
    videos = batch.get("pixel_values_videos")
    num_frames = 0 if videos is None else videos.shape[1]
    media: list[dict[tuple[str, int], int]] = [{} for _ in batch["sample_counts"]]
    for name, size in (("pixel_values_videos", num_frames), ("pixel_values", 1), ("region_pixel_values", 1)):
        if name not in batch:
            continue
        index_name = INDEX_OF_PIXELS.get(name)
        index = batch.get(index_name)
        groups = rows_per_sample(batch, name if index is None else _COUNTED_LIKE[index_name])
        for of_row, group in zip(media, groups, strict=True):
            positions = group if index is None else index[group].tolist()
            of_row.update({(name, position): size * num_patches for position in positions})
    return media


def visual_tokens_per_row(batch: Mapping[str, Any], num_patches: int) -> list[int]:
    """Count the patches that the vision tower encodes for each row by itself.

    Args:
        batch (`dict[str, Any]`): A batch with `sample_counts`.
        num_patches (`int`): Patches of a frame.

    Returns:
        `list[int]`: For each row (scene frames + images + extra frames) x patches.
    """
    return [sum(media.values()) for media in media_per_row(batch, num_patches)]


def describe_batch(batch: Mapping[str, Any], num_patches: int) -> list[int]:
    """Count regions and tokens of a batch.

    Args:
        batch (`dict[str, Any]`): A batch with `sample_counts`.
        num_patches (`int`): Patches of a frame.

    Returns:
        `list[int]`: Regions, rows with regions, rows all of whose regions have one frame, patches that the vision
        tower encodes, and supervised tokens.
    """
    num_regions = batch["sample_counts"][:, REGIONS].tolist()
    lengths = iter(batch["region_lengths"].tolist() if "region_lengths" in batch else [])
    longest = [max((next(lengths) for _ in range(count)), default=0) for count in num_regions]
    return [
        sum(num_regions),
        sum(count > 0 for count in num_regions),
        sum(length == 1 for length in longest),
        sum({key: size for media in media_per_row(batch, num_patches) for key, size in media.items()}.values()),
        int((batch["labels"][:, 1:] != IGNORED).sum()),
    ]


def name_numbers(numbers: Sequence[int | float]) -> dict[str, float]:
    """Give the sums of `describe_batch` over a global batch their names in the log.

    Args:
        numbers (`Sequence[int]`): The sums.

    Returns:
        `dict[str, float]`: The metrics. The share of single-frame rows is absent when no row has a region.
    """
    regions, rows_with_regions, single_frame, visual, supervised = numbers
    metrics = {
        "regions_per_batch": regions,
        "visual_tokens_per_batch": visual,
        "supervised_tokens_per_batch": supervised,
    }
    if rows_with_regions:
        metrics["single_frame_share"] = single_frame / rows_with_regions
    return {name: float(value) for name, value in metrics.items()}


def split_by_load(media: Sequence[Mapping[tuple[str, int], int]], budget: int) -> list[list[int]]:
    """Cut rows into consecutive parts that stay within a budget.

    Args:
        media (`Sequence[Mapping]`): Media of each row and their load, see `media_per_row`. What several rows of a part
            share counts once.
        budget (`int`): Most load of a part. A row above it makes a part of its own.

    Returns:
        `list[list[int]]`: Positions of the rows of each part; one part at least.
    """
    parts: list[list[int]] = [[]]
    held: dict[tuple[str, int], int] = {}
    for row, of_row in enumerate(media):
        if parts[-1] and sum({**held, **of_row}.values()) > budget:
            parts.append([])
            held = {}
        parts[-1].append(row)
        held.update(of_row)
    return parts


def empty_batch(sizes: MediaSizes) -> dict[str, torch.Tensor]:
    """Make a batch that teaches nothing: one row of padding without supervised tokens.

    Args:
        sizes ([`MediaSizes`]): Names the padding.

    Returns:
        `dict[str, torch.Tensor]`: The batch; its loss is zero.
    """
    input_ids = torch.full((1, 2), sizes.pad_token_id)
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": torch.full_like(input_ids, IGNORED),
        "sample_counts": torch.zeros((1, 4), dtype=torch.long),
    }


def add_missing_media(batch: Mapping[str, Any], sizes: MediaSizes, modules: Sequence[str]) -> dict[str, Any]:
    """Let a batch pass through every part that learns, also where no row of it needs the part.

    Processes that train together wait for each other's gradients, so a process with a batch of plain text would hang
    the rest. Made-up media are therefore appended behind the end of one row: attention is causal and they carry no
    labels, so that neither loss nor any gradient changes; the part's own gradient is zero. Sharded parameters need
    more, see `sharding.py`.

    Args:
        batch (`dict[str, Any]`): A batch that is padded on the right, with `sample_counts`.
        sizes ([`MediaSizes`]): Form of the made-up media.
        modules (`Sequence[str]`): The parts that learn.

    Returns:
        `dict[str, Any]`: The batch itself if nothing is missing, otherwise a new one.
    """
    has_scene = "pixel_values_videos" in batch or "pixel_values" in batch
    needs_scene = "connector" in modules and not has_scene
    needs_region = "region_encoder" in modules and "region_lengths" not in batch
    if not (needs_scene or needs_region):
        return dict(batch)
    batch = dict(batch)
    row = int(
        batch["attention_mask"].sum(dim=1).argmin()
    )  # what is appended to the shortest row pads the others least
    batch["sample_counts"] = batch["sample_counts"].clone()
    device = batch["input_ids"].device
    frame = torch.zeros((3, sizes.image_size, sizes.image_size), device=device)
    if needs_scene:
        batch["pixel_values_videos"] = frame.expand(1, sizes.num_frames, -1, -1, -1)
        _count(batch, row, VIDEOS)
        _append_ids(batch, row, [sizes.video_token_id] * sizes.num_video_tokens, sizes.pad_token_id)
    if needs_region:
        # The region lies on an extra frame of its own, which comes last among the frames of its sample.
        videos = batch.get("pixel_values_videos")
        counts = batch["sample_counts"][row].tolist()
        num_frames = counts[VIDEOS] * (0 if videos is None else videos.shape[1]) + counts[IMAGES]
        batch["region_pixel_values"] = frame[None]
        batch["region_masks"] = torch.ones((1, sizes.num_patches), dtype=torch.bool, device=device)
        batch["region_frame_index"] = torch.tensor([num_frames], device=device)
        batch["region_lengths"] = torch.ones(1, dtype=torch.long, device=device)
        batch["region_num_tokens"] = torch.ones(1, dtype=torch.long, device=device)
        _count(batch, row, EXTRA_FRAMES)
        _count(batch, row, REGIONS)
        _append_ids(batch, row, [sizes.region_token_id], sizes.pad_token_id)
    return batch


def _count(batch: dict[str, Any], row: int, column: int) -> None:
    batch["sample_counts"][row, column] += 1


def _append_ids(batch: dict[str, Any], row: int, ids: list[int], pad_token_id: int) -> None:
    """Put ids behind the end of a row, in place of its padding as far as that reaches."""
    start = int(batch["attention_mask"][row].sum())
    missing = max(start + len(ids) - batch["input_ids"].shape[1], 0)
    for name, filler in (("input_ids", pad_token_id), ("attention_mask", 0), ("labels", IGNORED)):
        batch[name] = F.pad(batch[name], (0, missing), value=filler)  # a copy also when nothing is missing
    end = start + len(ids)
    batch["input_ids"][row, start:end] = torch.tensor(ids, device=batch["input_ids"].device)
    batch["attention_mask"][row, start:end] = 1
