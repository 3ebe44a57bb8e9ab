"""First stage of the miniature: the vision tower learns what single frames show."""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from tiny_clips import IGNORED, NUM_SCENE_FRAMES, ObjectTargets, TrainingClip, object_targets, to_pixels
from tiny_parts import Optimizers, fast_math
from torch import nn
from tqdm import tqdm

from transformers_videorefer import VideoReferForConditionalGeneration
from transformers_videorefer.data.synthetic.world import COLORS, SHAPES


logger = logging.getLogger(__name__)


class TowerHeads(nn.Module):
    """Auxiliary heads of the vision tower: color, shape, place and radius from one pooled vector."""

    def __init__(self, width: int):
        super().__init__()
        self.colors = nn.Linear(width, len(COLORS))
        self.shapes = nn.Linear(width, len(SHAPES))
        self.places = nn.Linear(width, 3)


def train_tower(
    model: VideoReferForConditionalGeneration,
    clips: list[TrainingClip],
    validation: list[TrainingClip],
    *,
    num_steps: int,
    batch_size: int,
    rng: np.random.Generator,
) -> None:
    """Teach the vision tower color, shape, place and size of the objects of single frames.

    Args:
        model ([`VideoReferForConditionalGeneration`]): Its tower is trained.
        clips (`list[TrainingClip]`): Training clips.
        validation (`list[TrainingClip]`): Clips to report on.
        num_steps (`int`): Steps.
        batch_size (`int`): Frames per step.
        rng (`np.random.Generator`): Draws the frames.
    """
    tower, targets = model.model.vision_tower, object_targets(clips)
    heads = TowerHeads(model.config.vision_config.hidden_size)
    optimizers = Optimizers(
        [tower],
        [heads],
        muon_lr=0.02,
        adam_lr=2e-3,
        num_steps=num_steps,
        warmup=min(100, num_steps // 4 + 1),
        hold=0.2,
    )
    progress = tqdm(range(num_steps), desc="vision tower", unit="step", mininterval=5)
    for step in progress:
        rows = rng.integers(len(clips), size=batch_size)
        columns = rng.integers(NUM_SCENE_FRAMES, size=batch_size)
        loss, report = _tower_loss(model, heads, clips, targets, rows, columns)
        optimizers.step(loss)
        if step % 100 == 99:
            progress.set_postfix_str(report)
    rows = np.repeat(np.arange(len(validation)), NUM_SCENE_FRAMES)
    columns = np.tile(np.arange(NUM_SCENE_FRAMES), len(validation))
    with torch.no_grad():
        _, report = _tower_loss(model, heads, validation, object_targets(validation), rows, columns)
    logger.info("vision tower, validation: %s", report)


def _tower_loss(
    model: VideoReferForConditionalGeneration,
    heads: TowerHeads,
    clips: list[TrainingClip],
    targets: ObjectTargets,
    rows: np.ndarray,
    columns: np.ndarray,
) -> tuple[torch.Tensor, str]:
    """Compute the loss of single frames, and a line about it."""
    frames = torch.from_numpy(np.stack([clips[row].frames[column] for row, column in zip(rows, columns, strict=True)]))
    masks = torch.from_numpy(
        np.stack([clips[row].masks[0, :, column] for row, column in zip(rows, columns, strict=True)])
    )
    with fast_math():
        features = model.model.vision_tower(to_pixels(frames)).last_hidden_state.float()
    present = targets.present[rows]  # (frames, objects)
    frame_index = present.nonzero()[:, 0]
    pooled = model.model.region_encoder.spatial_token_extractor(features, masks[present], frame_index)
    colors = targets.colors[rows, :, columns][present]
    shapes, places = targets.shapes[rows][present], targets.places[rows, :, columns][present]
    color_logits, shape_logits, found = heads.colors(pooled), heads.shapes(pooled), heads.places(pooled)
    loss = (
        F.cross_entropy(color_logits, colors, ignore_index=IGNORED)
        + F.cross_entropy(shape_logits, shapes)
        + 5 * F.smooth_l1_loss(found, places, beta=0.1)
    )
    known = colors != IGNORED
    color_hits = (color_logits.argmax(-1) == colors)[known].float().mean()
    shape_hits = (shape_logits.argmax(-1) == shapes).float().mean()
    error = (found - places).abs().mean(dim=0) * torch.tensor([64.0, 64.0, 13.0])
    return loss, (
        f"loss {loss.item():.3f}, color {color_hits:.1%}, shape {shape_hits:.1%}, "
        f"place {error[:2].mean():.1f} px, radius {error[2]:.1f} px"
    )


@torch.no_grad()
def encode_clips(model: VideoReferForConditionalGeneration, clips: list[TrainingClip]) -> torch.Tensor:
    """Run the frozen tower over all clips once.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model.
        clips (`list[TrainingClip]`): The clips.

    Returns:
        `torch.Tensor` of shape `(num_clips, 8, num_patches, vision_size)`: Patch features in half precision.
    """
    encoded = []
    for start in tqdm(range(0, len(clips), 16), desc="features", unit="batch", mininterval=5):
        frames = torch.from_numpy(np.stack([clip.frames for clip in clips[start : start + 16]]))
        features = model.model.vision_tower(to_pixels(frames).flatten(0, 1)).last_hidden_state
        encoded.append(features.unflatten(0, frames.shape[:2]).half())
    return torch.cat(encoded)
