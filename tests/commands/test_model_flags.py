"""Flags of models: what is wrong with a checkpoint or a device is said in their words."""

import argparse

import pytest
from conftest import PUBLISHED, REFERENCE
from stderr_lines import without_slow_steps

from transformers_videorefer.commands.model_flags import (
    add_loading_flags,
    add_model_flags,
    check_device_flag,
    check_model_flag,
    find_model,
)
from transformers_videorefer.inference import loading


def flags(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_model_flags(parser)
    return parser.parse_args(arguments)


def test_flags_have_defaults() -> None:
    given = {"device": "auto", "dtype": "auto", "vision_tower": None, "trust_remote_code": False}
    assert vars(flags()) == {"model": None, **given}
    parser = argparse.ArgumentParser()
    add_loading_flags(parser)
    assert vars(parser.parse_args([])) == given


def test_a_checkpoint_is_found_with_what_the_flags_say() -> None:
    found = find_model(flags("--model", str(PUBLISHED), "--vision-tower", "some/tower", "--trust-remote-code"))
    assert (found.source, found.options) == (
        str(PUBLISHED),
        {"trust_remote_code": True, "vision_tower": "some/tower"},
    )


def test_a_checkpoint_that_is_not_there_is_named_by_its_flag() -> None:
    with pytest.raises(OSError, match=r"^`--model .*media`: this folder has no config\.json\. Pass the folder"):
        find_model(flags("--model", str(REFERENCE / "media")))
    with pytest.raises(
        OSError, match="^`--model somebody/model`: it is not in the cache of the Hub, and HF_HUB_OFFLI"
    ):
        find_model(flags("--model", "somebody/model"))


def test_the_user_is_told_that_the_cache_has_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(loading, "locate_model", lambda source: {"local_files_only": True})
    assert find_model(flags("--model", "somebody/model")).options["local_files_only"]
    note = without_slow_steps(capsys.readouterr().err)
    assert note == "The Hub cannot be reached; somebody/model is taken from its cache.\n"


def test_names_are_checked_alone() -> None:
    for name in ("tiny", "somebody/model", str(PUBLISHED)):
        check_model_flag(flags("--model", name))
    with pytest.raises(ValueError, match="^--model is missing. Pass --model DAMO-NLP-SG/VideoRefer-7B"):
        check_model_flag(flags())
    with pytest.raises(
        ValueError, match="^`--model no/such/folder`: there is no such folder, and a Hub id looks like"
    ):
        check_model_flag(flags("--model", "no/such/folder"))


def test_a_device_that_cannot_be_used_is_named_by_its_flag() -> None:
    check_device_flag(flags("--device", "cpu"))
    check_device_flag(flags())
    with pytest.raises(ValueError, match="^`--device warp`: torch cannot use it; .*[.] Leave --device out[.]$"):
        check_device_flag(flags("--device", "warp"))
