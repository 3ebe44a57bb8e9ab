"""What follows the installed release of transformers: the name of the cache, and the warning outside the tested range."""

import dataclasses
import inspect
import logging
import warnings

import pytest
import torch
import transformers
from tiny import box_region, noise_video, tiny_config, tiny_model, tiny_processor
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from transformers_videorefer import VideoReferConfig, version
from transformers_videorefer.checkpoints.library import CACHE_NAME, logger, warn_outside
from transformers_videorefer.models.videorefer.modeling_videorefer import (
    VideoReferCausalLMOutputWithPast,
    VideoReferForConditionalGeneration,
    VideoReferModelOutputWithPast,
)


MARKED = "<|im_start|>user\n<video>\nWhat is <region> doing?<|im_end|>\n<|im_start|>assistant\n"
GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
IS_RENAMED = tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 24)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def inputs():
    return tiny_processor()(text=MARKED, videos=noise_video(), regions=[box_region([0, 3, 6])], return_tensors="pt")


@pytest.fixture
def warned(caplog, monkeypatch):
    """Messages of `warn_outside`, of which no earlier test has used one up."""
    logging.Logger.warning_once.cache_clear()
    caplog.set_level(logging.WARNING, logger.name)
    yield caplog
    logging.Logger.warning_once.cache_clear()


def test_the_cache_has_the_name_of_the_installed_release():
    assert CACHE_NAME == ("cache" if IS_RENAMED else "past_key_values")


@pytest.mark.parametrize(
    ("ours", "library"),
    [
        (VideoReferModelOutputWithPast, BaseModelOutputWithPast),
        (VideoReferCausalLMOutputWithPast, CausalLMOutputWithPast),
    ],
)
def test_outputs_add_fields_to_those_of_the_library_and_declare_none_again(ours, library):
    names = [field.name for field in dataclasses.fields(library)]
    assert [field.name for field in dataclasses.fields(ours)][: len(names)] == names
    assert set(vars(ours)["__annotations__"]).isdisjoint(names)


def test_generating_and_running_raise_no_warning(model, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate(**inputs, **GREEDY)
        with torch.no_grad():
            output = model(**inputs)
            model(**inputs, **{CACHE_NAME: DynamicCache(config=model.config.text_config)})
    assert output[CACHE_NAME].get_seq_length() == inputs["input_ids"].shape[1]


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
@pytest.mark.parametrize("base", [False, True], ids=["with_head", "base"])
def test_both_names_of_the_cache_are_taken(model, inputs, name, base):
    runs = model.model if base else model
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs(**inputs, **{name: cache})
    assert cache.get_seq_length() == inputs["input_ids"].shape[1]
    # The library's own models warn of the old name, once it is one.
    deprecated = [str(one.message) for one in caught if "`past_key_values` is deprecated" in str(one.message)]
    assert len(deprecated) == (IS_RENAMED and name == "past_key_values")


def test_old_name_keeps_its_place_among_positional_arguments(model, inputs):
    names = list(inspect.signature(VideoReferForConditionalGeneration.forward).parameters)
    assert names[1:6] == ["input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds"]
    cache = DynamicCache(config=model.config.text_config)
    rest = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        model(inputs["input_ids"], inputs["attention_mask"], None, cache, **rest)
    assert cache.get_seq_length() == inputs["input_ids"].shape[1]


def test_a_loop_by_hand_may_write_a_placeholder(model, inputs):
    """A generated `<region>` id is an ordinary token, under either name of the cache."""
    with torch.no_grad():
        output = model(**inputs)
        step = {"input_ids": torch.full((1, 2), model.config.region_token_id), CACHE_NAME: output[CACHE_NAME]}
        assert model(**step).logits.shape[1] == 2


def test_generate_takes_a_cache_of_the_caller(model, inputs):
    expected = model.generate(**inputs, **GREEDY)
    cache = DynamicCache(config=model.config.text_config)
    assert torch.equal(model.generate(**inputs, **GREEDY, **{CACHE_NAME: cache}), expected)
    assert cache.get_seq_length() == expected.shape[1] - 1


# ---------------------------------------------------------------------------------------------------------------------
# The tested range
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "is_outside"),
    [
        ("5.23.0", False),
        ("5.24.7", False),
        ("5.22.2", True),
        ("5.25.0", True),
        ("5.25.0rc1", True),
        ("5.25.0.dev0", True),
        ("6.0", True),
        ("5.23", False),
        ("5.24.0+local", False),
    ],
)
def test_outside_the_tested_range_one_warning_names_both_versions(installed, is_outside, warned, monkeypatch):
    monkeypatch.setattr("transformers_videorefer.checkpoints.library.__version__", installed)
    for _ in range(3):
        warn_outside(">=5.23,<5.25")
    expected = f"tested with transformers >=5.23,<5.25, but transformers {installed} is installed"
    assert [expected in message for message in warned.messages] == [True] * is_outside


@pytest.mark.parametrize("tested", [None, ""])
def test_without_a_range_nothing_is_said(tested, warned):
    warn_outside(tested)
    assert warned.messages == []


@pytest.mark.parametrize("tested", ["whatever", ">=", "==5.1", "~=5.22", ">=" + "5" * 5000, ">=9,<10\n\x1b[31mGOOD"])
def test_a_range_that_cannot_be_read_is_said_once_and_never_written_as_it_is(tested, warned):
    for _ in range(2):
        warn_outside(tested)
    (message,) = warned.messages
    assert message.startswith(f"`tested_transformers` of the configuration is {tested[:40]!r}, not a range")
    assert message.isprintable()


def test_configurations_carry_the_range_of_the_package(warned, monkeypatch):
    assert tiny_config().tested_transformers == VideoReferConfig.package_range == version.tested_range("transformers")
    # Code of a repository, which cannot see the package, keeps what the repository says.
    monkeypatch.setattr(VideoReferConfig, "package_range", None)
    assert tiny_config().tested_transformers is None
    assert warned.messages == []
    assert tiny_config(tested_transformers=">=4.0,<5.0").to_dict()["tested_transformers"] == ">=4.0,<5.0"
    assert "tested with transformers >=4.0,<5.0" in warned.text


def test_predictions_of_a_trainer_leave_out_tokens_and_cache():
    ignored = set(tiny_config().keys_to_ignore_at_inference)
    added = {field.name for field in dataclasses.fields(VideoReferCausalLMOutputWithPast)} - {
        field.name for field in dataclasses.fields(CausalLMOutputWithPast)
    }
    assert ignored == added | {CACHE_NAME}
