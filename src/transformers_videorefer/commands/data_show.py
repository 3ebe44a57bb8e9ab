"""`videorefer data show`: one row as a picture that a person can read."""

import argparse
from pathlib import Path
from typing import TextIO

from PIL import Image

from transformers_videorefer.data.checks.checking import item_to_row
from transformers_videorefer.data.sources.row_source import open_source
from transformers_videorefer.preview.sheet import MAX_SHEET_FRAMES

from .progress import quiet_libraries, report_when_slow
from .row_sheet import draw_row


DESCRIPTION = """\
Draws frames of a row with the outlines of its regions, and its conversation, question or description beside them:
  videorefer data show videorefer-700k --config qa --index 12 --videos data --output row.png
What does not fit the video is left out of the picture and said in it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument(
        "name", metavar="NAME_OR_DIR", help="Parquet folder or file, published JSON file, JSON lines, or Hub id"
    )
    parser.add_argument("--index", type=int, default=0, metavar="N", help="number of the row, from 0 (default: 0)")
    parser.add_argument("--output", type=Path, required=True, metavar="PICTURE", help="picture to write")
    parser.add_argument("--config", help="config of the dataset; may be left out where there is one")
    parser.add_argument("--split", help="split of the dataset (default: train, or the only one)")
    parser.add_argument("--videos", metavar="DIR", help="folder that paths of videos are relative to (default: .)")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="most frames to draw (default: 8)")


def run(arguments: argparse.Namespace, stream: TextIO) -> None:
    """Draw a row.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer data show`.
        stream (`TextIO`): Where the name of the picture is written.

    Raises:
        ValueError: If flags are wrong, there is no such row or config, or the row is too broken to be drawn.
        OSError: If a file is missing or cannot be read or written.
    """
    quiet_libraries(arguments.debug)
    if not 1 <= arguments.frames <= MAX_SHEET_FRAMES:
        raise ValueError(f"`--frames {arguments.frames}`: pass a number from 1 to {MAX_SHEET_FRAMES}.")
    Image.init()
    if arguments.output.suffix.lower() not in Image.EXTENSION:
        raise ValueError(f"`--output {arguments.output}`: this is no picture format. Use a name such as row.png.")
    with report_when_slow(f"looking for row {arguments.index} of {arguments.name}"):
        source = open_source(arguments.name, config=arguments.config, split=arguments.split)
        item = source.read(arguments.index)
    row, defects = item_to_row(item)
    if row is None:
        reasons = "; ".join(defect.message for defect in defects)
        raise ValueError(f"{item.where} is too broken to be drawn: {reasons}")
    title = f"row {arguments.index}" + (f": id {row['id']}" if row.get("id") else "")
    with report_when_slow("drawing"):
        picture = draw_row(
            row,
            title=title,
            data_root=arguments.videos,
            num_frames=arguments.frames,
            # Null masks are counted in the picture, one line for each region.
            warnings=[defect.message for defect in defects if defect.kind != "null_segmentation"],
        )
        picture.save(arguments.output)
    stream.write(f"{arguments.output}: {title}, {picture.width} x {picture.height} pixels\n")
