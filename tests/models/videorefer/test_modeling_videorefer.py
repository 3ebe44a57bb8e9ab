"""The model: one pass per frame, counts checked, precision, training, saving."""

import pytest
import torch
from test_generation import MARKED, THREE, batch_inputs, single_inputs
from tiny import NUM_FRAMES, box_region, noise_video, tiny_config, tiny_model, tiny_processor
from transformers import AutoProcessor

from transformers_videorefer.models.videorefer.modeling_videorefer import (
    VideoReferForConditionalGeneration,
    VideoReferModel,
)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def batch(processor):
    return batch_inputs(processor)


def logits_of(model, inputs, **options):
    with torch.no_grad():
        return model(**inputs, **options).logits


def count_tower_frames(model, monkeypatch) -> list[int]:
    """Record how many frames each call of the vision tower gets."""
    calls, tower = [], model.model.vision_tower
    original = tower.forward

    def forward(pixel_values, **kwargs):
        calls.append(len(pixel_values))
        return original(pixel_values, **kwargs)

    monkeypatch.setattr(tower, "forward", forward)
    return calls


def test_every_frame_passes_the_tower_once(model, processor, monkeypatch):
    calls = count_tower_frames(model, monkeypatch)
    # Scene frames of 12: 1, 4, 7, 10. Three objects on scene frame 4, one of them also on 5, another on 5 and 6.
    regions = [box_region([4]), box_region([4, 5], 9), box_region([5, 6], 18)]
    inputs = processor(text=THREE, videos=noise_video(12), regions=regions, return_tensors="pt")
    logits_of(model, inputs)
    assert calls == [NUM_FRAMES, 2]


def test_short_file_passes_the_tower_once_per_distinct_frame(model, processor, monkeypatch):
    inputs = processor(text=MARKED, videos=noise_video(2), regions=[box_region([1])], return_tensors="pt")
    expected = logits_of(model, inputs)
    calls = count_tower_frames(model, monkeypatch)
    torch.testing.assert_close(logits_of(model, inputs), expected)
    assert inputs["pixel_values_videos"].shape[1] == NUM_FRAMES
    assert calls == [2]


def test_image_equals_a_video_of_equal_frames(model, monkeypatch):
    image = torch.rand(1, 3, 56, 56) * 2 - 1
    calls = count_tower_frames(model, monkeypatch)
    with torch.no_grad():
        image_tokens = model.get_image_features(image).pooler_output
        video_tokens = model.model.connector(
            model.get_image_features(image).last_hidden_state.unsqueeze(1).expand(-1, NUM_FRAMES, -1, -1)
        )
    torch.testing.assert_close(image_tokens, video_tokens, atol=1e-5, rtol=1e-5)
    assert calls == [1, 1]


def test_image_costs_one_joined_frame_in_the_second_stage(model, monkeypatch):
    seen = []
    handle = model.model.connector.stage2.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with torch.no_grad():
        model.get_image_features(torch.rand(3, 3, 56, 56))
    handle.remove()
    assert seen == [3]


def test_swapped_regions_change_the_answer(model, processor):
    # A batch that mixed regions up would pass shape checks only; here it must show in the logits.
    video = noise_video(12)
    first, second = box_region([4]), box_region([4], 30)
    one = processor(text=MARKED, videos=video, regions=[first], return_tensors="pt")
    other = processor(text=MARKED, videos=video, regions=[second], return_tensors="pt")
    assert (logits_of(model, one) - logits_of(model, other)).abs().max() > 1e-2


def test_eager_equals_sdpa(model, batch):
    is_text = batch["attention_mask"].bool()  # what padding positions compute is nobody's business
    expected = logits_of(model, batch)[is_text]
    eager = tiny_model()
    eager.set_attn_implementation("eager")
    assert eager.model.vision_tower.config._attn_implementation == "eager"
    tolerance = {"atol": 1e-5 * expected.abs().max().item(), "rtol": 0}
    torch.testing.assert_close(logits_of(eager, batch)[is_text], expected, **tolerance)
    eager.set_attn_implementation({"vision_config": "sdpa", "text_config": "eager"})
    assert eager.model.vision_tower.config._attn_implementation == "sdpa"
    assert eager.model.language_model.config._attn_implementation == "eager"
    torch.testing.assert_close(logits_of(eager, batch)[is_text], expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(reference, dtype):
    # The recorded checkpoint: its weights are scaled like those of a trained model.
    folder = reference / "videorefer-tiny"
    inputs = AutoProcessor.from_pretrained(folder)(
        text=MARKED,
        videos=reference / "media" / "clip.mp4",
        regions=[box_region([3, 8, 15, 21, 30, 39])],
        return_tensors="pt",
    )
    expected = logits_of(VideoReferForConditionalGeneration.from_pretrained(folder, dtype=torch.float32), inputs)
    model = VideoReferForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    found = logits_of(model, inputs)
    assert found.dtype == dtype
    assert (found.float() - expected).norm() / expected.norm() < 3e-2


def test_pooling_and_merging_stay_float32_under_autocast(model, processor):
    inputs = single_inputs(processor)[2]
    names = [name for name in inputs if name.startswith("region_")]
    regions = {name: inputs[name] for name in names}
    with torch.no_grad():
        video = model.get_video_features(inputs["pixel_values_videos"])
        extra = regions.pop("region_pixel_values")
        features = torch.cat(
            [video.last_hidden_state.flatten(0, 1), model.model._encode_frames(extra).last_hidden_state]
        )
        arguments = (features, regions["region_masks"], regions["region_frame_index"], regions["region_lengths"])
        encoder = model.model.region_encoder
        _, expected = encoder(*arguments, regions["region_num_tokens"])
        with torch.autocast(device_type=features.device.type, dtype=torch.bfloat16):
            _, pooled = encoder(*arguments, regions["region_num_tokens"])
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, expected, atol=0, rtol=0)


def test_loss_ignores_placeholders_and_reaches_every_trained_part(processor, batch):
    model = tiny_model()
    labels = batch["input_ids"].clone()  # holds ids beyond the vocabulary
    loss = model(**batch, labels=labels).loss
    ignored = labels.clone()
    for token_id in (329, 330, 331):
        ignored[ignored == token_id] = -100
    torch.testing.assert_close(loss, model(**batch, labels=ignored).loss)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for part in (model.model.region_encoder.linear_1, model.model.connector.sampler, model.lm_head):
        assert part.weight.grad.abs().sum() > 0


def test_activation_checkpointing_gives_equal_gradients(batch):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(**batch, labels=batch["input_ids"]).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, msg=name)


@pytest.mark.parametrize("keep", [1, 3, torch.tensor([0, 5, -1])], ids=["last", "last_3", "positions"])
def test_logits_to_keep(model, processor, keep):
    inputs = single_inputs(processor)[1]
    full = logits_of(model, inputs)
    expected = full[:, -keep:] if isinstance(keep, int) else full[:, keep]
    torch.testing.assert_close(logits_of(model, inputs, logits_to_keep=keep), expected)


def test_base_model_returns_hidden_states(model, processor):
    inputs = single_inputs(processor)[2]
    with torch.no_grad():
        output = model.model(**inputs)
        torch.testing.assert_close(model.lm_head(output.last_hidden_state), model(**inputs).logits)
    assert output.region_hidden_states.shape == (1 + 4 + 4, 48)
    # 4 frames of 4 x 4 patches -> 2 x 2 x 2 joined
    assert output.video_hidden_states.shape == (1, 8, 48)
    assert output.image_hidden_states is None


def test_return_tuple(model, processor):
    inputs = single_inputs(processor)[1]
    with torch.no_grad():
        output = model(**inputs, return_dict=False)
    torch.testing.assert_close(output[0], logits_of(model, inputs))


def test_base_model_names_the_class_to_generate_with():
    with pytest.raises(TypeError, match="VideoReferForConditionalGeneration"):
        VideoReferModel(tiny_config()).generate()


def test_tower_is_cut_at_the_feature_layer():
    tower = VideoReferModel(tiny_config()).vision_tower
    assert len(tower.encoder.layers) == 2
    assert not hasattr(tower, "head")
    assert sum(parameter.numel() for parameter in tower.post_layernorm.parameters()) == 0
    assert len(VideoReferModel(tiny_config(vision_feature_layer=-1)).vision_tower.encoder.layers) == 3


def test_every_parameter_is_initialised_when_missing_from_a_checkpoint(tmp_path):
    # Weights are built on the meta device; what a checkpoint lacks must not be left as raw memory.
    torch.manual_seed(1)
    model = VideoReferForConditionalGeneration(tiny_config())
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all() and parameter.abs().max() < 10, name
    weight = model.model.connector.stage1[0].conv2.weight  # depthwise 3 x 3: fan-in 9, uniform in +-1/3
    assert 0.25 < weight.abs().max() <= 1 / 3


def test_tied_embeddings(processor, tmp_path):
    config = tiny_config()
    config.text_config.tie_word_embeddings = True
    model = VideoReferForConditionalGeneration(type(config)(**config.to_dict()))
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    loaded = VideoReferForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
    inputs = single_inputs(processor)[1]
    torch.testing.assert_close(logits_of(loaded.eval(), inputs), logits_of(model.eval(), inputs))


def test_resize_token_embeddings(processor):
    model = tiny_model()
    model.resize_token_embeddings(340)
    assert model.config.text_config.vocab_size == 340
    assert logits_of(model, single_inputs(processor)[1]).shape[-1] == 340


def test_device_map(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = VideoReferForConditionalGeneration.from_pretrained(tmp_path, device_map="auto").eval()
    inputs = single_inputs(processor)[2]
    torch.testing.assert_close(logits_of(loaded, inputs.to(loaded.device)).cpu(), logits_of(model, inputs))


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["region_mask", "pixel_value", "videos", "images", "masks", "sample_count"])
def test_unknown_media_keys_are_refused(model, processor, name):
    inputs = single_inputs(processor)[1]
    for module in (model, model.model):
        with pytest.raises(ValueError, match=f"Unknown media input.*`{name}`"):
            module(**inputs, **{name: torch.zeros(1)})


def test_library_keywords_pass(model, processor):
    inputs = single_inputs(processor)[1]
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, num_items_in_batch=3)
    assert len(output.hidden_states) == 3


def test_fewer_placeholders_than_features(model, processor):
    inputs = dict(single_inputs(processor)[1])
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == 329, 5)
    with pytest.raises(
        ValueError, match=r"Sample 0 has 0 `<region>` placeholder tokens, but its 1 region\(s\) give 1"
    ):
        model(**inputs)
    with pytest.raises(ValueError, match="Sample 0 has 0 `<region>`"):
        model.generate(**inputs, max_new_tokens=1)


@pytest.mark.parametrize("kind", ["region", "video"])
def test_placeholders_without_features(model, processor, kind):
    inputs = dict(single_inputs(processor)[1])
    inputs = {name: value for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
    if kind == "region":
        inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == 330, 5)
    for call in (model, lambda **kwargs: model.generate(**kwargs, max_new_tokens=1)):
        with pytest.raises(ValueError, match=f"The prompts have .* `<{kind}>` placeholder tokens, but the 0"):
            call(**inputs)


def test_regions_moved_between_samples(model, batch):
    # Totals agree, but sample 1 would get a region of sample 2.
    wrong = dict(batch)
    wrong["sample_counts"] = batch["sample_counts"].clone()
    wrong["sample_counts"][1, 3] += 1
    wrong["sample_counts"][2, 3] -= 1
    with pytest.raises(ValueError, match=r"sample 1|Sample 1"):
        model(**wrong)


def test_batch_without_sample_counts(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "sample_counts"}
    for call in (model, lambda **kwargs: model.generate(**kwargs, max_new_tokens=1)):
        with pytest.raises(ValueError, match="`sample_counts` is missing: 5 samples share 5 regions|`sample_counts`"):
            call(**inputs)


def test_rows_lost_from_a_batch(model, batch):
    inputs = dict(batch)
    inputs["region_pixel_values"] = batch["region_pixel_values"][:-1]
    with pytest.raises(ValueError, match="says 32 extra frames in all, but the batch holds 31"):
        model(**inputs)


def test_frame_index_outside_its_sample(model, batch):
    inputs = dict(batch)
    inputs["region_frame_index"] = batch["region_frame_index"].clone()
    inputs["region_frame_index"][0] = 5  # sample 1 has 4 scene frames and 1 extra frame
    with pytest.raises(ValueError, match="`region_frame_index` is 5 for a mask of sample 1, which has 5 frames"):
        model(**inputs)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("region_masks", lambda value: value[:, :9], r"`region_masks` must have shape \(num_region_frames, 16\)"),
        ("region_lengths", lambda value: value + 1, "`region_lengths` adds up to"),
        ("region_num_tokens", lambda value: value * 0, "must lie between 1 and `region_lengths`"),
        ("region_num_tokens", lambda value: value[:1], "`region_num_tokens` has 1 entries for 3 regions"),
        ("sample_counts", lambda value: value[:, :3], r"`sample_counts` must have shape \(batch, 4\)"),
    ],
)
def test_malformed_region_inputs(model, processor, name, change, message):
    inputs = dict(single_inputs(processor)[2])
    inputs[name] = change(inputs[name])
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_incomplete_region_inputs(model, processor):
    inputs = dict(single_inputs(processor)[1])
    del inputs["region_lengths"]
    with pytest.raises(ValueError, match="`region_lengths` missing beside the other region inputs"):
        model(**inputs)


def test_ids_and_embeddings_together(model):
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        model(input_ids=torch.ones(1, 2, dtype=torch.long), inputs_embeds=torch.zeros(1, 2, 48))


def test_media_with_embeddings_only(model, processor):
    inputs = single_inputs(processor)[1]
    with pytest.raises(ValueError, match="their placeholders can only be found in `input_ids`"):
        model(inputs_embeds=torch.zeros(1, 4, 48), pixel_values_videos=inputs["pixel_values_videos"])


def test_scene_of_one_frame(model):
    with pytest.raises(ValueError, match="The connector joins .* but got 1 frames of 4 x 4 patches"):
        model.get_video_features(torch.zeros(1, 1, 3, 56, 56))


# ---------------------------------------------------------------------------------------------------------------------
# What tools of the library ask of a model
# ---------------------------------------------------------------------------------------------------------------------


def test_hidden_states_and_attentions_of_the_tower():
    model = tiny_model()
    model.set_attn_implementation("eager")
    video = torch.rand(2, NUM_FRAMES, 3, 56, 56)
    video[1, 2] = video[1, 1]  # equal frames side by side pass the tower once
    asked = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        output = model.get_video_features(video, **asked)
        alone = [model.get_image_features(video[i, j][None], **asked) for i in range(2) for j in range(NUM_FRAMES)]
    # The tower is cut behind two of its three layers; the embeddings come first.
    assert (len(output.hidden_states), len(output.attentions)) == (3, 2)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    for name, shape in (("hidden_states", (16, 32)), ("attentions", (2, 16, 16))):
        for layer, found in enumerate(getattr(output, name)):
            assert found.shape == (2, NUM_FRAMES, *shape)
            expected = torch.cat([getattr(one, name)[layer] for one in alone])
            torch.testing.assert_close(found.flatten(0, 1), expected)
    assert model.get_video_features(video).hidden_states is None
    model.config.vision_config.output_hidden_states = True
    assert len(model.get_video_features(video).hidden_states) == 3


def test_outputs_carry_those_of_the_encoders_outside_of_training(batch):
    model = tiny_model()
    with torch.no_grad():
        output, base = model(**batch), model.model(**batch)
        video, image = model.get_video_features(**batch), model.get_image_features(**batch)
    for found in (output, base):
        torch.testing.assert_close(found.video_outputs.pooler_output, video.pooler_output)
        torch.testing.assert_close(found.video_outputs.last_hidden_state, video.last_hidden_state)
        torch.testing.assert_close(found.image_outputs.pooler_output, image.pooler_output)
        assert torch.equal(torch.cat(found.region_outputs.pooler_output), found.region_hidden_states)
        assert torch.equal(found.video_outputs.pooler_output, found.video_hidden_states)
    with torch.no_grad():
        training = model.train()(**batch)
    assert training.video_outputs is None
    assert training.video_hidden_states is not None


def test_blocks_of_the_connector_are_not_split_over_devices(model):
    assert {"VideoReferConnectorBlock", "SiglipEncoderLayer", "Qwen2DecoderLayer"} <= set(model._no_split_modules)


def test_static_caches_are_compiled_whole(model):
    assert model._can_compile_fullgraph
