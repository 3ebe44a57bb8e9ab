"""The VideoRefer processor: text with marks, media and regions in, model inputs out."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from huggingface_hub.dataclasses import StrictDataclassFieldValidationError
from transformers import BatchFeature
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.utils.chat_template_utils import mark_control_tokens
from transformers.video_processing_utils import VideoProcessorMixin

from .chat_videorefer import VideoReferChatMixin
from .conversation_videorefer import CHAT_TEMPLATE
from .loading_videorefer import add_mark_tokens
from .media_items_videorefer import (
    MARKS,
    SampleMedia,
    check_counts,
    expand_marks,
    find_marks,
    media_from_lists,
    with_video_options,
)
from .media_loading_videorefer import LoadedMedia, MediaLoader, MediaOptions
from .processor_options_videorefer import (
    LIBRARY_KEYWORDS,
    VideoReferProcessorKwargs,
    as_python,
    check_call_settings,
    check_keywords,
)
from .region_values_videorefer import parse_whole
from .saving_videorefer import VideoReferProcessorFilesMixin
from .video_options_videorefer import VIDEO_OPTIONS, flatten_metadata


_UNSET = object()  # `None` is a meaningful value of `num_region_frames`


class VideoReferProcessor(VideoReferProcessorFilesMixin, VideoReferChatMixin, ProcessorMixin):
    """Makes the inputs of VideoRefer from text, videos, images and regions.

    The tokenizer gets `<region>`, `<video>` and `<image>` as tokens, in this order, where it lacks them, and pads on
    the left unless told otherwise.

    Args:
        image_processor (`SiglipImageProcessorPil`): Prepares still images; a torchvision-backed SigLIP processor is
            replaced by the PIL version with the same settings, whose pixels are the published ones.
        tokenizer (`Qwen2Tokenizer`): The tokenizer.
        video_processor ([`VideoReferVideoProcessor`]): Samples, resizes and normalises frames.
        chat_template (`str`, *optional*): Jinja template; ChatML with region parts by default.
        num_region_frames (`int`, *optional*, defaults to `32`): Most frames used of a region; `None` keeps all.
        num_region_tokens (`int`, *optional*, defaults to `4`): Most tokens of a region (u in the paper).
        num_image_frames (`int`, *optional*, defaults to `16`): Equal frames a still image stands for; the model's
            `config.num_frames`.
        patch_size (`int`, *optional*, defaults to `14`): Pixels per side of a patch of the vision tower.
        connector_downsample (`list[int]`, *optional*, defaults to `(2, 2, 2)`): The model's `connector_downsample`.

    Raises:
        ValueError: If a part is missing, the pictures of the two sub-processors differ in size, or a number is out of
            range.
        TypeError: If a number is no whole number.
    """

    valid_processor_kwargs = VideoReferProcessorKwargs
    skip_tensor_conversion: ClassVar[list[str]] = ["video_metadata", "region_metadata", "text_replacement_offsets"]
    text_kwargs: ClassVar[dict[str, Any]] = {"padding": True}

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        video_processor=None,
        chat_template=None,
        num_region_frames=32,
        num_region_tokens=4,
        num_image_frames=16,
        patch_size=14,
        connector_downsample=(2, 2, 2),
    ):
        for name, part in (
            ("image_processor", image_processor),
            ("tokenizer", tokenizer),
            ("video_processor", video_processor),
        ):
            if part is None:
                raise ValueError(f"`{name}` is missing. Pass image processor, tokenizer and video processor.")
        self.connector_downsample = [
            parse_whole(side, "connector_downsample", least=1) for side in connector_downsample
        ]
        self.num_region_tokens = parse_whole(num_region_tokens, "num_region_tokens", least=1)
        self.num_region_frames = num_region_frames
        if num_region_frames is not None:
            self.num_region_frames = parse_whole(num_region_frames, "num_region_frames", least=1)
        self.num_image_frames = parse_whole(num_image_frames, "num_image_frames", least=self.min_scene_frames)
        self.patch_size = parse_whole(patch_size, "patch_size", least=1)
        if not isinstance(image_processor, SiglipImageProcessorPil):
            image_processor = SiglipImageProcessorPil.from_dict(image_processor.to_dict())
        super().__init__(
            image_processor,
            tokenizer,
            video_processor,
            chat_template=CHAT_TEMPLATE if chat_template is None else chat_template,
        )
        token_ids = add_mark_tokens(tokenizer)
        tokenizer.padding_side = "left"  # prompts of a batch must end where generation starts
        for kind, mark in MARKS.items():
            setattr(self, f"{kind}_token", mark)
            setattr(self, f"{kind}_token_id", token_ids[f"{kind}_token_id"])
        sizes = [[part.size["height"], part.size["width"]] for part in (video_processor, image_processor)]
        if len({side for size in sizes for side in size}) != 1:
            raise ValueError(
                f"`size` is {sizes[0]} for videos and {sizes[1]} for images ([height, width]), but the vision tower "
                "takes squares of one size. Set both to it."
            )

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Check the class of a sub-processor, see `ProcessorMixin`.

        The library looks the video processor's base class up by a top-level name that only exists with torchvision.
        """
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(
                f"Received a {type(argument).__name__} for argument video_processor, but a VideoProcessorMixin was "
                "expected."
            )
        return VideoProcessorMixin

    @property
    def model_input_names(self) -> list[str]:
        """`list[str]`: Everything the model takes from this processor."""
        return [
            "input_ids",
            "attention_mask",
            "pixel_values_videos",
            "pixel_values",
            "region_pixel_values",
            "region_masks",
            "region_frame_index",
            "region_lengths",
            "region_num_tokens",
            "sample_counts",
        ]

    @property
    def grid_size(self) -> int:
        """`int`: Patches per side of a frame."""
        return self.video_processor.size["height"] // self.patch_size

    @property
    def min_scene_frames(self) -> int:
        """`int`: Fewest scene frames the connector can join."""
        return max(2, self.connector_downsample[0])

    def num_scene_tokens(self, num_frames: int) -> int:
        """Return the scene tokens of a video of `num_frames` scene frames.

        Args:
            num_frames (`int`): Scene frames, at least the connector's temporal kernel.

        Returns:
            `int`: Joined frames x joined rows x joined columns.
        """
        frames, rows, columns = self.connector_downsample
        return (num_frames // frames) * (self.grid_size // rows) * (self.grid_size // columns)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        images: Any = None,
        regions: Any = None,
        num_frames: int | None = None,
        num_region_frames: Any = _UNSET,
        num_region_tokens: int | None = None,
        empty_masks: str = "error",
        edit_list: str | Sequence[str | None] | None = None,
        start_seconds: float | Sequence[float | None] | None = None,
        end_seconds: float | Sequence[float | None] | None = None,
        fps: float | Sequence[float | None] | None = None,
        return_metadata: bool | None = None,
        media: Sequence[SampleMedia] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Make model inputs.

        Args:
            text (`str` or `list[str]`): Prompts with `<video>`, `<image>` and `<region>` marks.
            videos (`Any`, *optional*): One video, a list in the order of the marks, or one list per text. A video is a
                path, URL, bytes, binary file object, folder of frames, list of pictures or `(T, H, W, 3)` array.
            images (`Any`, *optional*): Still images, likewise.
            regions (`list`, *optional*): One list of regions per text; a flat list for a single string. See
                docs/regions.md for the forms of a region.
            num_frames (`int`, *optional*): Scene frames per video, at least 2; the video processor's by default.
            num_region_frames (`int`, *optional*): Most frames used of a region; `None` keeps all. The processor's by
                default.
            num_region_tokens (`int`, *optional*): Most tokens of a region; the processor's by default.
            empty_masks (`str`, *optional*, defaults to `"error"`): What to do with empty masks of `frames`: `"error"`,
                `"drop"`, or `"keep"` (the published behaviour).
            edit_list (`str` or `list[str]`, *optional*): `"apply"` counts frames as players do, `"ignore"` as the
                published annotations do. One value, or one per video.
            start_seconds (`float` or `list[float]`, *optional*): Start of the range scene frames are taken from.
            end_seconds (`float` or `list[float]`, *optional*): End of that range.
            fps (`float` or `list[float]`, *optional*): Frames per second of folders and in-memory frames.
            return_metadata (`bool`, *optional*): Whether to return `video_metadata` and `region_metadata`.
            media (`list[SampleMedia]`, *optional*): Media that [`apply_chat_template`] collected, in place of
                `videos`, `images` and `regions`.
            kwargs: Keywords of the tokenizer (`padding`, `truncation`, `return_tensors`, ...), `do_sample_frames`,
                `video_metadata`, `resize_backend`, and what the library's processors take.

        Returns:
            `BatchFeature`: `input_ids`, `attention_mask` and, as far as the batch has them, the inputs of
            [`VideoReferModel.forward`]; those are torch tensors also without `return_tensors`.

        Raises:
            ValueError: If marks and payloads differ in number, a region or option is malformed, or truncation would
                cut a placeholder.
            TypeError: If a keyword is unknown, or something is of a wrong kind.
            OSError: If a file cannot be read.
        """
        merged = self._merge_call_kwargs(
            kwargs,
            num_frames=num_frames,
            edit_list=edit_list,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            fps=fps,
            return_metadata=return_metadata,
        )
        texts = _check_texts(text)
        unmarked = _unmarked_prefix() if merged["text_kwargs"].get("sanitize_control_tokens") else ""
        marks = [find_marks(one, unmarked_prefix=unmarked) for one in texts]
        is_batch = not isinstance(text, str)
        if media is None:
            media = media_from_lists(marks, videos=videos, images=images, regions=regions, is_batch=is_batch)
        elif any(value is not None for value in (videos, images, regions)):
            raise ValueError("`media` takes the place of `videos`, `images` and `regions`. Pass either.")
        check_counts(media, marks)
        loaded = self._load_media(
            media,
            merged,
            num_region_frames=self.num_region_frames if num_region_frames is _UNSET else num_region_frames,
            num_region_tokens=self.num_region_tokens if num_region_tokens is None else num_region_tokens,
            empty_masks=empty_masks,
        )
        return self._build_inputs(texts, marks, loaded, merged)

    def _merge_call_kwargs(self, kwargs: dict[str, Any], **options: Any) -> dict[str, dict]:
        """Check the keywords of a call and sort them by sub-processor."""
        known = {*LIBRARY_KEYWORDS, *inspect.signature(type(self).__call__).parameters} - {"self", "kwargs"}
        check_keywords(kwargs, known, "The processor")
        if kwargs.get("audio") is not None:
            raise ValueError("`audio` is given, but VideoRefer takes no sound. Leave it out.")
        given = {**kwargs, **{name: value for name, value in options.items() if value is not None}}
        given = {name: as_python(value) for name, value in given.items() if name != "audio"}
        try:
            return self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **given)
        except StrictDataclassFieldValidationError as error:  # neither a ValueError nor a TypeError
            raise TypeError(f"A keyword of the processor has a value of a wrong kind. {error}") from error

    def _load_media(
        self,
        media: Sequence[SampleMedia],
        merged: Mapping[str, Mapping[str, Any]],
        *,
        num_region_frames: int | None,
        num_region_tokens: int,
        empty_masks: str,
    ) -> LoadedMedia:
        """Check the options of the call and load what it needs."""
        given = {name: value for name, value in merged["videos_kwargs"].items() if value is not None}
        check_call_settings(
            merged, has_videos=any(one.videos for one in media), has_images=any(one.images for one in media)
        )
        if num_region_frames is not None:
            num_region_frames = parse_whole(num_region_frames, "num_region_frames", least=1)
        options = MediaOptions(
            num_frames=parse_whole(
                given.get("num_frames", self.video_processor.num_frames), "num_frames", least=self.min_scene_frames
            ),
            num_region_frames=num_region_frames,
            num_region_tokens=parse_whole(num_region_tokens, "num_region_tokens", least=1),
            empty_masks=empty_masks,
            grid_size=self.grid_size,
            min_scene_frames=self.min_scene_frames,
            do_sample_frames=given.get("do_sample_frames", self.video_processor.do_sample_frames),
            video_metadata=flatten_metadata(given.get("video_metadata")),
            resize_backend=given.get("resize_backend"),
        )
        media = with_video_options(media, {name: given.get(name) for name in VIDEO_OPTIONS})
        return MediaLoader(self.video_processor, self.image_processor, options).load(media)

    def _build_inputs(
        self, texts: list[str], marks: list[list[re.Match]], loaded: LoadedMedia, merged: dict[str, dict]
    ) -> BatchFeature:
        """Expand the marks, tokenize, and put everything together."""
        text_kwargs = merged["text_kwargs"]
        return_tensors = text_kwargs.pop("return_tensors", None)
        # The library accepts both of these among the keywords of the tokenizer too.
        return_type_ids, return_offsets = (
            text_kwargs.pop(name, merged.get(name, False))
            for name in ("return_mm_token_type_ids", "return_text_replacement_offsets")
        )
        num_tokens_of_region = iter(loaded.num_tokens_per_region)
        num_tokens = {
            "video": self.num_scene_tokens(loaded.num_scene_frames),
            "image": self.num_scene_tokens(self.num_image_frames),
        }
        expanded, offsets = [], []
        for one, found in zip(texts, marks, strict=True):
            counts = [
                next(num_tokens_of_region) if match.lastgroup == "region" else num_tokens[match.lastgroup]
                for match in found
            ]
            one, one_offsets = expand_marks(one, found, counts)
            expanded.append(one)
            offsets.append(one_offsets)
        encoded = self.tokenizer(expanded, **text_kwargs)
        self._check_special_mm_tokens(expanded, encoded, modalities=list(MARKS))
        data = {**encoded}
        if return_offsets:
            data["text_replacement_offsets"] = offsets
        if return_type_ids:
            data["mm_token_type_ids"] = self.create_mm_token_type_ids(encoded["input_ids"])
        if merged["videos_kwargs"].get("return_metadata"):
            data["video_metadata"] = loaded.video_metadata
            data["region_metadata"] = loaded.region_metadata
        tensors = loaded.tensors
        if return_tensors == "np":
            tensors = {name: value.numpy() for name, value in tensors.items()}
        return BatchFeature(
            {**data, **tensors}, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion
        )

    def _get_num_multimodal_tokens(
        self,
        image_sizes: Sequence[Sequence[int]] | None = None,
        video_sizes: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> MultiModalData:
        """Return placeholder counts for serving engines; `video_sizes` are (frames, height, width).

        With `do_sample_frames=False` the frames of a video are those it has, as in the call.
        """
        data: dict[str, list[int]] = {}
        if image_sizes is not None:
            data["num_image_tokens"] = [self.num_scene_tokens(self.num_image_frames)] * len(image_sizes)
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            num_sampled = kwargs.get("num_frames") or self.video_processor.num_frames
            is_sampled = kwargs.get("do_sample_frames")
            is_sampled = self.video_processor.do_sample_frames if is_sampled is None else is_sampled
            data["num_video_tokens"] = [
                self.num_scene_tokens(num_sampled if is_sampled else num_frames) for num_frames, *_ in video_sizes
            ]
        return MultiModalData(**data)


def _check_texts(text: Any) -> list[str]:
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"`text` must be a string or a non-empty list of strings, got {text!r:.80}.")
    return list(texts)


def _unmarked_prefix() -> str:
    """Return a regular expression that holds where the library has not marked what follows as a user's plain text."""
    region = MARKS["region"]
    return f"(?<!{mark_control_tokens(region, re.compile(region)).split(region)[0]})"


__all__ = ["VideoReferProcessor", "VideoReferProcessorKwargs"]
