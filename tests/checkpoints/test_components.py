"""Component files: region encoder and connector on their own."""

import errno
from pathlib import Path

import httpx2
import pytest
import torch
from conftest import PUBLISHED
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from published_files import expected_weights
from safetensors.torch import load_file, save_file
from tiny import tiny_config
from transformers.utils import hub

from transformers_videorefer import VideoReferForConditionalGeneration, VideoReferModel
from transformers_videorefer.checkpoints.components import (
    check_tensors,
    component_files,
    component_of_key,
    find_file,
    hub_arguments,
    published_key_mapping,
    read_component,
    rename_key,
)


PUBLISHED_PREFIX = {"connector": "model.mm_projector.", "region_encoder": "model.region_encoder."}
FILE = {"connector": "mm_projector.bin", "region_encoder": "region_encoder.bin"}


@pytest.fixture
def published_size_model() -> VideoReferForConditionalGeneration:
    """A fresh model of the size of the golden one."""
    return VideoReferForConditionalGeneration(
        tiny_config(
            vision_config={
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "image_size": 56,
                "patch_size": 14,
            },
            text_config={
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": 330,
            },
            connector_depth=4,
        )
    )


def published_tensors(name: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a component under published names, their usual prefix replaced by another."""
    usual = PUBLISHED_PREFIX[name]
    return {
        prefix + key.removeprefix(usual): tensor
        for key, tensor in load_file(PUBLISHED / "model.safetensors").items()
        if key.startswith(usual)
    }


def assert_component(model: torch.nn.Module, name: str) -> None:
    expected = expected_weights()
    for key, tensor in getattr(model.model, name).state_dict().items():
        assert torch.equal(tensor, expected[f"model.{name}.{key}"]), key


@pytest.mark.parametrize("name", ["connector", "region_encoder"])
def test_published_file_loads(name: str, published_size_model, tmp_path: Path) -> None:
    torch.save(published_tensors(name, PUBLISHED_PREFIX[name]), tmp_path / FILE[name])
    other = {"connector": "region_encoder", "region_encoder": "connector"}[name]
    before = {key: value.clone() for key, value in getattr(published_size_model.model, other).state_dict().items()}
    assert published_size_model.load_component(tmp_path / FILE[name]) == name
    assert_component(published_size_model, name)
    for key, value in getattr(published_size_model.model, other).state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    "prefix",
    ["mm_projector.", "", "base_model.model.model.mm_projector.", "module.model.mm_projector."],
)
def test_prefixes_of_trainers_are_understood(prefix: str, published_size_model, tmp_path: Path) -> None:
    torch.save(published_tensors("connector", prefix), tmp_path / "any_name.bin")
    assert published_size_model.load_component(tmp_path / "any_name.bin") == "connector"
    assert_component(published_size_model, "connector")


def test_region_encoder_without_prefix(published_size_model, tmp_path: Path) -> None:
    torch.save(published_tensors("region_encoder"), tmp_path / "region_encoder.bin")
    assert published_size_model.load_component(str(tmp_path)) == "region_encoder"
    assert_component(published_size_model, "region_encoder")


def test_half_precision_file_keeps_the_dtype_of_the_model(published_size_model, tmp_path: Path) -> None:
    tensors = {
        key: value.bfloat16() for key, value in published_tensors("region_encoder", "model.region_encoder.").items()
    }
    torch.save(tensors, tmp_path / "region_encoder.bin")
    published_size_model.load_component(tmp_path)
    weight = published_size_model.model.region_encoder.linear_1.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, tensors["model.region_encoder.feat_linear.0.weight"].float())


@pytest.mark.parametrize("name", ["connector", "region_encoder"])
def test_saved_component_loads_again(name: str, published_size_model, tmp_path: Path) -> None:
    published_size_model.save_component(name, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", f"{name}.safetensors"]
    assert all(key.startswith(f"{name}.") for key in load_file(tmp_path / f"{name}.safetensors"))
    wanted = {key: value.clone() for key, value in getattr(published_size_model.model, name).state_dict().items()}
    with torch.no_grad():
        for parameter in getattr(published_size_model.model, name).parameters():
            parameter.zero_()
    assert published_size_model.load_component(tmp_path) == name
    for key, value in getattr(published_size_model.model, name).state_dict().items():
        assert torch.equal(value, wanted[key]), key


def test_base_model_saves_and_loads_components(published_size_model, tmp_path: Path) -> None:
    base: VideoReferModel = published_size_model.model
    base.save_component("region_encoder", tmp_path)
    assert set(load_file(tmp_path / "region_encoder.safetensors")) == {
        f"region_encoder.linear_{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")
    }
    assert base.load_component(tmp_path) == "region_encoder"


def test_folder_with_both_needs_a_choice(published_size_model, tmp_path: Path) -> None:
    published_size_model.save_component("connector", tmp_path)
    published_size_model.save_component("region_encoder", tmp_path)
    with pytest.raises(ValueError, match="`component` to choose"):
        published_size_model.load_component(tmp_path)
    assert published_size_model.load_component(tmp_path, component="connector") == "connector"
    with pytest.raises(ValueError, match="holds the connector, not the region_encoder"):
        published_size_model.load_component(tmp_path / "connector.safetensors", component="region_encoder")


def test_missing_unknown_and_misshapen_keys_are_named_and_nothing_changes(
    published_size_model, tmp_path: Path
) -> None:
    tensors = published_tensors("region_encoder", "model.region_encoder.")
    del tensors["model.region_encoder.feat_linear.0.bias"]
    tensors["model.region_encoder.feat_linear.4.weight"] = torch.zeros(2, 2)
    tensors["model.region_encoder.feat_linear.2.bias"] = torch.zeros(5)
    torch.save(tensors, tmp_path / "region_encoder.bin")
    before = {key: value.clone() for key, value in published_size_model.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=r"lacks linear_1\.bias; it has unknown feat_linear\.4\.weight; .*linear_2\.bias \(5,\) instead of \(64,\)",
    ):
        published_size_model.load_component(tmp_path)
    for key, value in published_size_model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_foreign_and_mixed_keys_are_refused(published_size_model, tmp_path: Path) -> None:
    torch.save({"model.layers.0.weight": torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(ValueError, match=r"has others: model\.layers\.0\.weight"):
        published_size_model.load_component(tmp_path / "other.bin")
    both = {
        **published_tensors("connector", "model.mm_projector."),
        **published_tensors("region_encoder", "model.region_encoder."),
    }
    torch.save(both, tmp_path / "both.bin")
    with pytest.raises(ValueError, match=r"those of \['connector', 'region_encoder'\]"):
        published_size_model.load_component(tmp_path / "both.bin")


class _RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_pickles_run_no_code(published_size_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model.region_encoder.feat_linear.0.weight": _RunsCode()}, tmp_path / "region_encoder.bin")
    with pytest.raises(OSError, match="cannot be read as a file of tensors"):
        published_size_model.load_component(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_other_content_is_refused(published_size_model, tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    with pytest.raises(OSError, match="no mapping from names to tensors"):
        published_size_model.load_component(tmp_path / "list.bin")


def test_absent_file_and_unknown_component(published_size_model, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"holds no component file .*region_encoder\.bin"):
        published_size_model.load_component(tmp_path)
    with pytest.raises(ValueError, match="`component` must be one of"):
        published_size_model.load_component(tmp_path, component="tower")
    with pytest.raises(ValueError, match="`name` must be one of"):
        published_size_model.save_component("tower", tmp_path)


def test_offloaded_component_is_refused(published_size_model, tmp_path: Path) -> None:
    published_size_model.save_component("region_encoder", tmp_path)
    published_size_model.model.region_encoder.to("meta")
    with pytest.raises(ValueError, match="is offloaded"):
        published_size_model.load_component(tmp_path)


def test_helper_process_writes_nothing(published_size_model, tmp_path: Path) -> None:
    published_size_model.save_component("connector", tmp_path / "new", is_main_process=False)
    assert not (tmp_path / "new").exists()


def test_key_mapping_leaves_our_own_keys_alone(published_size_model) -> None:
    mapping = published_key_mapping(4)
    for key in (*published_size_model.state_dict(), *published_size_model.model.state_dict()):
        assert rename_key(key, mapping) == key


def test_read_component_and_small_helpers(published_size_model, tmp_path: Path) -> None:
    save_file(
        {f"model.region_encoder.{key}": value for key, value in published_size_model.model.region_encoder.state_dict().items()},
        tmp_path / "region_encoder.safetensors",
    )  # fmt: skip
    name, tensors = read_component(tmp_path, None, 4)
    assert (name, len(tensors)) == ("region_encoder", 4)
    assert component_files(tmp_path) == ["region_encoder.safetensors"]
    assert find_file(tmp_path, "config.json") is None
    assert find_file("no/such/place/at all", "config.json") is None
    assert hub_arguments({"revision": "main", "token": None, "num_frames": 8}) == {"revision": "main"}
    assert component_of_key("model.connector.mlp.0.weight") == "connector"
    assert component_of_key("lm_head.weight") is None
    check_tensors("nothing", {}, {}, "nowhere")


# Looking files up on the Hub


def hub_answers(monkeypatch: pytest.MonkeyPatch, error: Exception, *, is_offline: bool = False) -> None:
    """Let every download end with an error, below the library's own handling of errors."""

    def download(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
    monkeypatch.setattr(hub, "hf_hub_download", download)


def answered(error_class: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    request = httpx2.Request("HEAD", "https://hub.example/added_tokens.json")
    return error_class(f"status {status}", response=httpx2.Response(status, request=request))


def test_file_that_the_hub_does_not_have_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("added_tokens.json", "config.json"):  # the library treats the second in its own way
        hub_answers(monkeypatch, answered(RemoteEntryNotFoundError, 404))
        assert find_file("somebody/model", name) is None
        hub_answers(monkeypatch, LocalEntryNotFoundError("not cached"), is_offline=True)
        assert find_file("somebody/model", name) is None
        hub_answers(monkeypatch, LocalEntryNotFoundError("not cached"))
        assert find_file("somebody/model", name, local_files_only=True) is None


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("timed out, and not cached"),
        answered(HfHubHTTPError, 503),
        answered(GatedRepoError, 403),
        answered(RepositoryNotFoundError, 401),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("name", ["added_tokens.json", "config.json"])
def test_hub_without_an_answer_is_no_missing_file(
    error: Exception, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_answers(monkeypatch, error)
    with pytest.raises(OSError, match=f"`{name}` of `somebody/model` cannot be looked up: "):
        find_file("somebody/model", name)


def test_file_in_a_subfolder_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.json").write_text("{}")
    assert find_file(tmp_path, "config.json") is None
    assert find_file(tmp_path, "config.json", subfolder="inner") == str(tmp_path / "inner" / "config.json")
