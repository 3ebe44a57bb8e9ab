"""Bookkeeping of a batch, worked out by hand. Errors of whole calls are tested in test_modeling_videorefer.py."""

from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_config
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_videorefer.inputs.layout import (
    check_no_unknown_media_keys,
    check_placeholders,
    resolve_region_frames,
    split_by_sample,
)


def test_frames_of_a_mixed_batch():
    # Sample 0: 1 video (3 frames), 1 extra frame. Sample 1: 1 image. Sample 2: 2 videos, 1 image, 2 extra frames.
    counts = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1], [2, 1, 2, 1]])
    # Rows of the batch: videos 0-8 (three videos of 3 frames), images 9-10, extra frames 11-13.
    index = torch.tensor([2, 3, 0, 0, 5, 6, 7, 8])
    lengths = torch.tensor([2, 1, 5])
    rows = resolve_region_frames(
        index, lengths, counts, num_rows={"videos": 3, "images": 2, "extra frames": 3}, num_frames_per_video=3
    )
    assert rows.tolist() == [2, 11, 9, 3, 8, 10, 12, 13]


def test_one_sample_needs_no_counts():
    rows = resolve_region_frames(
        torch.tensor([0, 4]),
        torch.tensor([2]),
        None,
        num_rows={"videos": 1, "images": 0, "extra frames": 1},
        num_frames_per_video=4,
    )
    assert rows.tolist() == [0, 4]


def test_negative_index():
    with pytest.raises(ValueError, match="`region_frame_index` is -1 for a mask of sample 0, which has 4 frames"):
        resolve_region_frames(
            torch.tensor([-1]),
            torch.tensor([1]),
            None,
            num_rows={"videos": 1, "images": 0, "extra frames": 0},
            num_frames_per_video=4,
        )


def test_samples_are_repeated_as_groups():
    # Sample 0 has regions A (2 tokens) and B, sample 1 has C: two copies are A, B, A, B, C, C.
    a, b, c = torch.full((2, 1), 1.0), torch.full((1, 1), 2.0), torch.full((3, 1), 3.0)
    outputs = {
        "region": BaseModelOutputWithPooling(pooler_output=(a, b, c)),
        "video": BaseModelOutputWithPooling(pooler_output=torch.tensor([[[7.0]], [[8.0]]])),
    }
    counts = torch.tensor([[1, 0, 0, 2], [1, 0, 0, 1]])
    ids = torch.zeros(2, 4, dtype=torch.long)
    repeated = split_by_sample(outputs, ids, counts, tiny_config(), num_copies=2)
    assert [tokens[0].item() for tokens in repeated["region"].pooler_output] == [1, 2, 1, 2, 3, 3]
    assert repeated["video"].pooler_output.flatten().tolist() == [7, 7, 8, 8]
    assert outputs["region"].pooler_output == (a, b, c)  # the caller's outputs can be used again


def test_placeholders_of_one_sample_cannot_make_up_for_another():
    config = tiny_config()
    outputs = {"region": BaseModelOutputWithPooling(pooler_output=(torch.zeros(2, 1), torch.zeros(1, 1)))}
    ids = torch.tensor([[329, 329, 0], [329, 0, 0]])
    counts = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1]])
    check_placeholders(ids, outputs, counts, config)
    with pytest.raises(
        ValueError, match=r"Sample 0 has 1 `<region>` placeholder tokens, but its 1 region\(s\) give 2"
    ):
        check_placeholders(ids.flip(0), outputs, counts, config)


def test_placeholder_ids_of_any_configuration():
    config = SimpleNamespace(video_token_id=1, image_token_id=2, region_token_id=3)
    outputs = {"video": BaseModelOutputWithPooling(pooler_output=torch.zeros(1, 2, 1))}
    check_placeholders(torch.tensor([[1, 1, 0]]), outputs, None, config)
    with pytest.raises(ValueError, match="The prompts have 1 `<image>` placeholder tokens"):
        check_placeholders(torch.tensor([[1, 1, 2]]), outputs, None, config)


def test_counts_of_another_batch():
    with pytest.raises(ValueError, match="`sample_counts` has 2 rows for 1 rows of `input_ids`"):
        check_placeholders(torch.zeros(1, 3), {}, torch.zeros(2, 4, dtype=torch.long), tiny_config())


def test_absent_values_are_no_unknown_keys():
    check_no_unknown_media_keys({"video_grid_thw": None, "output_attentions": True})
    with pytest.raises(ValueError, match="`image_sizes`, `video_grid_thw`"):
        check_no_unknown_media_keys({"video_grid_thw": 1, "image_sizes": 2})
