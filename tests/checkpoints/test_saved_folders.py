"""Saved folders: our key names, everything it takes to load without the package, nothing of this machine."""

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import PUBLISHED, REFERENCE, load_arrays
from exported_code import exported_files
from packaging import version
from published_files import TOWER, assert_weights, copy_published, expected_weights
from safetensors.torch import load_file
from tiny import box_region, noise_video, tiny_model
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    Trainer,
    TrainingArguments,
)
from transformers.integrations.peft import MIN_PEFT_VERSION

from transformers_videorefer import VideoReferForConditionalGeneration, VideoReferProcessor, VideoReferVideoProcessor
from transformers_videorefer.checkpoints import saving
from transformers_videorefer.checkpoints.loading import RememberedProcessor
from transformers_videorefer.models.videorefer import processing_videorefer


MODEL_CLASSES = {
    "AutoModel": "VideoReferModel",
    "AutoModelForImageTextToText": "VideoReferForConditionalGeneration",
    "AutoModelForMultimodalLM": "VideoReferForConditionalGeneration",
    "AutoModelForCausalLM": "VideoReferForConditionalGeneration",
}
CODE = set(exported_files())


@pytest.fixture
def model() -> VideoReferForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(PUBLISHED)


def assert_nothing_of_this_machine(folder: Path, *places: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            for place in places:
                assert str(place).encode() not in file.read_bytes(), f"{file.name} names {place}"


def media_inputs(processor: VideoReferProcessor) -> dict[str, torch.Tensor]:
    """A question about two regions of a video, one of them on a frame that is no scene frame."""
    return processor(
        text="<video>\nWhat is <region> near <region>?",
        videos=[noise_video()],
        regions=[box_region([0]), box_region([1, 5, 7])],
        num_frames=4,
        return_tensors="pt",
    )


# The model


def test_saved_model_has_our_keys_and_loads_again(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    expected = expected_weights()
    tensors = load_file(tmp_path / "model.safetensors")
    assert set(tensors) == set(expected)
    assert_weights(AutoModelForImageTextToText.from_pretrained(tmp_path))
    assert_weights(AutoModel.from_pretrained(tmp_path), prefix="model.")


def test_saved_folder_is_whole(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert CODE <= {path.name for path in tmp_path.iterdir()}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "videorefer"
    for name, class_name in MODEL_CLASSES.items():
        assert config["auto_map"][name] == f"modeling_videorefer.{class_name}"
    assert config["auto_map"]["AutoConfig"] == "configuration_videorefer.VideoReferConfig"
    assert config["auto_map"]["AutoProcessor"] == "processing_videorefer.VideoReferProcessor"
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert (processor.region_token_id, model.config.region_token_id) == (329, 329)
    card = (tmp_path / "README.md").read_text()
    assert "trust_remote_code=True" in card
    assert "base_model" not in card  # a folder of this machine is no base that anybody else could find
    assert_nothing_of_this_machine(tmp_path, REFERENCE, tmp_path)


def test_saving_in_shards_and_from_the_base_model(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    assert_weights(AutoModelForImageTextToText.from_pretrained(tmp_path / "shards"))
    model.model.save_pretrained(tmp_path / "base")
    assert_weights(AutoModel.from_pretrained(tmp_path / "base"), prefix="model.")
    with pytest.raises(OSError, match=r"1 missing: lm_head\.weight"):
        AutoModelForImageTextToText.from_pretrained(tmp_path / "base")


def test_original_format_is_refused_with_a_warning(model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="transformers_videorefer"):
        model.save_pretrained(tmp_path, save_original_format=True)
    assert "`save_original_format` is ignored" in caplog.text
    assert set(load_file(tmp_path / "model.safetensors")) == set(expected_weights())


def test_card_and_processor_of_the_user_stay(model, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    AutoProcessor.from_pretrained(PUBLISHED, num_frames=8).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert AutoProcessor.from_pretrained(tmp_path).video_processor.num_frames == 8


def test_model_from_nowhere_saves_without_processor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="transformers_videorefer"):
        tiny_model().save_pretrained(tmp_path)
    assert "No processor was saved" in caplog.text
    assert not (tmp_path / "processor_config.json").exists()
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is VideoReferForConditionalGeneration


def test_paths_of_the_parts_are_not_written(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.text_config.name_or_path = "/somewhere/private"
    model.config.vision_config.name_or_path = "/somewhere/private"
    model.save_pretrained(tmp_path)
    assert_nothing_of_this_machine(tmp_path, Path("/somewhere/private"))


def test_save_survives_the_loss_of_its_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = copy_published(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    checkpoint.rename(tmp_path / "gone")
    model.save_pretrained(tmp_path / "saved")
    assert caplog.text == ""
    assert_weights(AutoModelForImageTextToText.from_pretrained(tmp_path / "saved"))
    assert type(AutoProcessor.from_pretrained(tmp_path / "saved")) is VideoReferProcessor


def test_code_is_written_once_per_save(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for module in (saving, processing_videorefer):
        monkeypatch.setattr(module, "write_code", lambda folder, auto_map: written.append(sorted(auto_map)))
    model.save_pretrained(tmp_path / "model")
    AutoProcessor.from_pretrained(PUBLISHED).save_pretrained(tmp_path / "processor")
    assert written == [sorted([*MODEL_CLASSES, "AutoConfig", "AutoProcessor", "AutoVideoProcessor"])] * 2


def test_processor_that_cannot_be_read_is_left_out(model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model.processor_factory = RememberedProcessor.read(
        lambda: VideoReferProcessor.from_pretrained(PUBLISHED, nonsense=1)  # a TypeError
    )
    model.save_pretrained(tmp_path)
    assert "No processor was saved beside the model" in caplog.text
    assert "`nonsense`" in caplog.text
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", '{"model": {"type": "of tomorrow"}}'),
        ("processor_config.json", "[]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": 3}'),
    ],
)
def test_a_damaged_processor_does_not_keep_the_model_from_loading(
    model, name: str, content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / name).write_text(content)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    again.save_pretrained(tmp_path / "again")
    assert "No processor was saved beside the model: " in caplog.text
    assert (tmp_path / "again" / "model.safetensors").exists()


def test_full_disk_is_no_missing_processor(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(VideoReferProcessor, "write_settings", fill_disk)
    with pytest.raises(OSError, match="No space left on device"):
        model.save_pretrained(tmp_path)


def test_weights_respect_the_umask_and_other_files_stay(model, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.touch(mode=0o600)
    before = os.umask(0o027)
    try:
        model.save_pretrained(tmp_path)
        model.save_component("connector", tmp_path)
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes.pop("other.safetensors") == 0o600
    assert set(modes.values()) == {0o640}


def test_tower_of_the_argument_serves_the_processor_too(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, tower="moved")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, vision_tower=tmp_path / "moved")
    model.save_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert dict(processor.video_processor.size) == {"height": 56, "width": 56}


def test_helper_process_writes_nothing_of_ours(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not list(tmp_path.iterdir())


def test_trainer_writes_our_layout(model, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    arguments = TrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none")
    Trainer(model, arguments).save_model(tmp_path / "checkpoint-1")
    assert set(load_file(tmp_path / "checkpoint-1" / "model.safetensors")) == set(expected_weights())
    assert_weights(AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-1"))


def test_adapters_are_saved_and_loaded_alone(model, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    if version.parse(peft.__version__) < version.parse(MIN_PEFT_VERSION):
        pytest.skip(f"the adapters of this transformers ask for peft {MIN_PEFT_VERSION}")
    settings = peft.LoraConfig(target_modules=r".*language_model.*\.q_proj", r=2, init_lora_weights=False)
    model.add_adapter(settings)
    inputs = {"input_ids": torch.arange(20)[None]}
    with torch.no_grad():
        expected = model(**inputs).logits
    model.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "adapter_model.safetensors" in names
    assert not names & {"model.safetensors", "config.json", "modeling_videorefer.py"}
    with pytest.raises(ValueError, match="while adapters are attached"):
        model.save_component("connector", tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.allclose(again(**inputs).logits, expected, atol=1e-6)


# The processor


def test_saved_processor_loads_again(tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(PUBLISHED, num_region_tokens=2)
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    assert settings["auto_map"]["AutoProcessor"] == "processing_videorefer.VideoReferProcessor"
    assert set(settings["video_processor"]["auto_map"]) == {"AutoVideoProcessor"}
    assert "processing_videorefer.py" in {path.name for path in tmp_path.iterdir()}
    again = VideoReferProcessor.from_pretrained(tmp_path)
    assert type(again.video_processor) is VideoReferVideoProcessor
    assert again.num_region_tokens == 2
    ours, theirs = media_inputs(again), media_inputs(processor)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_tokenizer_settings_hold_neither_code_nor_places(tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(PUBLISHED, cache_dir=tmp_path / "cache", token="hf_secret")
    processor.tokenizer.init_kwargs["auto_map"] = {"AutoProcessor": "processing_videorefer.VideoReferProcessor"}
    processor.save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert not {"auto_map", "is_local", "local_files_only", "cache_dir", "token"} & set(settings)
    assert_nothing_of_this_machine(tmp_path / "saved", REFERENCE, tmp_path, Path("hf_secret"))


# A new model from its parts


@pytest.fixture
def parts(tmp_path: Path) -> SimpleNamespace:
    """A SigLIP and two Qwen2 checkpoints (untied and tied) whose tokenizer has no `<region>`."""
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14
    )
    SiglipVisionModel(vision).save_pretrained(tmp_path / "vision")
    (tmp_path / "vision" / "preprocessor_config.json").write_bytes((TOWER / "preprocessor_config.json").read_bytes())
    bare = copy_published(tmp_path, fast_tokenizer=False)
    for name, drop in (
        ("added_tokens.json", ("<region>",)),
        ("tokenizer_config.json", ("added_tokens_decoder", "329")),
    ):
        content = json.loads((bare / name).read_text())
        owner = content
        for key in drop[:-1]:
            owner = owner[key]
        del owner[drop[-1]]
        (bare / name).write_text(json.dumps(content))
    (bare / "config.json").unlink()
    for name, tied in (("untied", False), ("tied", True)):
        text = Qwen2Config(
            vocab_size=352, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=326, eos_token_id=328, pad_token_id=326, tie_word_embeddings=tied,
        )  # fmt: skip
        folder = tmp_path / name
        Qwen2ForCausalLM(text).save_pretrained(folder)
        for file in (
            "vocab.json",
            "merges.txt",
            "added_tokens.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ):
            (folder / file).write_bytes((bare / file).read_bytes())
        assert "<region>" not in AutoTokenizer.from_pretrained(folder).get_vocab()
    return SimpleNamespace(vision=tmp_path / "vision", untied=tmp_path / "untied", tied=tmp_path / "tied")


@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_model_and_processor_start_from_parts(kind: str, parts: SimpleNamespace, tmp_path: Path) -> None:
    text = getattr(parts, kind)
    model = VideoReferForConditionalGeneration.from_vision_text_pretrained(parts.vision, text, num_frames=4)
    processor = VideoReferProcessor.from_vision_text_pretrained(parts.vision, text, num_frames=4)
    ids = [processor.region_token_id, processor.video_token_id, processor.image_token_id]
    assert ids == [model.config.region_token_id, model.config.video_token_id, model.config.image_token_id]
    assert ids == [329, 330, 331]
    assert model.get_input_embeddings().weight.shape == (352, 48)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is (kind == "tied")
    source = Qwen2ForCausalLM.from_pretrained(text).state_dict()
    for name, tensor in model.model.language_model.state_dict().items():
        assert torch.equal(tensor, source[f"model.{name}"]), name
    tower = SiglipVisionModel.from_pretrained(parts.vision).state_dict()
    for name, tensor in model.model.vision_tower.state_dict().items():
        assert torch.equal(tensor, tower[name]), name

    inputs = media_inputs(processor)
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    model.save_pretrained(tmp_path / "saved")
    assert_nothing_of_this_machine(tmp_path / "saved", tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    inputs = media_inputs(AutoProcessor.from_pretrained(tmp_path / "saved"))
    assert torch.equal(again.generate(**inputs, max_new_tokens=4, do_sample=False), expected)
    assert (again.lm_head.weight is again.get_input_embeddings().weight) is (kind == "tied")


def test_parts_of_another_kind_are_refused(parts: SimpleNamespace, tmp_path: Path) -> None:
    for start in (VideoReferForConditionalGeneration, VideoReferProcessor):
        with pytest.raises(ValueError, match="`vision` must be a SigLIP checkpoint"):
            start.from_vision_text_pretrained(parts.untied, parts.untied)
        with pytest.raises(OSError, match="nothing"):
            start.from_vision_text_pretrained(tmp_path / "nothing" / "is" / "here", parts.untied)


# Without the package

FOREIGN_PROCESS = """
import json, sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("transformers_videorefer", "av", "pycocotools"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

saved, again, processor_alone = sys.argv[1:4]
video, box, golden_ids = torch.load(Path(saved).parent / "question.pt")
found = {}
for folder in (saved, again):
    load = {"trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(folder, **load)
    inputs = processor(
        text="<video>\\nWhat is <region> near <region>?", videos=[video.numpy()], regions=box, num_frames=4,
        return_tensors="pt",
    )
    result = {
        "config": type(AutoConfig.from_pretrained(folder, **load)).__name__,
        "processor": type(processor).__name__,
        "video_processor": type(AutoVideoProcessor.from_pretrained(folder, **load)).__name__,
        "inputs": dict(inputs),
        "logits": {},
    }
    for auto_class in (AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForCausalLM):
        model = auto_class.from_pretrained(folder, **load)
        with torch.no_grad():
            result["logits"][auto_class.__name__] = model(**inputs).logits
    with torch.no_grad():
        result["golden"] = model(input_ids=golden_ids).logits
        result["hidden"] = AutoModel.from_pretrained(folder, **load)(**inputs).last_hidden_state
        result["head"] = model.lm_head.weight
    found[folder] = result
    if folder == saved:
        model.save_pretrained(again)
        processor.save_pretrained(processor_alone)
found["processor_alone"] = type(AutoProcessor.from_pretrained(processor_alone, trust_remote_code=True)).__name__
found["modules"] = [name for name in sys.modules if name.split(".")[0] == "transformers_videorefer"]
torch.save(found, Path(saved).parent / "found.pt")
"""


def test_a_machine_without_the_package_loads_and_saves_all_of_it(model, tmp_path: Path) -> None:
    saved, again, alone = (tmp_path / name for name in ("saved", "again", "processor_alone"))
    model.save_pretrained(saved)
    processor = AutoProcessor.from_pretrained(PUBLISHED)
    golden = load_arrays("e2e/text_only.npz")
    regions = [box_region([0]), box_region([1, 5, 7])]
    torch.save(
        (torch.from_numpy(noise_video()), regions, torch.from_numpy(golden["input_ids"])), tmp_path / "question.pt"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", FOREIGN_PROCESS, str(saved), str(again), str(alone)],
        env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = torch.load(tmp_path / "found.pt")
    assert found["modules"] == []
    assert found["processor_alone"] == "VideoReferProcessor"

    inputs = media_inputs(processor)
    with torch.no_grad():
        logits = model(**inputs).logits
    recorded = torch.from_numpy(golden["logits_last"])
    for folder in (saved, again):
        result = found[str(folder)]
        assert result["config"] == "VideoReferConfig"
        assert result["processor"] == "VideoReferProcessor"
        assert result["video_processor"] == "VideoReferVideoProcessor"
        assert set(result["inputs"]) == set(inputs)
        assert all(torch.equal(result["inputs"][name], inputs[name]) for name in inputs)
        assert set(result["logits"]) == set(MODEL_CLASSES) - {"AutoModel"}
        for name, values in result["logits"].items():
            assert torch.allclose(values, logits, atol=1e-5), name
        assert torch.allclose(result["hidden"] @ result["head"].T, logits, atol=1e-5)
        assert (result["golden"][:, -recorded.shape[1] :] - recorded).abs().max() < 2e-4
    assert {path.name for path in saved.iterdir()} == {path.name for path in again.iterdir()}
    assert (again / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
    for name in ("config.json", "processor_config.json"):
        assert json.loads((again / name).read_text()) == json.loads((saved / name).read_text())
    assert_nothing_of_this_machine(again, tmp_path, REFERENCE)
