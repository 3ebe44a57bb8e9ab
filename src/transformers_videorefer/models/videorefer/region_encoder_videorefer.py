"""The spatial-temporal object encoder: mask pooling, temporal token merge and projection (VideoRefer, section 3.2.2)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from transformers_videorefer.inputs.layout import read_at_once
from transformers_videorefer.models.videorefer.configuration_videorefer import VideoReferConfig


# Where masks and regions begin is known on the CPU; tensors are taken too, at the cost of reading them from the device.
Numbers = np.ndarray | torch.Tensor


def _on_cpu(numbers: Numbers) -> np.ndarray:
    """Return whole numbers as an array."""
    return numbers if isinstance(numbers, np.ndarray) else read_at_once(numbers)[0]


class VideoReferSpatialTokenExtractor(nn.Module):
    """Mask pooling: the mean of the patch features inside a region's mask, in float32 (VideoRefer, section 3.2.2)."""

    def forward(self, features: torch.Tensor, region_masks: torch.Tensor, frame_index: Numbers) -> torch.Tensor:
        """Pool one vector for each (region, frame).

        Args:
            features (`torch.Tensor` of shape `(num_frames, num_patches, channels)`): Patch features of all frames.
            region_masks (`torch.BoolTensor` of shape `(num_region_frames, num_patches)`): Cells inside the region.
            frame_index (`np.ndarray` or `torch.LongTensor` of shape `(num_region_frames,)`): Row of `features` each mask
                belongs to.

        Returns:
            `torch.FloatTensor` of shape `(num_region_frames, channels)`: float32 means; exactly zero where a mask is
            empty.
        """
        # Masks of one frame share that frame's features: give each a slot within its frame, then pool all slots of
        # all frames in one batched product. Gathering the features once per mask would cost as many copies of them.
        frames, frame_of_mask, num_masks_of_frame = np.unique(
            _on_cpu(frame_index), return_inverse=True, return_counts=True
        )
        order = np.argsort(frame_of_mask, kind="stable")
        first_of_frame = num_masks_of_frame.cumsum() - num_masks_of_frame
        slot = np.empty_like(order)
        slot[order] = np.arange(len(order)) - first_of_frame[frame_of_mask[order]]
        num_slots = num_masks_of_frame.max()
        frames, frame_of_mask, slot = (
            torch.as_tensor(part, device=features.device) for part in (frames, frame_of_mask, slot)
        )
        # Half-precision sums over hundreds of patches lose digits that decide merges, so autocast is switched off.
        with torch.autocast(device_type=features.device.type, enabled=False):
            slots = features.new_zeros((len(frames), num_slots, features.shape[1]), dtype=torch.float32)
            slots[frame_of_mask, slot] = region_masks.to(slots.dtype)
            sums = torch.bmm(slots, features[frames].to(slots.dtype))  # (frames, slots, channels)
            counts = slots.sum(dim=-1, keepdim=True)
            means = sums / (counts + 1e-8)
        return means[frame_of_mask, slot]


class VideoReferTemporalTokenMerge(nn.Module):
    """Join the most similar neighbours among a region's frame tokens until u are left (VideoRefer, section 3.2.2)."""

    def forward(self, tokens: torch.Tensor, lengths: Numbers, num_tokens: Numbers) -> torch.Tensor:
        """Merge the tokens of all regions at once.

        Exactly `lengths - num_tokens` pairs of neighbours are joined in each region: those of highest cosine
        similarity, exact ties in the order of the frames. A run of joined frames becomes its plain mean. (The
        published code joins every pair at least as similar as the last one, so there ties give fewer tokens.)

        Args:
            tokens (`torch.FloatTensor` of shape `(sum(lengths), channels)`): Frame tokens, region after region.
            lengths (`np.ndarray` or `torch.LongTensor` of shape `(num_regions,)`): Frames of each region.
            num_tokens (`np.ndarray` or `torch.LongTensor` of shape `(num_regions,)`): Tokens to keep of each, at most
                its length.

        Returns:
            `torch.FloatTensor` of shape `(sum(num_tokens), channels)`: Merged tokens, region after region.
        """
        if len(tokens) < 2:
            return tokens
        _, is_joined = self.join_pairs(tokens, lengths, num_tokens)
        # A token starts a new run unless it is joined to its predecessor.
        run_ids = F.pad((~is_joined).long().cumsum(0), (1, 0))
        num_runs = _on_cpu(num_tokens).sum()
        sums = tokens.new_zeros((num_runs, tokens.shape[1])).index_add(0, run_ids, tokens)
        sizes = tokens.new_zeros(num_runs).index_add(0, run_ids, tokens.new_ones(len(tokens)))
        return sums / sizes.unsqueeze(-1)

    def join_pairs(
        self, tokens: torch.Tensor, lengths: Numbers, num_tokens: Numbers
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the pairs of neighbours that the merge joins.

        Args:
            tokens (`torch.FloatTensor` of shape `(sum(lengths), channels)`): Frame tokens, region after region.
            lengths (`np.ndarray` or `torch.LongTensor` of shape `(num_regions,)`): Frames of each region.
            num_tokens (`np.ndarray` or `torch.LongTensor` of shape `(num_regions,)`): Tokens to keep of each, at most
                its length.

        Returns:
            Two tensors of shape `(sum(lengths) - 1,)`: the cosine similarity of each token and the next one, and
            whether the two are joined. The pair between two regions never is.
        """
        lengths, num_tokens = _on_cpu(lengths), _on_cpu(num_tokens)
        ids = np.repeat(np.arange(len(lengths)), lengths)  # region of each token
        # Of each pair: its region, whether both tokens are of it, where the region begins, and how many pairs it joins.
        region_ids, same_region, first_pair, num_joined = (
            torch.as_tensor(part, device=tokens.device)
            for part in (
                ids[:-1],
                ids[1:] == ids[:-1],
                (lengths.cumsum() - lengths)[ids[:-1]],
                (lengths - num_tokens)[ids[:-1]],
            )
        )
        with torch.autocast(device_type=tokens.device.type, enabled=False):
            similarity = F.cosine_similarity(tokens[:-1], tokens[1:], dim=-1)
        # Rank of each pair within its region: stable sorts by similarity, then by region, keep ties in frame order.
        order = torch.argsort(similarity.masked_fill(~same_region, -torch.inf), descending=True, stable=True)
        order = order[torch.argsort(region_ids[order], stable=True)]
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - first_pair[order]
        return similarity, same_region & (rank < num_joined)


class VideoReferRegionEncoder(nn.Module):
    """Spatial-temporal object encoder: patch features and masks in, object tokens out (VideoRefer, section 3.2.2).

    Args:
        config ([`VideoReferConfig`]): Uses `vision_config.hidden_size` and `text_config.hidden_size`.
    """

    def __init__(self, config: VideoReferConfig):
        super().__init__()
        self.spatial_token_extractor = VideoReferSpatialTokenExtractor()
        self.temporal_token_merge = VideoReferTemporalTokenMerge()
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.activation = nn.GELU()
        self.linear_2 = nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)

    def forward(
        self,
        features: torch.Tensor,
        region_masks: torch.Tensor,
        frame_index: Numbers,
        lengths: Numbers,
        num_tokens: Numbers,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode all regions of a batch.

        Args:
            features (`torch.Tensor` of shape `(num_frames, num_patches, vision_size)`): Patch features of all frames.
            region_masks (`torch.BoolTensor` of shape `(num_region_frames, num_patches)`): One mask for each (region,
                frame), on the patch grid, row by row.
            frame_index (`np.ndarray` or `torch.LongTensor` of shape `(num_region_frames,)`): Row of `features` of each
                mask.
            lengths (`np.ndarray` or `torch.LongTensor` of shape `(num_regions,)`): Frames of each region.
            num_tokens (`np.ndarray` or `torch.LongTensor` of shape `(num_regions,)`): Tokens each region gives.

        Returns:
            Two tensors: object tokens of shape `(sum(num_tokens), hidden_size)` in the dtype of the weights, and
            the pooled frame tokens before merging, float32 of shape `(num_region_frames, vision_size)`.
        """
        frame_tokens = self.spatial_token_extractor(features, region_masks, frame_index)
        merged = self.temporal_token_merge(frame_tokens, lengths, num_tokens)
        # Quantised weights are stored as integers; they compute in the dtype of the tower's output.
        dtype = self.linear_1.weight.dtype
        merged = merged.to(dtype if dtype.is_floating_point else features.dtype)
        return self.linear_2(self.activation(self.linear_1(merged))), frame_tokens


__all__ = ["VideoReferRegionEncoder", "VideoReferSpatialTokenExtractor", "VideoReferTemporalTokenMerge"]
