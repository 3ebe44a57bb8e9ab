"""From collected media and regions to the model's tensors: every source is opened and decoded once."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers.image_utils import load_image as load_pil_image
from transformers.video_utils import VideoMetadata

from .conversation_videorefer import SampleMedia, VideoItem
from .picture_reader_videorefer import load_picture
from .regions_videorefer import Region, decode_mask, grid_mask, num_tokens, parse_region, select_frames
from .video_processing_videorefer import VideoReferVideoProcessor
from .video_reader_videorefer import open_video


@dataclass(frozen=True)
class MediaOptions:
    """What one call of the processor asks for.

    Args:
        num_frames (`int`): Scene frames per video.
        num_region_frames (`int`, *optional*): Most frames used of a region; `None` keeps all.
        num_region_tokens (`int`): Most tokens of a region (u).
        empty_masks (`str`): `"error"`, `"drop"` or `"keep"`.
        grid_size (`int`): Patches per side of a frame.
        do_sample_frames (`bool`): Whether scene frames are sampled; otherwise videos are taken as they are.
        video_metadata (`Sequence[Mapping]`, *optional*): One for each video of the batch: `frames_indices`, `fps`,
            `total_num_frames` of frames that were sampled before.
    """

    num_frames: int
    num_region_frames: int | None
    num_region_tokens: int
    empty_masks: str
    grid_size: int
    do_sample_frames: bool = True
    video_metadata: Sequence[Mapping[str, Any]] | None = None


@dataclass
class _Source:
    """A video file (or folder, list, array) that one or more marks of the batch refer to."""

    reader: Any
    wanted: set[int] = field(default_factory=set)
    frames: dict[int, np.ndarray] = field(default_factory=dict)  # resized, (height, width, 3) uint8


@dataclass
class _Clip:
    """One `<video>` mark: a source, its scene frames, and how frame numbers of the user map to frames of the source."""

    source: _Source
    scene_indices: list[int]
    num_frames: int
    frame_times: Callable[[], np.ndarray]
    fps: float | None
    # Source frame number -> position in memory, where frames were sampled before they came here.
    position_of_frame: dict[int, int] | None = None

    def to_position(self, frame_index: int, where: str) -> int:
        if self.position_of_frame is None:
            return frame_index
        if frame_index not in self.position_of_frame:
            raise ValueError(
                f"{where}: frame {frame_index} is not among the frames given (`frames_indices` of `video_metadata`: "
                f"{sorted(self.position_of_frame)}). Pass the whole video, or frames that include it."
            )
        return self.position_of_frame[frame_index]


@dataclass
class _PlannedRegion:
    """A region whose frames are chosen and whose masks lie on the grid."""

    media: int
    frame_positions: list[int]
    frame_indices: list[int]
    grid_masks: list[np.ndarray]
    region: Region


class MediaLoader:
    """Loads the media of one call of the processor.

    Args:
        video_processor ([`VideoReferVideoProcessor`]): Samples, resizes and normalises frames.
        image_processor (`BaseImageProcessor`): Prepares still images.
        options ([`MediaOptions`]): What the call asks for.
    """

    def __init__(self, video_processor: VideoReferVideoProcessor, image_processor: Any, options: MediaOptions):
        self._video_processor = video_processor
        self._image_processor = image_processor
        self._options = options
        self._sources: dict[tuple, _Source] = {}

    def load(self, samples: Sequence[SampleMedia]) -> "LoadedMedia":
        """Open, plan and decode everything.

        Args:
            samples (`Sequence[SampleMedia]`): Media and regions of each sample.

        Returns:
            [`LoadedMedia`].

        Raises:
            ValueError: If a region or video is malformed, or they do not fit together; the message names sample,
                region and frame.
            OSError: If a file cannot be read.
        """
        with ExitStack() as stack:
            clips = self._open_clips(samples, stack)
            images = [
                [load_image(image, where=f"sample {sample}, image {i}") for i, image in enumerate(media.images)]
                for sample, media in enumerate(samples)
            ]
            regions = [
                [
                    self._plan_region(region, media, clips[sample], images[sample], f"sample {sample}, region {i}")
                    for i, region in enumerate(media.regions)
                ]
                for sample, media in enumerate(samples)
            ]
            for sample_clips, media, planned in zip(clips, samples, regions, strict=True):
                for clip in sample_clips:
                    clip.source.wanted.update(clip.scene_indices)
                for region in planned:
                    if media.kinds[region.media] == "video":
                        clip = sample_clips[media.kinds[: region.media].count("video")]
                        clip.source.wanted.update(region.frame_positions)
            for source in self._sources.values():
                for index, frame in source.reader.read(sorted(source.wanted)):
                    source.frames[index] = self._video_processor.preprocess_frame(frame)
        return self._assemble(samples, clips, images, regions)

    def _open_clips(self, samples: Sequence[SampleMedia], stack: ExitStack) -> list[list[_Clip]]:
        num_videos = sum(len(media.videos) for media in samples)
        metadata = self._options.video_metadata
        if metadata is not None and len(metadata) != num_videos:
            raise ValueError(
                f"`video_metadata` has {len(metadata)} entries for {num_videos} videos. Pass one for each video, in "
                "the order of their marks."
            )
        iterator = iter(metadata) if metadata is not None else iter([None] * num_videos)
        return [
            [
                self._open_clip(item, next(iterator), stack, f"sample {sample}, video {i}")
                for i, item in enumerate(media.videos)
            ]
            for sample, media in enumerate(samples)
        ]

    def _open_clip(self, item: VideoItem, metadata: Mapping[str, Any] | None, stack: ExitStack, where: str) -> _Clip:
        options = dict(item.options)
        start, end = options.pop("start_seconds", None), options.pop("end_seconds", None)
        options.setdefault("edit_list", self._video_processor.edit_list)
        given = dict(metadata) if metadata is not None else {}
        if given.get("fps") and options.get("fps") is None:
            options["fps"] = given["fps"]
        key = (_identity(item.source), *sorted(options.items()))
        if key not in self._sources:
            self._sources[key] = _Source(stack.enter_context(open_video(item.source, **options)))
        source = self._sources[key]
        reader = source.reader
        frames_indices = given.get("frames_indices")
        if not self._options.do_sample_frames:
            if start is not None or end is not None:
                raise ValueError(
                    f"{where}: `start_seconds` and `end_seconds` choose what is sampled, but `do_sample_frames` is "
                    "False. Drop one of the two."
                )
            scene = list(range(reader.num_frames))
        else:
            scene = self._video_processor.sample_frames(
                VideoMetadata(total_num_frames=reader.num_frames, fps=reader.fps),
                num_frames=self._options.num_frames,
                start_seconds=start,
                end_seconds=end,
            )
            scene = [int(index) for index in scene]
        if frames_indices is None:
            return _Clip(source, scene, reader.num_frames, lambda: reader.frame_times, reader.fps)
        frames_indices = [int(index) for index in frames_indices]
        if len(frames_indices) != reader.num_frames:
            raise ValueError(
                f"{where}: `video_metadata` lists {len(frames_indices)} `frames_indices` for {reader.num_frames} "
                "frames. Pass the number in the source video of every frame."
            )
        total = int(given.get("total_num_frames") or max(frames_indices) + 1)
        fps = given.get("fps")

        def frame_times() -> np.ndarray:
            if not fps:
                raise ValueError(f"{where}: `time_seconds` needs `fps` in `video_metadata`, or use `frame_index`.")
            return np.arange(total) / fps

        positions = {index: position for position, index in reversed(list(enumerate(frames_indices)))}
        return _Clip(source, scene, total, frame_times, fps, positions)

    def _plan_region(
        self, raw: Mapping[str, Any], media: SampleMedia, clips: list[_Clip], images: list[np.ndarray], where: str
    ) -> _PlannedRegion:
        region = parse_region(raw, where=where)
        position = _media_position(region, media.kinds, where)
        kind = media.kinds[position]
        nth = media.kinds[:position].count(kind)
        if kind == "image":
            region = _on_still_image(region)
            num_frames, frame_times = 1, _no_frame_times(where)
        else:
            num_frames, frame_times = clips[nth].num_frames, clips[nth].frame_times
        options = self._options
        chosen = select_frames(
            region,
            num_frames=num_frames,
            frame_times=frame_times,
            max_frames=options.num_region_frames,
            empty_masks=options.empty_masks,
            where=where,
        )
        planned = _PlannedRegion(position, [], [], [], region)
        for frame_index, entry in chosen:
            frame_where = f"{where}, frame {frame_index}"
            if kind == "image":
                at, (height, width) = 0, images[nth].shape[:2]
            else:
                at = clips[nth].to_position(frame_index, frame_where)
                height, width = clips[nth].source.reader.frame_size(at)
            mask = decode_mask(entry, height=height, width=width, where=frame_where)
            if not mask.any() and not _keep_empty(region, options.empty_masks, frame_where):
                continue
            planned.frame_positions.append(at)
            planned.frame_indices.append(frame_index)
            planned.grid_masks.append(grid_mask(mask, options.grid_size, keep_vanished=options.empty_masks == "keep"))
        if not planned.grid_masks:
            raise ValueError(
                f"{where}: no mask is left, all {len(chosen)} are empty. Mark the object in at least one frame, or "
                'pass `empty_masks="keep"` to get the published behaviour.'
            )
        return planned

    def _assemble(
        self,
        samples: Sequence[SampleMedia],
        clips: list[list[_Clip]],
        images: list[list[np.ndarray]],
        regions: list[list[_PlannedRegion]],
    ) -> "LoadedMedia":
        loaded = LoadedMedia(sample_counts=[], num_tokens_per_region=[])
        scenes, extras = [], []
        for sample, media in enumerate(samples):
            frame_of: dict[tuple[str, int, int], int] = {}  # (kind, nth of its kind, frame) -> number in the sample
            count = 0
            for nth, clip in enumerate(clips[sample]):
                scenes.append([clip.source.frames[index] for index in clip.scene_indices])
                for index in clip.scene_indices:
                    frame_of.setdefault(("video", nth, index), count)
                    count += 1
                loaded.video_metadata.append(_metadata(clip))
            for nth in range(len(images[sample])):
                frame_of[("image", nth, 0)] = count
                count += 1
            num_extra = len(extras)
            for planned in regions[sample]:
                kind = media.kinds[planned.media]
                nth = media.kinds[: planned.media].count(kind)
                for at, mask in zip(planned.frame_positions, planned.grid_masks, strict=True):
                    frame = (kind, nth, at)
                    if frame not in frame_of:
                        frame_of[frame] = count
                        count += 1
                        extras.append(clips[sample][nth].source.frames[at])
                    loaded.region_frame_index.append(frame_of[frame])
                    loaded.region_masks.append(mask.reshape(-1))
                loaded.region_lengths.append(len(planned.grid_masks))
                loaded.num_tokens_per_region.append(
                    num_tokens(len(planned.grid_masks), self._options.num_region_tokens)
                )
                loaded.region_metadata.append(
                    {
                        "sample": sample,
                        "object_id": planned.region.object_id,
                        "media": planned.media,
                        "frame_indices": planned.frame_indices,
                        "num_tokens": loaded.num_tokens_per_region[-1],
                    }
                )
            loaded.sample_counts.append(
                [len(clips[sample]), len(images[sample]), len(extras) - num_extra, len(regions[sample])]
            )
        if scenes:
            lengths = sorted({len(scene) for scene in scenes})
            if len(lengths) > 1:
                raise ValueError(
                    f"Videos of {lengths} frames cannot share a batch with `do_sample_frames=False`. Pass the same "
                    "number of frames for each, or let the processor sample."
                )
            loaded.num_scene_frames = lengths[0]
            flat = self._video_processor.normalize_frames([frame for scene in scenes for frame in scene])
            loaded.pixel_values_videos = flat.unflatten(0, (len(scenes), lengths[0]))
        if extras:
            loaded.region_pixel_values = self._video_processor.normalize_frames(extras)
        flat_images = [image for sample_images in images for image in sample_images]
        if flat_images:
            loaded.pixel_values = self._image_processor(
                flat_images, return_tensors="pt", input_data_format="channels_last"
            )["pixel_values"]
        return loaded


@dataclass
class LoadedMedia:
    """Tensors and counts of one call.

    Args:
        sample_counts (`list[list[int]]`): Videos, images, extra frames and regions of each sample.
        num_tokens_per_region (`list[int]`): Tokens each region gives.
    """

    sample_counts: list[list[int]]
    num_tokens_per_region: list[int]
    num_scene_frames: int = 0
    pixel_values_videos: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None
    region_pixel_values: torch.Tensor | None = None
    region_masks: list[np.ndarray] = field(default_factory=list)
    region_frame_index: list[int] = field(default_factory=list)
    region_lengths: list[int] = field(default_factory=list)
    video_metadata: list[VideoMetadata] = field(default_factory=list)
    region_metadata: list[dict[str, Any]] = field(default_factory=list)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the model inputs beside text; kinds the batch lacks are absent."""
        tensors = {
            "pixel_values_videos": self.pixel_values_videos,
            "pixel_values": self.pixel_values,
            "region_pixel_values": self.region_pixel_values,
        }
        tensors = {name: value for name, value in tensors.items() if value is not None}
        if self.region_masks:
            tensors["region_masks"] = torch.from_numpy(np.stack(self.region_masks))
            tensors["region_frame_index"] = torch.tensor(self.region_frame_index)
            tensors["region_lengths"] = torch.tensor(self.region_lengths)
            tensors["region_num_tokens"] = torch.tensor(self.num_tokens_per_region)
        tensors["sample_counts"] = torch.tensor(self.sample_counts)
        return tensors


def load_image(image: Any, *, where: str) -> np.ndarray:
    """Load a still image from a path, URL, bytes, base64 text, PIL image or array.

    Args:
        image (`Any`): The image.
        where (`str`): Words such as "sample 0, image 1" that errors start with.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: uint8 RGB.

    Raises:
        ValueError: If it is no image.
        OSError: If the file cannot be read.
    """
    if hasattr(image, "read"):
        image = image.read()
    if isinstance(image, (str, os.PathLike)):
        try:
            image = load_pil_image(os.fspath(image))  # path, URL or base64 text
        except (OSError, ValueError) as error:
            raise OSError(f"{where}: cannot read {str(image)[:200]!r} as a picture: {error}") from error
    return load_picture(image, where)


def _identity(source: Any) -> tuple[str, Any]:
    if isinstance(source, (str, os.PathLike)):
        return "path", os.fspath(source)
    return "object", id(source)


def _media_position(region: Region, kinds: Sequence[str], where: str) -> int:
    if not kinds:
        raise ValueError(f"{where}: its sample has no video or image. Regions need a `<video>` or `<image>` mark.")
    if region.media is None:
        if len(kinds) > 1:
            raise ValueError(
                f"{where}: its sample has {len(kinds)} videos and images. Say which one the region is on with "
                f'`"media": 0` to `{len(kinds) - 1}`, counted over all marks of the sample.'
            )
        return 0
    if not 0 <= region.media < len(kinds):
        raise ValueError(
            f"{where}: `media` is {region.media}, but its sample has {len(kinds)} videos and images (numbered from 0)."
        )
    return region.media


def _on_still_image(region: Region) -> Region:
    """Fill in frame 0, the only frame of an image, where it was left out."""
    frames = tuple(
        replace(entry, frame_index=0) if entry.frame_index is None and entry.time_seconds is None else entry
        for entry in region.frames
    )
    return replace(region, frames=frames)


def _no_frame_times(where: str) -> Callable[[], np.ndarray]:
    def frame_times() -> np.ndarray:
        raise ValueError(f"{where}: `time_seconds` on a still image. Leave it out.")

    return frame_times


def _keep_empty(region: Region, empty_masks: str, where: str) -> bool:
    """Whether a mask that turned out empty stays; raises where empty masks are an error."""
    if empty_masks == "keep":
        return True
    if empty_masks == "error" and not region.from_masklet:
        raise ValueError(
            f'{where}: the mask is empty. Remove this frame, or pass `empty_masks="drop"` (skip such frames) or '
            '`"keep"` (published behaviour).'
        )
    return False


def _metadata(clip: _Clip) -> VideoMetadata:
    height, width = clip.source.reader.frame_size(clip.scene_indices[0])
    fps = clip.fps
    indices = clip.scene_indices
    if clip.position_of_frame is not None:
        frame_of_position = {position: frame for frame, position in clip.position_of_frame.items()}
        indices = [frame_of_position.get(position, position) for position in indices]
    return VideoMetadata(
        total_num_frames=clip.num_frames,
        fps=fps,
        width=width,
        height=height,
        duration=clip.num_frames / fps if fps else None,
        video_backend="pyav",
        frames_indices=indices,
    )
