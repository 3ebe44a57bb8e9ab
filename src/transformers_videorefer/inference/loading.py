"""A model and its processor, ready for use: the only place that loads them to ask them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import is_accelerate_available

from transformers_videorefer.bundled import TINY_CHECKPOINT, TINY_MODEL

from .locating import locate_model


DTYPES = ("auto", "float32", "bfloat16", "float16")
# Half the memory where hardware computes in it; processors are slow in it, and float32 gives the reference numbers.
DTYPE_ON_ACCELERATOR, DTYPE_ELSEWHERE = "bfloat16", "float32"


class DeviceError(ValueError):
    """Torch cannot use a device.

    Args:
        device (`str`): The device.
        problem (`str`): What is wrong with it.
    """

    def __init__(self, device: str, problem: str):
        super().__init__(f'`device` is "{device}": {problem} Pass "auto" or another device.')
        self.device = device
        self.problem = problem


def choose_device(device: str = "auto") -> torch.device | None:
    """Find out whether torch can use a device, before anything is read for it.

    Args:
        device (`str`, *optional*, defaults to `"auto"`): Device, or "auto".

    Returns:
        `torch.device`: The device; for "auto" an accelerator of this machine, or None without one.

    Raises:
        DeviceError: If torch cannot use it.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return accelerator
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch that was built without a device asserts that it was
        found = "no accelerator was found" if accelerator is None else f"this machine has {accelerator.type}"
        raise DeviceError(device, f"torch cannot use it; {found}.") from error


def choose_dtype(dtype: str, device: torch.device | None) -> str:
    """Choose the precision that suits a device.

    Args:
        dtype (`str`): Precision, or "auto" for half precision on accelerators and single precision elsewhere.
        device (`torch.device`, *optional*): What [`choose_device`] returned.

    Returns:
        `str`: The precision.
    """
    if dtype != "auto":
        return dtype
    accelerator = choose_device("auto")
    is_accelerator = device is not None and accelerator is not None and device.type == accelerator.type
    return DTYPE_ON_ACCELERATOR if is_accelerator else DTYPE_ELSEWHERE


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is there, as [`find_checkpoint`] found it. Its processor can be had before its weights.

    Attributes:
        source (`str`): Hub id or folder.
        options (`Mapping[str, Any]`): Keywords of `from_pretrained`.
    """

    source: str
    options: Mapping[str, Any]

    @property
    def is_only_cached(self) -> bool:
        """`bool`: Whether the Hub could not be reached, and the cache alone has to do."""
        return self.options.get("local_files_only", False)

    def load_processor(self) -> ProcessorMixin:
        """Load the processor.

        Returns:
            `ProcessorMixin`: The processor.

        Raises:
            ValueError: If something in its files does not fit.
            OSError: If a file cannot be read.
        """
        return AutoProcessor.from_pretrained(self.source, **self.options)

    def load_model(self, device: str = "auto", dtype: str = "auto") -> PreTrainedModel:
        """Load the model where it runs best.

        Args:
            device (`str`, *optional*, defaults to `"auto"`): Device, or "auto" for the accelerators of this machine,
                if it has any.
            dtype (`str`, *optional*, defaults to `"auto"`): Precision, or "auto" for half precision on accelerators
                and single precision elsewhere, whatever the weights are stored in.

        Returns:
            `PreTrainedModel`: The model, ready for inference.

        Raises:
            DeviceError: If torch cannot use the device.
            OSError: If the model cannot be read.
        """
        chosen = choose_device(device)
        options = {**self.options, "dtype": choose_dtype(dtype, chosen)}
        if chosen is not None and is_accelerate_available():
            # "auto" spreads the model over all accelerators, and beyond where they are too small.
            options["device_map"] = device if device == "auto" else chosen
        model = AutoModelForImageTextToText.from_pretrained(self.source, **options).eval()
        return model if chosen is None or "device_map" in options else model.to(chosen)


def find_checkpoint(
    name: str | os.PathLike, *, vision_tower: str | None = None, trust_remote_code: bool = False
) -> Checkpoint:
    """Find a checkpoint, without loading anything of it.

    Args:
        name (`str` or `os.PathLike`): Hub id or folder, or "tiny" for the bundled miniature.
        vision_tower (`str`, *optional*): SigLIP tower of a published checkpoint without one, a Hub id or folder.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that comes with the checkpoint.

    Returns:
        [`Checkpoint`].

    Raises:
        CheckpointError: If the checkpoint is not there, or cannot be reached.
    """
    source = str(TINY_CHECKPOINT) if name == TINY_MODEL else os.fspath(name)
    options = {"trust_remote_code": trust_remote_code, **locate_model(source)}
    if vision_tower is not None:
        options["vision_tower"] = vision_tower
    return Checkpoint(source, options)


def load_for_use(
    name: str | os.PathLike,
    *,
    device: str = "auto",
    dtype: str = "auto",
    vision_tower: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a model and its processor to ask them.

    Args:
        name (`str` or `os.PathLike`): Hub id or folder, or "tiny" for the bundled miniature.
        device (`str`, *optional*, defaults to `"auto"`): As in [`Checkpoint.load_model`].
        dtype (`str`, *optional*, defaults to `"auto"`): As in [`Checkpoint.load_model`].
        vision_tower (`str`, *optional*): As in [`find_checkpoint`].
        trust_remote_code (`bool`, *optional*, defaults to `False`): As in [`find_checkpoint`].

    Returns:
        `tuple[PreTrainedModel, ProcessorMixin]`: The model, ready for inference, and its processor.

    Raises:
        CheckpointError: If the checkpoint is not there, or cannot be reached.
        DeviceError: If torch cannot use the device.
        OSError: If a file cannot be read.
    """
    checkpoint = find_checkpoint(name, vision_tower=vision_tower, trust_remote_code=trust_remote_code)
    processor = checkpoint.load_processor()  # before the weights: it is quick, and finds most damaged files
    return checkpoint.load_model(device, dtype), processor
