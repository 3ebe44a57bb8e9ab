"""Processors of published checkpoints: their settings, checked, and what other libraries hand over."""

from pathlib import Path
from typing import Any

import pytest
from conftest import PUBLISHED
from published_files import copy_published
from transformers import AutoProcessor

from transformers_videorefer import VideoReferProcessor


def test_processor_of_a_published_folder(tmp_path: Path) -> None:
    checkpoint = copy_published(tmp_path)
    processor = AutoProcessor.from_pretrained(checkpoint, num_frames=8, num_region_tokens=2)
    assert processor.tokenizer.padding_side == "left"
    assert processor.video_processor.num_frames == 8
    assert (processor.num_region_tokens, processor.num_image_frames, processor.patch_size) == (2, 16, 14)
    assert processor.tokenizer.chat_template == processor.chat_template
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert type(VideoReferProcessor.from_pretrained(checkpoint)) is VideoReferProcessor


def test_settings_reach_the_part_they_belong_to() -> None:
    processor = VideoReferProcessor.from_pretrained(
        PUBLISHED, num_image_frames=8, patch_size=7, num_region_frames=None, connector_downsample=(2, 1, 1),
        chat_template="{{ messages }}", resize_backend="torch", edit_list="ignore", do_normalize=False,
        model_max_length=77, truncation_side="left",
    )  # fmt: skip
    assert (processor.num_image_frames, processor.patch_size, processor.num_region_frames) == (8, 7, None)
    assert processor.connector_downsample == [2, 1, 1]
    assert processor.chat_template == processor.tokenizer.chat_template == "{{ messages }}"
    assert (processor.video_processor.resize_backend, processor.video_processor.edit_list) == ("torch", "ignore")
    assert (processor.video_processor.do_normalize, processor.image_processor.do_normalize) == (False, False)
    assert (processor.tokenizer.model_max_length, processor.tokenizer.truncation_side) == (77, "left")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_frame": 8},
            "`from_pretrained` of the processor has no argument `num_frame`. Did you mean `num_frames`",
        ),
        ({"patchsize": 14}, "has no argument `patchsize`. Did you mean `patch_size`"),
        ({"nonsense": 1}, "has no argument `nonsense`. Leave it out"),
        ({"video_metadata": []}, "has no argument `video_metadata`"),
    ],
)
@pytest.mark.parametrize("loader", [VideoReferProcessor, AutoProcessor])
def test_unknown_settings_are_refused(loader, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        loader.from_pretrained(PUBLISHED, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 1}, "`num_frames` is 1. Pass an integer of at least 2"),
        ({"resize_backend": "cuda"}, "`resize_backend` is 'cuda'. Pass one of 'pil', 'torch'"),
        ({"num_image_frames": 1}, "`num_image_frames` must be a whole number of at least 2, got 1"),
        ({"num_region_tokens": 0}, "`num_region_tokens` must be a whole number of at least 1, got 0"),
        ({"do_resize": "yes"}, "do_resize"),
        ({"size": {"height": 56, "width": 28}}, "squares of one size"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoReferProcessor.from_pretrained(PUBLISHED, **settings)


def test_keywords_of_the_library_pass(tmp_path: Path) -> None:
    keywords = {
        "token": "hf_secret", "revision": "main", "cache_dir": tmp_path, "force_download": False, "use_fast": True,
        "local_files_only": True, "trust_remote_code": True, "dtype": "auto", "attn_implementation": "sdpa",
        "device_map": "auto", "_from_pipeline": "image-text-to-text",
    }  # fmt: skip
    for loader in (AutoProcessor, VideoReferProcessor):
        assert type(loader.from_pretrained(PUBLISHED, **keywords)) is VideoReferProcessor


@pytest.mark.parametrize("loader", [VideoReferProcessor, AutoProcessor])
def test_padding_side_of_the_caller_wins(loader, tmp_path: Path) -> None:
    assert loader.from_pretrained(PUBLISHED, padding_side="right").tokenizer.padding_side == "right"
    loader.from_pretrained(PUBLISHED).save_pretrained(tmp_path)
    assert loader.from_pretrained(tmp_path).tokenizer.padding_side == "left"
    processor = loader.from_pretrained(tmp_path, padding_side="right")
    assert processor.tokenizer.padding_side == "right"
    ids = processor(text=["What is it?", "Yes"])["input_ids"]
    assert ids[1][-1] == processor.tokenizer.pad_token_id
    with pytest.raises(ValueError, match="[Pp]adding side"):
        loader.from_pretrained(tmp_path, padding_side="middle")
