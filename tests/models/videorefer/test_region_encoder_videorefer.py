"""Mask pooling and temporal token merge, against numbers worked out by hand and against plain loops."""

import pytest
import torch

from transformers_videorefer.models.videorefer.region_encoder_videorefer import (
    VideoReferSpatialTokenExtractor,
    VideoReferTemporalTokenMerge,
)


def merge(tokens, lengths, num_tokens):
    return VideoReferTemporalTokenMerge()(
        torch.tensor(tokens, dtype=torch.float32), torch.tensor(lengths), torch.tensor(num_tokens)
    )


def test_pooling_by_hand():
    # Two frames of 4 patches with 1 channel; the second mask covers patches 1 and 3 of frame 0.
    features = torch.tensor([[1.0, 2.0, 3.0, 6.0], [10.0, 20.0, 30.0, 40.0]]).unsqueeze(-1)
    masks = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    pooled = VideoReferSpatialTokenExtractor()(features, masks, torch.tensor([1, 0, 0]))
    assert pooled.squeeze(-1).tolist() == pytest.approx([25.0, 4.0, 0.0])
    assert pooled[2].item() == 0.0  # an empty mask pools to exactly zero


def test_pooling_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 9, 6, generator=generator)
    masks = torch.rand(40, 9, generator=generator) > 0.5
    frame_index = torch.randint(0, 5, (40,), generator=generator)
    pooled = VideoReferSpatialTokenExtractor()(features, masks, frame_index)
    for row, mask, frame in zip(pooled, masks, frame_index, strict=True):
        expected = features[frame][mask].mean(dim=0) if mask.any() else torch.zeros(6)
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)


def test_pooling_of_half_precision_features_is_float32():
    features = torch.ones(1, 4, 2, dtype=torch.bfloat16)
    pooled = VideoReferSpatialTokenExtractor()(features, torch.ones(1, 4, dtype=torch.bool), torch.tensor([0]))
    assert pooled.dtype == torch.float32


def test_most_similar_neighbours_are_joined():
    # Cosines of neighbours: 1, 0, about 0.995, 0. Keeping 3 of 5 joins the pairs (0, 1) and (2, 3).
    tokens = [[2, 0], [4, 0], [0, 1], [0.1, 1], [-1, 0.1]]
    expected = torch.tensor([[3, 0], [0.05, 1], [-1, 0.1]])
    torch.testing.assert_close(merge(tokens, [5], [3]), expected)


def test_a_run_of_joined_frames_becomes_its_plain_mean():
    assert merge([[3, 0], [6, 0], [9, 0], [0, 1]], [4], [2]).tolist() == [[6, 0], [0, 1]]


def test_one_token_is_the_mean_of_all():
    assert merge([[1, 2], [3, 4], [8, 0]], [3], [1]).tolist() == [[4, 2]]


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 4, 5])
def test_exact_ties_still_give_the_asked_number(num_tokens):
    # All similarities are equal: the earliest pairs are joined first.
    merged = merge([[1, 0]] * 5, [5], [num_tokens])
    assert merged.shape == (num_tokens, 2)
    marked = merge([[float(i), 0] for i in range(1, 6)], [5], [num_tokens])
    joined = 5 - num_tokens + 1
    expected = [sum(range(1, joined + 1)) / joined, *range(joined + 1, 6)]
    assert marked[:, 0].tolist() == pytest.approx(expected)


def test_zero_tokens_have_similarity_zero():
    # Vanished masks: pairs with a zero token tie at 0 and lose to the similar pair behind them.
    merged = merge([[0, 0], [0, 0], [1, 0], [2, 0]], [4], [3])
    assert merged.tolist() == [[0, 0], [0, 0], [1.5, 0]]


def test_order_of_frames_matters():
    assert merge([[1, 0], [2, 0], [0, 1]], [3], [2]).tolist() == [[1.5, 0], [0, 1]]
    shuffled = merge([[1, 0], [0, 1], [2, 0]], [3], [2])  # both pairs have similarity 0: the first is joined
    assert shuffled.tolist() == [[0.5, 0.5], [2, 0]]


def test_regions_of_a_batch_do_not_touch():
    generator = torch.Generator().manual_seed(0)
    lengths, num_tokens = [1, 32, 5, 2, 40, 1], [1, 4, 4, 2, 8, 1]
    tokens = [torch.randn(length, 6, generator=generator) for length in lengths]
    tokens[2][0] = tokens[1][-1]  # equal neighbours across a border must not be joined
    together = merge(torch.cat(tokens).tolist(), lengths, num_tokens)
    alone = [merge(one.tolist(), [len(one)], [count]) for one, count in zip(tokens, num_tokens, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_gradients_reach_every_frame():
    tokens = torch.randn(6, 3, requires_grad=True)
    VideoReferTemporalTokenMerge()(tokens, torch.tensor([6]), torch.tensor([2])).sum().backward()
    assert (tokens.grad.abs().sum(dim=1) > 0).all()


def test_join_pairs_tells_similarity_and_what_is_joined_in_each_region() -> None:
    # Directions at 0, 60, 90 degrees, then at 0 and 45 degrees of the next region.
    angles = torch.deg2rad(torch.tensor([0.0, 60, 90, 0, 45]))
    tokens = torch.stack([angles.cos(), angles.sin()], dim=-1)
    similarity, is_joined = VideoReferTemporalTokenMerge().join_pairs(
        tokens, torch.tensor([3, 2]), torch.tensor([2, 1])
    )
    assert torch.allclose(similarity, torch.tensor([0.5, 3**0.5 / 2, 0.0, 2**-0.5]), atol=1e-6)
    assert is_joined.tolist() == [False, True, False, True]
