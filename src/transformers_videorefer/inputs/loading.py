"""Loads the media of one call: every video is opened once, and decoded once for all frames that anything asks for."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from transformers.image_utils import load_image as load_pil_image
from transformers.video_utils import VideoMetadata

from transformers_videorefer.inputs.assembly import FrameNormalizer, LoadedMedia, LoadedRegion, LoadedSample, assemble
from transformers_videorefer.inputs.items import SampleMedia, VideoItem
from transformers_videorefer.regions.errors import MediaError, located
from transformers_videorefer.regions.form import Region, RegionFrame, parse_region
from transformers_videorefer.regions.selection import (
    check_empty_masks,
    frame_to_grid,
    no_mask_left_message,
    select_frames,
)
from transformers_videorefer.video.opening import open_video, source_key
from transformers_videorefer.video.options import check_scene_lengths, describe_video
from transformers_videorefer.video.pictures import load_picture
from transformers_videorefer.video.reader import VideoReader


class FrameProcessor(FrameNormalizer, Protocol):
    """What loading asks of a video processor, whichever model family it belongs to."""

    edit_list: str

    def choose_scene_frames(
        self,
        reader: VideoReader,
        *,
        num_frames: int,
        do_sample_frames: bool,
        start_seconds: float | None,
        end_seconds: float | None,
    ) -> list[int]:
        """Choose the scene frames of an open video, by number and in rising order."""
        ...

    def preprocess_frame(self, frame: np.ndarray, *, resize_backend: str | None) -> np.ndarray:
        """Resize one uint8 frame `(height, width, 3)`."""
        ...


@dataclass(frozen=True)
class MediaOptions:
    """What one call of the processor asks for.

    Args:
        num_frames (`int`): Scene frames per video.
        num_region_frames (`int`, *optional*): Most frames used of a region; `None` keeps all.
        num_region_tokens (`int`): Most tokens of a region (u).
        empty_masks (`str`): `"error"`, `"drop"` or `"keep"`.
        grid (`tuple[int, int]`): Rows and columns of the patch grid of a frame.
        min_scene_frames (`int`, *optional*, defaults to `2`): Fewest scene frames the connector can join.
        do_sample_frames (`bool`, *optional*, defaults to `True`): Whether scene frames are sampled; otherwise videos
            are taken as they are.
        video_metadata (`Sequence[Mapping]`, *optional*): One for each video of the batch: `frames_indices`, `fps`,
            `total_num_frames` of frames that were sampled before.
        resize_backend (`str`, *optional*): `"pil"` or `"torch"`; the video processor's by default.
    """

    num_frames: int
    num_region_frames: int | None
    num_region_tokens: int
    empty_masks: str
    grid: tuple[int, int]
    min_scene_frames: int = 2
    do_sample_frames: bool = True
    video_metadata: Sequence[Mapping[str, Any] | None] | None = None
    resize_backend: str | None = None

    def __post_init__(self) -> None:
        check_empty_masks(self.empty_masks)


@dataclass
class _Source:
    """A video file (or folder, list, array) that one or more marks of the batch refer to."""

    reader: VideoReader
    sample: int  # of its first mark
    video: int
    wanted: set[int] = field(default_factory=set)
    frames: dict[int, np.ndarray] = field(default_factory=dict)  # resized, (height, width, 3) uint8
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # height and width before resizing


@dataclass
class _Clip:
    """One `<video>` mark: a source, its scene frames, and how frame numbers of the user map to frames of the source."""

    source: _Source
    sample: int
    video: int
    scene: list[int]  # positions in the source as it was given
    metadata: VideoMetadata
    # Frame number of the user -> position, where frames were sampled before they came here.
    position_of_frame: dict[int, int] | None = None

    def to_position(self, frame_index: int) -> int:
        """Find a frame of the user in the source."""
        if self.position_of_frame is None:
            return frame_index
        if frame_index not in self.position_of_frame:
            raise MediaError(
                "the frame is not among those given (`frames_indices` of `video_metadata`: "
                f"{sorted(self.position_of_frame)}). Pass the whole video, or frames that include it.",
                frame=frame_index,
            )
        return self.position_of_frame[frame_index]

    def frame_times(self) -> np.ndarray:
        """Find out when the frames that the user can name are shown."""
        with located(is_named=True, sample=self.sample, video=self.video):
            if self.position_of_frame is None:
                return self.source.reader.frame_times
            if not self.metadata.fps:
                raise MediaError("`time_seconds` needs `fps` in `video_metadata`. Pass it, or use `frame_index`.")
            return np.arange(self.metadata.total_num_frames) / self.metadata.fps

    def describe(self) -> VideoMetadata:
        """Describe the source and name the scene frames, once they are read."""
        numbers = self.metadata.frames_indices
        frames_indices = self.scene if numbers is None else [numbers[position] for position in self.scene]
        height, width = self.source.sizes[self.scene[0]]
        return replace(self.metadata, frames_indices=frames_indices, height=height, width=width)


@dataclass
class _PlannedRegion:
    """A region whose frames are chosen and whose masks are not decoded."""

    region: Region
    media: int
    clip: _Clip | None  # none on an image
    image_size: tuple[int, int] | None  # height and width, none on a video
    entries: list[tuple[int, int, RegionFrame]]  # frame number of the user, position in the source, entry


class MediaLoader:
    """Loads the media of one call of the processor.

    Args:
        video_processor ([`FrameProcessor`]): Samples, resizes and normalises frames.
        image_processor (`BaseImageProcessor`): Prepares still images.
        options ([`MediaOptions`]): What the call asks for.
    """

    def __init__(self, video_processor: FrameProcessor, image_processor: Any, options: MediaOptions):
        self._video_processor = video_processor
        self._image_processor = image_processor
        self._options = options
        self._sources: dict[tuple, _Source] = {}

    def load(self, samples: Sequence[SampleMedia]) -> LoadedMedia:
        """Open, plan and decode everything.

        Args:
            samples (`Sequence[SampleMedia]`): Media and regions of each sample.

        Returns:
            [`LoadedMedia`].

        Raises:
            ValueError: If a region or video is malformed, or they do not fit together; the message names sample,
                region and frame.
            TypeError: If something is of a wrong kind.
            OSError: If a file cannot be read.
        """
        with ExitStack() as stack:
            clips = self._open_clips(samples, stack)
            images = [_load_images(sample, media) for sample, media in enumerate(samples)]
            plans = [
                self._plan_regions(sample, media, clips[sample], images[sample])
                for sample, media in enumerate(samples)
            ]
            for source in self._sources.values():
                self._read(source)
        loaded = [
            LoadedSample(
                media=media,
                scenes=[[clip.source.frames[position] for position in clip.scene] for clip in clips[sample]],
                scene_positions=[clip.scene for clip in clips[sample]],
                images=images[sample],
                regions=self._load_regions(sample, plans[sample]),
                video_metadata=[clip.describe() for clip in clips[sample]],
            )
            for sample, media in enumerate(samples)
        ]
        return assemble(loaded, self._video_processor, self._image_processor, self._options.num_region_tokens)

    def _read(self, source: _Source) -> None:
        """Decode all wanted frames of a source, each resized before the next one comes."""
        with located(is_named=True, sample=source.sample, video=source.video):
            for position, frame in source.reader.read(source.wanted):
                source.sizes[position] = (frame.shape[0], frame.shape[1])
                source.frames[position] = self._video_processor.preprocess_frame(
                    frame, resize_backend=self._options.resize_backend
                )

    def _open_clips(self, samples: Sequence[SampleMedia], stack: ExitStack) -> list[list[_Clip]]:
        num_videos = sum(len(media.videos) for media in samples)
        metadata = self._options.video_metadata
        if metadata is not None and len(metadata) != num_videos:
            raise ValueError(
                f"`video_metadata` has {len(metadata)} entries for {num_videos} videos. Pass one for each video, in "
                "the order of their marks."
            )
        given = iter(metadata if metadata is not None else [None] * num_videos)
        clips: list[list[_Clip]] = [[] for _ in samples]
        for sample, media in enumerate(samples):
            for video, item in enumerate(media.videos):
                with located(is_named=True, sample=sample, video=video):
                    clips[sample].append(self._open_clip(item, dict(next(given) or {}), stack, sample, video))
        check_scene_lengths([len(clip.scene) for row in clips for clip in row], self._options.min_scene_frames)
        return clips

    def _open_clip(self, item: VideoItem, given: dict[str, Any], stack: ExitStack, sample: int, video: int) -> _Clip:
        """Open the video of one mark and choose its scene frames."""
        options = {name: value for name, value in item.options.items() if value is not None}
        start, end = options.pop("start_seconds", None), options.pop("end_seconds", None)
        options.setdefault("edit_list", self._video_processor.edit_list)
        if given.get("fps"):
            options["default_fps"] = given["fps"]
        key = (source_key(item.source), *sorted(options.items()))
        if key not in self._sources:
            reader = open_video(item.source, name=f"sample {sample}, video {video}", **options)
            self._sources[key] = _Source(stack.enter_context(reader), sample, video)
        source = self._sources[key]
        scene = self._video_processor.choose_scene_frames(
            source.reader,
            num_frames=self._options.num_frames,
            do_sample_frames=self._options.do_sample_frames,
            start_seconds=start,
            end_seconds=end,
        )
        metadata = VideoMetadata(**describe_video(source.reader, given))
        clip = _Clip(source, sample, video, scene, metadata)
        if metadata.frames_indices is not None:
            # Where a number comes twice, the first of the equal frames counts.
            numbered = reversed(list(enumerate(metadata.frames_indices)))
            clip.position_of_frame = {number: position for position, number in numbered}
        source.wanted.update(scene)
        return clip

    def _plan_regions(
        self, sample: int, media: SampleMedia, clips: Sequence[_Clip], images: Sequence[np.ndarray]
    ) -> list[_PlannedRegion]:
        """Check the regions of a sample, choose their frames, and tell the sources which ones will be needed."""
        plans = []
        for number, raw in enumerate(media.regions):
            with located(sample=sample, region=number):
                plans.append(self._plan_region(parse_region(raw), media, clips, images))
        return plans

    def _plan_region(
        self, region: Region, media: SampleMedia, clips: Sequence[_Clip], images: Sequence[np.ndarray]
    ) -> _PlannedRegion:
        """Choose the frames of one region."""
        position = _media_position(region, media.kinds)
        kind, nth = media.place(position)
        clip = clips[nth] if kind == "video" else None
        selected = select_frames(
            region,
            num_frames=1 if clip is None else clip.metadata.total_num_frames,
            frame_times=_no_times if clip is None else clip.frame_times,
            max_frames=self._options.num_region_frames,
            empty_masks=self._options.empty_masks,
            is_image=clip is None,
        )
        if clip is None:
            return _PlannedRegion(
                region, position, None, images[nth].shape[:2], [(0, 0, entry) for _, entry in selected]
            )
        entries = [(index, clip.to_position(index), entry) for index, entry in selected]
        clip.source.wanted.update(position for _, position, _ in entries)
        return _PlannedRegion(region, position, clip, None, entries)

    def _load_regions(self, sample: int, plans: Sequence[_PlannedRegion]) -> list[LoadedRegion]:
        """Bring the masks of the regions of a sample to the grid."""
        loaded = []
        for number, plan in enumerate(plans):
            with located(sample=sample, region=number):
                loaded.append(self._load_region(plan))
        return loaded

    def _load_region(self, plan: _PlannedRegion) -> LoadedRegion:
        """Bring the masks of a region to the grid, one after the other."""
        loaded = LoadedRegion(object_id=plan.region.object_id, media=plan.media)
        for frame_index, position, entry in plan.entries:
            source = None if plan.clip is None else plan.clip.source
            height, width = plan.image_size if source is None else source.sizes[position]
            with located(frame=frame_index):
                cells = frame_to_grid(
                    plan.region,
                    entry,
                    height=height,
                    width=width,
                    grid=self._options.grid,
                    empty_masks=self._options.empty_masks,
                )
            if cells is not None:
                # An extra frame that several regions share is kept once.
                loaded.add(frame_index, position, None if source is None else source.frames[position], cells)
        if not loaded.masks:
            raise ValueError(no_mask_left_message(len(plan.entries)))
        return loaded


def _no_times() -> np.ndarray:
    return np.empty(0)


def _load_images(sample: int, media: SampleMedia) -> list[np.ndarray]:
    """Load the still images of a sample."""
    loaded = []
    for number, image in enumerate(media.images):
        with located(is_named=True, sample=sample, image=number):
            loaded.append(load_image(image, name=f"sample {sample}, image {number}"))
    return loaded


def load_image(image: Any, *, name: str) -> np.ndarray:
    """Load a still image from a path, URL, bytes, binary file object, base64 text, PIL image or array.

    Args:
        image (`Any`): The image.
        name (`str`): What errors call it, such as "sample 0, image 1".

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: uint8 RGB.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If an array has another shape.
        OSError: If the file cannot be read.
    """
    if callable(getattr(image, "read", None)):
        if getattr(image, "seekable", lambda: False)():
            image.seek(0)
        image = image.read()
    if isinstance(image, (bytearray, memoryview)):
        image = bytes(image)
    if isinstance(image, str) and not os.path.exists(image):
        try:
            image = load_pil_image(image)  # address or base64 text
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{name}: there is no picture at {image[:200]!r}, and it is no address or base64 text of one either. "
                "Check the path."
            ) from error
    return load_picture(image, name)


def _media_position(region: Region, kinds: Sequence[str]) -> int:
    """Find the video or image of a region."""
    if not kinds:
        raise ValueError("its sample has no video or image. Regions need a `<video>` or `<image>` mark.")
    if region.media is None:
        if len(kinds) > 1:
            raise ValueError(
                f"its sample has {len(kinds)} videos and images. Say which one the region is on with "
                f'`"media": 0` to `{len(kinds) - 1}`, counted over all marks of the sample.'
            )
        return 0
    if region.media >= len(kinds):
        raise ValueError(
            f"`media` is {region.media}, but its sample has {len(kinds)} videos and images, numbered from 0. "
            f"Pass 0 to {len(kinds) - 1}."
        )
    return region.media


__all__ = ["MediaLoader", "MediaOptions", "load_image"]
