"""Similarity maps: numbers by hand, and the model's tokens pooled again with numpy."""

import numpy as np
import pytest
import torch
from tiny import SIZE, tiny_model, tiny_processor

from transformers_videorefer.evaluation.similarity import SimilarityMap, compare_tokens, measure_similarity


HALF = 2**-0.5  # the cosine of 45 degrees


def turns(*degrees: float) -> torch.Tensor:
    """Tokens that point into directions of the plane, with lengths 1, 2, 3, ..."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=-1) * torch.arange(1, len(degrees) + 1)[:, None]


def test_cosines_of_known_directions() -> None:
    found = compare_tokens(turns(0, 45, 90, 90), [3, 5, 8, 13], num_region_tokens=4)
    assert found.frame_indices == [3, 5, 8, 13]
    assert np.allclose(found.adjacent, [HALF, HALF, 1], atol=1e-6)
    expected = [[1, HALF, 0, 0], [HALF, 1, HALF, HALF], [0, HALF, 1, 1], [0, HALF, 1, 1]]
    assert np.allclose(found.similarity, expected, atol=1e-6)
    assert found.similarity.max() <= 1
    assert not found.is_joined.any()


@pytest.mark.parametrize(
    ("num_region_tokens", "unions"),
    [
        (9, [[3], [5], [8], [13], [21]]),
        (5, [[3], [5], [8], [13], [21]]),
        # Neighbours stand 30, 10, 60 and 20 degrees apart: joined in the order 10, 20, 30, 60.
        (4, [[3], [5, 8], [13], [21]]),
        (3, [[3], [5, 8], [13, 21]]),
        (2, [[3, 5, 8], [13, 21]]),
        (1, [[3, 5, 8, 13, 21]]),
    ],
)
def test_the_most_similar_neighbours_are_joined(num_region_tokens: int, unions: list[list[int]]) -> None:
    found = compare_tokens(turns(0, 30, 40, 100, 120), [3, 5, 8, 13, 21], num_region_tokens=num_region_tokens)
    assert found.unions == unions
    assert found.is_joined.sum() == 5 - len(unions)


def test_an_empty_mask_is_like_nothing() -> None:
    found = compare_tokens(torch.tensor([[1.0, 0], [0, 0], [1, 0]]), [0, 1, 2], num_region_tokens=2)
    assert found.adjacent.tolist() == [0, 0]
    assert found.similarity.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert found.unions == [[0, 1], [2]]  # of equals the first pair is joined


def test_half_precision_tokens_are_compared_in_full() -> None:
    tokens = turns(0, 60).bfloat16()
    cosine = float(tokens[0].double() @ tokens[1].double() / tokens[0].double().norm() / tokens[1].double().norm())
    assert compare_tokens(tokens, [0, 1], num_region_tokens=4).adjacent[0] == pytest.approx(cosine, abs=1e-6)


def test_plain_numbers() -> None:
    found = SimilarityMap([4, 6], np.array([[1, 0.25], [0.25, 1]]), np.array([0.25]), np.array([True]))
    assert found.to_dict() == {
        "frame_indices": [4, 6],
        "adjacent_similarity": [0.25],
        "is_joined": [True],
        "unions": [[4, 6]],
        "similarity": [[1.0, 0.25], [0.25, 1.0]],
    }


@pytest.mark.parametrize(
    ("tokens", "frames", "message"),
    [(turns(0), [7], "marked on 1 frame, but a similarity needs two"), (turns(0, 1), [7], "has 1 frames, but there")],
)
def test_too_few_frames(tokens: torch.Tensor, frames: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_tokens(tokens, frames, num_region_tokens=4)


def test_the_models_own_tokens_are_compared() -> None:
    """The box covers the inner four of 4 x 4 patches; their mean, taken from the tower by hand, is the token."""
    model, processor = tiny_model(), tiny_processor()
    side = SIZE["height"]
    frames = np.random.default_rng(0).integers(0, 256, (9, side, side, 3), dtype=np.uint8)
    used = [1, 2, 5, 8]
    box = [side / 4, side / 4, 3 * side / 4, 3 * side / 4]
    region = {"type": "region", "frames": [{"frame_index": index, "box": box} for index in used]}
    found = measure_similarity(model, processor, {"type": "video", "video": frames}, region, num_region_tokens=2)

    pixels = torch.from_numpy(frames[used]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        patches = model.model.vision_tower(pixels).last_hidden_state.double().numpy().reshape(4, 4, 4, -1)
    tokens = patches[:, 1:3, 1:3].mean(axis=(1, 2))
    norms = np.linalg.norm(tokens, axis=1)
    expected = tokens @ tokens.T / np.outer(norms, norms)
    assert found.frame_indices == used
    assert np.allclose(found.similarity, expected, atol=1e-5)
    assert np.allclose(found.adjacent, np.diag(expected, 1), atol=1e-5)
    assert expected.min() < 0.999  # frames of noise differ
    kept_apart = int(np.argmin(np.diag(expected, 1)))
    assert found.unions == [used[: kept_apart + 1], used[kept_apart + 1 :]]


def test_options_of_the_processor() -> None:
    model, processor = tiny_model(), tiny_processor(num_region_tokens=2)
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 60, 3), dtype=np.uint8)
    region = {"type": "region", "frames": [{"frame_index": index, "box": [5, 5, 30, 30]} for index in range(8)]}
    media = {"type": "video", "video": frames}
    found = measure_similarity(model, processor, media, region, num_region_frames=4)
    # Midpoints of four parts of 0 to 7: 0.875, 2.625, 4.375 and 6.125; the processor's two tokens are left.
    assert found.frame_indices == [1, 3, 4, 6]
    assert len(found.unions) == 2
    with pytest.raises(ValueError, match="outside"):
        measure_similarity(model, processor, {"type": "video", "video": frames[:4]}, region)
