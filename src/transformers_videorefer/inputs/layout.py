"""Bookkeeping of a batch: which rows belong to which sample, and whether placeholders and features agree."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling


# Everything the processor makes beside text.
REGION_INPUTS = ("region_masks", "region_frame_index", "region_lengths", "region_num_tokens")
PIXEL_INPUTS = ("pixel_values_videos", "pixel_values", "region_pixel_values")
MEDIA_PREFIXES = ("region", "pixel", "video", "image", "mask", "sample_")
# What has placeholders -> its column of `sample_counts`.
_COLUMNS = {"video": 0, "image": 1, "region": 3}


class PlaceholderIds(Protocol):
    """Ids of the placeholder tokens, one for each kind of mark; the configuration of a model has them."""

    video_token_id: int
    image_token_id: int
    region_token_id: int


def check_no_unknown_media_keys(kwargs: dict[str, Any]) -> None:
    """Refuse keywords that look like media inputs but are none.

    A misspelt key would otherwise flow through `**kwargs` and the model would answer, or train, without regions.

    Args:
        kwargs (`dict[str, Any]`): Keywords that are no argument of the model.

    Raises:
        ValueError: If a keyword with a value starts like a media input.
    """
    unknown = sorted(name for name, value in kwargs.items() if name.startswith(MEDIA_PREFIXES) and value is not None)
    if unknown:
        raise ValueError(
            f"Unknown media input(s) {', '.join(f'`{name}`' for name in unknown)}. The model takes "
            f"{', '.join(f'`{name}`' for name in (*PIXEL_INPUTS, *REGION_INPUTS))} and `sample_counts`, as the "
            "processor makes them."
        )


def check_region_inputs(
    region_masks: torch.Tensor,
    region_frame_index: torch.Tensor,
    region_lengths: torch.Tensor,
    region_num_tokens: torch.Tensor,
    *,
    num_patches: int,
) -> None:
    """Check the shapes and ranges of the region tensors against each other.

    Args:
        region_masks (`torch.BoolTensor` of shape `(num_region_frames, num_patches)`): Masks on the patch grid.
        region_frame_index (`torch.LongTensor` of shape `(num_region_frames,)`): Frame of each mask.
        region_lengths (`torch.LongTensor` of shape `(num_regions,)`): Frames of each region.
        region_num_tokens (`torch.LongTensor` of shape `(num_regions,)`): Tokens each region gives.
        num_patches (`int`): Cells of the patch grid.

    Raises:
        ValueError: If any of them does not fit.
    """
    if region_masks.ndim != 2 or region_masks.shape[1] != num_patches:
        raise ValueError(
            f"`region_masks` must have shape (num_region_frames, {num_patches}), one row of the patch grid's cells per "
            f"(region, frame), got {tuple(region_masks.shape)}. Let the processor make it."
        )
    num_region_frames = len(region_masks)
    if len(region_frame_index) != num_region_frames or int(region_lengths.sum()) != num_region_frames:
        raise ValueError(
            f"`region_masks` has {num_region_frames} rows, but `region_frame_index` has {len(region_frame_index)} and "
            f"`region_lengths` adds up to {int(region_lengths.sum())}. All three must agree."
        )
    if len(region_num_tokens) != len(region_lengths):
        raise ValueError(
            f"`region_num_tokens` has {len(region_num_tokens)} entries for {len(region_lengths)} regions in "
            "`region_lengths`. Pass one for each region."
        )
    if bool(((region_num_tokens < 1) | (region_num_tokens > region_lengths)).any()):
        raise ValueError(
            f"`region_num_tokens` ({region_num_tokens.tolist()}) must lie between 1 and `region_lengths` "
            f"({region_lengths.tolist()}) for each region."
        )


def resolve_region_frames(
    region_frame_index: torch.Tensor,
    region_lengths: torch.Tensor,
    sample_counts: torch.Tensor | None,
    *,
    num_rows: dict[str, int],
    num_frames_per_video: int,
) -> torch.Tensor:
    """Turn frame numbers counted within samples into rows of the batch's patch features.

    Args:
        region_frame_index (`torch.LongTensor` of shape `(num_region_frames,)`): Frame of each mask within its sample:
            scene frames of its videos, then its images, then its extra frames.
        region_lengths (`torch.LongTensor` of shape `(num_regions,)`): Frames of each region.
        sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): Videos, images, extra frames and regions
            of each sample; `None` when all belong to one sample.
        num_rows (`dict[str, int]`): Videos, images and extra frames the batch really holds.
        num_frames_per_video (`int`): Scene frames of each video.

    Returns:
        `torch.LongTensor` of shape `(num_region_frames,)`: Rows of the features of all videos' scene frames, then all
        images, then all extra frames.

    Raises:
        ValueError: If `sample_counts` does not add up, or an index points outside its sample.
    """
    counts = sample_counts
    if counts is None:
        counts = torch.tensor([[*num_rows.values(), len(region_lengths)]], device=region_frame_index.device)
    if counts.ndim != 2 or counts.shape[1] != 4:
        raise ValueError(
            f"`sample_counts` must have shape (batch, 4): videos, images, extra frames and regions of each sample; got "
            f"{tuple(counts.shape)}."
        )
    for column, (name, rows) in enumerate({**num_rows, "regions": len(region_lengths)}.items()):
        total = int(counts[:, column].sum())
        if total != rows:
            raise ValueError(
                f"`sample_counts` says {total} {name} in all, but the batch holds {rows}. Concatenate every tensor "
                "of the processor's outputs, in the order of the samples."
            )
    # Frames of each kind per sample (videos, images, extra frames), and where each sample's part starts in the batch.
    frames = counts[:, :3].clone()
    frames[:, 0] *= num_frames_per_video
    totals = frames.sum(dim=0)
    starts = frames.cumsum(dim=0) - frames + (totals.cumsum(dim=0) - totals)  # (batch, 3)
    sample_of_region = torch.repeat_interleave(counts[:, 3])
    sample = sample_of_region[torch.repeat_interleave(region_lengths)]  # (num_region_frames,)
    ends = frames.cumsum(dim=1)[sample]  # (num_region_frames, 3): where each kind ends within the sample
    is_outside = (region_frame_index < 0) | (region_frame_index >= ends[:, 2])
    if bool(is_outside.any()):
        first = int(is_outside.nonzero()[0])
        raise ValueError(
            f"`region_frame_index` is {int(region_frame_index[first])} for a mask of sample {int(sample[first])}, "
            f"which has {int(ends[first, 2])} frames (scene frames, images and extra frames together)."
        )
    kind = (region_frame_index.unsqueeze(-1) >= ends).sum(dim=-1)  # 0 video, 1 image, 2 extra frame
    begin = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :2]], dim=1).gather(1, kind.unsqueeze(-1)).squeeze(-1)
    return starts[sample, kind] + region_frame_index - begin


def _num_tokens(output: BaseModelOutputWithPooling) -> list[int]:
    """Return the tokens of each video, image or region of an encoder output."""
    return [len(tokens) for tokens in output.pooler_output]


def check_sample_counts_given(batch: int, num_regions: int, sample_counts: torch.Tensor | None) -> None:
    """Refuse a batch whose regions cannot be told apart.

    Args:
        batch (`int`): Samples of the batch.
        num_regions (`int`): Regions of the batch.
        sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): What says whose they are.

    Raises:
        ValueError: If several samples share regions and `sample_counts` is missing.
    """
    if sample_counts is None and batch > 1 and num_regions:
        raise ValueError(
            f"`sample_counts` is missing: {batch} samples share {num_regions} regions, and only it says whose they "
            "are. Pass everything the processor returns."
        )


def check_placeholders(
    input_ids: torch.Tensor,
    outputs: dict[str, BaseModelOutputWithPooling],
    sample_counts: torch.Tensor | None,
    config: PlaceholderIds,
) -> None:
    """Check, sample by sample where that is known, that placeholders and features agree in number.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, sequence)`): Ids of prompts.
        outputs (`dict[str, BaseModelOutputWithPooling]`): Encoder outputs under `"video"`, `"image"`, `"region"`.
        sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): Videos, images, extra frames and regions
            of each sample.
        config ([`PlaceholderIds`]): Configuration of the model, for its placeholder ids.

    Raises:
        ValueError: If they differ; it names both numbers, and the sample where that is known.
    """
    batch = len(input_ids)
    if sample_counts is not None and len(sample_counts) != batch:
        raise ValueError(f"`sample_counts` has {len(sample_counts)} rows for {batch} rows of `input_ids`.")
    for kind, column in _COLUMNS.items():
        num_placeholders = (input_ids == getattr(config, f"{kind}_token_id")).sum(dim=1).tolist()
        num_features = _num_tokens(outputs[kind]) if kind in outputs else []
        if sample_counts is not None:
            counts = sample_counts[:, column].tolist()
            if sum(counts) != len(num_features):
                raise ValueError(
                    f"`sample_counts` says {sum(counts)} {kind}s in all, but the batch holds {len(num_features)}."
                )
            position = 0
            for sample, count in enumerate(counts):
                expected = sum(num_features[position : position + count])
                position += count
                if num_placeholders[sample] != expected:
                    raise ValueError(
                        f"Sample {sample} has {num_placeholders[sample]} `<{kind}>` placeholder tokens, but its {count} "
                        f"{kind}(s) give {expected} tokens. Make ids and media in one call of the processor."
                    )
        elif sum(num_placeholders) != sum(num_features):
            raise ValueError(
                f"The prompts have {sum(num_placeholders)} `<{kind}>` placeholder tokens, but the {len(num_features)} "
                f"{kind}(s) of the batch give {sum(num_features)} tokens. Make ids and media in one call of the "
                "processor."
            )


def share_video(output: BaseModelOutputWithPooling, num_videos: int) -> BaseModelOutputWithPooling:
    """Let the features of one video stand for all videos of a batch, as when many questions ask about one clip.

    Args:
        output (`BaseModelOutputWithPooling`): Output of `get_video_features`.
        num_videos (`int`): Videos that the batch refers to.

    Returns:
        `BaseModelOutputWithPooling`: The same output, or one whose tensors are expanded views of it.
    """
    if len(output.pooler_output) != 1 or num_videos < 2 or not isinstance(output.pooler_output, torch.Tensor):
        return output
    patches = output.last_hidden_state
    return BaseModelOutputWithPooling(
        pooler_output=output.pooler_output.expand(num_videos, -1, -1),
        last_hidden_state=None if patches is None else patches.expand(num_videos, -1, -1, -1),
    )


def features_behind_cache(
    outputs: dict[str, BaseModelOutputWithPooling],
    new_ids: torch.Tensor,
    sample_counts: torch.Tensor | None,
    config: PlaceholderIds,
) -> tuple[dict[str, BaseModelOutputWithPooling], torch.Tensor | None]:
    """Keep the features of the marks that a cache does not hold yet: the last ones of each sample.

    Args:
        outputs (`dict[str, BaseModelOutputWithPooling]`): Encoder outputs of the whole conversation, or of the new
            marks only. Not changed.
        new_ids (`torch.LongTensor` of shape `(batch, sequence)`): Ids behind the cache.
        sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): Videos, images, extra frames and regions
            of each sample that `outputs` holds.
        config ([`PlaceholderIds`]): Configuration of the model, for its placeholder ids.

    Returns:
        `tuple[dict, torch.LongTensor or None]`: New outputs with `pooler_output` only, a kind without new marks left
        out, and the counts that belong to them. Kinds whose samples cannot be told apart stay whole.
    """
    kept, counts = {}, None if sample_counts is None else sample_counts.clone()
    for kind, output in outputs.items():
        column = _COLUMNS[kind]
        sizes = _num_tokens(output)
        if counts is not None:
            per_sample = counts[:, column].tolist()
        elif len(new_ids) == 1:
            per_sample = [len(sizes)]
        else:
            kept[kind] = output
            continue
        num_new = (new_ids == getattr(config, f"{kind}_token_id")).sum(dim=1).tolist()
        rows, end = [], 0
        for sample, count in enumerate(per_sample):
            start = end = end + count
            while start > end - count and sum(sizes[start:end]) < num_new[sample]:
                start -= 1
            rows += range(start, end)
            if counts is not None:
                counts[sample, column] = end - start
        if rows:
            kept[kind] = BaseModelOutputWithPooling(pooler_output=_take(output.pooler_output, rows))
    return kept, counts


def _take(features: torch.Tensor | Sequence[torch.Tensor], rows: list[int]) -> torch.Tensor | list[torch.Tensor]:
    """Pick videos, images or regions of a `pooler_output`, which is one tensor or a list of them."""
    return features[rows] if isinstance(features, torch.Tensor) else [features[row] for row in rows]


def split_by_sample(
    outputs: dict[str, BaseModelOutputWithPooling],
    input_ids: torch.Tensor,
    sample_counts: torch.Tensor | None,
    config: PlaceholderIds,
    *,
    num_copies: int,
) -> dict[str, BaseModelOutputWithPooling]:
    """Repeat the features of each sample as a group, for beams and several return sequences.

    Two regions A, B of one sample become A, B, A, B: repeating every region by itself (A, A, B, B) would hand the
    second copy of the prompt the wrong one.

    Args:
        outputs (`dict[str, BaseModelOutputWithPooling]`): Encoder outputs of the batch. Not changed.
        input_ids (`torch.LongTensor` of shape `(batch, sequence)`): Ids of the prompts, not repeated yet.
        sample_counts (`torch.LongTensor` of shape `(batch, 4)`, *optional*): Videos, images, extra frames and regions
            of each sample.
        config ([`PlaceholderIds`]): Configuration of the model, for its placeholder ids.
        num_copies (`int`): How often each sample is repeated.

    Returns:
        `dict[str, BaseModelOutputWithPooling]`: New outputs with `pooler_output` only.
    """
    repeated = {}
    for kind, output in outputs.items():
        features = output.pooler_output
        if sample_counts is not None:
            counts = sample_counts[:, _COLUMNS[kind]].tolist()
        elif len(input_ids) == 1:
            counts = [len(features)]
        else:  # videos and images all give equally many tokens
            num_placeholders = (input_ids == getattr(config, f"{kind}_token_id")).sum(dim=1)
            counts = (num_placeholders // len(features[0])).tolist()
        order, start = [], 0
        for count in counts:
            order += list(range(start, start + count)) * num_copies
            start += count
        repeated[kind] = BaseModelOutputWithPooling(pooler_output=_take(features, order))
    return repeated
