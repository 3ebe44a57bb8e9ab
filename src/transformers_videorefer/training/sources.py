"""One source of a mixture: rows of our sets, published files, sets with `messages` as TRL has them, synthetic shapes."""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers_videorefer.data.defects import DefectReport, check_bad_rows
from transformers_videorefer.data.json_files.json_stream import iterate_records, split_file
from transformers_videorefer.data.sources.reading import iterate_rows
from transformers_videorefer.data.synthetic.clips import (
    SPLIT_SEEDS,
    clip_name,
    conversation_rows,
    make_clip,
    write_clip,
)


try:
    import datasets
except ImportError as error:
    raise ImportError("Mixtures need the library `datasets`. Install it with `pip install datasets`.") from error

from transformers_videorefer.data.sources.published import video_sizes
from transformers_videorefer.data.tables.features import conversation_features


logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic-shapes"
# Bytes of a published file that one process reads at a time.
_SHARD_BYTES = 256_000_000
_JSON_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


@dataclass
class DataSource:
    """One entry of a mixture.

    Args:
        path (`str`): A folder of ours or of any set with `messages`, a Hub id, a published JSON file, a JSON-lines file
            with `messages`, or `synthetic-shapes`.
        name (`str`, *optional*): Configuration of the set, such as `qa`.
        split (`str`, *optional*, defaults to `"train"`): Split of the set.
        data_root (`str`, *optional*): Folder that the paths in its rows are relative to; the trainer's by default. For
            `synthetic-shapes` the folder that its clips are written to, which is required.
        weight (`float`, *optional*): Share of this source, relative to those of the others. All sources have one, or
            none, and then every row comes once per epoch.
        max_rows (`int`, *optional*): Most rows taken: a random choice by the seed, or the first ones when streaming.
        filters (`dict[str, Any]`, *optional*): Column -> the value, or list of values, of the rows that are kept.
        edit_list (`str`, *optional*, defaults to `"ignore"`): How published JSON counts frames.
        bad_rows (`str`, *optional*, defaults to `"skip"`): What happens to broken records of published JSON: `"skip"`,
            `"raise"`, or `"keep"` for what can be kept of them.
        num_clips (`int`, *optional*, defaults to `100`): Clips of `synthetic-shapes`.

    Raises:
        ValueError: If a value is out of range, or `name` or `split` is given for a file.
        TypeError: If a number is none, or `filters` is no mapping.
    """

    path: str
    name: str | None = None
    split: str = "train"
    data_root: str | None = None
    weight: float | None = None
    max_rows: int | None = None
    filters: dict[str, Any] = field(default_factory=dict)
    edit_list: str = "ignore"
    bad_rows: str = "skip"
    num_clips: int = 100

    def __post_init__(self) -> None:
        """Check the values."""
        check_bad_rows(self.bad_rows)
        for name in ("weight", "max_rows", "num_clips"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (int, float)):
                raise TypeError(f"`{name}` of {self.path!r} must be a number, got {value!r}.")
        if not isinstance(self.filters, Mapping):
            raise TypeError(
                f"`filters` of {self.path!r} must map columns to values, such as {{task: qa}}, got {self.filters!r}."
            )
        if self.weight is not None and self.weight <= 0:
            raise ValueError(f"`weight` of {self.path!r} is {self.weight}. Pass a number above 0, or leave it out.")
        for name in ("max_rows", "num_clips"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` of {self.path!r} is {getattr(self, name)}. Pass at least 1, or leave it out."
                )
        if self.path.endswith(_JSON_SUFFIXES) and (self.name is not None or self.split != "train"):
            raise ValueError(
                f"{self.path!r} is one file, which has no `name` and no `split` but `train`. Leave them out; `filters` "
                "picks rows by what they hold."
            )
        if self.path == SYNTHETIC and self.data_root is None:
            raise ValueError(f"`{SYNTHETIC}` needs `data_root`: the folder that its clips are written to.")

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "DataSource":
        """Read an entry of a YAML list.

        Args:
            entry (`Mapping[str, Any]`): The entry.

        Returns:
            [`DataSource`].

        Raises:
            ValueError: If a key is unknown or `path` is missing.
            TypeError: If it is no mapping, or a value is of a wrong kind.
        """
        if not isinstance(entry, Mapping):
            raise TypeError(f"An entry of `datasets` must be a mapping such as {{path: ...}}, got {entry!r}.")
        known = [one.name for one in fields(cls)]
        unknown = sorted(set(entry) - set(known))
        if unknown or "path" not in entry:
            problem = f"has the unknown key `{unknown[0]}`" if unknown else "has no `path`"
            raise ValueError(f"An entry of `datasets` {problem}: {dict(entry)}. Known keys: {', '.join(known)}.")
        return cls(**entry)

    @property
    def label(self) -> str:
        """`str`: What cards and logs call it: no path of this machine."""
        name = self.path if not os.path.exists(self.path) else Path(self.path).resolve().name
        return f"{name}/{self.name}" if self.name and os.path.exists(self.path) else name


def mixture_features() -> "datasets.Features":
    """Return the columns of a mixture: those of our rows, media of other sets, and the data root of each row.

    Returns:
        `datasets.Features`: The columns.
    """
    text = datasets.Value("string")
    picture = {"bytes": datasets.Value("binary"), "path": text}
    return datasets.Features(
        {
            **conversation_features(),
            "images": datasets.List(picture),
            "videos": datasets.List(text),
            "data_root": text,
        }
    )


def load_source(source: DataSource, *, streaming: bool = False, num_proc: int | None = None) -> Any:
    """Load one source with the columns of a mixture.

    Args:
        source ([`DataSource`]): The source.
        streaming (`bool`, *optional*, defaults to `False`): Whether rows are read as they are needed.
        num_proc (`int`, *optional*): Processes that read published JSON.

    Returns:
        `Dataset` or `IterableDataset`: Its rows, filtered, not capped.

    Raises:
        ValueError: If its rows have neither `messages` nor `conversations`, or a filter names no column of single
            values.
        OSError: If it cannot be found.
    """
    if source.path == SYNTHETIC:
        dataset = _from_generator(_synthetic_rows, _synthetic_arguments(source), streaming)
    elif source.path.endswith(_JSON_SUFFIXES) and _is_published(source.path):
        dataset = _from_generator(_published_rows, _published_arguments(source), streaming, num_proc)
    else:
        dataset = _with_mixture_columns(_load_set(source, streaming), source)
    for column, wanted in source.filters.items():
        feature = mixture_features().get(column)
        if not isinstance(feature, datasets.Value):
            problem = (
                "names no column" if feature is None else "compares single values, which this column does not hold"
            )
            raise ValueError(f"`filters` of {source.path!r} {problem}: {column!r}.")
        values = set(wanted) if isinstance(wanted, (list, tuple)) else {wanted}
        dataset = dataset.filter(_is_one_of, input_columns=[column], fn_kwargs={"values": values})
    return dataset


def _is_one_of(value: Any, values: set[Any]) -> bool:
    return value in values


def _from_generator(rows: Any, arguments: dict[str, Any], streaming: bool, num_proc: int | None = None) -> Any:
    if streaming:
        return datasets.IterableDataset.from_generator(rows, features=mixture_features(), gen_kwargs=arguments)
    num_proc = min(num_proc or 1, len(arguments["shards"]))
    return datasets.Dataset.from_generator(
        rows,
        features=mixture_features(),
        gen_kwargs=arguments,
        num_proc=num_proc if num_proc > 1 else None,
        writer_batch_size=100,  # rows hold many masks
    )


def _synthetic_arguments(source: DataSource) -> dict[str, Any]:
    if source.split not in SPLIT_SEEDS:
        raise ValueError(f"`split` of `{SYNTHETIC}` must be one of {', '.join(SPLIT_SEEDS)}, got {source.split!r}.")
    first = SPLIT_SEEDS[source.split]
    seeds = list(range(first, first + source.num_clips))
    for seed in seeds:
        if not Path(source.data_root, clip_name(seed)).exists():  # the rows may come from the cache, the files not
            write_clip(make_clip(seed), Path(source.data_root))
    return {"shards": seeds, "data_root": source.data_root}


def _synthetic_rows(shards: list[int], data_root: str) -> Iterator[dict[str, Any]]:
    for seed in shards:
        for row in conversation_rows(make_clip(seed)):
            yield {**row, "images": None, "videos": None, "data_root": data_root}


def _is_published(path: str) -> bool:
    first = next((record for _, record in iterate_records(path)), None)
    return isinstance(first, Mapping) and "conversations" in first


def _published_arguments(source: DataSource) -> dict[str, Any]:
    state = os.stat(source.path)
    return {
        "shards": split_file(source.path, max(1, state.st_size // _SHARD_BYTES)),
        "path": source.path,
        "data_root": source.data_root,
        "edit_list": source.edit_list,
        "bad_rows": source.bad_rows,
        # A changed file makes another cache.
        "state": (state.st_size, state.st_mtime_ns),
    }


def _published_rows(
    shards: list[tuple[int, int]],
    path: str,
    data_root: str | None,
    edit_list: str,
    bad_rows: str,
    state: tuple[int, int],
) -> Iterator[dict[str, Any]]:
    report = DefectReport()
    for shard in shards:
        rows = iterate_rows(
            path,
            kind="conversations",
            bad_rows=bad_rows,
            report=report,
            shard=tuple(shard),
            source=Path(path).name.split(".")[0],
            edit_list=edit_list,
            video_size=video_sizes(data_root),
        )
        for row in rows:
            yield {**row, "images": None, "videos": None, "data_root": data_root}
    if report.num_skipped:
        logger.warning("%d of %d records of %s are left out.", report.num_skipped, report.num_rows, Path(path).name)
        logger.info("%s", report.summary())


def _load_set(source: DataSource, streaming: bool) -> Any:
    path = Path(source.path)
    if path.is_file():
        if not path.stat().st_size:  # `datasets` would end with a bare StopIteration
            raise ValueError(f"{source.path!r} holds no rows. Check the file, or leave the source out.")
        return datasets.load_dataset("json", data_files=source.path, split="train", streaming=streaming)
    if (path / "state.json").is_file():  # written by `save_to_disk`
        dataset = datasets.load_from_disk(source.path)
        return dataset.to_iterable_dataset(num_shards=min(8, len(dataset))) if streaming else dataset
    return datasets.load_dataset(source.path, source.name, split=source.split, streaming=streaming)


def _with_mixture_columns(dataset: Any, source: DataSource) -> Any:
    """Give rows of any set the columns of a mixture."""
    columns = list(dataset.column_names or next(iter(dataset)))
    if "messages" not in columns:
        raise ValueError(
            f"The rows of {source.path!r} have no `messages`, only {', '.join(columns)}. Convert them first; files as "
            "VideoRefer-700K publishes them are read as they are, as JSON."
        )
    if isinstance(dataset, datasets.Dataset) and _has_our_columns(dataset):
        return _add_columns(dataset, source)
    for column in ("image", "images"):
        if column in columns and dataset.features is not None:
            dataset = dataset.cast_column(column, _undecoded(dataset.features[column]))
    return dataset.map(
        _mixture_row,
        with_indices=True,
        fn_kwargs={"label": source.label, "data_root": source.data_root, "edit_list": source.edit_list},
        remove_columns=[name for name in columns if name not in mixture_features()],
        features=mixture_features(),
        **({} if isinstance(dataset, datasets.IterableDataset) else {"writer_batch_size": 100}),
    )


def _has_our_columns(dataset: Any) -> bool:
    return all(dataset.features.get(name) == feature for name, feature in conversation_features().items())


def _add_columns(dataset: Any, source: DataSource) -> Any:
    """Complete rows of ours without writing their masks once more."""
    features = mixture_features()
    dataset = dataset.select_columns([name for name in dataset.column_names if name in features])
    for name, value in (("images", None), ("videos", None), ("data_root", source.data_root)):
        if name not in dataset.column_names:
            dataset = dataset.add_column(name, [value] * len(dataset), feature=features[name])
    return dataset.select_columns(list(features))


def _undecoded(feature: Any) -> Any:
    """Let pictures of a column stay files: they are opened where batches are made."""
    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
        return datasets.List(datasets.Image(decode=False))
    return feature


def _mixture_row(
    row: Mapping[str, Any], index: int, label: str, data_root: str | None, edit_list: str
) -> dict[str, Any]:
    image = row.get("image")
    images = [*([image] if isinstance(image, Mapping) else []), *(row.get("images") or [])]
    return {
        "id": str(row["id"]) if row.get("id") is not None else f"{label}-{index}",
        "video": row.get("video"),
        "image": image if isinstance(image, str) else None,
        "messages": row["messages"],
        "regions": row.get("regions") or [],
        "edit_list": row.get("edit_list") or "apply",
        "task": row.get("task"),
        "source": row.get("source") or label,
        "images": [one if isinstance(one, Mapping) else {"bytes": None, "path": one} for one in images] or None,
        "videos": row.get("videos") or None,
        "data_root": row.get("data_root") or data_root,
    }
