"""The VideoRefer processor: text with marks, media and regions in, model inputs out."""

import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.dataclasses import StrictDataclassFieldValidationError
from transformers import AutoTokenizer, BatchFeature
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.utils import logging
from transformers.utils.chat_template_utils import mark_control_tokens
from transformers.video_processing_utils import VideoProcessorMixin

from transformers_videorefer.checkpoints.components import HUB_ARGUMENTS
from transformers_videorefer.checkpoints.layouts import known_layouts
from transformers_videorefer.checkpoints.loading import add_mark_tokens, read_image_settings, read_vision_config
from transformers_videorefer.checkpoints.repository import (
    PUSH_ARGUMENTS,
    PushingMixin,
    edit_json,
    file_times,
    write_code,
)
from transformers_videorefer.inputs.assembly import LoadedMedia
from transformers_videorefer.inputs.conversation import (
    CHAT_TEMPLATE,
    check_conversations,
    collect_media,
    without_payloads,
)
from transformers_videorefer.inputs.items import (
    MARKS,
    SampleMedia,
    check_counts,
    expand_marks,
    find_marks,
    media_from_lists,
    with_video_options,
)
from transformers_videorefer.inputs.keywords import (
    LIBRARY_KEYWORDS,
    VideoReferProcessorKwargs,
    as_python,
    check_call_settings,
    check_keywords,
    check_near_misses,
)
from transformers_videorefer.inputs.loading import MediaLoader, MediaOptions
from transformers_videorefer.models.videorefer.configuration_videorefer import AUTO_MAP
from transformers_videorefer.models.videorefer.video_processing_videorefer import VideoReferVideoProcessor
from transformers_videorefer.regions.values import DEFAULT, Default, parse_region_frames, parse_whole
from transformers_videorefer.video.options import VIDEO_OPTIONS, flatten_metadata


logger = logging.get_logger(__name__)

# Most frames of a region in the published training.
DEFAULT_REGION_FRAMES = 32
# Arguments of the library.
_CHAT_ARGUMENTS = frozenset(inspect.signature(ProcessorMixin.apply_chat_template).parameters) - {"self", "kwargs"}


class VideoReferProcessor(PushingMixin, ProcessorMixin):
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
        num_region_frames=DEFAULT_REGION_FRAMES,
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
        self.num_region_frames = parse_region_frames(num_region_frames, DEFAULT_REGION_FRAMES)
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

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "VideoReferProcessor":
        """Load a processor, see `ProcessorMixin.from_pretrained`.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Folder or Hub id. With the package imported also
                one in a published layout, whose processor is made from its tokenizer and its vision tower.
            kwargs: Arguments of the library, settings to change such as `num_frames`, and `vision_tower` (`str` or
                `os.PathLike`, *optional*): folder or Hub id of the SigLIP checkpoint of a published one.

        Returns:
            [`VideoReferProcessor`].

        Raises:
            OSError: If a file cannot be found.
            TypeError: If a keyword is unknown (for checkpoints in a published layout).
            ValueError: If a setting is out of range.
        """
        processor = known_layouts().load_processor(pretrained_model_name_or_path, **kwargs)
        if processor is None:
            if kwargs.pop("vision_tower", None) is not None:
                logger.warning(
                    "`vision_tower` is ignored: `%s` has its own image settings.", pretrained_model_name_or_path
                )
            processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if kwargs.get("padding_side") is not None:
            # The side in the tokenizer file of a checkpoint does not count, but that of the caller does.
            processor.tokenizer.padding_side = kwargs["padding_side"]
        return processor

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision: str | os.PathLike,
        text: str | os.PathLike,
        *,
        num_frames: int = 16,
        **processor_kwargs: Any,
    ) -> Any:
        """Make the processor of a model that [`VideoReferForConditionalGeneration.from_vision_text_pretrained`] starts.

        Args:
            vision (`str` or `os.PathLike`): Folder or Hub id of a SigLIP checkpoint, with its image settings.
            text (`str` or `os.PathLike`): Folder or Hub id of a Qwen2 checkpoint, with its tokenizer.
            num_frames (`int`, *optional*, defaults to 16): Scene frames of the model.
            processor_kwargs: Further settings of [`VideoReferProcessor`], such as `num_region_tokens`.

        Returns:
            [`VideoReferProcessor`].

        Raises:
            OSError: If a file cannot be found.
            ValueError: If `vision` is no SigLIP checkpoint.
        """
        patch_size = read_vision_config(vision).patch_size
        return cls.from_parts(
            tokenizer=AutoTokenizer.from_pretrained(text),
            image_settings=read_image_settings(vision),
            patch_size=patch_size,
            num_frames=num_frames,
            **processor_kwargs,
        )

    @classmethod
    def from_parts(
        cls,
        *,
        tokenizer: Any,
        image_settings: dict[str, Any],
        patch_size: int,
        num_frames: int,
        video_settings: Mapping[str, Any] | None = None,
        **processor_kwargs: Any,
    ) -> Any:
        """Put a processor together.

        Args:
            tokenizer (`PreTrainedTokenizerBase`): Tokenizer; its chat template is replaced.
            image_settings (`dict[str, Any]`): Settings of the SigLIP image processor.
            patch_size (`int`): Pixels per side of a patch.
            num_frames (`int`): Scene frames of the model.
            video_settings (`dict[str, Any]`, *optional*): Settings of the video processor that differ from these.
            processor_kwargs: Further settings of [`VideoReferProcessor`].

        Returns:
            [`VideoReferProcessor`].
        """
        processor = cls(
            image_processor=SiglipImageProcessorPil(**image_settings),
            tokenizer=tokenizer,
            video_processor=VideoReferVideoProcessor(
                **{"num_frames": num_frames, **image_settings, **(video_settings or {})}
            ),
            patch_size=patch_size,
            **{"num_image_frames": num_frames, **processor_kwargs},
        )
        processor.tokenizer.chat_template = processor.chat_template
        return processor

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write the processor and the code that loads it.

        Args:
            save_directory (`str` or `os.PathLike`): Folder, made if there is none.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload what was written, to a private
                repository unless `private=False`.
            kwargs: Further arguments of `ProcessorMixin.save_pretrained`.

        Returns:
            `list[str]`: Files that the library reports.
        """
        push_kwargs = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if push_to_hub and name in kwargs}
        kwargs.pop("max_shard_size", None)
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        times = file_times(folder)
        files = self.write_settings(folder, **kwargs)
        write_code(folder, AUTO_MAP)
        if push_to_hub:
            self._push_changes(folder, times, **push_kwargs)
        return files

    def write_settings(self, folder: str | os.PathLike, **kwargs: Any) -> list[str]:
        """Write the processor without the code that loads it, as beside a model that brings the code.

        Args:
            folder (`str` or `os.PathLike`): An existing folder.
            kwargs: Further arguments of `ProcessorMixin.save_pretrained`.

        Returns:
            `list[str]`: Files that the library reports.
        """
        files = super().save_pretrained(os.fspath(folder), **kwargs)
        edit_json(Path(folder, "processor_config.json"), _set_processor_auto_map)
        edit_json(Path(folder, "tokenizer_config.json"), _clean_tokenizer_config)
        return files

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
            "video_ids",
            "video_row_ids",
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
        num_region_frames: int | str | Default | None = DEFAULT,
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
            num_region_frames (`int`, `str` or `None`, *optional*): Most frames used of a region; `None` or `"all"` keeps
                all. The processor's by default.
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
            num_region_frames=parse_region_frames(num_region_frames, self.num_region_frames),
            num_region_tokens=self.num_region_tokens if num_region_tokens is None else num_region_tokens,
            empty_masks=empty_masks,
        )
        return self._build_inputs(texts, marks, loaded, merged)

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
            TypeError: If a keyword is misspelt, or something is of a wrong kind.
        """
        processor_kwargs = dict(processor_kwargs or {})
        lists = {"videos": videos, "images": images, "regions": regions}
        for name in lists:
            nested = processor_kwargs.pop(name, None)
            if nested is not None and lists[name] is not None:
                raise ValueError(f"`{name}` is given directly and in `processor_kwargs`. Pass it once.")
            lists[name] = nested if lists[name] is None else lists[name]
        # A variable of a template is a word of it; the library looks closer at what it is handed.
        words = set(re.findall(r"\w+", f"{chat_template} {self.chat_template}"))
        of_call = {*LIBRARY_KEYWORDS, *inspect.signature(type(self).__call__).parameters}
        kwargs, processor_kwargs = _sort_keywords(kwargs, processor_kwargs, words, of_call)
        kwargs.pop("load_audio_from_video", None)  # servers ask every model that takes videos for it

        conversations, is_batch = self._normalize_conversations(_check_is_list(conversation))
        allow_marks_in_text = bool(kwargs.get("sanitize_control_tokens"))
        if kwargs.get("tokenize"):
            processor_kwargs["media"] = collect_media(
                conversations, **lists, is_batch=is_batch, allow_marks_in_text=allow_marks_in_text
            )
            # Left alone, the library would sample whenever `fps` is given, which only says how fast a folder is.
            processor_kwargs.setdefault("do_sample_frames", None)
        else:
            check_conversations(conversations, allow_marks_in_text=allow_marks_in_text)
        conversations = [[without_payloads(message) for message in messages] for messages in conversations]
        return super().apply_chat_template(
            conversations if is_batch else conversations[0],
            chat_template=chat_template,
            processor_kwargs=processor_kwargs,
            **kwargs,
        )

    def _multimodal_inputs_from_conversations(self, *args: Any, **kwargs: Any) -> tuple[list, list, list, dict]:
        # Media were collected before, with the regions; the library would open them a second time.
        return [], [], [], {}

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
        options = MediaOptions(
            num_frames=parse_whole(
                given.get("num_frames", self.video_processor.num_frames), "num_frames", least=self.min_scene_frames
            ),
            num_region_frames=num_region_frames,
            num_region_tokens=parse_whole(num_region_tokens, "num_region_tokens", least=1),
            empty_masks=empty_masks,
            grid=(self.grid_size, self.grid_size),
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


def _sort_keywords(
    kwargs: dict[str, Any],
    processor_kwargs: dict[str, Any],
    template_words: set[str],
    call_keywords: set[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the keywords of `apply_chat_template` into those of the library and template, and those of `__call__`.

    The library takes the latter only in `processor_kwargs`, and warns about others.
    """
    of_library = {name: value for name, value in kwargs.items() if name in _CHAT_ARGUMENTS | template_words}
    of_call = {name: value for name, value in kwargs.items() if name not in of_library and name in call_keywords}
    unused = sorted(set(kwargs) - set(of_library) - set(of_call))
    check_near_misses(unused, _CHAT_ARGUMENTS | call_keywords, "`apply_chat_template`")
    if unused:
        logger.warning_once(f"The chat template has no use for {', '.join(f'`{name}`' for name in unused)}.")
    twice = sorted(set(of_call) & set(processor_kwargs))
    if twice:
        raise ValueError(f"`{twice[0]}` is given directly and in `processor_kwargs`. Pass it once.")
    if "return_tensors" in processor_kwargs:
        of_library.setdefault("return_tensors", processor_kwargs.pop("return_tensors"))
    return of_library, {**processor_kwargs, **of_call}


def _check_is_list(conversation: Any) -> list[Any]:
    """Refuse what the library would fail on in ways that are hard to read."""
    is_list = isinstance(conversation, Iterable) and not isinstance(conversation, (str, Mapping))
    conversation = list(conversation) if is_list else conversation
    if not is_list or any(isinstance(entry, str) for entry in conversation):
        raise TypeError(
            f"`conversation` must be a list of messages, got {conversation!r:.80}. Write "
            '`[{"role": "user", "content": ...}]`.'
        )
    if not conversation:
        raise ValueError("`conversation` is empty. Pass at least one message.")
    return conversation


def _set_processor_auto_map(config: dict[str, Any]) -> None:
    of_video = {"AutoVideoProcessor": AUTO_MAP["AutoVideoProcessor"]}
    config["auto_map"] = {"AutoProcessor": AUTO_MAP["AutoProcessor"], **of_video}
    config["video_processor"]["auto_map"] = of_video


def _clean_tokenizer_config(config: dict[str, Any]) -> None:
    # With `auto_map`, `AutoTokenizer` would ask whether to run code, for a tokenizer of the library. The others say
    # how the tokenizer was loaded here.
    for name in ("auto_map", "is_local", *HUB_ARGUMENTS):
        config.pop(name, None)


def _unmarked_prefix() -> str:
    """Return a regular expression that holds where the library has not marked what follows as a user's plain text."""
    region = MARKS["region"]
    return f"(?<!{mark_control_tokens(region, re.compile(region)).split(region)[0]})"


__all__ = ["VideoReferProcessor", "VideoReferProcessorKwargs"]
