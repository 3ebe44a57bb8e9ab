"""`videorefer data check`: every defect of an annotation file, counted by kind."""

import argparse
import json
from pathlib import Path
from typing import TextIO

from transformers_videorefer import __version__
from transformers_videorefer.data.checking import RowChecker
from transformers_videorefer.data.defects import DEFECT_KINDS
from transformers_videorefer.data.row_source import open_source

from .progress import progress_bar, quiet_libraries


DESCRIPTION = """\
Reads every row, decodes every mask, and counts what is wrong by kind, with an example of each:
  videorefer data check videorefer-qa-75k.json --videos data --report defects.json
With --videos each video is opened once, and masks and frame numbers are compared with it.
Exit code: 0 without defects, 1 with defects, 2 if the file cannot be read."""
EXIT_DEFECTS = 1
MAX_SHOWN_EXAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument("file", metavar="FILE", help="published JSON file, JSON lines, or Parquet file or folder")
    parser.add_argument("--videos", metavar="DIR", help="folder that paths of videos are relative to; opens them")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write counts and examples as JSON")


def run(arguments: argparse.Namespace, stream: TextIO) -> int:
    """Check a file.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer data check`.
        stream (`TextIO`): Where the table is written.

    Returns:
        `int`: 1 if there are defects, otherwise 0.

    Raises:
        ValueError: If the file holds no rows that can be read.
        OSError: If a file or the folder of videos is missing or cannot be read or written.
    """
    quiet_libraries(arguments.debug)
    check_folder(arguments.videos, "--videos")
    if arguments.report and not arguments.report.absolute().parent.is_dir():
        raise ValueError(f"`--report {arguments.report}`: the folder does not exist. Create it first.")
    source = open_source(arguments.file, every=True)
    checker = RowChecker(arguments.videos)
    with progress_bar(source.total, task="checking", unit=source.unit) as bar:
        for item in source:
            checker.check(item)
            bar.update(item.position - bar.n)
    stream.write(format_findings(checker) + "\n")
    if arguments.report:
        settings = {"file": arguments.file, "videos": arguments.videos}
        content = {"version": __version__, "settings": settings, **checker.to_dict()}
        arguments.report.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return EXIT_DEFECTS if checker.report.counts else 0


def format_findings(checker: RowChecker) -> str:
    """Word what a checker found as a table.

    Args:
        checker ([`RowChecker`]): The checker, after its last row.

    Returns:
        `str`: A line of totals, then each kind of defect with examples, the most frequent kind first.
    """
    report = checker.report
    num_defects = sum(report.counts.values())
    lines = [f"{report.num_rows} rows, {checker.num_unusable} of them unusable, {num_defects} defects"]
    if checker.num_media:
        lines[0] += f"; {checker.num_media} videos and images, {checker.num_bad_media} of them missing or broken"
    for kind, count in sorted(report.counts.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"{count:>10}  {kind}: {DEFECT_KINDS[kind]}")
        lines += [f"{'':>12}{example}" for example in report.examples[kind][:MAX_SHOWN_EXAMPLES]]
    return "\n".join(lines)


def check_folder(folder: str | None, flag: str) -> None:
    """Refuse a folder that is not there before hours are spent on reporting its videos as missing.

    Args:
        folder (`str`, *optional*): The folder.
        flag (`str`): The flag that named it.

    Raises:
        ValueError: If there is no such folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"`{flag} {folder}`: there is no such folder. Check the path.")
