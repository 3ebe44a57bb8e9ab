"""The STC connector: token counts, order, and sizes that do not divide."""

import pytest
import torch
from tiny import tiny_config

from transformers_videorefer.models.videorefer.connector_videorefer import VideoReferSTCConnector


@pytest.fixture(scope="module")
def connector():
    torch.manual_seed(0)
    return VideoReferSTCConnector(tiny_config()).eval()


@pytest.mark.parametrize(
    ("num_frames", "grid", "num_tokens"), [(2, 4, 4), (4, 4, 8), (5, 4, 8), (16, 27, 8 * 13 * 13), (3, 3, 1)]
)
def test_number_of_tokens(connector, num_frames, grid, num_tokens):
    with torch.no_grad():
        assert connector(torch.randn(1, num_frames, grid * grid, 32)).shape == (1, num_tokens, 48)


def test_odd_sizes_lose_the_last_frame(connector):
    features = torch.randn(1, 5, 16, 32)
    with torch.no_grad():
        torch.testing.assert_close(connector(features), connector(features[:, :4]))


def test_tokens_are_ordered_by_time_rows_columns(connector):
    # Changing the last frame pair must leave the first pair's tokens alone.
    features = torch.randn(1, 4, 16, 32)
    changed = features.clone()
    changed[:, 2:] += 1
    with torch.no_grad():
        before, after = connector(features), connector(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_videos_of_a_batch_do_not_touch(connector):
    features = torch.randn(3, 4, 16, 32)
    with torch.no_grad():
        alone = torch.cat([connector(one.unsqueeze(0)) for one in features])
        torch.testing.assert_close(connector(features), alone, atol=1e-5, rtol=1e-5)


def test_squeeze_width_is_a_quarter_of_the_input(connector):
    assert connector.stage1[0].squeeze_excitation.fc1.out_channels == 8  # 32 / 4
    assert connector.stage2[0].squeeze_excitation.fc1.out_channels == 12  # 48 / 4


def test_norms_use_the_published_epsilon(connector):
    assert {module.eps for module in connector.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-5}


@pytest.mark.parametrize(("num_frames", "grid"), [(1, 4), (2, 1)])
def test_too_little_to_join(connector, num_frames, grid):
    with pytest.raises(ValueError, match=f"but got {num_frames} frames of {grid} x {grid} patches"):
        connector(torch.zeros(1, num_frames, grid * grid, 32))
