"""Video processor: any kind of video to normalised scene frames, with the pixels of the published pipeline."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import Unpack
from transformers.utils import TensorType
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from transformers_videorefer.inputs.keywords import VideoReferVideoProcessorKwargs
from transformers_videorefer.regions.errors import MediaError, located
from transformers_videorefer.video.opening import list_videos, open_video, source_key
from transformers_videorefer.video.options import (
    VIDEO_OPTIONS,
    check_scene_lengths,
    describe_video,
    flatten_metadata,
    spread_option,
)
from transformers_videorefer.video.reader import VideoReader
from transformers_videorefer.video.sampling import time_range_indices, uniform_indices


RESIZE_BACKENDS = ("pil", "torch")
TORCH_RESIZE_MODES = {PILImageResampling.BICUBIC: "bicubic", PILImageResampling.BILINEAR: "bilinear"}
UNSUPPORTED_OPTIONS = ("do_center_crop", "crop_size", "do_pad")


class VideoReferVideoProcessor(VideoProcessorMixin):
    """Samples the scene frames of videos, resizes them and normalises them (VideoRefer, section 3).

    Frames are spread uniformly, videos shorter than `num_frames` repeat frames (in-memory frames and GIFs too: they
    are never filled up with black ones), and every frame is resized to a square without keeping its aspect ratio.

    Args:
        size (`dict[str, int]`, *optional*, defaults to `{"height": 384, "width": 384}`): Size after resizing.
        resample (`int`, *optional*, defaults to bicubic): PIL resampling filter.
        num_frames (`int`, *optional*, defaults to 16): Scene frames per video, at least 2.
        edit_list (`str`, *optional*, defaults to `"apply"`): Which frames of an MP4 file with an edit list count.
        resize_backend (`str`, *optional*, defaults to `"pil"`): `"torch"` is faster and 1 to 2 levels off.
        do_resize, do_rescale, rescale_factor, do_normalize, image_mean, image_std, do_sample_frames: As usual.
    """

    size = {"height": 384, "width": 384}
    default_to_square = True
    resample = PILImageResampling.BICUBIC
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_convert_rgb = True
    do_sample_frames = True
    num_frames = 16
    edit_list = "apply"
    resize_backend = "pil"
    valid_kwargs = VideoReferVideoProcessorKwargs
    model_input_names = ["pixel_values_videos"]

    def __init__(self, **kwargs: Unpack[VideoReferVideoProcessorKwargs]) -> None:
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)
        _check_num_frames(self.num_frames)
        _check_resize_backend(self.resize_backend)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Choose the scene frames of a video.

        Args:
            metadata (`VideoMetadata`): `total_num_frames` and, for a time range, `fps` of the video.
            num_frames (`int`, *optional*): Frames to choose; the processor's own number when absent.
            start_seconds (`float`, *optional*): Start of the part that is sampled.
            end_seconds (`float`, *optional*): End of the part that is sampled.
            kwargs (`dict`, *optional*): Ignored.

        Returns:
            `np.ndarray` of shape `(num_frames,)`: Frame numbers in rising order; short videos repeat frames.

        Raises:
            ValueError: If `num_frames` is below 2 or the range holds no frame.
        """
        num_frames = self.num_frames if num_frames is None else num_frames
        _check_num_frames(num_frames)
        first, last = time_range_indices(metadata.total_num_frames, metadata.fps, start_seconds, end_seconds)
        return first + np.asarray(uniform_indices(last - first + 1, num_frames))

    def choose_scene_frames(
        self,
        reader: VideoReader,
        *,
        num_frames: int,
        do_sample_frames: bool,
        start_seconds: float | None,
        end_seconds: float | None,
    ) -> list[int]:
        """Sample the scene frames of an open video, or take all its frames.

        Args:
            reader (`VideoReader`): The open video.
            num_frames (`int`): Frames to sample.
            do_sample_frames (`bool`): Whether to sample; otherwise all frames are taken.
            start_seconds (`float`, *optional*): Start of the part that is sampled.
            end_seconds (`float`, *optional*): End of the part that is sampled.

        Returns:
            `list[int]`: Frame numbers in rising order.

        Raises:
            ValueError: If the range holds no frame, or is given although nothing is sampled.
        """
        if do_sample_frames:
            own = VideoMetadata(total_num_frames=reader.num_frames, fps=reader.fps)
            return self.sample_frames(own, num_frames, start_seconds, end_seconds).tolist()
        if start_seconds is not None or end_seconds is not None:
            raise MediaError(
                "`start_seconds` and `end_seconds` choose what is sampled, but `do_sample_frames` is False. "
                "Drop one of the two."
            )
        return list(range(reader.num_frames))

    def preprocess_frame(
        self,
        frame: np.ndarray,
        *,
        do_resize: bool | None = None,
        size: SizeDict | dict[str, int] | None = None,
        resample: PILImageResampling | int | None = None,
        resize_backend: str | None = None,
    ) -> np.ndarray:
        """Resize one frame, so that the full picture can be dropped.

        Args:
            frame (`np.ndarray` of shape `(height, width, 3)`): uint8 RGB picture.
            do_resize (`bool`, *optional*): Whether to resize; like the others, the processor's own when absent.
            size (`dict[str, int]`, *optional*): `height` and `width` of the result.
            resample (`PILImageResampling`, *optional*): Resampling filter.
            resize_backend (`str`, *optional*): `"pil"` or `"torch"`.

        Returns:
            `np.ndarray` of shape `(size["height"], size["width"], 3)`: uint8 RGB picture.
        """
        if not (self.do_resize if do_resize is None else do_resize):
            return frame
        size = self.size if size is None else size
        height, width = size["height"], size["width"]
        resample = PILImageResampling(self.resample if resample is None else resample)
        resize_backend = self.resize_backend if resize_backend is None else resize_backend
        _check_resize_backend(resize_backend)
        if resize_backend == "pil":
            return np.asarray(Image.fromarray(frame).resize((width, height), resample))
        if resample not in TORCH_RESIZE_MODES:
            raise ValueError(f'`resample` is {resample!r}, which `resize_backend="torch"` does not offer. Use "pil".')
        pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None]
        # On uint8: the float path of torch is up to 12 levels off on noisy pictures.
        resized = torch.nn.functional.interpolate(
            pixels, size=(height, width), mode=TORCH_RESIZE_MODES[resample], antialias=True
        )
        return resized[0].permute(1, 2, 0).contiguous().numpy()

    def normalize_frames(
        self,
        frames: Sequence[np.ndarray],
        *,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: float | Sequence[float] | None = None,
        image_std: float | Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Stack resized frames and bring their values to the range that the model expects.

        Args:
            frames (`Sequence[np.ndarray]`): uint8 pictures of one size `(height, width, 3)`.
            do_rescale (`bool`, *optional*): Whether to rescale; like the others, the processor's own when absent.
            rescale_factor (`float`, *optional*): Factor of the rescaling.
            do_normalize (`bool`, *optional*): Whether to subtract the mean and divide by the standard deviation.
            image_mean (`float` or `Sequence[float]`, *optional*): Mean per channel.
            image_std (`float` or `Sequence[float]`, *optional*): Standard deviation per channel.

        Returns:
            `torch.FloatTensor` of shape `(num_frames, 3, height, width)`: The pixel values.

        Raises:
            ValueError: If the frames differ in size or there are none.
        """
        if len({frame.shape for frame in frames}) != 1:
            sizes = sorted({frame.shape[:2] for frame in frames})
            raise ValueError(
                f"`frames` have the sizes {sizes} (height, width), but only frames of one size can be stacked. "
                "Leave `do_resize` on."
            )
        height, width, channels = frames[0].shape
        pixels = torch.empty((len(frames), channels, height, width), dtype=torch.float32)
        mean = torch.as_tensor(self.image_mean if image_mean is None else image_mean, dtype=pixels.dtype)
        std = torch.as_tensor(self.image_std if image_std is None else image_std, dtype=pixels.dtype)
        # Frame by frame and in place: one frame stays in the processor's cache, and there is no second big tensor.
        for target, frame in zip(pixels, frames, strict=True):
            np.copyto(target.numpy(), frame.transpose(2, 0, 1))
            if self.do_rescale if do_rescale is None else do_rescale:
                target *= self.rescale_factor if rescale_factor is None else rescale_factor
            if self.do_normalize if do_normalize is None else do_normalize:
                target.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
        return pixels

    def preprocess(self, videos: Any, **kwargs: Unpack[VideoReferVideoProcessorKwargs]) -> BatchFeature:
        """Turn videos into scene frames for the model.

        Args:
            videos (`Any`): One video of any kind that `open_video` takes, or a list of them; kinds may be mixed.
            kwargs ([`VideoReferVideoProcessorKwargs`]): Options for this call. `do_sample_frames=False` takes all
                frames as they are; `video_metadata` with `frames_indices` then says which frames of the source they
                are. `return_metadata=True` adds `video_metadata`.

        Returns:
            [`BatchFeature`]: `pixel_values_videos` of shape `(num_videos, num_frames, 3, height, width)` and, if asked
            for, `video_metadata`, a list of [`VideoMetadata`].

        Raises:
            ValueError: If an option has a bad value or the videos cannot be stacked.
            OSError: If a file is missing, truncated or damaged.
        """
        validate_typed_dict(self.valid_kwargs, kwargs)
        options = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        options.update({name: value for name, value in kwargs.items() if value is not None})
        _refuse_unsupported(options)
        options = self._standardize_kwargs(**options)
        sources = list_videos(videos)
        per_video = {name: spread_option(name, options[name], len(sources)) for name in VIDEO_OPTIONS}
        given = options["video_metadata"]
        if isinstance(given, (list, tuple)):
            given = flatten_metadata(given)
        given = spread_option("video_metadata", given, len(sources))

        loaded: dict[Any, tuple[list[np.ndarray], VideoMetadata]] = {}
        keys = []
        for number, source in enumerate(sources):
            chosen = {name: values[number] for name, values in per_video.items()}
            # The same source with the same options is decoded once.
            keys.append((source_key(source), id(given[number]), *chosen.values()))
            if keys[-1] not in loaded:
                with located(is_named=True, video=number):
                    loaded[keys[-1]] = self._load_video(
                        source, f"video {number}", given[number], {**options, **chosen}
                    )
        data = {"pixel_values_videos": self._stack([loaded[key][0] for key in keys], options)}
        if options["device"] is not None:
            data["pixel_values_videos"] = data["pixel_values_videos"].to(options["device"])
        features = BatchFeature(data, tensor_type=options["return_tensors"] or TensorType.PYTORCH)
        if options["return_metadata"]:
            features["video_metadata"] = [copy.copy(loaded[key][1]) for key in keys]
        return features

    def _load_video(
        self, source: Any, name: str, given: VideoMetadata | dict | None, options: dict[str, Any]
    ) -> tuple[list[np.ndarray], VideoMetadata]:
        """Read and resize the scene frames of one video."""
        known = dict(given or {})
        rates = {"fps": options["fps"], "default_fps": known.get("fps")}
        with open_video(source, edit_list=options["edit_list"], name=name, **rates) as reader:
            metadata = VideoMetadata(**describe_video(reader, known))
            chosen = self.choose_scene_frames(
                reader,
                num_frames=options["num_frames"],
                do_sample_frames=options["do_sample_frames"],
                start_seconds=options["start_seconds"],
                end_seconds=options["end_seconds"],
            )
            resized = {}
            for index, frame in reader.read(chosen):
                metadata.height, metadata.width = frame.shape[:2]
                resized[index] = self.preprocess_frame(
                    frame,
                    do_resize=options["do_resize"],
                    size=options["size"],
                    resample=options["resample"],
                    resize_backend=options["resize_backend"],
                )
        numbers = metadata.frames_indices
        metadata.frames_indices = chosen if numbers is None else [int(numbers[index]) for index in chosen]
        return [resized[index] for index in chosen], metadata

    def _stack(self, videos: list[list[np.ndarray]], options: dict[str, Any]) -> torch.Tensor:
        """Normalise the frames of all videos into one tensor."""
        lengths = [len(frames) for frames in videos]
        check_scene_lengths(lengths)
        pixels = self.normalize_frames(
            [frame for frames in videos for frame in frames],
            do_rescale=options["do_rescale"],
            rescale_factor=options["rescale_factor"],
            do_normalize=options["do_normalize"],
            image_mean=options["image_mean"],
            image_std=options["image_std"],
        )
        return pixels.unflatten(0, (len(videos), lengths[0]))


def _refuse_unsupported(options: dict[str, Any]) -> None:
    """Refuse options of the library that the published pipeline has no place for."""
    for name in UNSUPPORTED_OPTIONS:
        if options.get(name):
            raise ValueError(f"`{name}` is {options[name]!r}, but VideoRefer frames are only resized. Leave it out.")
    for name, offered in (("data_format", "channels_first"), ("input_data_format", "channels_last")):
        if options.get(name) not in (None, offered):
            raise ValueError(f"`{name}` is {options[name]!r}, but only {offered!r} is offered. Leave it out.")


def _check_num_frames(num_frames: Any) -> None:
    if isinstance(num_frames, bool) or not isinstance(num_frames, (int, np.integer)) or num_frames < 2:
        raise ValueError(f"`num_frames` is {num_frames!r}. Pass an integer of at least 2 (the connector joins pairs).")


def _check_resize_backend(resize_backend: str) -> None:
    if resize_backend not in RESIZE_BACKENDS:
        raise ValueError(
            f"`resize_backend` is {resize_backend!r}. Pass one of {', '.join(map(repr, RESIZE_BACKENDS))}."
        )


__all__ = ["VideoReferVideoProcessor"]
