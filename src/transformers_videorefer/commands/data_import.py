"""`videorefer data import`: annotations of other tools as a dataset that loads like the others."""

import argparse
import re
from pathlib import Path
from typing import TextIO

from transformers_videorefer.data.defects import BAD_ROWS, DefectReport
from transformers_videorefer.data.importers import DEFAULT_QUESTION, FORMATS, ImportOptions, import_annotations

from .data_check import check_folder
from .progress import quiet_libraries, report_when_slow


ROWS_FORMAT = "jsonl"  # the one in which rows bring their own questions
DESCRIPTION = """\
Turns the annotations of objects in your videos into rows, one for each object, as Parquet with a card:
  videorefer data import cvat-video annotations.xml --videos clips --output my-objects
The folder then loads with load_dataset("my-objects"), and trains and checks like the other sets.
Formats: coco-video (COCO for video, YouTube-VIS, OVIS, LV-VIS), cvat-video (CVAT for video 1.1, XML), label-studio
(JSON export with VideoRectangle), davis (folders of label pictures), jsonl (our rows, one a line)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument("format", metavar="FORMAT", choices=list(FORMATS), help=f"one of {', '.join(FORMATS)}")
    parser.add_argument("file", metavar="FILE", type=Path, help="exported file; for davis the folder of the set")
    parser.add_argument(
        "--videos", metavar="DIR", type=Path, required=True, help="folder of the videos; rows name them relative to it"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--question",
        metavar="TEXT",
        default=DEFAULT_QUESTION,
        help="what is asked about each object, with <region> once; {label} stands for its label "
        f"(default: {DEFAULT_QUESTION})",
    )
    parser.add_argument(
        "--answer-field",
        metavar="NAME",
        help="field of the annotations that holds the answer: a CVAT attribute, a Label Studio tag, a key of a COCO "
        "annotation (default: the label; objects without an answer become rows that end with the question)",
    )
    parser.add_argument(
        "--stride", type=int, default=1, metavar="N", help="keep every N-th annotated frame of an object (default: 1)"
    )
    parser.add_argument(
        "--bad-rows",
        choices=BAD_ROWS,
        default="raise",
        help="what happens to broken objects: stop, leave them out, or keep what is whole of them (default: raise)",
    )


def run(arguments: argparse.Namespace, stream: TextIO) -> None:
    """Import annotations.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer data import`.
        stream (`TextIO`): Where the summary is written.

    Raises:
        ImportError: If `datasets` is missing.
        ValueError: If a flag is wrong, or an object is broken and `--bad-rows` is `raise`.
        OSError: If a file cannot be read or written.
    """
    # Parquet needs the library `datasets`, which the other commands do without.
    from transformers_videorefer.data.importers.writing import write_import

    quiet_libraries(arguments.debug)
    check_folder(str(arguments.videos), "--videos")
    if arguments.format != "davis" and Path(arguments.file).is_dir():
        raise ValueError(f"{arguments.file} is a folder. Name the file of the {arguments.format} export in it.")
    options = _read_options(arguments)
    report = DefectReport()
    rows = import_annotations(arguments.format, arguments.file, arguments.videos, options=options, report=report)
    settings = _describe_settings(arguments.format, options)
    with report_when_slow(f"importing {arguments.file}"):
        counts = write_import(rows, arguments.output, source=arguments.format, report=report, settings=settings)
    stream.write(f"{counts.describe()}\n")
    if report.counts:
        stream.write(f"{report.summary()}\n")
    if counts.num_unanswered == counts.num_rows and options.answer_field:
        stream.write(
            f"no object has a field {options.answer_field!r}: these rows can be answered, but not trained on\n"
        )
    stream.write(f"wrote {arguments.output}; load it with load_dataset({str(arguments.output)!r})\n")


def _read_options(arguments: argparse.Namespace) -> ImportOptions:
    """Check the flags that say how rows are made."""
    try:
        return ImportOptions(
            question=arguments.question,
            answer_field=arguments.answer_field,
            stride=arguments.stride,
            bad_rows=arguments.bad_rows,
        )
    except ValueError as error:
        # Who types a command knows flags, not arguments.
        raise ValueError(re.sub(r"^`(\w+)`", r"`--\1`", str(error))) from error


def _describe_settings(source_format: str, options: ImportOptions) -> str:
    """Say on the card how the rows were made."""
    answer = f"the field `{options.answer_field}`" if options.answer_field else "the label"
    asked = f"Question: `{options.question}`; answer: {answer}"
    if source_format == ROWS_FORMAT:
        answer = options.answer_field or "answer"
        asked = f"Questions and answers are those of the rows; rows without messages are answered by `{answer}`"
        asked += f", and those without a question ask `{options.question}`" * (options.question != DEFAULT_QUESTION)
    chosen = f"every annotated frame number 1, {options.stride + 1}, ..." if options.stride > 1 else ""
    return f"{asked}; {chosen or 'every annotated frame'}; bad rows: `{options.bad_rows}`."
