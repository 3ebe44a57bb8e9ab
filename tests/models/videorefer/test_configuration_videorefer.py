"""The configuration: defaults of the published 7B model, derived numbers, refusals."""

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError
from tiny import tiny_config

from transformers_videorefer.models.videorefer.configuration_videorefer import VideoReferConfig


def test_defaults_are_the_published_model():
    config = VideoReferConfig()
    assert (config.num_vision_layers, config.grid_size) == (26, 27)
    assert (config.video_token_id, config.image_token_id, config.region_token_id) == (151647, 151648, 151646)
    assert (config.num_frames, config.num_region_tokens, config.vision_feature_layer) == (16, 4, -2)
    text = config.text_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_key_value_heads) == (3584, 28, 4)
    assert config.vision_config.num_hidden_layers == 27


def test_round_trip(tmp_path):
    config = tiny_config(num_frames=6, connector_downsample=[2, 1, 1])
    config.save_pretrained(tmp_path)
    assert VideoReferConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(("layer", "num_layers"), [(-1, 3), (-2, 2), (-3, 1), (1, 1), (3, 3)])
def test_feature_layer(layer, num_layers):
    assert tiny_config(vision_feature_layer=layer).num_vision_layers == num_layers


@pytest.mark.parametrize("layer", [-4, 0, 4])
def test_feature_layer_outside_the_tower(layer):
    with pytest.raises(ValueError, match=rf"`vision_feature_layer` \({layer}\)"):
        tiny_config(vision_feature_layer=layer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"connector_depth": 0}, "`connector_depth` must be at least 1, got 0"),
        ({"num_region_tokens": 0}, "`num_region_tokens` must be at least 1, got 0"),
        ({"connector_downsample": [2, 2]}, "`connector_downsample` must be three positive numbers"),
        ({"num_frames": 1}, r"`num_frames` \(1\) is smaller"),
        ({"video_token_id": 329}, "must be three different"),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**settings)


def test_wrong_type():
    with pytest.raises(StrictDataclassFieldValidationError, match="num_frames"):
        tiny_config(num_frames="many")
