"""Training of VideoRefer through TRL: the four stages, mixtures of data, guards, checkpoints and LoRA."""

from importlib import import_module
from typing import Any

from .auxiliary import AuxiliaryLoss, RegionStates
from .config import VideoReferSFTConfig
from .guards import GuardedCollator, RowGuard, RowReport
from .stages import STAGES, Stage, freeze_all_but
from .trainer import VideoReferSFTTrainer


__all__ = [
    "STAGES",
    "AuxiliaryLoss",
    "GuardedCollator",
    "RegionStates",
    "RowGuard",
    "RowReport",
    "Stage",
    "VideoReferSFTConfig",
    "VideoReferSFTTrainer",
    "freeze_all_but",
    "merge_and_export",
]


def __getattr__(name: str) -> Any:
    # `peft` takes long to import, and most runs do without it.
    if name == "merge_and_export":
        return import_module(".lora", __name__).merge_and_export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
