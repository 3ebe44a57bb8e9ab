"""What the dataset builders in `dataset_scripts/` share: published files in, rows out, in bounded memory."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


try:
    import datasets
except ImportError as error:
    raise ImportError("Datasets need the library `datasets`. Install it with `pip install datasets`.") from error

from transformers_videorefer.data.defects import DefectReport, check_bad_rows
from transformers_videorefer.data.json_files.json_stream import split_file
from transformers_videorefer.data.sources.published import (
    FEATURES,
    PublishedSet,
    file_fingerprint,
    find_files,
    published_set,
    remote_fingerprint,
    video_sizes,
)
from transformers_videorefer.data.sources.reading import iterate_rows


logger = logging.getLogger(__name__)

# JSON that one shard covers: small enough for many workers, large enough that starting one is nothing beside it.
SHARD_BYTES = 256_000_000


@dataclass
class PublishedBuilderConfig(datasets.BuilderConfig):
    """Configuration of a builder of a published set.

    Args:
        source (`str`, *optional*): Folder with the published files. Without it they are fetched from the Hub.
        videos (`str`, *optional*): Folder of the videos, needed only where polygons come without height and width.
        bad_rows (`str`, *optional*, defaults to `"raise"`): `"raise"`, `"skip"` or `"keep"`, see `iterate_rows`.
        report (`str`, *optional*): Folder for a list of the skipped rows as JSON lines, one file per shard. Defaults to
            a folder beside the prepared files, `cache_dir` with the ending `.skipped`; nothing is skipped under
            `"raise"`, so then there is none.
        num_shards (`int`, *optional*): Parts of each file that workers may read side by side. Defaults to one for each
            256 MB.
        revision (`str`, *optional*): Branch, tag or commit of the repository; used without `source` only.
        set_name (`str`): Name of the published set.
    """

    source: str | None = None
    videos: str | None = None
    bad_rows: str = "raise"
    report: str | None = None
    num_shards: int | None = None
    revision: str | None = None
    set_name: str = field(default="", repr=False)

    @property
    def published(self) -> PublishedSet:
        """The published set of this configuration."""
        return published_set(self.set_name)

    def find_files(self) -> dict[str, Path]:
        """Return the file of each split; without `source` it is fetched.

        Returns:
            `dict[str, Path]`: Split -> file.

        Raises:
            FileNotFoundError: If a file is missing.
        """
        return find_files(self.published, self.published.config(self.name), self.source, revision=self.revision)

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """Name the cache folder after the options and after the state of the files, so that changed ones are read again.

        Args:
            config_kwargs (`dict`): Options given to the builder.
            custom_features (`datasets.Features`, *optional*): Columns given to the builder.

        Returns:
            `str`: The name.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If an option has a value that is not offered.
        """
        # Options are set after `__post_init__` has run, so this is the first place that sees them.
        check_bad_rows(self.bad_rows)
        if self.num_shards is not None and self.num_shards < 1:
            raise ValueError(f"`num_shards` is {self.num_shards}. Pass at least 1, or leave it out.")
        if self.source is None and self.published.repo_id is not None:
            files: Any = remote_fingerprint(self.published, self.revision)
        else:
            files = {split: file_fingerprint(path) for split, path in self.find_files().items()}
        return super().create_config_id({**config_kwargs, "files": files}, custom_features)


def builder_configs(name: str) -> list[PublishedBuilderConfig]:
    """Return the configurations of a published set for `BUILDER_CONFIGS`.

    Args:
        name (`str`): Name of the set.

    Returns:
        `list[PublishedBuilderConfig]`: One each.
    """
    return [
        PublishedBuilderConfig(name=config.name, version=datasets.Version("1.0.0"), set_name=name)
        for config in published_set(name).configs
    ]


def shard_ranges(
    path: str | os.PathLike, kind: str, *, num_shards: int | None = None, shard_bytes: int = SHARD_BYTES
) -> list[tuple[int, int]]:
    """Cut a published file into byte ranges of whole records.

    Args:
        path (`str` or `os.PathLike`): The file.
        kind (`str`): Kind of its records. Files of HC-STVG are one JSON object, which stays whole.
        num_shards (`int`, *optional*): How many ranges; there are fewer where there are fewer records.
        shard_bytes (`int`, *optional*, defaults to 256,000,000): Size of a range where `num_shards` is not given.

    Returns:
        `list[tuple[int, int]]`: First byte and the byte behind the last one; at least one range.
    """
    size = os.path.getsize(path)
    if kind == "hc_stvg":
        return [(0, size)]
    return split_file(path, num_shards or max(1, -(-size // shard_bytes))) or [(0, size)]


class PublishedBuilder(datasets.GeneratorBasedBuilder):
    """Base of the builders: rows of the published files, streamed."""

    BUILDER_CONFIG_CLASS = PublishedBuilderConfig
    # Rows of captions hold 32 masks; a thousand of them at a time would be large.
    DEFAULT_WRITER_BATCH_SIZE = 100
    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""

    def _info(self) -> datasets.DatasetInfo:
        kind = self.config.published.config(self.config.name).kind
        return datasets.DatasetInfo(
            features=FEATURES[kind](), homepage=self.HOMEPAGE, citation=self.CITATION, license=self.LICENSE
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        generators = []
        kind = self.config.published.config(self.config.name).kind
        for split, path in self.config.find_files().items():
            ranges = shard_ranges(path, kind, num_shards=self.config.num_shards)
            generators.append(
                datasets.SplitGenerator(
                    name=split, gen_kwargs={"shards": [(split, str(path.absolute()), *pair) for pair in ranges]}
                )
            )
        return generators

    def _generate_examples(self, shards: list[tuple[str, str, int, int]]) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.config.published.config(self.config.name)
        for split, path, begin, end in shards:
            report = DefectReport(self._skipped_path(split, begin))
            rows = iterate_rows(
                path,
                kind=config.kind,
                bad_rows=self.config.bad_rows,
                report=report,
                shard=(begin, end),
                task=config.task,
                source=self.config.set_name,
                video_size=video_sizes(self.config.videos),
            )
            for number, row in enumerate(rows):
                # Identifiers repeat in published files, so they cannot be keys.
                yield f"{split}-{begin}-{number}", row
            report.flush()
            if report.num_skipped:
                logger.warning(
                    "%s, split %s, from byte %d: %s\nlisted in %s",
                    Path(path).name,
                    split,
                    begin,
                    report.summary(),
                    report.skipped_path,
                )

    def _skipped_path(self, split: str, begin: int) -> Path | None:
        """Return the file for the list of a shard: every skipped row stands in one, whether that was asked for or not."""
        if self.config.report is None and self.config.bad_rows == "raise":
            return None
        folder = Path(self.config.report or f"{self.cache_dir}.skipped")
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.config.name}-{split}-{begin:012d}.skipped.jsonl"
