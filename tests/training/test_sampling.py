"""The order of rows where several questions about one video share a batch."""

from collections import Counter

import datasets
import pytest
from accelerate.data_loader import BatchSamplerShard
from tiny import tiny_model, tiny_processor
from torch.utils.data import BatchSampler
from training_rows import QUIET, as_dataset, made_up_rows, make_trainer, text_row, write_clips

from transformers_videorefer.training import VideoReferSFTConfig, VideoReferSFTTrainer
from transformers_videorefer.training.sampling import SameVideoSampler, sample_same_videos


# Seven rows of a, four of b, three of c, two without a video.
VIDEOS = [*"aaaaaaabbbbccc", None, None]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


def groups_of(order, size):
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_every_row_comes_once_and_groups_are_of_one_video(batch_size):
    sampler = SameVideoSampler(VIDEOS, 2, batch_size)
    order = list(sampler)
    assert sorted(order) == list(range(len(VIDEOS)))
    assert len(sampler) == len(VIDEOS)
    # Three pairs of a, two of b, one of c; one row of a and of c is left over beside the two without a video.
    pairs = Counter(tuple(VIDEOS[row] for row in group) for group in groups_of(order, 2))
    whole = {pair: count for pair, count in pairs.items() if pair[0] == pair[1] is not None}
    assert whole == {("a", "a"): 3, ("b", "b"): 2, ("c", "c"): 1}


def test_an_incomplete_group_comes_last():
    order = list(SameVideoSampler([*"aaaab"], 2, 2, seed=3))
    assert order[-1] == 4


def test_the_order_follows_from_seed_and_epoch():
    sampler = SameVideoSampler(VIDEOS, 2, 4, seed=1)
    first = list(sampler)
    assert list(sampler) == first == list(SameVideoSampler(VIDEOS, 2, 4, seed=1))
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert sorted(sampler) == sorted(first)
    assert list(SameVideoSampler(VIDEOS, 2, 4, seed=2)) != first


def test_batches_hold_texts_of_similar_length():
    # Rows of 40 and of 150 characters in turn: 2^5 to 2^6, and 2^7 to 2^8.
    lengths = [40, 150] * 16
    sampler = SameVideoSampler(["a"] * 16 + ["b"] * 16, 2, 8, lengths=lengths)
    batches = groups_of(list(sampler), 8)
    assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)
    assert all(len({row // 16 for row in group}) == 1 for batch in batches for group in groups_of(batch, 2))


def test_groups_stay_whole_in_several_processes():
    batches = BatchSampler(SameVideoSampler(["a"] * 8 + ["b"] * 8, 2, 4), 4, drop_last=False)
    shards = [list(BatchSamplerShard(batches, num_processes=2, process_index=rank)) for rank in range(2)]
    dealt = [batch for pair in zip(*shards, strict=True) for batch in pair]
    assert dealt == list(batches)
    assert all(len({row // 8 for row in group}) == 1 for batch in dealt for group in groups_of(batch, 2))


def test_group_size_must_divide_the_batch():
    with pytest.raises(ValueError, match="`group_size` of 3 does not divide the batch of 8 rows"):
        SameVideoSampler(VIDEOS, 3, 8)


def test_training_samples_groups(clips, tmp_path):
    rows = [*made_up_rows(), text_row("a"), text_row("b")]
    trainer = make_trainer(tmp_path, clips, rows, per_device_train_batch_size=4, questions_per_video=2, max_steps=1)
    order = list(trainer._get_train_sampler())
    groups = [{rows[row]["video"] for row in group} for group in groups_of(order, 2)]
    assert all(len(videos) == 1 for videos in groups)
    assert {None} in groups


def test_equal_names_below_different_roots_are_different_videos(tmp_path, clips):
    rows = made_up_rows()[:2]
    dataset = as_dataset(rows).add_column("data_root", ["one", "other"])
    args = make_trainer(tmp_path, clips, per_device_train_batch_size=2, questions_per_video=2, max_steps=1).args
    assert sample_same_videos(dataset, args)._videos == [("one", rows[0]["video"]), ("other", rows[1]["video"])]


def test_streamed_rows_cannot_be_grouped(tmp_path, clips):
    for name, value in (("questions_per_video", 2), ("train_sampling_strategy", "group_by_length")):
        args = VideoReferSFTConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=2, max_steps=1, **QUIET, **{name: value}
        )
        with pytest.raises(ValueError, match=f"`{name}` of {value!r} needs rows that can be picked in any order"):
            VideoReferSFTTrainer(
                tiny_model(),
                args,
                train_dataset=as_dataset(made_up_rows()).to_iterable_dataset(),
                processing_class=tiny_processor(),
            )


def test_rows_of_similar_length_share_a_batch(tmp_path, clips):
    rows = [text_row(f"row {number}", answer="Yes. " * (1 + 40 * (number % 2))) for number in range(12)]
    options = {"per_device_train_batch_size": 2, "train_sampling_strategy": "group_by_length", "max_steps": 1}
    trainer = make_trainer(tmp_path, clips, rows, **options)
    trainer.train()
    pairs = groups_of(list(trainer._get_train_sampler()), 2)
    assert sorted(row for pair in pairs for row in pair) == list(range(12))
    assert all(first % 2 == second % 2 for first, second in pairs)
    assert len({first % 2 for first, _ in pairs}) == 2


def test_rows_of_sets_without_videos_are_all_sampled(tmp_path):
    rows = [{"messages": text_row(answer="Yes. " * (1 + number))["messages"]} for number in range(6)]
    for options in ({"questions_per_video": 2}, {"train_sampling_strategy": "group_by_length"}):
        args = VideoReferSFTConfig(output_dir=str(tmp_path), per_device_train_batch_size=2, **QUIET, **options)
        sampler = sample_same_videos(datasets.Dataset.from_list(rows), args)
        assert sorted(sampler) == list(range(6))
