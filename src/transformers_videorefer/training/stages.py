"""The four training stages: which parts learn, and with what settings (VideoRefer, section 4.1 and appendix B.1)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn


LEARNING_MODULES = ("connector", "region_encoder", "language_model", "lm_head")
_HALF_PRECISIONS = (torch.bfloat16, torch.float16)
# Heads of auxiliary losses, which learn beside the model.
AUXILIARY_HEADS = "auxiliary_heads"
_MODULE_OF_NAME = re.compile(
    rf"(?:^|\.)(vision_tower|connector|region_encoder|language_model|lm_head|{AUXILIARY_HEADS})\."
)


@dataclass(frozen=True)
class Stage:
    """Settings of one stage.

    Args:
        modules (`tuple[str, ...]`): The parts that learn, of `LEARNING_MODULES`.
        learning_rate (`float`): Peak learning rate.
        global_batch_size (`int`): Rows per optimizer step, over all processes.
        multi_frame_ratio (`float`): Share of the video rows that show their regions on all annotated frames, in
            [0, 1]; the others show one random annotated frame.
    """

    modules: tuple[str, ...]
    learning_rate: float
    global_batch_size: int
    multi_frame_ratio: float


STAGES = {
    # Image-text alignment: there are no regions yet.
    "1": Stage(("connector",), learning_rate=1e-3, global_batch_size=256, multi_frame_ratio=0.0),
    # Region-text alignment, in single-frame mode only.
    "2": Stage(("region_encoder",), learning_rate=1e-3, global_batch_size=256, multi_frame_ratio=0.0),
    # High-quality knowledge learning. The published scripts of this and the next stage say 1e-5, the paper 2e-5.
    "2.5": Stage(LEARNING_MODULES, learning_rate=2e-5, global_batch_size=128, multi_frame_ratio=0.5),
    # Visual instruction tuning.
    "3": Stage(LEARNING_MODULES, learning_rate=2e-5, global_batch_size=128, multi_frame_ratio=0.5),
}


def find_stage(name: str | float | None) -> Stage:
    """Return the settings of a stage.

    Args:
        name (`str` or `float`, *optional*): `"1"`, `"2"`, `"2.5"` or `"3"`, also as a number (YAML reads them so);
            `None` means those of stage 3.

    Returns:
        [`Stage`].

    Raises:
        ValueError: If there is no such stage.
    """
    if name is None:
        return STAGES["3"]
    key = str(name).removesuffix(".0")
    if key not in STAGES:
        raise ValueError(f"`stage` must be one of {', '.join(STAGES)}, got {name!r}.")
    return STAGES[key]


def check_modules(modules: Iterable[str], argument: str = "trainable_modules") -> None:
    """Check the names of parts that are to learn.

    Args:
        modules (`Iterable[str]`): Names.
        argument (`str`, *optional*, defaults to `"trainable_modules"`): Where they come from, in messages.

    Raises:
        ValueError: If a name is unknown, or is the vision tower, which stays frozen.
    """
    for name in modules:
        if name == "vision_tower":
            raise ValueError(
                f"`{argument}` names the vision tower, which always stays frozen. Leave it out; a tower of your "
                "own is trained before it becomes part of the model."
            )
        if name not in LEARNING_MODULES:
            raise ValueError(f"`{argument}` must be of {', '.join(LEARNING_MODULES)}, got {name!r}.")


def module_of_parameter(name: str) -> str | None:
    """Name the part of the model that a parameter belongs to.

    Args:
        name (`str`): Name of the parameter, with or without the prefixes of wrappers.

    Returns:
        `str` or `None`: One of `LEARNING_MODULES`, `"vision_tower"` or `"auxiliary_heads"`; `None` for parameters of no part.
    """
    match = _MODULE_OF_NAME.search(name)
    return match[1] if match else None


def freeze_all_but(model: nn.Module, modules: Iterable[str]) -> None:
    """Let only some parts of a model learn.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model; changed in place.
        modules (`Iterable[str]`): The parts that learn. With tied embeddings, `language_model` and `lm_head` share
            the matrix, which learns if either is named.

    Raises:
        ValueError: If a name is unknown, or is the vision tower.
    """
    modules = set(modules)
    check_modules(modules)
    learning = {id(value) for name, value in _named_parameters(model) if module_of_parameter(name) in modules}
    for _, value in _named_parameters(model):
        value.requires_grad_(id(value) in learning)


def hold_in_float32(model: nn.Module) -> torch.dtype | None:
    """Cast the parameters that learn from half precision, whose steps are too coarse, to float32.

    Args:
        model (`nn.Module`): The model; changed in place.

    Returns:
        `torch.dtype` or `None`: The dtype they had; `None` if none was in half precision, or they differed.
    """
    halves = [value for value in model.parameters() if value.requires_grad and value.dtype in _HALF_PRECISIONS]
    dtypes = {value.dtype for value in halves}
    for value in halves:
        value.data = value.data.float()
    return dtypes.pop() if len(dtypes) == 1 else None


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield all parameters, tied ones under each of their names."""
    return model.named_parameters(remove_duplicate=False)
