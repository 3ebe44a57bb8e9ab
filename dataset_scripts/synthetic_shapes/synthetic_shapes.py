"""Synthetic shapes: clips of moving coloured shapes with exact masks, questions and descriptions, made on the spot.

    builder = SyntheticShapes(config_name="conversations", data_root="shapes", num_clips=100)
    builder.download_and_prepare()
    rows = builder.as_dataset("train")

The video files are written below `data_root`; rows name them relative to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets

from transformers_videorefer.data.synthetic.clips import (
    SPLIT_SEEDS,
    Clip,
    bench_d_rows,
    bench_q_rows,
    clip_name,
    conversation_rows,
    make_clip,
    write_clip,
)
from transformers_videorefer.data.tables.features import bench_d_features, bench_q_features, conversation_features


ROWS: dict[str, tuple[Callable[[Clip], list[dict[str, Any]]], Callable[[], datasets.Features]]] = {
    "conversations": (conversation_rows, conversation_features),
    "bench_d": (bench_d_rows, bench_d_features),
    "bench_q": (bench_q_rows, bench_q_features),
}


@dataclass
class SyntheticShapesConfig(datasets.BuilderConfig):
    """Configuration of [`SyntheticShapes`].

    Args:
        data_root (`str`): Folder for the video files; made if there is none.
        num_clips (`int`): Clips of each split.
    """

    data_root: str = "synthetic_shapes"
    num_clips: int = 100


class SyntheticShapes(datasets.GeneratorBasedBuilder):
    """Rows about seeded clips; configurations `conversations`, `bench_d` and `bench_q`."""

    BUILDER_CONFIG_CLASS = SyntheticShapesConfig
    BUILDER_CONFIGS: ClassVar[list[SyntheticShapesConfig]] = [
        SyntheticShapesConfig(name=name, version=datasets.Version("1.0.0")) for name in ROWS
    ]
    DEFAULT_CONFIG_NAME = "conversations"

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=ROWS[self.config.name][1](), license="apache-2.0")

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"seeds": list(range(seed, seed + self.config.num_clips))})
            for split, seed in SPLIT_SEEDS.items()
        ]

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Make rows, and whichever video files are missing below `data_root`: rows may come from the cache."""
        super().download_and_prepare(*args, **kwargs)
        for seed in SPLIT_SEEDS.values():
            for clip_seed in range(seed, seed + self.config.num_clips):
                if not (Path(self.config.data_root) / clip_name(clip_seed)).exists():
                    write_clip(make_clip(clip_seed), Path(self.config.data_root))

    def _generate_examples(self, seeds: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        for seed in seeds:
            for row in ROWS[self.config.name][0](make_clip(seed)):
                yield row["id"], row
