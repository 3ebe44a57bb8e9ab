"""`videorefer data audit`: which videos of an annotation file are missing or broken."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from transformers_videorefer.data.checks.audit import VideoRecord, audit_videos, collect_uses
from transformers_videorefer.data.checks.checking import item_to_row
from transformers_videorefer.data.sources.row_source import ENTRY, RowSource, open_source
from transformers_videorefer.data.wording import count_of

from .data_check import EXIT_DEFECTS, check_folder, check_output, refuse_empty
from .progress import progress_bar, quiet_libraries


DESCRIPTION = """\
Looks at every video that the rows name and says which are missing, unreadable or truncated, or hide frames by an edit
list, and then which count of frames the annotation fits:
  videorefer data audit videorefer-qa-75k.json --videos data --num-proc 8 --output manifest.parquet
Of each video all bytes are read for the checksum, all packets are counted, and the first, the last and the last
annotated frame are decoded: a file whose end is missing is found, damage elsewhere is not.
Exit code: 0 if all videos are right, 1 if not, 2 if the file cannot be read."""
MAX_LISTED = 20
PROBLEMS = {
    "missing": "there is nothing at the path",
    "unreadable": "the file cannot be decoded, or is damaged",
    "truncated": "the end of the file is missing",
    "unsafe_path": "the path leaves the folder; not opened",
    "frame_outside_video": "an annotated frame lies beyond the end",
    "wrong_edit_list": "the annotation fits the other count of frames",
    "mask_size_differs": "masks have another size than the video",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument("file", metavar="FILE", help="published JSON file, JSON lines, or Parquet file or folder")
    parser.add_argument("--videos", required=True, metavar="DIR", help="folder that paths of videos are relative to")
    parser.add_argument("--num-proc", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--output", type=Path, metavar="FILE.parquet", help="write what is known about each video")


def run(arguments: argparse.Namespace, stream: TextIO) -> int:
    """Audit the videos of a file.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer data audit`.
        stream (`TextIO`): Where the table is written.

    Returns:
        `int`: 1 if a video is missing, broken or does not fit its rows, otherwise 0.

    Raises:
        ValueError: If flags are wrong or the file holds no rows that can be read.
        OSError: If a file or the folder of videos is missing or cannot be read or written.
    """
    quiet_libraries(arguments.debug)
    check_folder(arguments.videos, "--videos")
    if arguments.num_proc < 1:
        raise ValueError(f"`--num-proc {arguments.num_proc}`: pass 1 or more.")
    if arguments.output:
        check_output(arguments.output, "--output", ".parquet", arguments.file)
        # Before the work, because `datasets` may be missing.
        from transformers_videorefer.data.checks.manifest import write_manifest
    source = open_source(arguments.file, every=True)
    with progress_bar(source.total, task="reading rows", unit=source.unit) as bar:
        uses = collect_uses(_iterate_rows(source, bar))
    found = _Findings()
    with progress_bar(len(uses), task="auditing", unit="video") as bar:
        records = found.note(audit_videos(uses.values(), arguments.videos, num_proc=arguments.num_proc), bar)
        if arguments.output:
            write_manifest(arguments.output, records)
        else:
            for _ in records:
                pass
    stream.write(found.summary() + "\n")
    return EXIT_DEFECTS if found.counts else 0


def _iterate_rows(source: RowSource, bar: Any) -> Iterator[dict[str, Any]]:
    """Go through the rows of a source; what is no row at all names no video."""
    is_empty = True
    for item in source:
        is_empty = False
        row, defects = item_to_row(item)
        if row is not None and any(defect.kind == "unsafe_path" for defect in defects):
            # The path was taken out of the row, but has its line in the manifest. It is never opened.
            row["video"] = item.value[0] if item.kind == ENTRY else item.value.get("video")
        if row is not None:
            yield row
        bar.update(item.position - bar.n)
    if is_empty:
        refuse_empty(source.name)


class _Findings:
    """Counts what an audit finds while it goes on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._num_videos = 0
        self._num_cut_by_edit_list = 0
        self._listed: list[str] = []

    def note(self, records: Iterable[VideoRecord], bar: Any) -> Iterator[VideoRecord]:
        """Pass records on and count them."""
        for record in records:
            self._num_videos += 1
            self._num_cut_by_edit_list += bool(record.has_edit_list)
            if record.problem:
                self.counts[record.problem] += 1
            if (record.problem or record.has_edit_list) and len(self._listed) < MAX_LISTED:
                self._listed.append(f"  {record.video}: {_describe(record)}")
            bar.update()
            yield record

    def summary(self) -> str:
        """Word the findings as a table."""
        num_bad = self.counts.total()
        lines = [
            f"{count_of(self._num_videos, 'video')}, {num_bad} with a problem, {self._num_cut_by_edit_list} with an "
            "edit list"
        ]
        lines += [f"{count:>10}  {kind}: {PROBLEMS[kind]}" for kind, count in self.counts.most_common()]
        if self._listed:
            num_noted = "" if len(self._listed) < MAX_LISTED else f" (the first {MAX_LISTED}; --output has all)"
            lines += [f"Videos with a problem or an edit list{num_noted}:", *self._listed]
        return "\n".join(lines)


def _describe(record: VideoRecord) -> str:
    """Say what is noteworthy about a video on one line."""
    parts = [record.message] if record.message else []
    if record.problem == "mask_size_differs":
        parts.append(f"masks have another size than the video ({record.height} x {record.width}).")
    counts = count_of(record.num_frames_applied or 0, "frame")
    if record.has_edit_list:
        counts = f"edit list: {counts} applied, {record.num_frames_ignored} ignored"
    if record.has_edit_list or record.problem == "frame_outside_video":
        fits = {"both": "fits both counts", "neither": "fits neither count", None: "is not there"}
        verdict = fits.get(record.annotation_fits, f'fits "{record.annotation_fits}" only')
        highest = (
            "" if record.highest_frame_index is None else f", highest annotated frame {record.highest_frame_index}"
        )
        parts.append(f'{counts}{highest}; the annotation {verdict}, its rows say "{record.edit_list}".')
    return " ".join(parts)
