"""Whole batches: rows picked with what belongs to them, parts within a budget, made-up media that change nothing."""

import pytest
import torch
from tiny import NUM_FRAMES, box_region, noise_video, tiny_model, tiny_processor

from transformers_videorefer.training.batches import (
    IGNORED,
    MediaSizes,
    add_missing_media,
    describe_batch,
    empty_batch,
    name_numbers,
    select_rows,
    split_by_load,
    visual_tokens_per_row,
)


PATCHES = 16
# Scene frames of a clip of 12: 1, 4, 7, 10. Every region frame that is none of them is an extra frame.
TEXTS = ["<video>\n<region> or <region>?", "No pictures.", "<video>\nWhat?", "<image>\n<region>?"]
REGIONS = [
    [box_region([0, 1, 2]), box_region([4], 9)],
    [],
    [],
    [{"frames": [{"frame_index": 0, "box": [2, 2, 20, 20]}]}],
]


def encode(processor, rows):
    kinds = {"videos": [], "images": []}
    for row in rows:
        kinds["videos"].append([noise_video(seed=row)] if "<video>" in TEXTS[row] else [])
        kinds["images"].append([noise_video(1, seed=9)[0]] if "<image>" in TEXTS[row] else [])
    batch = processor(
        text=[TEXTS[row] for row in rows],
        regions=[REGIONS[row] for row in rows],
        return_tensors="pt",
        padding_side="right",
        **{kind: values for kind, values in kinds.items() if any(values)},
    )
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    return {**batch, "labels": labels}


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def sizes(processor):
    return MediaSizes.from_processor(processor)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("rows", [[0], [1], [2], [3], [0, 2], [3, 1], [2, 0], [0, 1, 2, 3]])
def test_selected_rows_equal_rows_made_alone(processor, rows):
    selected = select_rows(encode(processor, [0, 1, 2, 3]), rows)
    expected = encode(processor, rows)
    assert set(selected) == set(expected)
    for name, value in expected.items():
        assert torch.equal(selected[name], value), name


def test_no_rows_leave_nothing(processor):
    assert set(select_rows(encode(processor, [0, 1]), [])) == {"sample_counts"}


def test_other_values_are_carried_over(processor):
    assert select_rows({**encode(processor, [0, 1]), "note": "kept"}, [1])["note"] == "kept"


def test_visual_tokens_are_the_patches_the_tower_encodes(processor):
    # Row 0: four scene frames, of its region frames 0, 1, 2, 4 two are scene frames. Row 3: one image.
    expected = [(NUM_FRAMES + 2) * PATCHES, 0, NUM_FRAMES * PATCHES, PATCHES]
    assert visual_tokens_per_row(encode(processor, [0, 1, 2, 3]), PATCHES) == expected


@pytest.mark.parametrize(
    ("loads", "budget", "expected"),
    [
        ([3, 3, 3], 6, [[0, 1], [2]]),
        ([3, 3, 3], 100, [[0, 1, 2]]),
        ([9, 1, 1], 3, [[0], [1, 2]]),
        ([0, 0, 5], 1, [[0, 1], [2]]),
        ([], 5, [[]]),
    ],
)
def test_parts_stay_within_the_budget(loads, budget, expected):
    media = [{("pixel_values_videos", row): load} for row, load in enumerate(loads)]
    assert split_by_load(media, budget) == expected


def test_what_a_part_shares_counts_once():
    one, other = {("pixel_values_videos", 0): 3}, {("pixel_values_videos", 1): 3}
    assert split_by_load([one, one, one], 3) == [[0, 1, 2]]
    assert split_by_load([one, other, one], 3) == [[0], [1], [2]]
    assert split_by_load([one, {**one, ("region_pixel_values", 0): 1}, one], 4) == [[0, 1, 2]]


def test_description_counts_regions_and_tokens(processor):
    batch = encode(processor, [0, 2, 3])
    supervised = int((batch["labels"][:, 1:] != IGNORED).sum())
    # Three regions in two rows; only the image row has nothing but single frames.
    assert describe_batch(batch, PATCHES) == [3, 2, 1, (6 + 4 + 1) * PATCHES, supervised]


def test_share_of_single_frames_needs_regions():
    assert name_numbers([4, 2, 1, 100, 10])["single_frame_share"] == 0.5
    assert "single_frame_share" not in name_numbers([0, 0, 0, 100, 10])


@pytest.mark.parametrize("rows", [[1], [2], [1, 2], [0, 1], [3], [2, 3], [0, 1, 2, 3]])
def test_made_up_media_change_neither_loss_nor_gradients(processor, sizes, model, rows):
    def loss_and_gradients(batch):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        return loss.detach(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    batch = encode(processor, rows)
    completed = add_missing_media(batch, sizes, ["connector", "region_encoder"])
    loss, gradients = loss_and_gradients(batch)
    same_loss, all_gradients = loss_and_gradients(completed)
    torch.testing.assert_close(same_loss, loss, atol=1e-6, rtol=1e-6)
    learning = [name for name, _ in model.named_parameters() if "connector" in name or "region_encoder" in name]
    assert learning
    for name in learning:
        assert name in all_gradients  # every process has something to exchange
        expected = gradients.get(name, torch.zeros_like(all_gradients[name]))
        torch.testing.assert_close(all_gradients[name], expected, atol=1e-5, rtol=1e-4)


def test_nothing_is_added_where_nothing_is_missing(processor, sizes):
    batch = encode(processor, [0, 1])
    assert add_missing_media(batch, sizes, ["connector", "region_encoder"]) == batch
    text_only = encode(processor, [1])
    assert add_missing_media(text_only, sizes, ["language_model"]) == text_only


def test_made_up_media_leave_the_batch_itself_alone(processor, sizes):
    batch = encode(processor, [1])
    before = {name: value.clone() for name, value in batch.items()}
    completed = add_missing_media(batch, sizes, ["connector", "region_encoder"])
    assert set(batch) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in batch.items())
    # One video of two frames, two scene frames joined, 2 x 2 cells; and one region.
    assert completed["input_ids"].shape[1] == batch["input_ids"].shape[1] + 4 + 1
    assert completed["sample_counts"].tolist() == [[1, 0, 1, 1]]


def test_empty_batch_has_a_loss_of_zero_through_every_part(sizes, model):
    batch = add_missing_media(empty_batch(sizes), sizes, ["connector", "region_encoder"])
    labels = batch.pop("labels")
    assert (labels == IGNORED).all()
    logits = model(**batch).logits
    assert torch.isfinite(logits).all()
