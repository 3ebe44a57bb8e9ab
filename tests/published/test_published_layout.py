"""Published configurations, token ids and vision towers, translated."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import PUBLISHED, load_arrays, load_json
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from published_files import (
    TOWER,
    assert_weights,
    copy_published,
    without,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
)
from transformers.utils import hub

from transformers_videorefer import VideoReferConfig, VideoReferProcessor
from transformers_videorefer.published import conversion
from transformers_videorefer.published import layout as published_layout
from transformers_videorefer.published.layout import KNOWN_TOWERS, find_tower, placeholder_ids


TOWER_KEYS = "model.vision_tower."
REGION_KEYS = "model.region_encoder."
SO400M = "google/siglip-so400m-patch14-384"


def golden_patch_features() -> tuple[torch.Tensor, torch.Tensor]:
    """Recorded pictures and the patch features that the published tower makes of them."""
    arrays = load_arrays("modules/vision_tower.npz")
    return torch.from_numpy(arrays["pixel_values"]), torch.from_numpy(arrays["selected"])


# Vision tower


def place_beside(folder: Path) -> dict:
    copy_published(folder)
    return {}


def place_beside_by_basename(folder: Path) -> dict:
    copy_published(folder, config={"mm_vision_tower": f"elsewhere/{TOWER.name}"})
    return {}


def place_at_absolute_path(folder: Path) -> dict:
    copy_published(folder, tower=None, config={"mm_vision_tower": str(TOWER)})
    return {}


def place_in_argument(folder: Path) -> dict:
    copy_published(folder, tower="my-tower", config={"mm_vision_tower": "no-such-tower"})
    return {"vision_tower": folder / "my-tower"}


@pytest.mark.parametrize("place", [place_beside, place_beside_by_basename, place_at_absolute_path, place_in_argument])
@pytest.mark.parametrize("has_weights", [True, False])
def test_tower_is_found(place, has_weights: bool, tmp_path: Path) -> None:
    arguments = place(tmp_path)
    checkpoint = tmp_path / "checkpoint"
    if not has_weights:
        tensors = without(TOWER_KEYS)(load_file(checkpoint / "model.safetensors"))
        save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    config = AutoConfig.from_pretrained(checkpoint, **arguments)
    assert (config.vision_config.hidden_size, config.vision_config.image_size) == (48, 56)
    processor = AutoProcessor.from_pretrained(checkpoint, **arguments)
    assert dict(processor.image_processor.size) == {"height": 56, "width": 56}
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, **arguments)
    assert_weights(model)
    pixels, features = golden_patch_features()
    with torch.no_grad():
        found = AutoModel.from_pretrained(checkpoint, **arguments).get_image_features(pixels).last_hidden_state
    assert (found - features).abs().max() < 1e-5


def test_tower_beside_wins_over_its_name(tmp_path: Path) -> None:
    copy_published(tmp_path, config={"mm_vision_tower": SO400M}, tower="siglip-so400m-patch14-384")
    assert AutoConfig.from_pretrained(tmp_path / "checkpoint").vision_config.hidden_size == 48


@pytest.mark.parametrize("layout", ["whole", "flat"])
def test_tower_weights_in_other_layouts(layout: str, tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without(TOWER_KEYS))
    file = tmp_path / TOWER.name / "model.safetensors"
    tensors = load_file(file)
    if layout == "whole":
        config = json.loads((tmp_path / TOWER.name / "config.json").read_text())
        (tmp_path / TOWER.name / "config.json").write_text(
            json.dumps({"model_type": "siglip", "vision_config": config})
        )
        tensors |= {"text_model.encoder.layers.0.mlp.fc1.bias": torch.zeros(1), "logit_scale": torch.zeros(1)}
    else:
        tensors = {key.removeprefix("vision_model."): value for key, value in tensors.items()}
    save_file(tensors, file, {"format": "pt"})
    assert_weights(AutoModelForImageTextToText.from_pretrained(checkpoint))


@pytest.mark.parametrize("arguments", [{}, {"vision_tower": "no-tower-here"}])
def test_unreachable_tower_is_the_same_error_everywhere(arguments: dict, tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, tower=None if not arguments else TOWER.name)
    messages = set()
    for auto_class in (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor):
        with pytest.raises(OSError, match="Pass `vision_tower=` with a folder or Hub id") as caught:
            auto_class.from_pretrained(checkpoint, **arguments)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_tower_without_weights_names_the_argument(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without(TOWER_KEYS))
    (tmp_path / TOWER.name / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"no weights of its vision tower .*Pass `vision_tower="):
        AutoModelForImageTextToText.from_pretrained(checkpoint)


def test_tower_of_another_kind_is_refused(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    (tmp_path / TOWER.name / "config.json").write_text(json.dumps({"model_type": "clip_vision_model"}))
    with pytest.raises(OSError, match="only SigLIP towers are supported"):
        AutoConfig.from_pretrained(checkpoint)


def test_tower_that_is_only_known_by_name(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, config={"mm_vision_tower": SO400M}, tower=None)
    vision = AutoConfig.from_pretrained(checkpoint).vision_config
    # The published tower: 400 million parameters, 27 x 27 patches of 14 pixels.
    assert (vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers) == (1152, 4304, 27)
    assert (vision.num_attention_heads, vision.image_size, vision.patch_size) == (16, 384, 14)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert (
        dict(processor.image_processor.size) == dict(processor.video_processor.size) == {"height": 384, "width": 384}
    )
    assert processor.image_processor.resample == 3  # bicubic
    assert list(processor.image_processor.image_mean) == list(processor.image_processor.image_std) == [0.5] * 3
    assert processor.patch_size == 14


def test_hub_wins_over_the_table(tmp_path: Path) -> None:
    repository = tmp_path / f"models--{SO400M.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(TOWER, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    tower = find_tower(SO400M, PUBLISHED, cache_dir=tmp_path, local_files_only=True, revision="of-the-checkpoint")
    assert (tower.config.hidden_size, tower.source, tower.is_from_table) == (48, SO400M, False)
    assert tower.image_settings()["size"] == {"height": 56, "width": 56}
    assert tower.read(["embeddings.patch_embedding.bias"])["embeddings.patch_embedding.bias"].shape == (48,)


def test_known_towers_agree_with_their_names() -> None:
    for name in KNOWN_TOWERS:
        tower = find_tower(f"/somewhere/{name}", "checkpoint")
        patch, image = name.removesuffix("-i18n").removesuffix("-multilingual").split("-patch")[1].split("-")
        assert (tower.config.patch_size, tower.config.image_size) == (int(patch), int(image))
        width = {"base": 768, "large": 1024, "so400m": 1152}[name.split("-")[1]]
        assert tower.config.hidden_size == width
        assert tower.source is None


# Configuration and tokens


def test_configuration_is_translated(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(PUBLISHED)
    assert type(config) is VideoReferConfig
    published = json.loads((PUBLISHED / "config.json").read_text())
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "vocab_size"):
        assert getattr(config.text_config, name) == published[name]
    assert config.text_config.rope_parameters["rope_theta"] == published["rope_theta"]
    assert config.num_frames == published["num_frames"]
    assert config.vision_feature_layer == published["mm_vision_select_layer"]
    config.save_pretrained(tmp_path)
    written = (tmp_path / "config.json").read_text()
    assert str(PUBLISHED.parent) not in written
    assert "vision_tower" not in written
    assert VideoReferConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "mlp2x_gelu"}, r"`mm_projector_type` 'mlp2x_gelu'; only 'stc_connector_v35'"),
        ({"mm_region_encoder_type": "gar"}, r"`mm_region_encoder_type` 'gar'; only 'pooling'"),
        ({"mm_vision_select_feature": "cls_patch"}, r"`mm_vision_select_feature` 'cls_patch'; only 'patch'"),
        ({"mm_vision_select_layer": -9}, r"cannot be translated: .*asks for"),
        ({"hidden_size": "wide"}, r"cannot be translated: .*hidden_size"),
    ],
)
def test_unsupported_configurations_are_the_same_error_everywhere(changes, message: str, tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, config=changes)
    for auto_class in (AutoConfig, AutoModelForImageTextToText, AutoProcessor):
        with pytest.raises(OSError, match=message):
            auto_class.from_pretrained(checkpoint)


@pytest.mark.parametrize("fast_tokenizer", [True, False])
def test_marks_get_the_next_free_ids(fast_tokenizer: bool, tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, fast_tokenizer=fast_tokenizer)
    config = AutoConfig.from_pretrained(checkpoint)
    assert (config.region_token_id, config.video_token_id, config.image_token_id) == (329, 330, 331)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert type(processor) is VideoReferProcessor
    ids = processor.tokenizer.convert_tokens_to_ids(["<region>", "<video>", "<image>"])
    assert ids == [329, 330, 331]
    case = load_json("e2e/cases.json")
    prompt = next(record["prompt"] for record in case if record["name"] == "text_only")
    recorded = load_arrays("e2e/text_only.npz")["input_ids"][0].tolist()
    assert processor.tokenizer(prompt).input_ids == recorded


def test_a_base_without_region_token_gets_one(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, config={"model_type": "videollama2_qwen2"}, fast_tokenizer=False)
    added = json.loads((checkpoint / "added_tokens.json").read_text())
    del added["<region>"]
    (checkpoint / "added_tokens.json").write_text(json.dumps(added))
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    del settings["added_tokens_decoder"]["329"]
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    config, processor = AutoConfig.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    for ids in (config, processor):
        assert (ids.region_token_id, ids.video_token_id, ids.image_token_id) == (329, 330, 331)


def test_ids_of_the_published_size(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({f"t{number}": number for number in range(151643)}))
    added = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<region>": 151646}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    ids = {"region_token_id": 151646, "video_token_id": 151647, "image_token_id": 151648}
    assert placeholder_ids(tmp_path) == ids
    assert placeholder_ids(tmp_path / "nothing here") == {}
    defaults = VideoReferConfig()
    assert {name: getattr(defaults, name) for name in ids} == ids


def test_ids_are_not_guessed_while_the_hub_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = {name: str(PUBLISHED / name) for name in ("vocab.json", "tokenizer_config.json")}

    def download(_repository: str, filename: str, **_kwargs) -> str:
        if filename in cached:
            return cached[filename]
        raise LocalEntryNotFoundError("timed out")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "_get_cache_file_to_return", lambda _repository, filename, *_: cached.get(filename))
    with pytest.raises(OSError, match=r"`added_tokens\.json` of `somebody/model` cannot be looked up"):
        placeholder_ids("somebody/model")


def test_tower_on_a_hub_without_an_answer_names_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_args, **_kwargs) -> str:
        raise LocalEntryNotFoundError("timed out")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(
        OSError, match=r"nor on the Hub \(`config\.json` of `me/tower` cannot be looked up.*Pass `vision"
    ):
        find_tower("me/tower", PUBLISHED)
    tower = find_tower("me/siglip-base-patch16-224", PUBLISHED)  # known by its name
    assert tower.is_from_table
    with pytest.raises(OSError, match=r"`me/siglip-base-patch16-224` cannot be read: .* Pass `vision_tower="):
        tower.read(["embeddings.patch_embedding.bias"])


def test_broken_configuration_names_its_file(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(OSError, match=r"config\.json` is not valid JSON"):
        VideoReferProcessor.from_pretrained(checkpoint)


def test_our_configuration_class_translates_too(tmp_path: Path) -> None:
    expected = AutoConfig.from_pretrained(PUBLISHED).to_diff_dict()
    assert VideoReferConfig.from_pretrained(PUBLISHED).to_diff_dict() == expected
    assert VideoReferConfig.from_pretrained(PUBLISHED / "config.json").to_diff_dict() == expected
    assert VideoReferConfig.from_pretrained(PUBLISHED, num_frames=8).num_frames == 8
    checkpoint = copy_published(tmp_path, tower="my-tower", config={"mm_vision_tower": "no-such-tower"})
    with pytest.raises(OSError, match="Pass `vision_tower="):
        VideoReferConfig.from_pretrained(checkpoint)
    config = VideoReferConfig.from_pretrained(checkpoint, vision_tower=tmp_path / "my-tower")
    assert config.vision_config.hidden_size == 48


@pytest.mark.parametrize("auto_class", [AutoModelForImageTextToText, AutoProcessor])
def test_tower_is_looked_up_once(auto_class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path, weights=without(TOWER_KEYS))
    found = []

    def count(*args, **kwargs):
        found.append(args)
        return find_tower(*args, **kwargs)

    config = AutoConfig.from_pretrained(checkpoint)
    for module in (conversion, published_layout):
        monkeypatch.setattr(module, "find_tower", count)
    if auto_class is AutoProcessor:
        VideoReferProcessor.from_pretrained(checkpoint)
    else:
        auto_class.from_pretrained(checkpoint, config=config)
    assert len(found) == 1
