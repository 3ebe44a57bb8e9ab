"""Loading published checkpoints through the Auto classes, and strictness about keys."""

import logging
from pathlib import Path

import pytest
import torch
from conftest import PUBLISHED, load_arrays
from published_files import TOWER, assert_weights, copy_published, our_key, split_weights, without
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

from transformers_videorefer import (
    VideoReferForConditionalGeneration,
    VideoReferModel,
    convert_checkpoint,
)


TOWER_KEYS = "model.vision_tower."
REGION_KEYS = "model.region_encoder."
SO400M = "google/siglip-so400m-patch14-384"


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModelForImageTextToText, VideoReferForConditionalGeneration),
        (AutoModelForMultimodalLM, VideoReferForConditionalGeneration),
        (AutoModelForCausalLM, VideoReferForConditionalGeneration),
        (VideoReferForConditionalGeneration, VideoReferForConditionalGeneration),
    ],
)
def test_published_checkpoint_loads(auto_class, model_class) -> None:
    model, info = auto_class.from_pretrained(PUBLISHED, output_loading_info=True)
    assert type(model) is model_class
    assert_weights(model)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert not model.training
    assert model.generation_config.repetition_penalty == 1.05


@pytest.mark.parametrize("auto_class", [AutoModel, VideoReferModel])
def test_base_model_loads_from_a_whole_checkpoint(auto_class) -> None:
    model, info = auto_class.from_pretrained(PUBLISHED, output_loading_info=True)
    assert type(model) is VideoReferModel
    assert_weights(model, prefix="model.")
    assert not info["unexpected_keys"]


def test_language_model_gives_the_golden_logits() -> None:
    model = AutoModelForImageTextToText.from_pretrained(PUBLISHED)
    case = load_arrays("e2e/text_only.npz")
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(case["input_ids"])).logits
    recorded = torch.from_numpy(case["logits_last"])
    assert (logits[:, -recorded.shape[1] :] - recorded).abs().max() < 2e-4


def test_shards_load(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    split_weights(checkpoint, 3)
    assert_weights(AutoModelForImageTextToText.from_pretrained(checkpoint))


def test_pickled_weights_load(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    assert_weights(AutoModelForImageTextToText.from_pretrained(checkpoint))


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_dtype_of_the_caller_wins(dtype) -> None:
    model = AutoModelForImageTextToText.from_pretrained(PUBLISHED, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert_weights(model)


def test_dtype_of_the_checkpoint_is_the_default(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, config={"torch_dtype": "bfloat16"})
    assert AutoModelForImageTextToText.from_pretrained(checkpoint).dtype == torch.bfloat16


def test_device_map_and_attention_of_the_caller() -> None:
    pytest.importorskip("accelerate")
    model = AutoModelForImageTextToText.from_pretrained(PUBLISHED, device_map="auto", attn_implementation="eager")
    assert_weights(model)
    assert model.config.text_config._attn_implementation == "eager"
    assert model.config.vision_config._attn_implementation == "eager"


@pytest.mark.parametrize("model_class", [AutoModelForImageTextToText, VideoReferForConditionalGeneration])
def test_fields_of_the_configuration_can_be_changed(model_class) -> None:
    model = model_class.from_pretrained(PUBLISHED, num_frames=8, num_region_tokens=2)
    assert (model.config.num_frames, model.config.num_region_tokens) == (8, 2)
    assert AutoConfig.from_pretrained(PUBLISHED, num_frames=8).num_frames == 8


def test_videollama2_starts_with_a_fresh_region_encoder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = copy_published(
        tmp_path,
        config={"model_type": "videollama2_qwen2", "mm_region_encoder_type": None},
        weights=without(REGION_KEYS),
    )
    with caplog.at_level(logging.WARNING, logger="transformers_videorefer"):
        model, info = AutoModelForImageTextToText.from_pretrained(checkpoint, output_loading_info=True)
    assert "no region_encoder: it starts fresh" in caplog.text
    assert not info["missing_keys"]
    assert_weights(model, skip=REGION_KEYS)
    for linear in (model.model.region_encoder.linear_1, model.model.region_encoder.linear_2):
        # Uniform in +-1/sqrt(inputs), as the published training starts: deviation bound / sqrt(3).
        bound = linear.in_features**-0.5
        assert linear.weight.abs().max() <= bound
        assert float(linear.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_videorefer_needs_its_region_encoder(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without(REGION_KEYS))
    with pytest.raises(OSError, match=r"4 missing: model\.region_encoder\.linear_1\.bias, model\.region_encoder"):
        AutoModelForImageTextToText.from_pretrained(checkpoint)


def test_a_part_of_the_region_encoder_is_no_fresh_start(tmp_path: Path) -> None:
    checkpoint = copy_published(
        tmp_path, config={"model_type": "videollama2_qwen2"}, weights=without(f"{REGION_KEYS}feat_linear.2.")
    )
    with pytest.raises(OSError, match=r"2 missing: model\.region_encoder\.linear_2\.bias"):
        AutoModelForImageTextToText.from_pretrained(checkpoint)


# Strictness


def test_missing_unknown_and_misshapen_keys_are_named(tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del tensors["model.norm.weight"]
        tensors["model.mystery.weight"] = torch.zeros(1)
        tensors["model.mm_projector.readout.0.bias"] = torch.zeros(7)
        return tensors

    checkpoint = copy_published(tmp_path, weights=change)
    with pytest.raises(
        OSError,
        match=r"1 missing: model\.language_model\.norm\.weight; 1 unknown: model\.mystery\.weight; "
        r"1 of another shape: model\.connector\.mlp\.0\.bias \(7,\) instead of \(64,\)",
    ):
        AutoModelForImageTextToText.from_pretrained(checkpoint)


def test_sizes_may_differ_on_request(tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors | {"model.mm_projector.readout.0.bias": torch.zeros(7)}

    checkpoint = copy_published(tmp_path, weights=change)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, ignore_mismatched_sizes=True)
    assert_weights(model, skip="model.connector.mlp.0.bias")


def test_head_is_not_made_up(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without("lm_head."))
    with pytest.raises(OSError, match=r"1 missing: lm_head\.weight"):
        AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert_weights(AutoModel.from_pretrained(checkpoint), prefix="model.")


def test_folder_with_a_component_only_names_the_way(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    (checkpoint / "model.safetensors").unlink()
    torch.save({"model.region_encoder.feat_linear.0.weight": torch.zeros(1)}, checkpoint / "region_encoder.bin")
    for auto_class in (AutoModelForImageTextToText, AutoModel):
        with pytest.raises(OSError, match=r"only \['region_encoder\.bin'\].*model\.load_component\("):
            auto_class.from_pretrained(checkpoint)


def test_folder_without_weights_is_the_usual_error(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(OSError, match="no file named model.safetensors"):
        AutoModelForImageTextToText.from_pretrained(checkpoint)
    with pytest.raises(OSError, match="holds no weights of a whole model"):
        convert_checkpoint(checkpoint, tmp_path / "output")


def test_tower_of_our_layout_is_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    AutoModelForImageTextToText.from_pretrained(PUBLISHED).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="transformers_videorefer"):
        model = AutoModelForImageTextToText.from_pretrained(tmp_path, vision_tower="anything")
        AutoProcessor.from_pretrained(tmp_path, vision_tower="anything")
    assert_weights(model)
    assert "has its own vision tower" in caplog.text
    assert "has its own image settings" in caplog.text


def test_tower_of_another_checkpoint_does_not_fit_into_offloaded_models(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    checkpoint = copy_published(tmp_path, weights=without(TOWER_KEYS))
    parts = ("model.connector", "model.region_encoder", "model.language_model", "lm_head")
    device_map = {"model.vision_tower": "disk", **dict.fromkeys(parts, "cpu")}
    with pytest.raises(OSError, match="cannot be put into an offloaded or quantised model"):
        AutoModelForImageTextToText.from_pretrained(
            checkpoint, device_map=device_map, offload_folder=tmp_path / "offload"
        )


def test_tower_of_another_size_is_refused(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without(TOWER_KEYS))
    file = tmp_path / TOWER.name / "model.safetensors"
    changed = {"vision_model.embeddings.patch_embedding.bias": torch.zeros(3)}
    save_file(load_file(file) | changed, file, {"format": "pt"})
    with pytest.raises(
        OSError, match=r"patch_embedding\.bias` of the vision tower has shape \(3,\) instead of \(48,\)"
    ):
        AutoModelForImageTextToText.from_pretrained(checkpoint)


def test_helper_translates_every_key() -> None:
    """The expectation of the tests above: no two published keys may become one."""
    keys = [our_key(key) for key in load_file(PUBLISHED / "model.safetensors")]
    kept = [key for key in keys if key is not None]
    assert len(kept) == len(set(kept)) == 179
