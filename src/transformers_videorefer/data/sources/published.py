"""The published sets: which file holds what, under which name, and how to get it."""

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from transformers_videorefer.data.paths import resolve_media
from transformers_videorefer.data.tables.features import bench_d_features, bench_q_features, conversation_features
from transformers_videorefer.video.opening import open_video


logger = logging.getLogger(__name__)

# What a call to the Hub raises. A refused connection is an error of its HTTP library, which is not the same in all
# versions, but always a base of the errors of the Hub itself.
HUB_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)
# Kind of record -> the columns of its rows.
FEATURES: dict[str, Callable[[], Any]] = {
    "conversations": conversation_features,
    "bench_d": bench_d_features,
    "bench_q": bench_q_features,
    "hc_stvg": bench_d_features,
}


@dataclass(frozen=True)
class PublishedConfig:
    """One configuration of a published set.

    Args:
        name (`str`): Name that `load_dataset` takes.
        kind (`str`): Kind of its records: `"conversations"`, `"bench_d"`, `"bench_q"` or `"hc_stvg"`.
        files (`dict[str, tuple[str, ...]]`): Split -> names that its file may have.
        task (`str`, *optional*): What its rows say in the column `task`.
        needs_every_split (`bool`, *optional*, defaults to `True`): Whether a missing file is an error while another
            split has one.
    """

    name: str
    kind: str
    files: dict[str, tuple[str, ...]]
    task: str | None = None
    needs_every_split: bool = True


@dataclass(frozen=True)
class PublishedSet:
    """A published set.

    Args:
        name (`str`): Name of the set, also the value of the column `source`.
        configs (`tuple[PublishedConfig, ...]`): Its configurations, the default one first.
        repo_id (`str`, *optional*): Dataset repository on the Hub that holds the files; None where there is none.
    """

    name: str
    configs: tuple[PublishedConfig, ...]
    repo_id: str | None = None

    def config(self, name: str) -> PublishedConfig:
        """Return one configuration.

        Args:
            name (`str`): Its name.

        Returns:
            [`PublishedConfig`]: The configuration.

        Raises:
            ValueError: If there is none of that name.
        """
        for config in self.configs:
            if config.name == name:
                return config
        names = ", ".join(config.name for config in self.configs)
        raise ValueError(f"{self.name} has no configuration {name!r}. Choose from: {names}.")


def _conversation_config(name: str, file_name: str) -> PublishedConfig:
    return PublishedConfig(name=name, kind="conversations", files={"train": (file_name,)}, task=name)


PUBLISHED_SETS: dict[str, PublishedSet] = {
    published.name: published
    for published in (
        PublishedSet(
            name="videorefer-700k",
            repo_id="DAMO-NLP-SG/VideoRefer-700K",
            configs=(
                _conversation_config("short_caption", "videorefer-short-caption-500k.json"),
                _conversation_config("detailed_caption", "videorefer-detailed-caption-125k.json"),
                _conversation_config("qa", "videorefer-qa-75k.json"),
            ),
        ),
        PublishedSet(
            name="videorefer-bench-d",
            repo_id="DAMO-NLP-SG/VideoRefer-Bench",
            configs=(PublishedConfig("default", "bench_d", {"test": ("VideoRefer-Bench-D.json",)}),),
        ),
        PublishedSet(
            name="videorefer-bench-q",
            repo_id="DAMO-NLP-SG/VideoRefer-Bench",
            configs=(PublishedConfig("default", "bench_q", {"test": ("VideoRefer-Bench-Q.json",)}),),
        ),
        PublishedSet(
            name="hc-stvg",
            configs=(
                PublishedConfig(
                    "default",
                    "hc_stvg",
                    {
                        "train": ("train.json", "train_v1.json", "train_v2.json"),
                        "validation": ("val.json", "val_v1.json", "val_v2.json"),
                        "test": ("test.json", "test_v1.json", "test_v2.json"),
                    },
                    needs_every_split=False,
                ),
            ),
        ),
    )
}


def published_set(name: str) -> PublishedSet:
    """Return a published set.

    Args:
        name (`str`): `"videorefer-700k"`, `"videorefer-bench-d"`, `"videorefer-bench-q"` or `"hc-stvg"`; underscores
            and capitals do as well.

    Returns:
        [`PublishedSet`]: The set.

    Raises:
        ValueError: If there is none of that name.
    """
    key = name.lower().replace("_", "-")
    if key not in PUBLISHED_SETS:
        raise ValueError(f"There is no published set {name!r}. Choose from: {', '.join(PUBLISHED_SETS)}.")
    return PUBLISHED_SETS[key]


def find_files(
    published: PublishedSet, config: PublishedConfig, source: str | os.PathLike | None, *, revision: str | None = None
) -> dict[str, Path]:
    """Return where the file of each split lies; without a folder, fetch it from the Hub.

    Args:
        published ([`PublishedSet`]): The set.
        config ([`PublishedConfig`]): One of its configurations.
        source (`str` or `os.PathLike`, *optional*): Folder with the published files.
        revision (`str`, *optional*): Branch, tag or commit of the repository; used without `source` only.

    Returns:
        `dict[str, Path]`: Split -> file.

    Raises:
        FileNotFoundError: If a file is missing; the error names it.
        ValueError: If a folder holds two files for one split, or the set has no repository and no `source` is given.
    """
    if source is None:
        if published.repo_id is None:
            raise ValueError(
                f"{published.name} has no repository to fetch it from. Download its annotations from the authors' "
                "page (see the card) and pass the folder as `source` (--source)."
            )
        return {
            split: Path(hf_hub_download(published.repo_id, names[0], repo_type="dataset", revision=revision))
            for split, names in config.files.items()
        }
    found, missing = {}, []
    for split, names in config.files.items():
        paths = [Path(source) / name for name in names if (Path(source) / name).is_file()]
        if len(paths) > 1:
            raise ValueError(
                f"The folder {source} holds {len(paths)} files for the split {split!r}: "
                f"{', '.join(path.name for path in paths)}. Leave one of them there."
            )
        if paths:
            found[split] = paths[0]
        else:
            missing.extend(names)
    if missing and (config.needs_every_split or not found):
        raise FileNotFoundError(
            f"The configuration {config.name!r} of {published.name} is read from {' or '.join(missing)}, which is not "
            f"in the folder {source}. Put the published file there, or choose other configurations (`configs`, --configs)."
        )
    return found


def file_fingerprint(path: str | os.PathLike) -> dict[str, Any]:
    """Return what tells a changed file from the one that was read before.

    Args:
        path (`str` or `os.PathLike`): The file.

    Returns:
        `dict`: `name`, `size` in bytes and `mtime_ns`; nothing of the folder it lies in.
    """
    status = os.stat(path)
    return {"name": Path(path).name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def remote_fingerprint(published: PublishedSet, revision: str | None) -> str:
    """Return the commit that a revision stands for; offline, the revision as it was given.

    Args:
        published ([`PublishedSet`]): A set with a repository.
        revision (`str`, *optional*): Branch, tag or commit.

    Returns:
        `str`: The commit, or the revision.
    """
    try:
        return HfApi().dataset_info(published.repo_id, revision=revision).sha
    except HUB_ERRORS:  # no network: the files then come from the Hub cache, or their download says what is wrong
        return revision or "main"


def video_sizes(videos: str | os.PathLike | None) -> Callable[[str], tuple[int, int] | None] | None:
    """Return a function that looks up the size of a video, for polygons whose record does not give it.

    Args:
        videos (`str` or `os.PathLike`, *optional*): Folder that the paths of the records are relative to.

    Returns:
        `Callable` or None: Path as in the record -> (height, width) of its frames, None where it cannot be read or
        lies outside of the folder; None without a folder.
    """
    if videos is None:
        return None

    @functools.lru_cache(maxsize=10_000)
    def size_of(path: str) -> tuple[int, int] | None:
        try:
            with open_video(resolve_media(path, videos), edit_list="ignore") as reader:
                return next(iter(reader.read([0])))[1].shape[:2]
        except (OSError, ValueError) as error:  # the record then counts as one without a size
            logger.warning("The size of %s is unknown: %s", path, error)
            return None

    return size_of
