"""Saving: every folder written is a repository that loads without this package."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoTokenizer

from .components_videorefer import HUB_ARGUMENTS, component_path, component_state_dict
from .loading_videorefer import read_image_settings, read_vision_config
from .repository_videorefer import (
    AUTO_MAP,
    PROCESSOR,
    PUSH_ARGUMENTS,
    VIDEO_PROCESSOR,
    PushingMixin,
    changed_files,
    edit_json,
    file_times,
    give_usual_modes,
    write_card,
    write_code,
)


logger = logging.getLogger(__name__)


class VideoReferSavingMixin(PushingMixin):
    """`save_pretrained`, `save_component` and `push_to_hub` of the VideoRefer models."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a repository that loads without this package: weights, configuration, code, processor and card.

        The processor is the one of the checkpoint that the model was loaded from, unless the folder has one already.
        With adapters (PEFT) only those are written, as usual.

        Args:
            save_directory (`str` or `os.PathLike`): Folder, made if there is none.
            is_main_process (`bool`, *optional*, defaults to `True`): Whether this process writes.
            state_dict (`dict[str, torch.Tensor]`, *optional*): Weights to write instead of the model's.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload what was written, to a private
                repository unless `private=False`.
            kwargs: Further arguments of `PreTrainedModel.save_pretrained`.
        """
        if kwargs.pop("save_original_format", False):
            logger.warning("`save_original_format` is ignored: checkpoints are always saved with our key names.")
        push_kwargs = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if push_to_hub and name in kwargs}
        os.makedirs(save_directory, exist_ok=True)
        times = file_times(save_directory)
        self.config.auto_map = dict(AUTO_MAP)
        for sub_config in (self.config.vision_config, self.config.text_config):
            sub_config.name_or_path = ""  # would be written, unlike that of the whole
        super().save_pretrained(
            save_directory,
            is_main_process=is_main_process,
            state_dict=state_dict,
            # The library would undo the renaming of published keys, which nothing could load.
            save_original_format=False,
            **kwargs,
        )
        if is_main_process:
            give_usual_modes(Path(save_directory, name) for name in changed_files(save_directory, times))
        if is_main_process and not hasattr(self, "peft_config"):
            write_code(save_directory)
            write_card(save_directory, self.config.name_or_path)
            self._save_processor(save_directory)
        if push_to_hub and is_main_process:
            self._push_changes(save_directory, times, **push_kwargs)

    def save_component(self, name: str, save_directory: str | os.PathLike, is_main_process: bool = True) -> None:
        """Write one component and the configuration, for `load_component`.

        Args:
            name (`str`): `"connector"` or `"region_encoder"`.
            save_directory (`str` or `os.PathLike`): Folder, made if there is none. It may hold other components.
            is_main_process (`bool`, *optional*, defaults to `True`): Whether this process writes.

        Raises:
            ValueError: If `name` is no component, or adapters are attached to the model.
        """
        if hasattr(self, "peft_config"):
            raise ValueError("A component cannot be saved while adapters are attached. Merge or delete them first.")
        tensors = component_state_dict(getattr(self, self.base_model_prefix, self), name)
        if not is_main_process:
            return
        os.makedirs(save_directory, exist_ok=True)
        # Beside its target, so that moving it is only a change of name.
        with tempfile.TemporaryDirectory(dir=save_directory) as scratch:
            super().save_pretrained(scratch, state_dict=tensors, save_original_format=False)
            edit_json(Path(scratch, "config.json"), lambda config: config.pop("auto_map", None))
            give_usual_modes([Path(scratch, "model.safetensors")])
            os.replace(Path(scratch, "model.safetensors"), component_path(save_directory, name))
            os.replace(Path(scratch, "config.json"), Path(save_directory, "config.json"))

    def _save_processor(self, save_directory: str | os.PathLike) -> None:
        """Write the processor that belongs to the model, if it can be found."""
        if Path(save_directory, "processor_config.json").exists():
            return
        try:
            processor = self._find_processor()
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            logger.warning(
                "No processor was saved beside the model: %s Save it with `processor.save_pretrained`.", error
            )
            return
        if processor is None:
            logger.info("No processor was saved beside the model, which was not loaded from a checkpoint.")
            return
        processor.save_pretrained(save_directory)

    def _find_processor(self) -> Any:
        """Load the processor of the checkpoint that the model comes from, `None` if it comes from none."""
        from .processing_videorefer import VideoReferProcessor

        arguments = dict(getattr(self, "_processor_arguments", {}))
        if "text" in arguments:
            return VideoReferProcessor.from_vision_text_pretrained(**arguments)
        if not self.config.name_or_path:
            return None
        if type(self).__module__.startswith("transformers_modules."):
            arguments["trust_remote_code"] = True  # it is the repository this code came from
        return VideoReferProcessor.from_pretrained(self.config.name_or_path, **arguments)


class VideoReferProcessorFilesMixin(PushingMixin):
    """`from_pretrained`, `from_vision_text_pretrained`, `save_pretrained` and `push_to_hub` of the processor."""

    # Set by the package, which knows the published layouts; returns `None` for folders in ours.
    published_loader: ClassVar[Callable[..., Any] | None] = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
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
        processor = None
        if cls.published_loader is not None:
            processor = cls.published_loader(pretrained_model_name_or_path, **kwargs)
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
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        from .video_processing_videorefer import VideoReferVideoProcessor

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
        files = super().save_pretrained(os.fspath(folder), **kwargs)
        write_code(folder)
        edit_json(folder / "processor_config.json", _set_processor_auto_map)
        edit_json(folder / "tokenizer_config.json", _clean_tokenizer_config)
        if push_to_hub:
            self._push_changes(folder, times, **push_kwargs)
        return files


def _set_processor_auto_map(config: dict[str, Any]) -> None:
    config["auto_map"] = {"AutoProcessor": PROCESSOR, "AutoVideoProcessor": VIDEO_PROCESSOR}
    config["video_processor"]["auto_map"] = {"AutoVideoProcessor": VIDEO_PROCESSOR}


def _clean_tokenizer_config(config: dict[str, Any]) -> None:
    # With `auto_map`, `AutoTokenizer` would ask whether to run code, for a tokenizer of the library. The others say
    # how the tokenizer was loaded here.
    for name in ("auto_map", "is_local", *HUB_ARGUMENTS):
        config.pop(name, None)


__all__ = ["VideoReferProcessorFilesMixin", "VideoReferSavingMixin"]
