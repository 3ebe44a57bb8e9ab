"""Videos that rows share: sent and encoded once, with the losses and gradients of a batch that repeats them."""

import pytest
import torch
from test_batches import PATCHES, TEXTS, encode
from tiny import NUM_FRAMES, tiny_model, tiny_processor
from training_rows import copy_of, losses_of, made_up_rows, make_trainer, write_clips

from transformers_videorefer.training import scenes
from transformers_videorefer.training.batches import describe_batch, media_per_row, select_rows, split_by_load
from transformers_videorefer.training.scenes import encode_shared_media, share_media, unshare_media


# Rows of `test_batches`: 0 has a video, 4 scene frames and 2 extra frames, 2 another video, 3 an image, 1 only text.
ROWS = [0, 3, 2, 0, 1, 2, 0]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


def test_each_video_and_frame_is_kept_once(processor):
    batch = encode(processor, ROWS)
    shared = share_media(batch)
    assert shared["video_index"].tolist() == [0, 1, 0, 1, 0]
    assert shared["region_pixel_index"].tolist() == [0, 1, 0, 1, 0, 1]
    assert len(shared["pixel_values_videos"]) == len(shared["region_pixel_values"]) == 2
    assert torch.equal(shared["pixel_values_videos"], batch["pixel_values_videos"][:2])
    assert len(batch["pixel_values_videos"]) == 5  # the batch itself stays as it is
    restored = unshare_media(shared)
    assert set(restored) == set(batch)
    assert all(torch.equal(restored[name], value) for name, value in batch.items())


def test_batches_without_anything_shared_stay_as_they_are(processor):
    batch = encode(processor, [0, 1, 2, 3])
    assert share_media(batch) == batch
    assert encode_shared_media(None, (), batch) is None


def test_equal_sums_are_no_equal_pictures():
    pixels = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])[:, None, None]
    assert share_media({"pixel_values_videos": pixels})["video_index"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("rows", [ROWS, [0, 0], [2, 2, 2], [3, 0, 0, 1]])
def test_losses_and_gradients_equal_those_of_the_repeating_batch(processor, rows):
    model = tiny_model()
    frames = []
    model.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: frames.append(len(args[0])), with_kwargs=True
    )

    def run(batch):
        model.zero_grad()
        frames.clear()
        loss = model(**batch).loss
        loss.backward()
        return loss.detach(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    batch = encode(processor, rows)
    loss, gradients = run(batch)
    num_repeated = sum(frames)
    model.model.register_forward_pre_hook(encode_shared_media, with_kwargs=True)
    shared_loss, shared_gradients = run(share_media(batch))
    torch.testing.assert_close(shared_loss, loss, atol=1e-5, rtol=0)
    assert set(shared_gradients) == set(gradients)
    assert any("connector" in name for name in gradients)
    for name, value in gradients.items():
        torch.testing.assert_close(shared_gradients[name], value, atol=1e-5, rtol=1e-5)
    # A video row gives four scene frames; row 0 has two extra frames.
    distinct = set(rows)
    expected = NUM_FRAMES * len(distinct & {0, 2}) + 2 * (0 in distinct) + (3 in distinct)
    assert sum(frames) == expected < num_repeated


def test_shared_batches_need_the_hook(processor):
    with pytest.raises(ValueError, match="Unknown media input.* `video_index`"):
        tiny_model()(**share_media(encode(processor, [2, 2])))


@pytest.mark.parametrize("rows", [[0], [1], [3, 6], [5, 2, 0], [2, 5], list(range(7))])
def test_selected_rows_take_their_media_along(processor, rows):
    batch = encode(processor, ROWS)
    selected = select_rows(share_media(batch), rows)
    num_videos = len({TEXTS[ROWS[row]] for row in rows if "<video>" in TEXTS[ROWS[row]]})
    assert len(selected.get("pixel_values_videos", ())) == num_videos
    restored, expected = unshare_media(selected), select_rows(batch, rows)
    assert set(restored) == set(expected)
    for name, value in expected.items():
        assert torch.equal(restored[name], value), name


def test_shared_media_count_once(processor):
    batch = share_media(encode(processor, ROWS))
    media = media_per_row(batch, PATCHES)
    of_video, other = (NUM_FRAMES + 2) * PATCHES, NUM_FRAMES * PATCHES
    assert [sum(one.values()) for one in media] == [of_video, PATCHES, other, of_video, 0, other, of_video]
    assert describe_batch(batch, PATCHES)[3] == of_video + PATCHES + other
    assert split_by_load(media, of_video + PATCHES + other) == [list(range(7))]
    # Rows 3 and 6 share their video, but the video of row 5 does not fit beside it.
    assert split_by_load(media, of_video) == [[0], [1, 2], [3, 4], [5], [6]]


RUN = {
    "stage": "3",
    "per_device_train_batch_size": 4,
    "global_batch_size": 4,
    "max_steps": 3,
    "learning_rate": 1e-3,
    "questions_per_video": 4,
}


@pytest.mark.parametrize(("questions", "budget"), [(4, None), (2, 24 * PATCHES)])
def test_training_shares_videos_and_learns_the_same(questions, budget, clips, tmp_path, monkeypatch):
    options = {**RUN, "questions_per_video": questions}
    shared = make_trainer(tmp_path / "shared", clips, **options, max_visual_tokens_per_batch=budget)
    batches = list(shared.get_train_dataloader())
    assert [len(batch["pixel_values_videos"]) for batch in batches] == [4 // questions] * 3
    # A clip has 24 frames: with the budget each batch of two clips passes in two parts.
    assert [len(shared._split(batch)) for batch in batches] == [1 if budget is None else 2] * 3
    shared.train()
    assert shared.guard.counts.too_long == 0
    monkeypatch.setattr(scenes, "share_media", scenes.unshare_media)
    repeated = make_trainer(tmp_path / "repeated", clips, **options)
    assert [len(batch["pixel_values_videos"]) for batch in repeated.get_train_dataloader()] == [4, 4, 4]
    repeated.train()
    torch.testing.assert_close(losses_of(shared), losses_of(repeated), atol=1e-5, rtol=0)
    for name, value in copy_of(shared.model).items():
        torch.testing.assert_close(value, repeated.model.get_parameter(name).data, atol=1e-5, rtol=0)


def test_log_counts_shared_media_once(clips, tmp_path):
    rows = made_up_rows()[:4]
    trainer = make_trainer(tmp_path, clips, rows, **{**RUN, "max_steps": 1}, multi_frame_ratio=1.0)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    num_frames = NUM_FRAMES + len(batch["region_pixel_values"])
    assert trainer.state.log_history[0]["visual_tokens_per_batch"] == num_frames * PATCHES


@pytest.mark.parametrize(
    ("video_ids", "video_row_ids", "expected"),
    [([7, 9], [7, 9], None), ([9, 7], [7, 9], [1, 0]), ([7, 7], [7], [0, 0]), ([9], [7, 9], [1])],
)
def test_keys_of_videos_become_positions(video_ids, video_row_ids, expected):
    batch = {
        "pixel_values_videos": torch.zeros(len(video_row_ids), 1, 3, 2, 2),
        "video_ids": torch.tensor(video_ids),
        "video_row_ids": torch.tensor(video_row_ids),
    }
    indexed = scenes.IndexingCollator(lambda rows: batch)([])
    assert {"video_ids", "video_row_ids"}.isdisjoint(indexed)
    assert (indexed["video_index"].tolist() if "video_index" in indexed else None) == expected


def test_encoded_videos_keep_their_keys():
    batch = {"video_ids": torch.tensor([7]), "video_row_ids": torch.tensor([7])}
    assert scenes.IndexingCollator(lambda rows: batch)([]) == batch
