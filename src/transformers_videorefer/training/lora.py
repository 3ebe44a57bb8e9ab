"""LoRA: adapters on the language model, connector and region encoder saved whole; merging and export."""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from transformers_videorefer.bundled import TINY_CHECKPOINT, TINY_MODEL
from transformers_videorefer.checkpoints.repository import edit_json, hub_id_or_none
from transformers_videorefer.models.videorefer.modeling_videorefer import VideoReferForConditionalGeneration
from transformers_videorefer.models.videorefer.processing_videorefer import VideoReferProcessor


try:
    from peft import LoraConfig, PeftConfig, PeftModel
except ImportError as error:
    raise ImportError("LoRA needs the library `peft`. Install it with `pip install peft`.") from error

# By full path: short names such as `q_proj` would also hit the vision tower.
LANGUAGE_MODEL_PROJECTIONS = (
    r"(.*\.)?language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)
SAVED_WHOLE = ("connector", "region_encoder")
ADAPTER_CONFIG = "adapter_config.json"


def lora_config(r: int = 128, lora_alpha: int = 256, lora_dropout: float = 0.05, **kwargs: Any) -> LoraConfig:
    """Return a LoRA configuration for VideoRefer.

    Args:
        r (`int`, *optional*, defaults to `128`): Rank.
        lora_alpha (`int`, *optional*, defaults to `256`): Scale; updates are multiplied by `lora_alpha / r`.
        lora_dropout (`float`, *optional*, defaults to `0.05`): Dropout in front of the adapters.
        kwargs: Further arguments of `LoraConfig`. Adapters lie on all projections of the language model and
            connector and region encoder learn whole, unless `target_modules` or `modules_to_save` say otherwise.

    Returns:
        `LoraConfig`.
    """
    return complete_lora_config(
        LoraConfig(r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, task_type="CAUSAL_LM", **kwargs)
    )


def quantize_language_model_only(config: Any) -> Any:
    """Keep everything but the language model out of quantization: those parts learn whole, or are small.

    Args:
        config (`BitsAndBytesConfig`): The configuration; changed in place.

    Returns:
        `BitsAndBytesConfig`: The same.
    """
    # Whole paths: the library compares names from their start.
    config.llm_int8_skip_modules = [*(f"model.{name}" for name in ("vision_tower", *SAVED_WHOLE)), "lm_head"]
    return config


def complete_lora_config(config: PeftConfig) -> PeftConfig:
    """Fill in where adapters lie and what learns whole, where a configuration leaves it open.

    Args:
        config (`PeftConfig`): Any configuration of PEFT; changed in place.

    Returns:
        `PeftConfig`: The same.
    """
    if getattr(config, "target_modules", "none") is None:
        config.target_modules = LANGUAGE_MODEL_PROJECTIONS
    if getattr(config, "modules_to_save", ()) is None:
        config.modules_to_save = list(SAVED_WHOLE)
    return config


def check_adapters(model: nn.Module) -> None:
    """Check that no adapter lies outside of the language model.

    Args:
        model (`PeftModel`): The model with adapters.

    Raises:
        ValueError: If one does; it names the modules.
    """
    strangers = sorted(
        {
            re.sub(r"\.(lora_|modules_to_save).*", "", name)
            for name, value in model.named_parameters()
            if value.requires_grad and "lora_" in name and not re.search(r"(^|\.)language_model\.", name)
        }
    )
    if strangers:
        raise ValueError(
            f"`target_modules` puts adapters outside of the language model, such as on `{strangers[0]}` "
            f"({len(strangers)} in all): short names match there too. Leave `target_modules` out, or give a regular "
            f"expression for whole paths such as {LANGUAGE_MODEL_PROJECTIONS!r}."
        )


def public_base_name(source: str | os.PathLike | None) -> str | None:
    """Name the model that an adapter belongs to without telling where it lies on this machine.

    Args:
        source (`str` or `os.PathLike`, *optional*): What the base model was loaded from.

    Returns:
        `str` or `None`: A Hub id as it is, of a path only the last folder.
    """
    if not source:
        return None
    return hub_id_or_none(source) or Path(source).resolve().name


def hide_base_path(folder: str | os.PathLike) -> None:
    """Let a saved adapter name its base by Hub id or folder name.

    Args:
        folder (`str` or `os.PathLike`): The saved adapter.
    """

    def edit(config: dict[str, Any]) -> None:
        config["base_model_name_or_path"] = public_base_name(config.get("base_model_name_or_path"))

    edit_json(Path(folder, ADAPTER_CONFIG), edit)


def find_base(adapter: str | os.PathLike, base_model: str | os.PathLike | None = None) -> str:
    """Find the model that an adapter belongs to.

    Args:
        adapter (`str` or `os.PathLike`): Folder of the adapter.
        base_model (`str` or `os.PathLike`, *optional*): Folder or Hub id; what the adapter names by default, a folder
            of this name beside the adapter or in the working directory, or a Hub id.

    Returns:
        `str`: Folder or Hub id.

    Raises:
        OSError: If there is no adapter, or its base cannot be found.
    """
    file = Path(adapter, ADAPTER_CONFIG)
    if not file.is_file():
        raise OSError(
            f"`{adapter}` holds no adapter: it has no {ADAPTER_CONFIG}. Pass the folder that training wrote."
        )
    if base_model is not None:
        return os.fspath(base_model)
    name = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if name:
        for folder in (Path(adapter).resolve().parent / name, Path(name)):
            if (folder / "config.json").is_file():
                return str(folder)
        if name in (TINY_MODEL, TINY_CHECKPOINT.name):
            return str(TINY_CHECKPOINT)
        if hub_id_or_none(name):
            return name
    raise OSError(
        f"The adapter in `{adapter}` belongs to the model {name!r}, which was a folder elsewhere. Pass it as `base_model`."
    )


def load_with_adapter(
    adapter: str | os.PathLike,
    base_model: str | os.PathLike | None = None,
    *,
    dtype: torch.dtype | str = "auto",
    **kwargs: Any,
) -> PeftModel:
    """Load a base model with an adapter on it.

    Args:
        adapter (`str` or `os.PathLike`): Folder of the adapter.
        base_model (`str` or `os.PathLike`, *optional*): Folder or Hub id of the base; found by `find_base` otherwise.
        dtype (`torch.dtype` or `str`, *optional*, defaults to `"auto"`): Dtype of the base.
        kwargs: Further arguments of the base's `from_pretrained`.

    Returns:
        `PeftModel`: In evaluation mode.

    Raises:
        OSError: If adapter or base cannot be found.
    """
    base = VideoReferForConditionalGeneration.from_pretrained(find_base(adapter, base_model), dtype=dtype, **kwargs)
    # Kept in the dtype of the base: connector and region encoder would not fit its activations otherwise.
    return PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False).eval()


def merge_and_export(
    adapter: str | os.PathLike,
    output: str | os.PathLike,
    base_model: str | os.PathLike | None = None,
    *,
    dtype: torch.dtype | str = "auto",
    **kwargs: Any,
) -> PreTrainedModel:
    """Merge an adapter into its base and write a self-contained repository.

    Args:
        adapter (`str` or `os.PathLike`): Folder of the adapter.
        output (`str` or `os.PathLike`): Folder to write, made if there is none.
        base_model (`str` or `os.PathLike`, *optional*): Folder or Hub id of the base; what the adapter names by
            default.
        dtype (`torch.dtype` or `str`, *optional*, defaults to `"auto"`): Dtype of the merged weights.
        kwargs: Further arguments of the base's `from_pretrained`, such as `device_map`.

    Returns:
        [`VideoReferForConditionalGeneration`]: The merged model.

    Raises:
        OSError: If adapter or base cannot be found.
    """
    model = load_with_adapter(adapter, base_model, dtype=dtype, **kwargs).merge_and_unload()
    has_processor = Path(adapter, "processor_config.json").is_file()
    VideoReferProcessor.from_pretrained(adapter if has_processor else find_base(adapter, base_model)).save_pretrained(
        output
    )
    model.save_pretrained(output)
    return model
