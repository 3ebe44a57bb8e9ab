"""The batch: which inputs it has, whose rows they hold, and what is read of them, once, before the model runs.

Inputs of single samples may be concatenated, repeated and put into another order, because no tensor names a row of another
sample: frames of regions are counted within their sample, and videos are found by key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_videorefer.regions.errors import MediaError


# Columns of `sample_counts`.
VIDEOS, IMAGES, EXTRA_FRAMES, REGIONS = range(4)
# What has placeholders -> its column of `sample_counts`.
COLUMN_OF_KIND = {"video": VIDEOS, "image": IMAGES, "region": REGIONS}
# Everything the processor makes beside text and `sample_counts`.
PIXEL_INPUTS = ("pixel_values_videos", "pixel_values", "region_pixel_values")
VIDEO_KEYS = ("video_ids", "video_row_ids")
REGION_INPUTS = ("region_masks", "region_frame_index", "region_lengths", "region_num_tokens")
MEDIA_INPUTS = (*PIXEL_INPUTS, *VIDEO_KEYS, *REGION_INPUTS)
MEDIA_PREFIXES = ("region", "pixel", "video", "image", "mask", "sample_")


class PlaceholderIds(Protocol):
    """Ids of the placeholder tokens, one for each kind of mark; the configuration of a model has them."""

    video_token_id: int
    image_token_id: int
    region_token_id: int


def check_no_unknown_media_keys(kwargs: Mapping[str, Any]) -> None:
    """Refuse keywords that look like media inputs but are none.

    A misspelt key would otherwise flow through `**kwargs` and the model would answer, or train, without regions.

    Args:
        kwargs (`Mapping[str, Any]`): Keywords that are no argument of the model.

    Raises:
        ValueError: If a keyword with a value starts like a media input.
    """
    unknown = sorted(name for name, value in kwargs.items() if name.startswith(MEDIA_PREFIXES) and value is not None)
    if unknown:
        raise ValueError(
            f"Unknown media input(s) {', '.join(f'`{name}`' for name in unknown)}. The model takes "
            f"{', '.join(f'`{name}`' for name in MEDIA_INPUTS)} and `sample_counts`, as the processor makes them."
        )


def read_at_once(*tensors: torch.Tensor | None) -> list[np.ndarray | None]:
    """Bring small tensors of whole numbers to the CPU in one transfer: every read waits for the device.

    Args:
        tensors (`torch.Tensor`, *optional*): Integer or bool tensors of any shape, on any devices.

    Returns:
        `list[np.ndarray or None]`: int64 arrays of the same shapes.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    if not given:
        return [None] * len(tensors)
    flat = torch.cat([tensor.reshape(-1).to(given[0].device, torch.long) for tensor in given])
    values, arrays, start = np.asarray(flat.tolist(), dtype=np.int64), [], 0
    for tensor in tensors:
        if tensor is None:
            arrays.append(None)
            continue
        arrays.append(values[start : start + tensor.numel()].reshape(tensor.shape))
        start += tensor.numel()
    return arrays


def starts_of_runs(pixels: torch.Tensor | None) -> torch.Tensor | None:
    """Tell which frames differ from the one before: a file with fewer frames than slots repeats them side by side.

    Args:
        pixels (`torch.Tensor` of shape `(num_frames, 3, height, width)`, *optional*): Frames.

    Returns:
        `torch.BoolTensor` of shape `(num_frames,)`, on the device of the frames; `None` without frames.
    """
    if pixels is None:
        return None
    is_new = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
    is_new[1:] = (pixels[1:] != pixels[:-1]).flatten(1).any(dim=1)
    return is_new


@dataclass(frozen=True)
class BatchLayout:
    """What the rows of a batch are, on the CPU. A part that was not given is `None`.

    Args:
        num_placeholders (`np.ndarray` of shape `(batch, 3)`, *optional*): Placeholder tokens of videos, images and
            regions in the prompt of each sample.
        counts (`np.ndarray` of shape `(batch, 4)`, *optional*): Videos, images, extra frames and regions of each sample.
        video_ids (`np.ndarray` of shape `(num_videos,)`, *optional*): Key of what each video mark shows.
        video_row_ids (`np.ndarray` of shape `(num_video_rows,)`, *optional*): Key of each row of
            `pixel_values_videos`.
        frame_index (`np.ndarray` of shape `(num_region_frames,)`, *optional*): Frame of each mask within its sample.
        lengths (`np.ndarray` of shape `(num_regions,)`, *optional*): Frames of each region.
        num_tokens (`np.ndarray` of shape `(num_regions,)`, *optional*): Tokens each region gives.
        is_new (`dict[str, np.ndarray]`): For each pixel input which of its frames differ from the one before.
    """

    num_placeholders: np.ndarray | None = None
    counts: np.ndarray | None = None
    video_ids: np.ndarray | None = None
    video_row_ids: np.ndarray | None = None
    frame_index: np.ndarray | None = None
    lengths: np.ndarray | None = None
    num_tokens: np.ndarray | None = None
    is_new: Mapping[str, np.ndarray | None] | None = None

    @classmethod
    def read(
        cls,
        inputs: Mapping[str, torch.Tensor | None],
        *,
        prompt_ids: torch.Tensor | None = None,
        config: PlaceholderIds | None = None,
    ) -> "BatchLayout":
        """Read the layout of a batch from the device, all of it at once.

        Args:
            inputs (`Mapping[str, torch.Tensor]`): Inputs of a model beside text, by name; what is `None` or absent is
                not read.
            prompt_ids (`torch.LongTensor` of shape `(batch, sequence)`, *optional*): Ids to count placeholders in.
            config ([`PlaceholderIds`], *optional*): Their ids; needed with `prompt_ids`.

        Returns:
            [`BatchLayout`].

        Raises:
            ValueError: If `sample_counts` has another shape.
        """
        placeholders = None
        if prompt_ids is not None:
            ids = (getattr(config, f"{kind}_token_id") for kind in COLUMN_OF_KIND)
            placeholders = torch.stack([(prompt_ids == token_id).sum(dim=1) for token_id in ids], dim=1)
        counts = inputs.get("sample_counts")
        if counts is not None and (counts.ndim != 2 or counts.shape[1] != 4):
            raise ValueError(
                f"`sample_counts` must have shape (batch, 4): videos, images, extra frames and regions of each sample; "
                f"got {tuple(counts.shape)}."
            )
        videos = inputs.get("pixel_values_videos")
        frames = {name: inputs.get(name) for name in PIXEL_INPUTS}
        frames["pixel_values_videos"] = None if videos is None else videos.flatten(0, 1)
        names = (*VIDEO_KEYS, "region_frame_index", "region_lengths", "region_num_tokens")
        read = read_at_once(
            placeholders, counts, *(inputs.get(name) for name in names), *map(starts_of_runs, frames.values())
        )
        return cls(*read[:7], is_new=dict(zip(frames, read[7:], strict=True)))

    def video_rows(self, num_rows: int, *, is_encoded: bool = False) -> np.ndarray:
        """Find the row that each video mark shows.

        Without keys there is one row per mark; encoded features of a single video may also stand for all of them, as when
        many questions ask about one clip.

        Args:
            num_rows (`int`): Rows there are.
            is_encoded (`bool`, *optional*, defaults to `False`): Whether these are encoded features.

        Returns:
            `np.ndarray` of shape `(num_videos,)`: A row for each mark.

        Raises:
            ValueError: If a key has no row, or there are more or fewer keys of rows than rows.
        """
        num_keys = 0 if self.video_row_ids is None else len(self.video_row_ids)
        if self.video_ids is None:
            num_videos = num_rows if self.counts is None else int(self.counts[:, VIDEOS].sum())
            is_shared = is_encoded and num_rows == 1
            return np.zeros(num_videos, dtype=np.int64) if is_shared else np.arange(num_rows)
        if is_encoded and num_keys != num_rows:  # not as the processor made them
            if num_rows == len(self.video_ids):
                return np.arange(num_rows)  # one for each mark
            if num_rows == 1 and len(set(self.video_ids.tolist())) == 1:
                return np.zeros(len(self.video_ids), dtype=np.int64)
        name = '`mm_encoder_outputs["video"]`' if is_encoded else "`pixel_values_videos`"
        if num_keys != num_rows:
            raise ValueError(
                f"{name} has {num_rows} rows, but `video_row_ids` has {num_keys} keys. Keep and concatenate both together."
            )
        # Where a key has several rows, as in concatenated batches, they are equal: the first counts.
        row_of_key = {int(key): row for row, key in reversed(list(enumerate(self.video_row_ids)))}
        for video, key in enumerate(self.video_ids):
            if int(key) not in row_of_key:
                raise ValueError(
                    f"`video_ids` has the key {key} (video {video}), which no row of {name} has (`video_row_ids`: "
                    f"{self.video_row_ids.tolist()}). Keep the rows of every video that a sample shows."
                )
        return np.asarray([row_of_key[int(key)] for key in self.video_ids], dtype=np.int64)

    def check_regions(self, region_masks: torch.Tensor, *, num_patches: int) -> None:
        """Check the shapes and ranges of the region inputs against each other.

        Args:
            region_masks (`torch.BoolTensor` of shape `(num_region_frames, num_patches)`): Masks on the patch grid.
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
        if len(self.frame_index) != num_region_frames or int(self.lengths.sum()) != num_region_frames:
            raise ValueError(
                f"`region_masks` has {num_region_frames} rows, but `region_frame_index` has {len(self.frame_index)} and "
                f"`region_lengths` adds up to {int(self.lengths.sum())}. All three must agree."
            )
        if len(self.num_tokens) != len(self.lengths):
            raise ValueError(
                f"`region_num_tokens` has {len(self.num_tokens)} entries for {len(self.lengths)} regions in "
                "`region_lengths`. Pass one for each region."
            )
        if ((self.num_tokens < 1) | (self.num_tokens > self.lengths)).any():
            raise ValueError(
                f"`region_num_tokens` ({self.num_tokens.tolist()}) must lie between 1 and `region_lengths` "
                f"({self.lengths.tolist()}) for each region."
            )

    def region_rows(
        self, *, video_rows: np.ndarray, num_video_rows: int, num_images: int, num_extra_frames: int, num_frames: int
    ) -> np.ndarray:
        """Turn the frames of regions, which are counted within samples, into rows of the batch's patch features.

        Args:
            video_rows (`np.ndarray` of shape `(num_videos,)`): Row of each video mark.
            num_video_rows (`int`): Rows of the videos.
            num_images (`int`): Images of the batch.
            num_extra_frames (`int`): Extra frames of the batch.
            num_frames (`int`): Scene frames of each video.

        Returns:
            `np.ndarray` of shape `(num_region_frames,)`: Rows of the features of the scene frames of all video rows, then
            all images, then all extra frames.

        Raises:
            ValueError: If `sample_counts` does not add up, or an index points outside its sample.
        """
        held = {"videos": len(video_rows), "images": num_images, "extra frames": num_extra_frames}
        held["regions"] = len(self.lengths)
        counts = self.counts if self.counts is not None else np.asarray([list(held.values())])
        for total, (name, rows) in zip(counts.sum(axis=0), held.items(), strict=True):
            if total != rows:
                raise ValueError(
                    f"`sample_counts` says {total} {name} in all, but the batch holds {rows}. Concatenate every tensor of "
                    "the processor's outputs, in the order of the samples."
                )
        # Frames of each kind per sample, where each kind ends within its sample, and what came before in the batch.
        frames = counts[:, :3] * np.asarray([num_frames, 1, 1])
        before = counts[:, :3].cumsum(axis=0) - counts[:, :3]
        sample = np.repeat(np.repeat(np.arange(len(counts)), counts[:, REGIONS]), self.lengths)
        ends = frames.cumsum(axis=1)[sample]  # (num_region_frames, 3)
        is_outside = (self.frame_index < 0) | (self.frame_index >= ends[:, 2])
        if is_outside.any():
            first = int(is_outside.argmax())
            raise ValueError(
                f"`region_frame_index` is {self.frame_index[first]} for a mask of sample {sample[first]}, which has "
                f"{ends[first, 2]} frames (scene frames, images and extra frames together)."
            )
        kind = (self.frame_index[:, None] >= ends).sum(axis=1)  # 0 video, 1 image, 2 extra frame
        begin = np.concatenate([np.zeros_like(ends[:, :1]), ends[:, :2]], axis=1)
        within = self.frame_index - begin[np.arange(len(kind)), kind]
        starts = np.asarray([0, num_video_rows * num_frames, num_video_rows * num_frames + num_images])
        rows = starts[kind] + before[sample, kind] + within
        on_video = kind == 0
        mark = before[sample, VIDEOS][on_video] + within[on_video] // max(num_frames, 1)
        rows[on_video] = video_rows[mark] * num_frames + within[on_video] % max(num_frames, 1)
        return rows

    def check_placeholders(self, outputs: Mapping[str, BaseModelOutputWithPooling]) -> None:
        """Check, sample by sample where that is known, that placeholders and features agree in number.

        Args:
            outputs (`Mapping[str, BaseModelOutputWithPooling]`): Encoder outputs under `"video"`, `"image"`, `"region"`,
                with one entry per mark.

        Raises:
            ValueError: If they differ; it names both numbers, and the sample where that is known.
        """
        batch = len(self.num_placeholders)
        if self.counts is not None and len(self.counts) != batch:
            raise ValueError(f"`sample_counts` has {len(self.counts)} rows for {batch} rows of `input_ids`.")
        for column, (kind, column_of_counts) in enumerate(COLUMN_OF_KIND.items()):
            num_placeholders = self.num_placeholders[:, column]
            num_features = num_tokens_of(outputs[kind]) if kind in outputs else []
            if self.counts is None:
                if num_placeholders.sum() != sum(num_features):
                    raise ValueError(
                        f"The prompts have {num_placeholders.sum()} `<{kind}>` placeholder tokens, but the "
                        f"{len(num_features)} {kind}(s) of the batch give {sum(num_features)} tokens. Make ids and media in "
                        "one call of the processor."
                    )
                continue
            counts = self.counts[:, column_of_counts]
            if counts.sum() != len(num_features):
                raise ValueError(
                    f"`sample_counts` says {counts.sum()} {kind}s in all, but the batch holds {len(num_features)}."
                )
            for sample, sizes in enumerate(_deal(num_features, counts)):
                if num_placeholders[sample] != sum(sizes):
                    text = (
                        f"Sample {sample} has {num_placeholders[sample]} `<{kind}>` placeholder tokens, but its "
                        f"{len(sizes)} {kind}(s) give {sum(sizes)} tokens. Make ids and media in one call of the processor."
                    )
                    raise MediaError(text, is_named=True, sample=sample)

    def check_counts_given(self, batch: int, num_regions: int) -> None:
        """Refuse a batch whose regions cannot be told apart.

        Args:
            batch (`int`): Samples of the batch.
            num_regions (`int`): Regions of the batch.

        Raises:
            ValueError: If several samples share regions and `sample_counts` is missing.
        """
        if self.counts is None and batch > 1 and num_regions:
            raise ValueError(
                f"`sample_counts` is missing: {batch} samples share {num_regions} regions, and only it says whose they "
                "are. Pass everything the processor returns."
            )

    def keep_last(
        self, outputs: Mapping[str, BaseModelOutputWithPooling]
    ) -> tuple[dict[str, BaseModelOutputWithPooling], "BatchLayout"]:
        """Keep the features of the last marks of each sample, as many as the prompt has placeholders of.

        Earlier marks stand in a cache already, when a conversation goes on.

        Args:
            outputs (`Mapping[str, BaseModelOutputWithPooling]`): Encoder outputs of the whole conversation, or of the new
                marks only. Not changed.

        Returns:
            `tuple[dict, BatchLayout]`: New outputs with `pooler_output` only, a kind without new marks left out, and the
            layout that belongs to them. Kinds whose samples cannot be told apart stay whole.
        """
        kept, counts = {}, None if self.counts is None else self.counts.copy()
        for column, (kind, column_of_counts) in enumerate(COLUMN_OF_KIND.items()):
            if kind not in outputs:
                continue
            sizes = num_tokens_of(outputs[kind])
            if self.counts is None and len(self.num_placeholders) > 1:
                kept[kind] = outputs[kind]
                continue
            of_sample = [len(sizes)] if self.counts is None else self.counts[:, column_of_counts]
            rows, end = [], 0
            for sample, count in enumerate(of_sample):
                start = end = end + int(count)
                while start > end - count and sum(sizes[start:end]) < self.num_placeholders[sample, column]:
                    start -= 1
                rows += range(start, end)
                if counts is not None:
                    counts[sample, column_of_counts] = end - start
            if rows:
                kept[kind] = take_rows(outputs[kind], rows)
        return kept, replace(self, counts=counts)

    def repeat_samples(
        self, outputs: Mapping[str, BaseModelOutputWithPooling], num_copies: int
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Repeat the features of each sample as a group, for beams and several return sequences.

        Two regions A, B of one sample become A, B, A, B: repeating every region by itself (A, A, B, B) would hand the
        second copy of the prompt the wrong one.

        Args:
            outputs (`Mapping[str, BaseModelOutputWithPooling]`): Encoder outputs of the batch. Not changed.
            num_copies (`int`): How often each sample is repeated.

        Returns:
            `dict[str, BaseModelOutputWithPooling]`: New outputs with `pooler_output` only.
        """
        repeated = {}
        for column, (kind, column_of_counts) in enumerate(COLUMN_OF_KIND.items()):
            if kind not in outputs:
                continue
            sizes = num_tokens_of(outputs[kind])
            if self.counts is not None:
                counts = self.counts[:, column_of_counts]
            elif len(self.num_placeholders) == 1:
                counts = [len(sizes)]
            else:  # videos and images all give equally many tokens
                counts = self.num_placeholders[:, column] // max(sizes[0], 1)
            groups = _deal(range(len(sizes)), counts)
            repeated[kind] = take_rows(outputs[kind], [row for group in groups for row in [*group] * num_copies])
        return repeated


def num_tokens_of(output: BaseModelOutputWithPooling) -> list[int]:
    """Return the tokens of each video, image or region of an encoder output."""
    return [len(tokens) for tokens in output.pooler_output]


def take_rows(output: BaseModelOutputWithPooling, rows: Sequence[int]) -> BaseModelOutputWithPooling:
    """Pick videos, images or regions of an encoder output, which holds one tensor or a list of them.

    Args:
        output (`BaseModelOutputWithPooling`): The output.
        rows (`Sequence[int]`): What to pick, in the order wanted; repeats are allowed.

    Returns:
        `BaseModelOutputWithPooling`: A new output with `pooler_output` only.
    """
    features = output.pooler_output
    if isinstance(features, torch.Tensor):
        return BaseModelOutputWithPooling(
            pooler_output=features.index_select(0, torch.as_tensor(rows, device=features.device))
        )
    return BaseModelOutputWithPooling(pooler_output=[features[row] for row in rows])


def _deal(items: Sequence[Any], counts: Sequence[int]) -> list[Sequence[Any]]:
    """Cut items into consecutive groups of the given sizes."""
    ends = np.cumsum(counts)
    return [items[end - count : end] for end, count in zip(ends, counts, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Batches as dictionaries: picking samples, and putting batches together
# ---------------------------------------------------------------------------------------------------------------------

# What each row of an input belongs to; inputs that are not listed have one row per sample.
_OWNER = {
    "pixel_values_videos": "video_row",
    "video_row_ids": "video_row",
    "video_ids": VIDEOS,
    "pixel_values": IMAGES,
    "region_pixel_values": EXTRA_FRAMES,
    "region_lengths": REGIONS,
    "region_num_tokens": REGIONS,
    "region_masks": "region_frame",
    "region_frame_index": "region_frame",
}


def rows_per_sample(batch: Mapping[str, Any], name: str) -> list[list[int]]:
    """List the rows of an input that belong to each sample.

    Args:
        batch (`Mapping[str, Any]`): A batch with `sample_counts`, on the CPU.
        name (`str`): Name of an input.

    Returns:
        `list[list[int]]`: Rows of each sample in order. Rows of videos that several samples show are listed with each.
    """
    counts = np.asarray(batch["sample_counts"].tolist(), dtype=np.int64).reshape(-1, 4)
    owner = _OWNER.get(name, "sample")
    if owner == "sample":
        return [[sample] for sample in range(len(counts))]
    if owner == "video_row":
        keys = (batch.get(key) for key in VIDEO_KEYS)
        keys = read_at_once(*keys)
        num_rows = len(batch["pixel_values_videos"]) if "pixel_values_videos" in batch else len(keys[1])
        rows = BatchLayout(None, counts, *keys).video_rows(num_rows)
        return [list(dict.fromkeys(group.tolist())) for group in _deal(rows, counts[:, VIDEOS])]
    if owner == "region_frame":
        lengths = _deal(batch["region_lengths"].tolist(), counts[:, REGIONS])
        sizes = [sum(of_sample) for of_sample in lengths]
    else:
        sizes = counts[:, owner]
    return [list(group) for group in _deal(range(int(sum(sizes))), sizes)]


def select_samples(batch: Mapping[str, Any], samples: Sequence[int]) -> dict[str, Any]:
    """Make a batch of some samples of another, with the media and regions that belong to them.

    Args:
        batch (`Mapping[str, Any]`): A batch with `sample_counts`. Values that are no tensors are carried over.
        samples (`Sequence[int]`): Positions of the samples, in the order wanted; a sample may come again.

    Returns:
        `dict[str, Any]`: The new batch, in which each video stands once if it has keys. Inputs of which nothing is left
        are absent.
    """
    selected = {}
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor):
            selected[name] = value
            continue
        groups = rows_per_sample(batch, name)
        rows = [row for sample in samples for row in groups[sample]]
        if _OWNER.get(name) == "video_row" and "video_ids" in batch:
            rows = list(dict.fromkeys(rows))
        if rows or name == "sample_counts":
            selected[name] = value[rows]
    return selected


def concatenate(batches: Sequence[Mapping[str, torch.Tensor]], *, pad_token_id: int, side: str = "left") -> dict:
    """Put outputs of the processor together as one batch.

    Args:
        batches (`Sequence[Mapping[str, torch.Tensor]]`): Outputs of the processor.
        pad_token_id (`int`): Id that fills `input_ids` up.
        side (`str`, *optional*, defaults to `"left"`): Where texts are filled up: `"left"` or `"right"`.

    Returns:
        `dict[str, torch.Tensor]`: All samples in order. A kind that only some batches have is that of those.

    Raises:
        TypeError: If something in a batch is no tensor, such as metadata.
        ValueError: If pictures or videos differ in size or frames.
    """
    if any("video_ids" in batch for batch in batches):
        batches = _with_keys(batches)
    length = max(batch["input_ids"].shape[1] for batch in batches)
    fillers = {"input_ids": pad_token_id, "attention_mask": 0, "labels": -100}
    fillers |= {"assistant_masks": 0, "mm_token_type_ids": 0}
    joined = {}
    for name in dict.fromkeys(name for batch in batches for name in batch):
        parts = [batch[name] for batch in batches if name in batch]
        if not all(isinstance(part, torch.Tensor) for part in parts):
            raise TypeError(
                f"`{name}` is no tensor in some of `batches`. Make them without it (`return_metadata` and such)."
            )
        if len({part.shape[1:] for part in parts}) > 1 and name not in fillers:
            raise ValueError(
                f"`{name}` has rows of the shapes {sorted({tuple(part.shape[1:]) for part in parts})}, which cannot share a "
                "batch. Make all with the same `num_frames`."
            )
        if name in fillers:
            gaps = [length - part.shape[1] for part in parts]
            widths = [(gap, 0) if side == "left" else (0, gap) for gap in gaps]
            pairs = zip(parts, widths, strict=True)
            parts = [nn.functional.pad(part, width, value=fillers[name]) for part, width in pairs]
        joined[name] = torch.cat(parts)
    return joined


def _with_keys(batches: Sequence[Mapping[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """Give the videos of batches without keys some that no other video has."""
    lowest = min([0, *(key for batch in batches if "video_ids" in batch for key in batch["video_row_ids"].tolist())])
    given = []
    for batch in batches:
        if "pixel_values_videos" in batch and "video_ids" not in batch:
            videos = batch["pixel_values_videos"]
            keys = lowest - 1 - torch.arange(len(videos), device=videos.device)
            lowest -= len(videos)
            batch = {**batch, "video_ids": keys, "video_row_ids": keys}
        given.append(dict(batch))
    return given


__all__ = [
    "BatchLayout",
    "PlaceholderIds",
    "check_no_unknown_media_keys",
    "concatenate",
    "read_at_once",
    "rows_per_sample",
    "select_samples",
    "starts_of_runs",
    "take_rows",
]
