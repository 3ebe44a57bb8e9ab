"""The VideoRefer processor: text with marks, media and regions in, model inputs out."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from transformers import BatchFeature
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.processing_utils import (
    _UNMARKED,
    MultiModalData,
    ProcessingKwargs,
    ProcessorMixin,
    _get_template_variables,
)
from transformers.video_processing_utils import VideoProcessorMixin

from .conversation_videorefer import (
    CHAT_TEMPLATE,
    MARKS,
    VIDEO_OPTIONS,
    SampleMedia,
    VideoItem,
    check_count,
    collect_media,
    find_marks,
    group_by_sample,
    is_item,
)
from .media_loading_videorefer import LoadedMedia, MediaLoader, MediaOptions
from .video_processing_videorefer import VideoReferVideoProcessorKwargs


_UNSET = object()  # `None` is a meaningful value of `num_region_frames`
# Settings of the two sub-processors that may change from call to call; the others belong to the checkpoint.
_CALL_VIDEO_KWARGS = {
    "num_frames",
    "do_sample_frames",
    "video_metadata",
    "return_metadata",
    "return_tensors",
    *VIDEO_OPTIONS,
}


class VideoReferProcessorKwargs(ProcessingKwargs, total=False):
    """Keywords of [`VideoReferProcessor`]."""

    videos_kwargs: VideoReferVideoProcessorKwargs


class VideoReferProcessor(ProcessorMixin):
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
        ValueError: If a number is out of range.
    """

    valid_processor_kwargs = VideoReferProcessorKwargs
    skip_tensor_conversion: ClassVar[list[str]] = ["video_metadata", "region_metadata", "text_replacement_offsets"]
    text_kwargs: ClassVar[dict[str, Any]] = {"padding": True}
    # Set by the package: loads a folder in the published layout, which has no processor files.
    published_loader: ClassVar[Callable[..., "VideoReferProcessor | None"] | None] = None

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
        _check_at_least("num_region_tokens", num_region_tokens, 1)
        if num_region_frames is not None:
            _check_at_least("num_region_frames", num_region_frames, 1)
        self.num_region_frames = num_region_frames
        self.num_region_tokens = num_region_tokens
        self.num_image_frames = num_image_frames
        self.patch_size = patch_size
        self.connector_downsample = list(connector_downsample)
        tokenizer.add_tokens([MARKS["region"], MARKS["video"], MARKS["image"]], special_tokens=True)
        tokenizer.padding_side = "left"  # prompts of a batch must end where generation starts
        for kind, mark in MARKS.items():
            setattr(self, f"{kind}_token", mark)
            setattr(self, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(mark))
        if not isinstance(image_processor, SiglipImageProcessorPil):
            image_processor = SiglipImageProcessorPil.from_dict(image_processor.to_dict())
        super().__init__(
            image_processor,
            tokenizer,
            video_processor,
            chat_template=CHAT_TEMPLATE if chat_template is None else chat_template,
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
        return_metadata: bool = False,
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
            return_metadata (`bool`, *optional*, defaults to `False`): Whether to return `video_metadata` and
                `region_metadata`.
            media (`list[SampleMedia]`, *optional*): Media that [`apply_chat_template`] collected, in place of
                `videos`, `images` and `regions`.
            kwargs: Further keywords of the tokenizer (`padding`, `truncation`, `return_tensors`, ...) and
                `do_sample_frames`, `video_metadata`.

        Returns:
            `BatchFeature`: `input_ids`, `attention_mask` and, as far as the batch has them, the inputs of
            [`VideoReferModel.forward`].

        Raises:
            ValueError: If marks and payloads differ in number, a region or option is malformed, or truncation would
                cut a placeholder.
            OSError: If a file cannot be read.
        """
        texts = self._texts(text)
        unmarked = _UNMARKED if kwargs.get("sanitize_control_tokens") else ""
        marks = [find_marks(one, unmarked_prefix=unmarked) for one in texts]
        if media is None:
            media = self._media_from_lists(marks, videos, images, regions, is_batch=not isinstance(text, str))
        for sample, (one, found) in enumerate(zip(media, marks, strict=True)):
            for kind, items in (("video", one.videos), ("image", one.images), ("region", one.regions)):
                check_count(len(items), [m.lastgroup for m in found].count(kind), kind=kind, sample=sample)
        media = _with_video_options(
            media, edit_list=edit_list, start_seconds=start_seconds, end_seconds=end_seconds, fps=fps
        )
        if num_frames is not None:
            kwargs["num_frames"] = num_frames
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        loaded = self._load_media(
            media,
            merged["videos_kwargs"],
            num_region_frames=self.num_region_frames if num_region_frames is _UNSET else num_region_frames,
            num_region_tokens=self.num_region_tokens if num_region_tokens is None else num_region_tokens,
            empty_masks=empty_masks,
        )
        return self._build_inputs(texts, marks, loaded, merged, return_metadata=return_metadata)

    def _texts(self, text: str | Sequence[str] | None) -> list[str]:
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(one, str) for one in texts):
            raise ValueError(f"`text` must be a string or a non-empty list of strings, got {type(text).__name__}.")
        return list(texts)

    def _media_from_lists(
        self, marks: list[list[re.Match]], videos: Any, images: Any, regions: Any, *, is_batch: bool
    ) -> list[SampleMedia]:
        """Distribute `videos=`, `images=` and `regions=` over the samples."""
        kinds = [[match.lastgroup for match in found] for found in marks]
        groups = {
            kind: group_by_sample(values, [found.count(kind) for found in kinds], kind=kind, is_batch=is_batch)
            for kind, values in (("video", videos), ("image", images), ("region", regions))
        }
        return [
            SampleMedia(
                kinds=tuple(kind for kind in found if kind != "region"),
                videos=tuple(VideoItem(video) for video in groups["video"][sample]),
                images=tuple(groups["image"][sample]),
                regions=tuple(groups["region"][sample]),
            )
            for sample, found in enumerate(kinds)
        ]

    def _load_media(
        self, media: Sequence[SampleMedia], videos_kwargs: dict[str, Any], **region_options: Any
    ) -> LoadedMedia:
        unsupported = sorted(key for key in videos_kwargs if key not in _CALL_VIDEO_KWARGS)
        if unsupported and any(one.videos for one in media):
            raise ValueError(
                f"{', '.join(f'`{key}`' for key in unsupported)} cannot change from call to call, because the vision "
                "tower expects one size and scale. Set them on `processor.video_processor`."
            )
        num_frames = videos_kwargs.get("num_frames", self.video_processor.num_frames)
        _check_at_least("num_frames", num_frames, max(2, self.connector_downsample[0]))
        _check_at_least("num_region_tokens", region_options["num_region_tokens"], 1)
        if region_options["num_region_frames"] is not None:
            _check_at_least("num_region_frames", region_options["num_region_frames"], 1)
        do_sample = videos_kwargs.get("do_sample_frames", self.video_processor.do_sample_frames)
        options = MediaOptions(
            num_frames=num_frames,
            grid_size=self.grid_size,
            do_sample_frames=do_sample is not False,
            video_metadata=_as_list(videos_kwargs.get("video_metadata")),
            **region_options,
        )
        return MediaLoader(self.video_processor, self.image_processor, options).load(media)

    def _build_inputs(
        self,
        texts: list[str],
        marks: list[list[re.Match]],
        loaded: LoadedMedia,
        merged: dict[str, dict],
        *,
        return_metadata: bool,
    ) -> BatchFeature:
        """Expand the marks, tokenize, and put everything together."""
        text_kwargs = merged["text_kwargs"]
        return_tensors = text_kwargs.pop("return_tensors", None)
        return_type_ids = text_kwargs.pop("return_mm_token_type_ids", merged.get("return_mm_token_type_ids", False))
        return_offsets = text_kwargs.pop(
            "return_text_replacement_offsets", merged.get("return_text_replacement_offsets", False)
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
            one, one_offsets = _expand_marks(one, found, counts)
            expanded.append(one)
            offsets.append(one_offsets)
        encoded = self.tokenizer(expanded, **text_kwargs)
        self._check_special_mm_tokens(expanded, encoded, modalities=["image", "video", "region"])
        data = {**encoded}
        if return_offsets:
            data["text_replacement_offsets"] = offsets
        if return_type_ids:
            data["mm_token_type_ids"] = self.create_mm_token_type_ids(encoded["input_ids"])
        if return_metadata:
            data["video_metadata"] = loaded.video_metadata
            data["region_metadata"] = loaded.region_metadata
        tensors = loaded.tensors()
        if return_tensors == "np":
            tensors = {name: value.numpy() for name, value in tensors.items()}
        return BatchFeature(
            {**data, **tensors}, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion
        )

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        videos: Any = None,
        images: Any = None,
        regions: Any = None,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render a conversation and, with `tokenize=True`, make model inputs.

        Args:
            conversation (`list`): Messages, or a list of such lists. The content of a message is a string with marks, or
                a list of parts `{"type": "text" | "video" | "image" | "region", ...}`.
            chat_template (`str`, *optional*): Template to use in place of the processor's.
            videos (`Any`, *optional*): Videos for marks and parts that bring none, in order over the whole
                conversation; one list per conversation for a batch.
            images (`Any`, *optional*): Images, likewise.
            regions (`Any`, *optional*): Regions, likewise.
            processor_kwargs (`dict`, *optional*): Keywords of [`__call__`]; they may also be given directly.
            kwargs: Keywords of the library (`add_generation_prompt`, `tokenize`, `return_dict`, `return_tensors`,
                `return_assistant_tokens_mask`, ...), of the template, and of [`__call__`].

        Returns:
            `str`, `list[str]`, ids or `BatchFeature`, as in `ProcessorMixin.apply_chat_template`.

        Raises:
            ValueError: If a payload is missing or left over, a part is malformed, or a text part spells a mark.
        """
        processor_kwargs = dict(processor_kwargs or {})
        lists = {"videos": videos, "images": images, "regions": regions}
        for name, value in lists.items():
            if name in processor_kwargs:
                given = processor_kwargs.pop(name)
                lists[name] = given if value is None else value
        # The library takes keywords of `__call__` only in `processor_kwargs` and warns about all others.
        template_variables = _get_template_variables(self._resolve_chat_template(chat_template))
        for name in [name for name in kwargs if name not in template_variables and name not in _LIBRARY_CHAT_KWARGS]:
            processor_kwargs[name] = kwargs.pop(name)
        conversations, is_batched = self._normalize_conversations(conversation)
        processor_kwargs["media"] = self._media_from_conversations(
            conversations, is_batched, allow_marks_in_text=bool(kwargs.get("sanitize_control_tokens")), **lists
        )
        conversations = [[_without_payload(message) for message in messages] for messages in conversations]
        return super().apply_chat_template(
            conversations if is_batched else conversations[0],
            chat_template=chat_template,
            processor_kwargs=processor_kwargs,
            **kwargs,
        )

    def _media_from_conversations(
        self,
        conversations: list[list[Mapping[str, Any]]],
        is_batched: bool,
        *,
        videos: Any,
        images: Any,
        regions: Any,
        allow_marks_in_text: bool,
    ) -> list[SampleMedia]:
        supplies = {}
        for kind, values in (("video", videos), ("image", images), ("region", regions)):
            if values is None:
                supplies[kind] = [[] for _ in conversations]
            elif not is_batched:
                supplies[kind] = [[values] if is_item(values, kind) else list(values)]
            elif isinstance(values, (list, tuple)) and len(values) == len(conversations):
                supplies[kind] = [list(value or []) for value in values]
            else:
                raise ValueError(
                    f"`{kind}s` must be one list per conversation for a batch of {len(conversations)} conversations."
                )
        return [
            collect_media(
                messages,
                sample=sample,
                videos=supplies["video"][sample],
                images=supplies["image"][sample],
                regions=supplies["region"][sample],
                allow_marks_in_text=allow_marks_in_text,
            )
            for sample, messages in enumerate(conversations)
        ]

    def _get_num_multimodal_tokens(
        self,
        image_sizes: Sequence[Sequence[int]] | None = None,
        video_sizes: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> MultiModalData:
        """Return placeholder counts for serving engines; `video_sizes` are (frames, height, width)."""
        data: dict[str, list[int]] = {}
        if image_sizes is not None:
            data["num_image_tokens"] = [self.num_scene_tokens(self.num_image_frames)] * len(image_sizes)
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            num_frames = kwargs.get("num_frames") or self.video_processor.num_frames
            data["num_video_tokens"] = [self.num_scene_tokens(num_frames)] * len(video_sizes)
        return MultiModalData(**data)


# Named parameters of the library's `apply_chat_template` that are no keywords of `__call__`.
_LIBRARY_CHAT_KWARGS = frozenset(
    {
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "return_assistant_tokens_mask",
        "tokenize",
        "return_tensors",
        "return_dict",
        "load_audio_from_video",
        "sanitize_control_tokens",
    }
)


def _check_at_least(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")


def _as_list(value: Any) -> list[Any] | None:
    if value is None:
        return None
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _with_video_options(media: Sequence[SampleMedia], **options: Any) -> list[SampleMedia]:
    """Give every video the options of the call that it does not bring itself: one value, or one per video."""
    num_videos = sum(len(one.videos) for one in media)
    per_video: dict[str, list[Any]] = {}
    for name, value in options.items():
        if isinstance(value, (list, tuple)):
            if len(value) != num_videos:
                raise ValueError(
                    f"`{name}` has {len(value)} entries for {num_videos} videos. Pass one value or one each."
                )
            per_video[name] = list(value)
        elif value is not None:
            per_video[name] = [value] * num_videos
    result, first = [], 0
    for one in media:
        videos = []
        for offset, item in enumerate(one.videos):
            given = {name: values[first + offset] for name, values in per_video.items()}
            given = {name: value for name, value in given.items() if value is not None}
            videos.append(VideoItem(item.source, {**given, **item.options}))
        first += len(one.videos)
        result.append(SampleMedia(one.kinds, tuple(videos), one.images, one.regions))
    return result


def _without_payload(message: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce media parts to their type: the template needs no more, and the library must not load them itself."""
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        content = [part if part["type"] == "text" else {"type": part["type"]} for part in content]
    return {**message, "content": content if content is not None else ""}


def _expand_marks(text: str, marks: Sequence[re.Match], counts: Sequence[int]) -> tuple[str, list[dict[str, Any]]]:
    """Repeat each mark as often as it has tokens; return also where each was and is, in characters."""
    pieces, offsets, last, gained = [], [], 0, 0
    for match, count in zip(marks, counts, strict=True):
        start, end = match.span()
        replacement = match.group() * count
        offsets.append(
            {
                "type": match.lastgroup,
                "span": (start, end),
                "new_span": (start + gained, start + gained + len(replacement)),
                "text": match.group(),
                "replacement": replacement,
            }
        )
        pieces += [text[last:start], replacement]
        gained += len(replacement) - (end - start)
        last = end
    return "".join([*pieces, text[last:]]), offsets


__all__ = ["VideoReferProcessor", "VideoReferProcessorKwargs"]
