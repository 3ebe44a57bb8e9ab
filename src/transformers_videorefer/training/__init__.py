"""Training of VideoRefer through TRL: the four stages, mixtures of data, guards, checkpoints and LoRA."""

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
]
