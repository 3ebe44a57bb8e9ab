"""From loaded frames and masks to the tensors of the model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from transformers_videorefer.inputs.items import SampleMedia
from transformers_videorefer.regions.selection import num_tokens


class FrameNormalizer(Protocol):
    """The last step of a video processor: resized frames to the numbers that the model expects."""

    def normalize_frames(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Stack uint8 frames `(height, width, 3)` to float pixels `(num_frames, 3, height, width)`."""
        ...


@dataclass
class LoadedRegion:
    """A region whose masks lie on the grid.

    Args:
        object_id (`str`, *optional*): Name of the object.
        media (`int`): Position of its video or image among those of the sample.
    """

    object_id: str | None
    media: int
    frame_indices: list[int] = field(default_factory=list)  # as the user numbers them
    positions: list[int] = field(default_factory=list)  # in the source as it was given
    frames: list[np.ndarray | None] = field(default_factory=list)  # resized; None on an image
    masks: list[np.ndarray] = field(default_factory=list)  # (rows, columns) bool

    def add(self, frame_index: int, position: int, frame: np.ndarray | None, mask: np.ndarray) -> None:
        """Add one frame.

        Args:
            frame_index (`int`): Its number for the user.
            position (`int`): Its position in the source as it was given.
            frame (`np.ndarray` of shape `(height, width, 3)`, *optional*): Resized picture; `None` on an image.
            mask (`np.ndarray` of shape `(rows, columns)`): Mask on the patch grid.
        """
        self.frame_indices.append(frame_index)
        self.positions.append(position)
        self.frames.append(frame)
        self.masks.append(mask)


@dataclass
class LoadedSample:
    """Everything loaded for one sample.

    Args:
        media ([`SampleMedia`]): What it was loaded from.
        scenes (`list[list[np.ndarray]]`): For each video its scene frames, resized.
        scene_positions (`list[list[int]]`): For each video the positions of these frames in its source.
        images (`list[np.ndarray]`): Still images, as loaded.
        regions (`list[LoadedRegion]`): Regions in the order of their marks.
        video_metadata (`list[VideoMetadata]`): One for each video.
    """

    media: SampleMedia
    scenes: list[list[np.ndarray]]
    scene_positions: list[list[int]]
    images: list[np.ndarray]
    regions: list[LoadedRegion]
    video_metadata: list[VideoMetadata]


@dataclass
class LoadedMedia:
    """Tensors and counts of one call.

    Args:
        tensors (`dict[str, torch.Tensor]`): The model inputs beside text; kinds the batch lacks are absent.
        num_scene_frames (`int`): Scene frames of each video; 0 without videos.
        num_tokens_per_region (`list[int]`): Tokens each region gives.
        video_metadata (`list[VideoMetadata]`): One for each video.
        region_metadata (`list[dict[str, Any]]`): For each region its sample, media and the frames kept.
    """

    tensors: dict[str, torch.Tensor]
    num_scene_frames: int
    num_tokens_per_region: list[int]
    video_metadata: list[VideoMetadata]
    region_metadata: list[dict[str, Any]]


def assemble(
    samples: Sequence[LoadedSample],
    video_processor: FrameNormalizer,
    image_processor: Any,
    num_region_tokens: int,
) -> LoadedMedia:
    """Number the frames of each sample, leave out frames that came twice, and stack everything.

    Args:
        samples (`Sequence[LoadedSample]`): What was loaded.
        video_processor ([`FrameNormalizer`]): Normalises frames.
        image_processor (`BaseImageProcessor`): Prepares still images.
        num_region_tokens (`int`): Most tokens of a region (u).

    Returns:
        [`LoadedMedia`].
    """
    extras: list[np.ndarray] = []
    frame_index: list[int] = []
    sample_counts = []
    for sample in samples:
        sample_extras, numbers = _number_frames(sample)
        extras += sample_extras
        frame_index += numbers
        sample_counts.append([len(sample.scenes), len(sample.images), len(sample_extras), len(sample.regions)])
    regions = [region for sample in samples for region in sample.regions]
    scenes = [scene for sample in samples for scene in sample.scenes]
    images = [image for sample in samples for image in sample.images]
    tokens = [num_tokens(len(region.masks), num_region_tokens) for region in regions]
    num_scene_frames = len(scenes[0]) if scenes else 0

    tensors = {}
    if scenes:
        distinct = {_identity(scene): scene for scene in scenes}
        pixels = video_processor.normalize_frames([frame for scene in distinct.values() for frame in scene])
        tensors["pixel_values_videos"] = pixels.unflatten(0, (len(distinct), num_scene_frames))
        if len(distinct) < len(scenes):
            # What several marks show crosses to the model once, and is found by key.
            keys = {identity: _content_key(scene) for identity, scene in distinct.items()}
            tensors["video_ids"] = torch.tensor([keys[_identity(scene)] for scene in scenes])
            tensors["video_row_ids"] = torch.tensor(list(keys.values()))
    if images:
        features = image_processor(images, return_tensors="pt", input_data_format="channels_last")
        tensors["pixel_values"] = features["pixel_values"]
    if extras:
        tensors["region_pixel_values"] = video_processor.normalize_frames(extras)
    if regions:
        masks = np.stack([mask.reshape(-1) for region in regions for mask in region.masks])
        tensors["region_masks"] = torch.from_numpy(masks)
        tensors["region_frame_index"] = torch.tensor(frame_index)
        tensors["region_lengths"] = torch.tensor([len(region.masks) for region in regions])
        tensors["region_num_tokens"] = torch.tensor(tokens)
    tensors["sample_counts"] = torch.tensor(sample_counts)
    return LoadedMedia(
        tensors=tensors,
        num_scene_frames=num_scene_frames,
        num_tokens_per_region=tokens,
        video_metadata=[metadata for sample in samples for metadata in sample.video_metadata],
        region_metadata=_describe_regions(samples, tokens),
    )


def _identity(scene: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Tell clips of one call apart: marks that show the same source in the same way share its pictures."""
    return tuple(map(id, scene))


def _content_key(scene: Sequence[np.ndarray]) -> int:
    """Name a clip by its pixels, so that the key holds across calls and processes."""
    digest = hashlib.sha1(repr(scene[0].shape).encode(), usedforsecurity=False)
    for frame in scene:
        digest.update(np.ascontiguousarray(frame))
    return int.from_bytes(digest.digest()[:8]) >> 1  # a positive int64


def _number_frames(sample: LoadedSample) -> tuple[list[np.ndarray], list[int]]:
    """Number the frames of a sample: scene frames, images, then extra frames.

    Returns:
        `tuple[list[np.ndarray], list[int]]`: The extra frames, and the frame of each mask, region after region.
    """
    number_of: dict[tuple[str, int, int], int] = {}  # (kind, nth of its kind, position) -> number in the sample
    count = 0
    for nth, positions in enumerate(sample.scene_positions):
        for position in positions:
            number_of.setdefault(("video", nth, position), count)  # short videos repeat frames: the first counts
            count += 1
    for nth in range(len(sample.images)):
        number_of["image", nth, 0] = count
        count += 1
    extras, numbers = [], []
    for region in sample.regions:
        kind, nth = sample.media.place(region.media)
        for position, frame in zip(region.positions, region.frames, strict=True):
            if (kind, nth, position) not in number_of:
                number_of[kind, nth, position] = count
                count += 1
                extras.append(frame)
            numbers.append(number_of[kind, nth, position])
    return extras, numbers


def _describe_regions(samples: Sequence[LoadedSample], tokens: Sequence[int]) -> list[dict[str, Any]]:
    described = []
    for number, sample in enumerate(samples):
        for region in sample.regions:
            described.append(
                {
                    "sample": number,
                    "object_id": region.object_id,
                    "media": region.media,
                    "frame_indices": region.frame_indices,
                    "num_tokens": tokens[len(described)],
                }
            )
    return described


__all__ = ["LoadedMedia", "LoadedRegion", "LoadedSample", "assemble"]
