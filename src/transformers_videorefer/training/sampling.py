"""The order of rows where several questions about one video share a batch."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from .config import VideoReferSFTConfig


_ROWS_AT_ONCE = 1000


def is_ordered(args: VideoReferSFTConfig) -> bool:
    """Tell whether the settings ask for an order of rows that depends on what they hold.

    Args:
        args ([`VideoReferSFTConfig`]): Settings.

    Returns:
        `bool`: True with `questions_per_video`, and with rows grouped by length.
    """
    return args.questions_per_video is not None or args.train_sampling_strategy == "group_by_length"


class SameVideoSampler(Sampler[int]):
    """Goes through all rows once per epoch, in groups of rows about one video that never leave their batch.

    Rows that do not fill a group of their video (or have none) make groups of their own, so that every group is full but
    the last one. Groups stay whole in batches of a multiple of their size, also when whole batches are dealt out to
    several processes. The order follows from seed and epoch alone.

    Args:
        videos (`Sequence[Hashable]`): The video of each row; `None` for rows without a video, or with several.
        group_size (`int`): Rows of a group.
        batch_size (`int`): Rows of a batch, a multiple of `group_size`.
        lengths (`Sequence[int]`, *optional*): Length of each row. Batches then hold rows of similar length: from one
            power of two to the next.
        seed (`int`, *optional*, defaults to `0`): Seed of the order.

    Raises:
        ValueError: If `group_size` does not divide `batch_size`.
    """

    def __init__(
        self,
        videos: Sequence[Hashable],
        group_size: int,
        batch_size: int,
        *,
        lengths: Sequence[int] | None = None,
        seed: int = 0,
    ):
        if batch_size % group_size:
            raise ValueError(
                f"`group_size` of {group_size} does not divide the batch of {batch_size} rows. Change one of them."
            )
        self.group_size = group_size
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._videos = list(videos)
        self._buckets = [0] * len(self._videos) if lengths is None else [int(one).bit_length() for one in lengths]

    def __len__(self) -> int:
        return len(self._videos)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins.

        Args:
            epoch (`int`): The epoch, counted from 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        groups = self._groups(rng)
        # Full batches of one bucket, in any order; what is left of the buckets comes last.
        by_bucket: dict[int, list[list[int]]] = defaultdict(list)
        for position in rng.permutation(len(groups)):
            if len(groups[position]) == self.group_size:
                by_bucket[self._buckets[groups[position][0]]].append(groups[position])
        per_batch = self.batch_size // self.group_size
        batches, rest = [], []
        for bucket in sorted(by_bucket):
            found = by_bucket[bucket]
            num_whole = len(found) - len(found) % per_batch
            batches += [found[start : start + per_batch] for start in range(0, num_whole, per_batch)]
            rest += found[num_whole:]
        for position in rng.permutation(len(batches)):
            for group in batches[position]:
                yield from group
        for group in rest:
            yield from group
        for group in groups:
            if len(group) < self.group_size:
                yield from group

    def _groups(self, rng: np.random.Generator) -> list[list[int]]:
        """Put the rows of each video and bucket into groups, and what they leave over as well."""
        of_video: dict[Hashable, list[int]] = defaultdict(list)
        left_over: list[int] = []
        for row in rng.permutation(len(self._videos)).tolist():
            if self._videos[row] is None:
                left_over.append(row)
            else:
                of_video[self._videos[row], self._buckets[row]].append(row)
        groups = []
        for rows in of_video.values():
            num_whole = len(rows) - len(rows) % self.group_size
            groups += [rows[start : start + self.group_size] for start in range(0, num_whole, self.group_size)]
            left_over += rows[num_whole:]
        if left_over:
            # Side by side where they are alike; by bucket first.
            left_over.sort(key=lambda row: self._buckets[row])
            groups += [
                left_over[start : start + self.group_size] for start in range(0, len(left_over), self.group_size)
            ]
        return groups


def check_order(dataset: Any, args: VideoReferSFTConfig) -> None:
    """Check that rows can come in the order that the settings ask for.

    Args:
        dataset (`Dataset` or `IterableDataset`): The rows.
        args ([`VideoReferSFTConfig`]): Settings.

    Raises:
        ValueError: If the rows are streamed, and the order depends on what they hold.
    """
    if is_ordered(args) and not hasattr(dataset, "__len__"):
        name = "questions_per_video" if args.questions_per_video is not None else "train_sampling_strategy"
        raise ValueError(
            f"`{name}` of {getattr(args, name)!r} needs rows that can be picked in any order, not streamed ones. Leave it "
            "out, or load the data without `streaming`."
        )


def sample_same_videos(dataset: Any, args: VideoReferSFTConfig) -> SameVideoSampler:
    """Make the sampler that the settings describe.

    Args:
        dataset (`Dataset`): The rows; not a streamed set.
        args ([`VideoReferSFTConfig`]): Settings, with `questions_per_video` or rows grouped by length.

    Returns:
        [`SameVideoSampler`].
    """
    columns = [name for name in ("data_root", "video", "videos") if name in dataset.column_names]
    values = dataset.select_columns(columns)[:] if columns else {}
    rows = [{name: values[name][number] for name in columns} for number in range(len(dataset))]
    lengths = None
    if args.train_sampling_strategy == "group_by_length":
        # In pieces: a whole column of texts may not fit into memory, and row by row takes long.
        texts = dataset.select_columns(["messages"])
        lengths = [_num_characters(one) for part in texts.iter(_ROWS_AT_ONCE) for one in part["messages"]]
    return SameVideoSampler(
        [_video_of(row) for row in rows],
        args.questions_per_video or 1,
        args.per_device_train_batch_size,
        lengths=lengths,
        seed=args.data_seed if args.data_seed is not None else args.seed,
    )


def _video_of(row: Mapping[str, Any]) -> tuple[str | None, str] | None:
    videos = [*([row["video"]] if row.get("video") else []), *(row.get("videos") or [])]
    return (row.get("data_root"), videos[0]) if len(videos) == 1 else None


def _num_characters(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(str(message["content"])) for message in messages)
