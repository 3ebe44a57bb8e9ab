"""LoRA: adapters on the language model only, reloaded and merged to equal logits, no path of this machine."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from tiny import box_region, noise_video, tiny_model, tiny_processor
from training_rows import copy_of, losses_of, make_trainer, write_clips
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from transformers_videorefer.bundled import TINY_CHECKPOINT
from transformers_videorefer.training.lora import (
    find_base,
    load_with_adapter,
    lora_config,
    merge_and_export,
    quantize_language_model_only,
)


PROJECTIONS = {f"self_attn.{name}_proj" for name in "qkvo"} | {f"mlp.{name}_proj" for name in ("gate", "up", "down")}
RUN = {"per_device_train_batch_size": 2, "global_batch_size": 4, "max_steps": 3, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "my-base"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForImageTextToText.from_pretrained(base)
    trainer = make_trainer(folder, clips, model=model, peft_config=lora_config(r=4, lora_alpha=8), **RUN)
    before = copy_of(trainer.model)
    trainer.train()
    trainer.save_model()
    return trainer, before, folder


@pytest.fixture(scope="module")
def inputs():
    return tiny_processor()(
        text="<video>\nWhat is <region> doing?",
        videos=noise_video(),
        regions=[box_region([1, 5])],
        return_tensors="pt",
    )


def logits_of(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def test_only_language_model_projections_carry_adapters(trained):
    trainer, _, _ = trained
    places = set()
    for name, _ in trainer.model.named_parameters():
        if "lora_" in name:
            match = re.search(r"\.language_model\.layers\.\d+\.(\S+?)\.lora_[AB]\.default\.weight$", name)
            assert match, name
            places.add(match[1])
    assert places == PROJECTIONS


def test_adapters_connector_and_region_encoder_learn_and_nothing_else(trained):
    trainer, before, _ = trained
    for name, value in trainer.model.named_parameters():
        learns = "lora_" in name or "modules_to_save" in name
        assert value.requires_grad == learns, name
        # The first step is warm-up; in the second, the first factor gets no gradient because the other is still zero.
        assert torch.equal(value, before[name]) != learns, name


def test_groups_have_their_learning_rates(clips, tmp_path, base):
    model = AutoModelForImageTextToText.from_pretrained(base)
    rates = {"learning_rate": 2e-4, "connector_learning_rate": 1e-5, "region_encoder_learning_rate": 3e-5}
    trainer = make_trainer(tmp_path, clips, model=model, peft_config=lora_config(r=4), **{**RUN, **rates})
    groups = trainer.create_optimizer().param_groups
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("connector", 1e-5),
        ("region_encoder", 3e-5),
        ("language_model", 2e-4),
    ]


def test_adapter_reloads_and_merges_to_equal_logits(trained, base, inputs, tmp_path):
    trainer, _, folder = trained
    expected = logits_of(trainer.model, inputs)
    assert not torch.allclose(expected, logits_of(tiny_model(), inputs), atol=1e-3)  # it has learned something
    torch.testing.assert_close(logits_of(load_with_adapter(folder, base), inputs), expected, atol=1e-6, rtol=0)
    merged = merge_and_export(folder, tmp_path / "merged", base)
    torch.testing.assert_close(logits_of(merged, inputs), expected, atol=1e-5, rtol=0)
    reloaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(reloaded, inputs), expected, atol=1e-5, rtol=0)
    assert not any("lora" in name for name in reloaded.state_dict())
    assert AutoProcessor.from_pretrained(tmp_path / "merged").region_token_id == 329


def test_adapter_tells_no_path_of_this_machine(trained, base):
    _, _, folder = trained
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "my-base"
    for file in folder.rglob("*"):
        if file.is_file():
            assert str(base.parent).encode() not in file.read_bytes(), file.name
    assert "library_name: peft" in (folder / "README.md").read_text()


def test_base_is_found_beside_the_adapter(trained, base, tmp_path, monkeypatch):
    _, _, folder = trained
    with pytest.raises(OSError, match="belongs to the model 'my-base', which was a folder elsewhere"):
        find_base(folder)
    monkeypatch.chdir(base.parent)
    assert find_base(folder) == "my-base"
    config = {"base_model_name_or_path": "some/model"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert find_base(tmp_path) == "some/model"
    with pytest.raises(OSError, match="holds no adapter"):
        find_base(tmp_path / "nowhere")


def test_short_target_names_are_refused(clips, tmp_path, base):
    config = LoraConfig(r=2, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="adapters outside of the language model, such as on `.*vision_tower"):
        make_trainer(
            tmp_path, clips, model=AutoModelForImageTextToText.from_pretrained(base), peft_config=config, **RUN
        )


def test_run_with_adapters_resumes(clips, tmp_path, base):
    def trainer_of(folder, **options):
        model = AutoModelForImageTextToText.from_pretrained(base)
        config = lora_config(r=4, lora_dropout=0.1)
        return make_trainer(folder, clips, model=model, peft_config=config, **RUN, **options)

    undisturbed = trainer_of(tmp_path / "a")
    undisturbed.train()
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 3}
    trainer_of(tmp_path / "b", **saving).train()
    for file in (tmp_path / "b" / "checkpoint-3").iterdir():  # as a killed process leaves it
        file.unlink()
    resumed = trainer_of(tmp_path / "b", **saving)
    resumed.train(resume_from_checkpoint=True)
    assert losses_of(resumed) == losses_of(undisturbed)


def test_only_the_language_model_is_quantized():
    from transformers.quantizers.quantizers_utils import should_convert_module

    config = quantize_language_model_only(BitsAndBytesConfig(load_in_4bit=True))
    converted = {
        name.split(".")[1] if name.startswith("model.") else name
        for name, module in tiny_model().named_modules()
        if isinstance(module, torch.nn.Linear) and should_convert_module(name, config.llm_int8_skip_modules)
    }
    assert converted == {"language_model"}


@pytest.mark.parametrize("name", ["tiny", "videorefer-tiny"])
def test_the_bundled_miniature_is_found_by_name(name, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    assert Path(find_base(tmp_path)) == TINY_CHECKPOINT
