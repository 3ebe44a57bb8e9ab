"""The last step of an export: finished files to where readers look for them, in one piece, and what was wrong with them."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers_videorefer.data.defects import DefectReport, describe, make_defect
from transformers_videorefer.data.tables.parquet import flush_to_disk, pq

from .shards import FILES_FOLDER, read_state, write_state


# Everything that is not meant for readers; loaders pass over folders whose name begins with a dot.
STATE_FOLDER = ".export"
REPORT_FOLDER = "reports"
_OWNER = "set.json"
_SHARD_NAME = re.compile(r".+-\d{5}-of-\d{5}\.parquet")
_MAX_NAMED = 3


def check_owner(output: Path, name: str) -> None:
    """Check that an export may write to a folder: it is new, empty, or holds an export of the same set.

    Args:
        output (`Path`): The folder.
        name (`str`): Name of the set.

    Raises:
        FileExistsError: If the folder holds something else.
        ValueError: If it holds an export of another set.
    """
    if not output.exists():
        return
    owner = read_state(output / STATE_FOLDER / _OWNER)
    if owner is None:
        others = sorted(path.name for path in output.iterdir() if path.name != STATE_FOLDER)
        if others:
            named = ", ".join(others[:_MAX_NAMED]) + ", ..." * (len(others) > _MAX_NAMED)
            raise FileExistsError(
                f"The folder {output} holds {named}, which no export of {name} wrote. Pass a new or an empty folder as "
                "`output` (--output)."
            )
    elif owner["set"] != name:
        raise ValueError(
            f"The folder {output} holds an export of {owner['set']}, which one of {name} would replace. Pass another "
            "folder as `output` (--output)."
        )


def note_owner(output: Path, name: str) -> None:
    """Note in the folder of an export which set it holds.

    Args:
        output (`Path`): The folder, with its folder of states.
        name (`str`): Name of the set.
    """
    write_state(output / STATE_FOLDER / _OWNER, {"set": name})


def publish_files(waiting: Path, target: Path) -> None:
    """Put the finished files of a configuration in the place of older ones.

    A folder is renamed, so readers find the older files, none (for the time between two renames), or the new ones.

    Args:
        waiting (`Path`): Folder whose `files` are to be published. Without them they are where they belong already.
        target (`Path`): Folder that readers look into.
    """
    files = waiting / FILES_FOLDER
    if files.exists():
        flush_to_disk(files)
        if target.exists():
            os.replace(target, _retired(waiting))
        os.replace(files, target)
        flush_to_disk(target.parent)
    settle_older(waiting, target)


def settle_older(waiting: Path, target: Path) -> None:
    """Put older files back where nothing took their place yet, and drop them where something did.

    Args:
        waiting (`Path`): As in [`publish_files`].
        target (`Path`): As in [`publish_files`].
    """
    retired = _retired(waiting)
    if not retired.exists():
        return
    if not target.exists():
        os.replace(retired, target)
        return
    for path in retired.iterdir():
        # What no export wrote is not ours to delete.
        if not _SHARD_NAME.fullmatch(path.name) and not (target / path.name).exists():
            os.replace(path, target / path.name)
    shutil.rmtree(retired)


def _retired(waiting: Path) -> Path:
    return waiting.with_name(f"{waiting.name}.old")


def write_reports(config: str, shards: Sequence[dict[str, Any]], waiting: Path, target: Path) -> dict[str, Any]:
    """Join the reports of the shards: one file of counts and examples, one that lists every skipped row.

    Args:
        config (`str`): Name of the configuration.
        shards (`Sequence[dict]`): What `write_shard` returned, in the order of the rows.
        waiting (`Path`): Folder with the lists of skipped rows.
        target (`Path`): Folder with the published files; the reports are written beside it.

    Returns:
        `dict`: The report as it stands in the file.
    """
    folder = target.parent / REPORT_FOLDER
    folder.mkdir(exist_ok=True)
    whole = DefectReport()
    skipped = folder / f"{config}.skipped.jsonl"
    with skipped.open("wb") as file:
        for shard in shards:
            part = DefectReport()
            for key in ("num_rows", "num_skipped", "counts", "examples"):
                setattr(part, key, shard["report"][key])
            whole.merge(part)
            with (waiting / f"{shard['name']}.skipped.jsonl").open("rb") as rows:
                shutil.copyfileobj(rows, file)
    for split in dict.fromkeys(shard["split"] for shard in shards):
        paths = [target / shard["name"] for shard in shards if shard["split"] == split]
        for number, row_id in _repeated_ids(paths):
            defect = make_defect("duplicate_id", f"`id` {describe(row_id)} stands there before")
            whole.add([defect], where=f"{split}, row {number}")
    report = {**whole.to_dict(), "skipped": skipped.name}
    if not whole.num_skipped:
        skipped.unlink()
        del report["skipped"]
    (folder / f"{config}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _repeated_ids(paths: Sequence[Path]) -> Iterator[tuple[int, str]]:
    """Yield number and id of every row of a split whose id stands there before; a shard alone cannot tell."""
    seen: set[int] = set()
    number = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id"]):
                for row_id in batch.column(0).to_pylist():
                    if row_id is not None:
                        value = hash(row_id)  # ids may be long, their hashes are not
                        if value in seen:
                            yield number, row_id
                        seen.add(value)
                    number += 1
