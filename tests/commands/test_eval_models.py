from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_processor

from transformers_videorefer.commands.eval_models import fit_settings, load_checkpoint, make_answerer
from transformers_videorefer.evaluation import VideoReferAnswerer
from transformers_videorefer.evaluation.controls import NoRegion, TextOnly
from transformers_videorefer.evaluation.outlines import OutlineAnswerer
from transformers_videorefer.evaluation.settings import make_settings
from transformers_videorefer.inference.loading import Checkpoint


def other_model() -> Any:
    return SimpleNamespace(config=SimpleNamespace(model_type="llava_onevision"))


def other_processor() -> Any:
    tokenizer = SimpleNamespace(pad_token="<pad>")
    return SimpleNamespace(chat_template="{{ messages }}", tokenizer=tokenizer, video_processor=object())


def test_our_model_is_asked_with_object_tokens() -> None:
    model, processor = tiny_model(), tiny_processor()
    settings = fit_settings(make_settings("published"), (), model, processor)
    assert (settings.method, settings.num_frames, settings.num_region_tokens) == ("regions", 8, 4)
    assert isinstance(make_answerer(model, processor, None, settings), VideoReferAnswerer)
    with pytest.raises(ValueError, match="VideoRefer needs at least 2 scene frames"):
        fit_settings(make_settings(num_frames=1), ("num_frames",), model, processor)


@pytest.mark.parametrize(("mode", "num_frames"), [("single", 1), ("multi", 16)])
def test_other_models_are_shown_outlines(mode: str, num_frames: int) -> None:
    """The numbers of frames are those of the paper's section 4.2.1; a preset of ours does not change them."""
    settings = fit_settings(make_settings("published", mode=mode), ("mode",), other_model(), other_processor())
    assert (settings.method, settings.num_frames) == ("outlines", num_frames)
    assert (settings.repetition_penalty, settings.num_region_tokens, settings.empty_masks) == (None, None, "drop")
    assert (settings.edit_list, settings.surplus_regions, settings.max_new_tokens) == ("ignore", "ignore", 2048)
    assert isinstance(make_answerer(other_model(), other_processor(), None, settings), OutlineAnswerer)


def test_flags_for_other_models_count() -> None:
    settings = make_settings("published", num_frames=4, repetition_penalty=1.1)
    fitted = fit_settings(settings, ("num_frames", "repetition_penalty"), other_model(), other_processor())
    assert (fitted.num_frames, fitted.repetition_penalty) == (4, 1.1)
    with pytest.raises(ValueError, match="--num-region-tokens: this has no effect on outlines"):
        fit_settings(make_settings(num_region_tokens=2), ("num_region_tokens",), other_model(), other_processor())


@pytest.mark.parametrize(
    ("asked", "own", "used"),
    [
        ("auto", "cuda:1", "cuda:1"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cuda:0", "cuda:1", "cuda:0"),
        ("cpu", "cpu", "cpu"),
    ],
)
def test_each_process_has_a_device_of_its_own(
    asked: str, own: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []
    monkeypatch.setattr(
        Checkpoint, "load_model", lambda checkpoint, device, dtype: devices.append(device) or tiny_model()
    )
    arguments = SimpleNamespace(model="tiny", device=asked, dtype="auto", vision_tower=None, trust_remote_code=False)
    load_checkpoint(arguments, SimpleNamespace(device=torch.device(own)))
    assert devices == [used]


def test_our_model_can_be_shown_outlines_too_but_not_the_other_way_round() -> None:
    settings = fit_settings(make_settings(method="outlines"), ("method",), tiny_model(), tiny_processor())
    assert settings.method == "outlines"
    with pytest.raises(ValueError, match="a model of type llava_onevision has no object tokens. Use outlines"):
        fit_settings(make_settings(method="regions"), ("method",), other_model(), other_processor())


@pytest.mark.parametrize(("control", "kind"), [("text-only", TextOnly), ("no-region", NoRegion)])
def test_controls_wrap_the_answerer(control: str, kind: type) -> None:
    model, processor = tiny_model(), tiny_processor()
    settings = fit_settings(make_settings(control=control), ("control",), model, processor)
    assert isinstance(make_answerer(model, processor, None, settings), kind)
