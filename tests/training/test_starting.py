"""What a run starts from: new parts, and a region encoder scaled to its features."""

import pytest
import torch
from tiny import tiny_model
from training_rows import as_dataset, copy_of, made_up_rows, make_trainer, text_row, write_clips

from transformers_videorefer.training.scenes import unshare_media
from transformers_videorefer.training.stages import module_of_parameter
from transformers_videorefer.training.starting import first_rows, standardize_regions, start_anew


RUN = {"per_device_train_batch_size": 4, "max_steps": 1, "multi_frame_ratio": 1.0}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


@pytest.mark.parametrize("parts", [["connector"], ["region_encoder", "language_model"], []])
def test_named_parts_start_anew_and_no_other(parts):
    model = tiny_model()
    before = copy_of(model)
    torch.manual_seed(5)
    start_anew(model, parts)
    for name, value in model.named_parameters():
        is_new = module_of_parameter(name) in parts and bool((before[name] != before[name].flatten()[0]).any())
        assert torch.equal(value, before[name]) != is_new, name  # norms start at one again


def test_new_parts_have_the_scale_of_a_new_model():
    model = tiny_model()
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(9.0)
    start_anew(model, ["language_model", "region_encoder"])
    layer = model.model.language_model.layers[0]
    assert layer.mlp.up_proj.weight.std().item() == pytest.approx(0.2, rel=0.1)  # `initializer_range`
    assert (layer.input_layernorm.weight == 1).all()
    # The default scheme of linear layers of 32 inputs: uniform within 1 / sqrt(32).
    assert 0.15 < model.model.region_encoder.linear_1.weight.abs().max() <= 32**-0.5
    assert (model.model.vision_tower.embeddings.patch_embedding.weight == 9).all()


def test_tied_embeddings_stay_one_matrix():
    model = tiny_model(tie_word_embeddings=True)
    before = model.lm_head.weight.detach().clone()
    start_anew(model, ["lm_head"])
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert not torch.equal(model.lm_head.weight, before)


def test_the_tower_cannot_start_anew():
    with pytest.raises(ValueError, match="`new_modules` names the vision tower, which always stays frozen"):
        start_anew(tiny_model(), ["vision_tower"])


def pooled_features(model, trainer, rows):
    batch = unshare_media(trainer.data_collator(rows))
    batch = {name: value for name, value in batch.items() if name not in ("row_report", "input_ids", "labels")}
    batch.pop("attention_mask")
    return model.get_region_features(**batch).last_hidden_state


def test_region_features_reach_the_first_layer_standardized(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, **RUN)
    model, rows = trainer.model, [*made_up_rows()[:6], text_row()]
    layer = model.model.region_encoder.linear_1
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    with torch.no_grad():
        features = pooled_features(model, trainer, rows)
        standardize_regions(model, rows, trainer.data_collator, batch_size=4)
        standardized = (features - features.mean(dim=0)) / features.std(dim=0)
        torch.testing.assert_close(layer(features), standardized @ weight.T + bias, atol=1e-4, rtol=1e-4)


def test_training_standardizes_once(clips, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "transformers_videorefer.training.trainer.standardize_regions",
        lambda model, rows, collator, batch_size: seen.append([row["id"] for row in rows]),
    )
    options = {**RUN, "max_steps": 2, "region_statistics_rows": 3, "save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, clips, **options).train()
    ids = [row["id"] for row in made_up_rows()]
    assert seen == [[ids[0], ids[4], ids[8]]]
    make_trainer(tmp_path, clips, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert len(seen) == 1  # what is resumed was scaled before


def test_rows_are_taken_from_all_over_a_set():
    dataset = as_dataset(made_up_rows())
    ids = [row["id"] for row in made_up_rows()]
    assert [row["id"] for row in first_rows(dataset, 4)] == [ids[0], ids[3], ids[6], ids[9]]
    assert len(first_rows(dataset, 100)) == 12
    assert [row["id"] for row in first_rows(dataset.to_iterable_dataset(), 2)] == ids[:2]


def test_rows_without_regions_have_no_statistics(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, [text_row("a"), text_row("b")], **RUN, region_statistics_rows=2)
    with pytest.raises(ValueError, match="`region_statistics_rows` found no regions"):
        trainer.train()


def test_split_weights_cannot_be_scaled(monkeypatch):
    monkeypatch.setattr("transformers_videorefer.training.starting.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ValueError, match="`region_statistics_rows` changes whole weights"):
        standardize_regions(tiny_model(), made_up_rows(), None, batch_size=2)


def test_one_region_frame_has_no_deviation(clips, tmp_path):
    trainer = make_trainer(tmp_path, clips, made_up_rows()[:1], **{**RUN, "multi_frame_ratio": 0.0})
    with pytest.raises(ValueError, match="found one region frame"):
        standardize_regions(trainer.model, made_up_rows()[:1], trainer.data_collator, 1)
