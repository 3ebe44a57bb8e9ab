"""`videorefer data check`: every defect of an annotation file, counted by kind."""

import argparse
import json
from pathlib import Path
from typing import NoReturn, TextIO

from transformers_videorefer import __version__
from transformers_videorefer.data.checks.checking import RowChecker
from transformers_videorefer.data.defects import DEFECT_KINDS
from transformers_videorefer.data.sources.row_source import open_source
from transformers_videorefer.data.wording import count_of

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
    if arguments.report:
        check_output(arguments.report, "--report", ".json", arguments.file)
    source = open_source(arguments.file, every=True)
    checker = RowChecker(arguments.videos)
    with progress_bar(source.total, task="checking", unit=source.unit) as bar:
        for item in source:
            checker.check(item)
            bar.update(item.position - bar.n)
    if not checker.report.num_rows:
        refuse_empty(arguments.file)
    stream.write(format_findings(checker) + "\n")
    if arguments.report:
        settings = {"file": arguments.file, "videos": arguments.videos}
        content = {"version": __version__, "settings": settings, **checker.to_dict()}
        arguments.report.parent.mkdir(parents=True, exist_ok=True)
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
    rows, defects = count_of(report.num_rows, "row"), count_of(num_defects, "defect")
    lines = [f"{rows}, {checker.num_unusable} of them unusable, {defects}"]
    if checker.num_media:
        media = "1 video or image" if checker.num_media == 1 else f"{checker.num_media} videos and images"
        lines[0] += f"; {media}, {checker.num_bad_media} of them missing or broken"
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


def refuse_empty(name: str) -> NoReturn:
    """Refuse a file without rows: nothing in it is wrong only because there is nothing.

    Args:
        name (`str`): The file or dataset.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} holds no rows. Check that it is the right file, and whole.")


def check_output(path: Path, flag: str, suffix: str, source: str) -> None:
    """Refuse an output file before the work begins, which may take hours.

    Args:
        path (`Path`): The file.
        flag (`str`): The flag that named it.
        suffix (`str`): How its name must end, with the dot.
        source (`str`): What is read, which must not be written over.

    Raises:
        ValueError: If the name ends otherwise, is that of a folder, or is the source.
    """
    if path.suffix.lower() != suffix:
        raise ValueError(f"`{flag} {path}`: the file is written as {suffix[1:]}. Use a name that ends in {suffix}.")
    if path.is_dir():
        raise ValueError(f"`{flag} {path}`: this is a folder. Name a file in it.")
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise ValueError(f"`{flag} {path}`: this is the file that is read. Use another name.")
