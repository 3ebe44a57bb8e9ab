"""Checkpoints are found before they are loaded, and loaded where they run best."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import PUBLISHED, REFERENCE

from transformers_videorefer import VideoReferForConditionalGeneration, VideoReferProcessor
from transformers_videorefer.bundled import TINY_CHECKPOINT
from transformers_videorefer.inference import loading
from transformers_videorefer.inference.loading import (
    Checkpoint,
    DeviceError,
    choose_device,
    choose_dtype,
    find_checkpoint,
    load_for_use,
)
from transformers_videorefer.inference.locating import CheckpointError


def with_accelerator(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    device = torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)


def without_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


def test_a_model_and_its_processor_are_loaded_by_name() -> None:
    model, processor = load_for_use(str(PUBLISHED), device="cpu")
    assert isinstance(model, VideoReferForConditionalGeneration) and isinstance(processor, VideoReferProcessor)
    assert (model.training, model.device.type, model.dtype) == (False, "cpu", torch.float32)


def test_the_miniature_has_a_name() -> None:
    assert find_checkpoint("tiny") == Checkpoint(str(TINY_CHECKPOINT), {"trust_remote_code": False})
    assert load_for_use("tiny", device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16


def test_a_folder_that_is_called_like_the_miniature_can_be_meant(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()
    with pytest.raises(CheckpointError, match="`tiny`: this folder has no config.json"):
        find_checkpoint(Path("tiny"))


def test_what_is_needed_to_load_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "locate_model", lambda source: {"local_files_only": True})
    found = find_checkpoint("somebody/model", vision_tower="some/tower", trust_remote_code=True)
    assert found == Checkpoint(
        "somebody/model", {"trust_remote_code": True, "local_files_only": True, "vision_tower": "some/tower"}
    )
    assert found.is_only_cached
    assert not Checkpoint("a", {}).is_only_cached


def test_nothing_is_loaded_of_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="this folder holds a LoRA adapter. Merge it into its base first"):
        load_for_use(tmp_path)
    with pytest.raises(OSError, match=r"media`: this folder has no config\.json"):
        load_for_use(str(REFERENCE / "media"))


def test_a_device_that_torch_cannot_use_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match='`device` is "warp": torch cannot use it; .* Pass "auto"') as caught:
        choose_device("warp")
    assert isinstance(caught.value, DeviceError) and caught.value.device == "warp"
    with pytest.raises(DeviceError):
        find_checkpoint("tiny").load_model("warp")


def test_the_error_says_which_accelerator_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    without_accelerator(monkeypatch)
    assert choose_device("auto") is None
    with pytest.raises(DeviceError, match="no accelerator was found"):
        choose_device("warp")
    with_accelerator(monkeypatch, "mps")
    assert choose_device("auto") == torch.device("mps")
    with pytest.raises(DeviceError, match="this machine has mps"):
        choose_device("warp")


@pytest.mark.parametrize(
    ("asked", "device", "chosen"),
    [
        ("auto", None, "float32"),
        ("auto", "cpu", "float32"),
        ("auto", "cuda:1", "bfloat16"),
        ("float16", "cpu", "float16"),
        ("float32", "cuda:1", "float32"),
    ],
)
def test_precision_suits_the_device(
    monkeypatch: pytest.MonkeyPatch, asked: str, device: str | None, chosen: str
) -> None:
    with_accelerator(monkeypatch, "cuda")
    assert choose_dtype(asked, None if device is None else torch.device(device)) == chosen


@pytest.mark.parametrize(
    ("device", "accelerator", "with_accelerate", "device_map", "moved_to"),
    [
        ("auto", None, True, None, None),
        ("auto", "meta", True, "auto", None),  # over all accelerators
        ("auto", "meta", False, None, torch.device("meta")),
        ("cpu", "meta", True, torch.device("cpu"), None),
        ("cpu", None, False, None, torch.device("cpu")),
    ],
)
def test_the_model_is_put_where_it_runs(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    accelerator: str | None,
    with_accelerate: bool,
    device_map: Any,
    moved_to: torch.device | None,
) -> None:
    if accelerator is None:
        without_accelerator(monkeypatch)
    else:
        with_accelerator(monkeypatch, accelerator)
    monkeypatch.setattr(loading, "is_accelerate_available", lambda: with_accelerate)
    seen: dict[str, Any] = {}

    def load(source: str, **options: Any) -> Any:
        seen.update(options)
        return model

    model = SimpleNamespace(eval=lambda: model, to=lambda place: seen.update(moved_to=place) or model)
    monkeypatch.setattr(loading, "AutoModelForImageTextToText", SimpleNamespace(from_pretrained=load))
    assert Checkpoint("a/b", {"trust_remote_code": False}).load_model(device) is model
    assert seen.pop("trust_remote_code") is False
    assert (seen.get("device_map"), seen.get("moved_to")) == (device_map, moved_to)
