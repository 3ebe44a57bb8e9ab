"""The layout of a batch, worked out by hand. Errors of whole calls are tested in test_modeling_videorefer.py."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_config
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_videorefer.inputs.layout import (
    BatchLayout,
    check_no_unknown_media_keys,
    concatenate,
    read_at_once,
    rows_per_sample,
    select_samples,
    starts_of_runs,
)


def layout_of(**parts) -> BatchLayout:
    return BatchLayout(**{name: np.asarray(value) for name, value in parts.items()})


def prompt_layout(ids, counts=None, config=None) -> BatchLayout:
    counts = None if counts is None else torch.tensor(counts)
    return BatchLayout.read({"sample_counts": counts}, prompt_ids=torch.tensor(ids), config=config or tiny_config())


def encoded(*groups) -> BaseModelOutputWithPooling:
    """An encoder output with one entry per mark, of so many tokens."""
    return BaseModelOutputWithPooling(pooler_output=tuple(torch.full((size, 1), float(size)) for size in groups))


def test_small_tensors_are_read_together():
    numbers, nothing, flags = read_at_once(torch.tensor([[1, 2], [3, 4]]), None, torch.tensor([True, False]))
    assert numbers.tolist() == [[1, 2], [3, 4]]
    assert nothing is None
    assert flags.tolist() == [1, 0]
    assert read_at_once(None, None) == [None, None]


def test_runs_of_equal_frames():
    frames = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0]).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    assert starts_of_runs(frames).tolist() == [True, False, True, True, False]
    assert starts_of_runs(None) is None


# ---------------------------------------------------------------------------------------------------------------------
# Rows of videos and of frames
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "num_rows", "is_encoded", "expected"),
    [
        ({}, 3, False, [0, 1, 2]),
        ({"counts": [[2, 0, 0, 0], [1, 0, 0, 0]]}, 3, False, [0, 1, 2]),
        ({"video_ids": [7, 9, 7], "video_row_ids": [7, 9]}, 2, False, [0, 1, 0]),
        # Another order, a key that nothing shows, and a key that comes twice, as in concatenated batches.
        ({"video_ids": [9, 7], "video_row_ids": [7, 8, 9]}, 3, False, [2, 0]),
        ({"video_ids": [7, 9], "video_row_ids": [7, 9, 7]}, 3, False, [0, 1]),
        # Encoded features: of one video for all marks, or one for each mark already.
        ({"counts": [[1, 0, 0, 0], [2, 0, 0, 0]]}, 1, True, [0, 0, 0]),
        ({"video_ids": [7, 9, 7], "video_row_ids": [7, 9]}, 3, True, [0, 1, 2]),
        ({"video_ids": [7, 9, 7], "video_row_ids": [7, 9]}, 2, True, [0, 1, 0]),
        # Keys count, also where there happen to be as many rows as marks, or one row.
        ({"video_ids": [9, 7], "video_row_ids": [7, 9]}, 2, True, [1, 0]),
        ({"video_ids": [7, 7], "video_row_ids": [7]}, 1, True, [0, 0]),
        ({"video_ids": [7, 7]}, 1, True, [0, 0]),
    ],
)
def test_rows_of_videos(parts, num_rows, is_encoded, expected):
    assert layout_of(**parts).video_rows(num_rows, is_encoded=is_encoded).tolist() == expected


@pytest.mark.parametrize(
    ("parts", "num_rows", "message"),
    [
        (
            {"video_ids": [7, 5], "video_row_ids": [7, 9]},
            2,
            r"key 5 \(video 1\), which no row of `pixel_values_videos` has",
        ),
        (
            {"video_ids": [7, 7], "video_row_ids": [7]},
            2,
            "`pixel_values_videos` has 2 rows, but `video_row_ids` has 1 keys",
        ),
        ({"video_ids": [7, 7, 7]}, 2, "`pixel_values_videos` has 2 rows, but `video_row_ids` has 0 keys"),
    ],
)
def test_videos_without_a_row(parts, num_rows, message):
    with pytest.raises(ValueError, match=message):
        layout_of(**parts).video_rows(num_rows)


def test_encoded_videos_without_a_row():
    with pytest.raises(ValueError, match=r"key 9 \(video 0\), which no row of `mm_encoder_outputs\[\"video\"\]` has"):
        layout_of(video_ids=[9], video_row_ids=[7]).video_rows(1, is_encoded=True)
    with pytest.raises(
        ValueError, match=r"`mm_encoder_outputs\[\"video\"\]` has 1 rows, but `video_row_ids` has 0 keys"
    ):
        layout_of(video_ids=[7, 9]).video_rows(1, is_encoded=True)


def region_rows(num_frames, *, video_rows=None, num_video_rows, images=0, extra=0, **parts):
    return layout_of(**parts).region_rows(
        video_rows=np.arange(num_video_rows) if video_rows is None else np.asarray(video_rows),
        num_video_rows=num_video_rows,
        num_images=images,
        num_extra_frames=extra,
        num_frames=num_frames,
    )


def test_frames_of_a_mixed_batch():
    # Sample 0: 1 video (3 frames), 1 extra frame. Sample 1: 1 image. Sample 2: 2 videos, 1 image, 2 extra frames.
    counts = [[1, 0, 1, 1], [0, 1, 0, 1], [2, 1, 2, 1]]
    # Rows of the batch: videos 0-8 (three videos of 3 frames), images 9-10, extra frames 11-13.
    index, lengths = [2, 3, 0, 0, 5, 6, 7, 8], [2, 1, 5]
    rows = region_rows(3, num_video_rows=3, images=2, extra=3, counts=counts, frame_index=index, lengths=lengths)
    assert rows.tolist() == [2, 11, 9, 3, 8, 10, 12, 13]


def test_frames_of_videos_that_samples_share():
    # Two samples about one video of 3 frames, the second with an extra frame: rows 0-2, then the extra frame.
    rows = region_rows(
        3,
        video_rows=[0, 0],
        num_video_rows=1,
        extra=1,
        counts=[[1, 0, 0, 1], [1, 0, 1, 1]],
        frame_index=[2, 1, 3],
        lengths=[1, 2],
    )
    assert rows.tolist() == [2, 1, 3]


def test_one_sample_needs_no_counts():
    rows = region_rows(4, num_video_rows=1, extra=1, frame_index=[0, 4], lengths=[2])
    assert rows.tolist() == [0, 4]


def test_negative_index():
    with pytest.raises(ValueError, match="`region_frame_index` is -1 for a mask of sample 0, which has 4 frames"):
        region_rows(4, num_video_rows=1, frame_index=[-1], lengths=[1])


# ---------------------------------------------------------------------------------------------------------------------
# Placeholders
# ---------------------------------------------------------------------------------------------------------------------


def test_samples_are_repeated_as_groups():
    # Sample 0 has regions A (2 tokens) and B (1), sample 1 has C (3): two copies are A, B, A, B, C, C.
    video = BaseModelOutputWithPooling(pooler_output=torch.tensor([[[7.0]], [[8.0]]]))
    outputs = {"region": encoded(2, 1, 3), "video": video}
    layout = prompt_layout([[0, 0], [0, 0]], [[1, 0, 0, 2], [1, 0, 0, 1]])
    repeated = layout.repeat_samples(outputs, 2)
    assert [len(tokens) for tokens in repeated["region"].pooler_output] == [2, 1, 2, 1, 3, 3]
    assert repeated["video"].pooler_output.flatten().tolist() == [7, 7, 8, 8]
    assert len(outputs["region"].pooler_output) == 3  # the caller's outputs can be used again


def test_placeholders_of_one_sample_cannot_make_up_for_another():
    outputs = {"region": encoded(2, 1)}
    counts = [[0, 0, 0, 1], [0, 0, 0, 1]]
    prompt_layout([[329, 329, 0], [329, 0, 0]], counts).check_placeholders(outputs)
    with pytest.raises(
        ValueError, match=r"Sample 0 has 1 `<region>` placeholder tokens, but its 1 region\(s\) give 2"
    ):
        prompt_layout([[329, 0, 0], [329, 329, 0]], counts).check_placeholders(outputs)


def test_placeholder_ids_of_any_configuration():
    config = SimpleNamespace(video_token_id=1, image_token_id=2, region_token_id=3)
    outputs = {"video": BaseModelOutputWithPooling(pooler_output=torch.zeros(1, 2, 1))}
    prompt_layout([[1, 1, 0]], config=config).check_placeholders(outputs)
    with pytest.raises(ValueError, match="The prompts have 1 `<image>` placeholder tokens"):
        prompt_layout([[1, 1, 2]], config=config).check_placeholders(outputs)


def test_counts_of_another_batch():
    with pytest.raises(ValueError, match="`sample_counts` has 2 rows for 1 rows of `input_ids`"):
        prompt_layout([[0, 0, 0]], [[0, 0, 0, 0]] * 2).check_placeholders({})
    with pytest.raises(ValueError, match=r"`sample_counts` must have shape \(batch, 4\).*got \(4,\)"):
        prompt_layout([[0, 0, 0]], [0, 0, 0, 0])


def test_only_the_last_marks_stand_behind_a_cache():
    # Sample 0 went on with its second region (2 tokens), sample 1 with none, sample 2 with its only one (4).
    layout = prompt_layout([[329, 329, 0, 0], [0, 0, 0, 0], [329] * 4], [[0, 0, 0, 2], [0, 0, 0, 1], [0, 0, 0, 1]])
    kept, layout = layout.keep_last({"region": encoded(1, 2, 3, 4)})
    assert [len(tokens) for tokens in kept["region"].pooler_output] == [2, 4]
    assert layout.counts[:, 3].tolist() == [1, 0, 1]
    layout.check_placeholders(kept)
    nothing, layout = prompt_layout([[0]]).keep_last({"region": encoded(1, 2), "video": encoded(8)})
    assert nothing == {}


def test_absent_values_are_no_unknown_keys():
    check_no_unknown_media_keys({"video_grid_thw": None, "output_attentions": True})
    with pytest.raises(ValueError, match="`image_sizes`, `video_grid_thw`"):
        check_no_unknown_media_keys({"video_grid_thw": 1, "image_sizes": 2})


# ---------------------------------------------------------------------------------------------------------------------
# Batches as dictionaries
# ---------------------------------------------------------------------------------------------------------------------


def batch_of_three() -> dict[str, torch.Tensor]:
    """Two samples about video 7, one with two regions of 1 and 2 frames, and one about video 9 with an extra frame."""
    return {
        "input_ids": torch.tensor([[1, 0], [2, 0], [3, 4]]),
        "pixel_values_videos": torch.tensor([70.0, 90.0]).view(2, 1, 1, 1, 1),
        "video_ids": torch.tensor([7, 7, 9]),
        "video_row_ids": torch.tensor([7, 9]),
        "region_pixel_values": torch.tensor([5.0]).view(1, 1, 1, 1),
        "region_masks": torch.arange(4).view(4, 1),
        "region_frame_index": torch.tensor([0, 0, 1, 1]),
        "region_lengths": torch.tensor([1, 2, 1]),
        "region_num_tokens": torch.tensor([1, 2, 1]),
        "sample_counts": torch.tensor([[1, 0, 0, 0], [1, 0, 0, 2], [1, 0, 1, 1]]),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("input_ids", [[0], [1], [2]]),
        ("video_ids", [[0], [1], [2]]),
        ("pixel_values_videos", [[0], [0], [1]]),
        ("region_pixel_values", [[], [], [0]]),
        ("region_lengths", [[], [0, 1], [2]]),
        ("region_masks", [[], [0, 1, 2], [3]]),
    ],
)
def test_rows_of_samples(name, expected):
    assert rows_per_sample(batch_of_three(), name) == expected


def test_samples_are_picked_with_what_belongs_to_them():
    picked = select_samples(batch_of_three(), [2, 1, 1])
    assert picked["input_ids"].tolist() == [[3, 4], [2, 0], [2, 0]]
    assert picked["video_ids"].tolist() == [9, 7, 7]
    assert picked["video_row_ids"].tolist() == [9, 7]
    assert picked["pixel_values_videos"].flatten().tolist() == [90, 70]
    assert picked["region_masks"].flatten().tolist() == [3, 0, 1, 2, 0, 1, 2]
    alone = select_samples(batch_of_three(), [0])
    assert {"region_masks", "region_lengths", "region_pixel_values"}.isdisjoint(alone)
    assert alone["pixel_values_videos"].flatten().tolist() == [70]


def test_batches_are_put_together():
    batch = batch_of_three()
    parts = [select_samples(batch, [sample]) for sample in range(3)]
    parts[2]["input_ids"] = parts[2]["input_ids"][:, :1]
    joined = concatenate(parts, pad_token_id=6)
    assert joined["input_ids"].tolist() == [[1, 0], [2, 0], [6, 3]]
    assert concatenate(parts, pad_token_id=6, side="right")["input_ids"].tolist() == [[1, 0], [2, 0], [3, 6]]
    assert joined["video_row_ids"].tolist() == [7, 7, 9]
    for name in ("video_ids", "region_masks", "region_frame_index", "sample_counts"):
        assert torch.equal(joined[name], batch[name])
    # A batch without keys gets some of its own.
    plain = {name: value for name, value in parts[0].items() if not name.startswith("video_")}
    joined = concatenate([batch, plain], pad_token_id=6)
    assert BatchLayout.read(joined).video_rows(3).tolist() == [0, 0, 1, 2]
    # And others when it is joined once more.
    again = concatenate([joined, plain, plain], pad_token_id=6)
    assert BatchLayout.read(again).video_rows(5).tolist() == [0, 0, 1, 2, 3, 4]


def test_what_cannot_be_put_together_is_named():
    batch = batch_of_three()
    with pytest.raises(TypeError, match="`video_metadata` is no tensor in some of `batches`"):
        concatenate([{**batch, "video_metadata": [None]}] * 2, pad_token_id=6)
    longer = {**batch, "pixel_values_videos": batch["pixel_values_videos"].expand(2, 3, 1, 1, 1)}
    with pytest.raises(
        ValueError, match=r"`pixel_values_videos` has rows of the shapes \[\(1, 1, 1, 1\), \(3, 1, 1, 1\)\]"
    ):
        concatenate([batch, longer], pad_token_id=6)
