"""Saving: every folder written is a repository that loads without this package."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch

from transformers_videorefer.checkpoints.components import component_path, component_state_dict
from transformers_videorefer.checkpoints.repository import (
    PUSH_ARGUMENTS,
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

    # The `auto_map` of a saved repository; its modules are where the code that travels starts.
    auto_map: ClassVar[dict[str, str]]

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a repository that loads without this package: weights, configuration, code, processor and card.

        The processor is the one that `processor_factory` makes, unless the folder has one already: of the checkpoint that
        the model was loaded from, read when the model was. Nothing is fetched, and no source is read again.
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
        self.config.auto_map = dict(self.auto_map)
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
            write_code(save_directory, self.auto_map)
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
        """Write the processor that belongs to the model, if there is one."""
        if Path(save_directory, "processor_config.json").exists():
            return
        if self.processor_factory is None:
            logger.info("No processor was saved beside the model, which was not loaded from a checkpoint.")
            return
        try:
            processor = self.processor_factory()
        except LookupError as error:
            logger.warning(
                "No processor was saved beside the model: %s Save it with `processor.save_pretrained`.", error
            )
            return
        processor.write_settings(save_directory)


__all__ = ["VideoReferSavingMixin"]
