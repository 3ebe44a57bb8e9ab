"""What the miniature is taught beside its answers: color, shape, motion and place of each region, from hidden states."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from tiny_clips import MOTIONS
from torch import nn

from transformers_videorefer.data.synthetic.clips import SOURCE
from transformers_videorefer.data.synthetic.world import COLORS, FRAME_SIZE, LARGE_RADIUS, SHAPES, Scene, sample_scene
from transformers_videorefer.training import AuxiliaryLoss, RegionStates


PLACE_WEIGHT = 5.0
# First and last color, shape, motion; then x, y and radius at the start and at the end.
_SIZES = (len(COLORS), len(COLORS), len(SHAPES), len(MOTIONS), 6)


class ObjectSupervision(AuxiliaryLoss):
    """Linear heads at the last object token tell what an object of the toy world is and does.

    Only regions on several frames count: one frame shows no motion.

    Args:
        layer (`int`, *optional*, defaults to 2): See [`AuxiliaryLoss`].
        weight (`float`, *optional*, defaults to 0.3): See [`AuxiliaryLoss`].
    """

    name = "objects"

    def __init__(self, layer: int = 2, weight: float = 0.3):
        super().__init__(layer, weight)

    def build(self, model: nn.Module) -> nn.Module:
        """Make the linear head.

        Args:
            model ([`VideoReferForConditionalGeneration`]): The model.

        Returns:
            `nn.Module`: The head.
        """
        return nn.Linear(model.config.text_config.hidden_size, sum(_SIZES))

    def targets(self, row: Mapping[str, Any]) -> torch.Tensor | None:
        """Look the objects of a row up in its scene.

        Args:
            row (`Mapping[str, Any]`): A row of the synthetic shapes, or any other.

        Returns:
            `torch.FloatTensor` of shape `(num_regions, 10)` or `None`: Classes of both colors, shape and motion, then
            places, roughly between -1 and 1.
        """
        if row["source"] != SOURCE:
            return None
        scene = _scene(int(row["id"].split("-")[0]))
        return torch.tensor([_describe(scene, int(region["object_id"])) for region in row["regions"]])

    def loss(self, head: nn.Module, states: RegionStates, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss, see [`AuxiliaryLoss`].

        Args:
            head (`nn.Module`): The head.
            states ([`RegionStates`]): Hidden states.
            targets (`torch.FloatTensor` of shape `(num_regions, 10)`): What `targets` returned.

        Returns:
            `torch.Tensor` of shape `()`: Cross-entropy of the classes and smooth L1 distance of the places.
        """
        is_whole = states.lengths > 1
        if not bool(is_whole.any()):
            return states.tokens.new_zeros(())
        *logits, places = head(states.last[is_whole]).split(_SIZES, dim=-1)
        targets = targets[is_whole]
        classes = targets[:, : len(logits)].long()
        loss = sum(F.cross_entropy(one, classes[:, column]) for column, one in enumerate(logits))
        return loss + PLACE_WEIGHT * F.smooth_l1_loss(places, targets[:, len(logits) :], beta=0.1)


@functools.lru_cache(maxsize=256)
def _scene(seed: int) -> Scene:
    return sample_scene(seed)


def _describe(scene: Scene, index: int) -> list[float]:
    one, colors = scene.objects[index], list(COLORS)
    classes = [colors.index(one.color), colors.index(one.end_color), SHAPES.index(one.shape)]
    classes.append(MOTIONS.index((one.motion, one.directions)))
    centers, radii = one.centers(), one.radius_per_frame()
    places = [
        value
        for frame in (0, -1)
        for value in (*(centers[frame] / FRAME_SIZE * 2 - 1), radii[frame] / LARGE_RADIUS[1] * 2 - 1.4)
    ]
    return [float(value) for value in (*classes, *places)]
