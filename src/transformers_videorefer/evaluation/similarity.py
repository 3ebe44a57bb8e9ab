"""How alike an object looks to the model from frame to frame, and which frames it joins (VideoRefer, Fig. 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from transformers_videorefer.models.videorefer.region_encoder_videorefer import VideoReferTemporalTokenMerge


@dataclass(frozen=True, eq=False)
class SimilarityMap:
    """Cosine similarities of the object tokens of k frames, as they are before the temporal token merge.

    Attributes:
        frame_indices (`list[int]`): Number of each frame in the video, in the order of the object's frames.
        similarity (`np.ndarray` of shape `(k, k)`): Similarity of each frame's token and each other's, from -1 to 1.
        adjacent (`np.ndarray` of shape `(k - 1,)`): Similarity of each token and the next one, as the merge sees it.
        is_joined (`np.ndarray` of shape `(k - 1,)` and dtype bool): Whether the merge joins the two.
    """

    frame_indices: list[int]
    similarity: np.ndarray
    adjacent: np.ndarray
    is_joined: np.ndarray

    @property
    def unions(self) -> list[list[int]]:
        """`list[list[int]]`: Frame numbers that each token stands for after the merge, in their order."""
        unions = [[self.frame_indices[0]]]
        for index, is_joined in zip(self.frame_indices[1:], self.is_joined.tolist(), strict=True):
            if is_joined:
                unions[-1].append(index)
            else:
                unions.append([index])
        return unions

    def to_dict(self) -> dict[str, Any]:
        """Write the map as plain numbers.

        Returns:
            `dict[str, Any]`: `frame_indices`, `adjacent_similarity`, `is_joined`, `unions` and `similarity`.
        """
        return {
            "frame_indices": self.frame_indices,
            "adjacent_similarity": [round(value, 6) for value in self.adjacent.tolist()],
            "is_joined": self.is_joined.tolist(),
            "unions": self.unions,
            "similarity": [[round(value, 6) for value in row] for row in self.similarity.tolist()],
        }


def compare_tokens(tokens: torch.Tensor, frame_indices: Sequence[int], *, num_region_tokens: int) -> SimilarityMap:
    """Compare the frame tokens of one object.

    Args:
        tokens (`torch.FloatTensor` of shape `(k, channels)`): Pooled token of each frame, before the merge.
        frame_indices (`Sequence[int]`): Number of each frame in the video.
        num_region_tokens (`int`): Most tokens that the merge leaves (u of the paper).

    Returns:
        [`SimilarityMap`].

    Raises:
        ValueError: If there are fewer than two frames, or another number of frame numbers than tokens.
    """
    if len(tokens) != len(frame_indices):
        raise ValueError(f"`frame_indices` has {len(frame_indices)} frames, but there are {len(tokens)} tokens.")
    if len(tokens) < 2:
        raise ValueError(
            f"The object is marked on {len(tokens)} frame, but a similarity needs two. Mark it on more frames, for "
            "example with a masklet."
        )
    tokens = tokens.float()
    lengths = torch.tensor([len(tokens)], device=tokens.device)
    adjacent, is_joined = VideoReferTemporalTokenMerge().join_pairs(
        tokens, lengths, lengths.clamp(max=num_region_tokens)
    )
    # An empty mask gives a token of zeros, which is like nothing.
    units = torch.nn.functional.normalize(tokens, dim=-1)
    return SimilarityMap(
        list(frame_indices),
        (units @ units.T).clamp(-1, 1).cpu().numpy(),
        adjacent.cpu().numpy(),
        is_joined.cpu().numpy(),
    )


def measure_similarity(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    media: Mapping[str, Any],
    region: Mapping[str, Any],
    *,
    num_region_tokens: int | None = None,
    **processor_options: Any,
) -> SimilarityMap:
    """Run vision tower and mask pooling over the frames of an object and compare what comes out.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model.
        processor ([`VideoReferProcessor`]): Its processor.
        media (`Mapping[str, Any]`): Part of a message that stands for the video.
        region (`Mapping[str, Any]`): Part of a message that stands for the object.
        num_region_tokens (`int`, *optional*): Most tokens that the merge leaves; the processor's by default.
        processor_options: Further options of the processor, such as `num_region_frames` and `empty_masks`.

    Returns:
        [`SimilarityMap`].

    Raises:
        ValueError: If the object does not fit the video, or is marked on fewer than two frames.
        OSError: If a file cannot be read.
    """
    if num_region_tokens is None:
        num_region_tokens = processor.num_region_tokens
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [media, region]}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_metadata=True,
        num_frames=processor.min_scene_frames,  # scene frames have no part in it, and each costs a pass of the tower
        num_region_tokens=num_region_tokens,
        **processor_options,
    )
    (kept,) = inputs.pop("region_metadata")
    inputs.pop("video_metadata")
    with torch.inference_mode():
        features = model.get_region_features(**inputs.to(model.device), return_dict=True)
    return compare_tokens(features.last_hidden_state, kept["frame_indices"], num_region_tokens=num_region_tokens)
