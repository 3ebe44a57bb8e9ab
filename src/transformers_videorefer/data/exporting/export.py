"""Published files into a folder of Parquet files with a card: restartable, and never visible before it is whole."""

import logging
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from transformers_videorefer import __version__
from transformers_videorefer.data.defects import check_bad_rows
from transformers_videorefer.data.sources.published import (
    FEATURES,
    PublishedConfig,
    PublishedSet,
    file_fingerprint,
    find_files,
)
from transformers_videorefer.data.tables.cards import CardConfig, write_card
from transformers_videorefer.data.tables.parquet import COMPRESSION, ROW_GROUP_BYTES

from .builders import SHARD_BYTES, shard_ranges
from .publishing import (
    REPORT_FOLDER,
    STATE_FOLDER,
    check_owner,
    note_owner,
    publish_files,
    settle_older,
    write_reports,
)
from .shards import FILES_FOLDER, ShardTask, digest, finished_shard, read_state, write_shard, write_state


logger = logging.getLogger(__name__)

# Raised when the same source would give other files, so that finished shards of an older version are not kept.
EXPORT_VERSION = 2


def data_folder(config: str) -> str:
    """Return the name of the folder that holds the files of a configuration.

    Args:
        config (`str`): Name of the configuration.

    Returns:
        `str`: The name itself, or `"data"` for the only configuration of a set.
    """
    return "data" if config == "default" else config


def split_pattern(config: str, split: str) -> str:
    """Return the pattern of the files of a split, relative to the card.

    Args:
        config (`str`): Name of the configuration.
        split (`str`): Name of the split.

    Returns:
        `str`: The pattern.
    """
    return f"{data_folder(config)}/{split}-*.parquet"


def export_set(
    published: PublishedSet,
    output: str | os.PathLike,
    card: str,
    *,
    source: str | os.PathLike | None = None,
    configs: Sequence[str] | None = None,
    bad_rows: str = "raise",
    videos: str | os.PathLike | None = None,
    num_proc: int = 1,
    shard_bytes: int | None = None,
    row_group_bytes: int = ROW_GROUP_BYTES,
    revision: str | None = None,
    show_progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Export a published set to Parquet files with a card, from which `load_dataset` works with no code of ours.

    Finished shards are kept when the export is interrupted, and recognised by the name, size and time of their source
    and by the settings. The files of a configuration appear in `output` together, by the renaming of one folder, once
    all of them are finished; until then an older export of it stays as it is.

    Args:
        published ([`PublishedSet`]): The set.
        output (`str` or `os.PathLike`): Folder to be made, or one with an export of the same set, which is brought up
            to date.
        card (`str`): Text of the card to start from, see [`write_card`].
        source (`str` or `os.PathLike`, *optional*): Folder with the published files; without it they are fetched.
        configs (`Sequence[str]`, *optional*): Configurations to export. Defaults to all.
        bad_rows (`str`, *optional*, defaults to `"raise"`): `"raise"`, `"skip"` (counted, and listed in `reports/`) or
            `"keep"` (without their broken parts).
        videos (`str` or `os.PathLike`, *optional*): Folder of the videos, for polygons without height and width.
        num_proc (`int`, *optional*, defaults to 1): Processes; the files do not depend on it.
        shard_bytes (`int`, *optional*): JSON that one shard covers. Defaults to 256 MB.
        row_group_bytes (`int`, *optional*, defaults to 16,000,000): Uncompressed size of a row group.
        revision (`str`, *optional*): Branch, tag or commit of the repository; used without `source` only.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to draw progress bars.

    Returns:
        `dict[str, dict]`: Configuration -> `splits` (rows and bytes), `files` and `report`.

    Raises:
        FileExistsError: If `output` holds something that no export wrote.
        FileNotFoundError: If a published file is missing.
        RecordError: If a record is bad and `bad_rows` is `"raise"`.
        ValueError: If an argument has a value that is not offered, another export writes to `output`, or it holds one
            of another set.
    """
    check_bad_rows(bad_rows)
    for name, value in (("num_proc", num_proc), ("shard_bytes", shard_bytes), ("row_group_bytes", row_group_bytes)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` is {value}. Pass at least 1.")
    chosen = [published.config(name) for name in configs] if configs else list(published.configs)
    # All files are looked for first, so that a missing one is not found after an hour.
    files = {config.name: find_files(published, config, source, revision=revision) for config in chosen}
    output = Path(output)
    with _locked(output, published.name):
        for config in chosen:
            tasks = []
            for split, path in files[config.name].items():
                ranges = shard_ranges(path, config.kind, shard_bytes=shard_bytes or SHARD_BYTES)
                settings = {"bad_rows": bad_rows, "videos": videos, "row_group_bytes": row_group_bytes}
                tasks.extend(_plan(published, config, split, path, ranges, output, settings))
            _export_config(config, tasks, output, num_proc, show_progress)
            states = _finished_configs(published, output)
            write_card(output / "README.md", card, _card_configs(published, states), about_this_copy=_about(states))
    return {config.name: states[config.name] for config in chosen}


@contextmanager
def _locked(output: Path, name: str) -> Iterator[None]:
    check_owner(output, name)  # before anything is written into a folder of somebody else
    state = output / STATE_FOLDER
    state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(state / "lock", timeout=0):
            check_owner(output, name)  # another export may have been faster
            note_owner(output, name)
            yield
    except Timeout as error:
        raise ValueError(f"Another export writes to {output}. Wait for it, or choose another folder.") from error


def _plan(
    published: PublishedSet,
    config: PublishedConfig,
    split: str,
    path: Path,
    ranges: list[tuple[int, int]],
    output: Path,
    settings: dict[str, Any],
) -> Iterator[ShardTask]:
    """Yield the shards of one split."""
    videos = settings["videos"] and str(Path(settings["videos"]).absolute())
    for index, (begin, end) in enumerate(ranges):
        shard = {
            "name": f"{split}-{index:05d}-of-{len(ranges):05d}.parquet",
            "split": split,
            "begin": begin,
            "end": end,
            "kind": config.kind,
            "task": config.task,
            "source": published.name,
            **settings,
            "videos": videos,
        }
        made_from = {**shard, "file": file_fingerprint(path), "version": [EXPORT_VERSION, __version__, COMPRESSION]}
        yield ShardTask(
            **shard,
            path=str(path.absolute()),
            folder=str(output / STATE_FOLDER / config.name),
            fingerprint=digest(made_from),
        )


def _export_config(
    config: PublishedConfig, tasks: list[ShardTask], output: Path, num_proc: int, show_progress: bool
) -> None:
    """Bring the files of one configuration up to date."""
    fingerprint = digest([task.fingerprint for task in tasks])
    target = output / data_folder(config.name)
    waiting = output / STATE_FOLDER / config.name
    settle_older(waiting, target)
    state = read_state(_config_state(output, config.name))
    if state and state["fingerprint"] == fingerprint and _has_files(output / data_folder(config.name), state["files"]):
        logger.info("%s is up to date.", config.name)
        shutil.rmtree(waiting, ignore_errors=True)  # of a run that was killed at its very end
        return
    finished = _find_finished(tasks, waiting, target)
    total = sum(task.end - task.begin for task in tasks)
    with tqdm(total=total, unit="B", unit_scale=True, desc=config.name, disable=not show_progress) as bar:
        bar.update(sum(task.end - task.begin for task in tasks if task.name in finished))
        for task, shard in _run([task for task in tasks if task.name not in finished], num_proc, bar):
            finished[task.name] = shard
            bar.update(task.end - task.begin)
    _publish(config, [finished[task.name] for task in tasks], waiting, target, fingerprint, output)


def _find_finished(tasks: list[ShardTask], waiting: Path, target: Path) -> dict[str, dict[str, Any]]:
    """Return the states of the shards that an interrupted run finished, and remove what else it left."""
    files = waiting / FILES_FOLDER
    # Files are published together: without the folder that they wait in, all of them are published or none is.
    folder = files if files.exists() else target
    finished = {task.name: found for task in tasks if (found := finished_shard(task, folder))}
    if not files.exists():
        if len(finished) == len(tasks):
            return finished
        finished = {}
    files.mkdir(parents=True, exist_ok=True)
    kept = {f"{name}{suffix}" for name in finished for suffix in ("", ".json", ".skipped.jsonl")}
    for leftover in (*waiting.iterdir(), *files.iterdir()):
        if leftover != files and leftover.name not in kept:
            leftover.unlink()
    return finished


def _run(tasks: list[ShardTask], num_proc: int, bar: tqdm) -> Iterator[tuple[ShardTask, dict[str, Any]]]:
    """Make shards, here or in other processes, and yield each with its state once it is finished."""
    if num_proc == 1 or len(tasks) < 2:
        num_rows = 0

        def count(rows: int) -> None:
            nonlocal num_rows
            num_rows += rows
            bar.set_postfix(rows=num_rows)

        for task in tasks:
            yield task, write_shard(task, count)
        return
    # Fresh processes: Arrow and torch have threads, which a forked process would find without their owners.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_proc, len(tasks)), mp_context=context) as pool:
        futures = {pool.submit(write_shard, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _publish(
    config: PublishedConfig, shards: list[dict[str, Any]], waiting: Path, target: Path, fingerprint: str, output: Path
) -> None:
    """Move finished files to where readers look for them, and note what they are."""
    # The older state says nothing about the new files, not even if their names and sizes agree.
    _config_state(output, config.name).unlink(missing_ok=True)
    publish_files(waiting, target)
    report = write_reports(config.name, shards, waiting, target)
    splits: dict[str, dict[str, int]] = {}
    for shard in shards:
        sums = splits.setdefault(shard["split"], {"num_rows": 0, "num_bytes": 0, "file_bytes": 0, "num_skipped": 0})
        for key in sums:
            sums[key] += (shard["report"] if key == "num_skipped" else shard)[key]
    for split, sums in splits.items():
        if not sums["num_rows"]:
            # `load_dataset` refuses a split without rows; streaming it works.
            logger.warning("%s/%s has no rows: every record was left out, see %s.", config.name, split, REPORT_FOLDER)
    files = [{"name": shard["name"], "file_bytes": shard["file_bytes"]} for shard in shards]
    state = {"fingerprint": fingerprint, "splits": splits, "files": files, "report": report}
    write_state(_config_state(output, config.name), state)
    shutil.rmtree(waiting)


def _config_state(output: Path, config: str) -> Path:
    return output / STATE_FOLDER / f"{config}.json"


def _has_files(folder: Path, files: list[dict[str, Any]]) -> bool:
    return all(
        (folder / file["name"]).exists() and (folder / file["name"]).stat().st_size == file["file_bytes"]
        for file in files
    )


def _finished_configs(published: PublishedSet, output: Path) -> dict[str, dict[str, Any]]:
    """Return the state of every configuration whose files are there, also of those of an earlier export."""
    states = {config.name: read_state(_config_state(output, config.name)) for config in published.configs}
    return {
        name: state
        for name, state in states.items()
        if state and _has_files(output / data_folder(name), state["files"])
    }


def _card_configs(published: PublishedSet, states: dict[str, dict[str, Any]]) -> list[CardConfig]:
    return [
        CardConfig(
            name=name,
            features=FEATURES[published.config(name).kind](),
            splits={split: split_pattern(name, split) for split in state["splits"]},
            num_rows={split: sums["num_rows"] for split, sums in state["splits"].items()},
            num_bytes={split: sums["num_bytes"] for split, sums in state["splits"].items()},
            download_size=sum(sums["file_bytes"] for sums in state["splits"].values()),
        )
        for name, state in states.items()
    ]


def format_size(num_bytes: int) -> str:
    """Return a size for people.

    Args:
        num_bytes (`int`): Bytes.

    Returns:
        `str`: In kB, or in MB from one on.
    """
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1_000_000 else f"{num_bytes / 1e3:,.1f} kB"


def _about(states: dict[str, dict[str, Any]]) -> str:
    """Say in the card what was written and what was wrong with it."""
    lines = ["| configuration | split | rows | files | size |", "|---|---|---|---|---|"]
    for name, state in states.items():
        for split, sums in state["splits"].items():
            num_files = sum(file["name"].startswith(f"{split}-") for file in state["files"])
            size = format_size(sums["file_bytes"])
            lines.append(f"| `{name}` | `{split}` | {sums['num_rows']:,} | {num_files} | {size} |")
    lines.append("")
    for name, state in states.items():
        report = state["report"]
        counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(report["counts"].items())) or "none"
        lines.append(
            f"- `{name}`: {report['num_rows']:,} records read, {report['num_skipped']:,} left out. Defects: {counts}."
        )
    lines += ["", f"Written by transformers-videorefer {__version__}. Every mask was checked by the sum of its runs."]
    return "\n".join(lines)
