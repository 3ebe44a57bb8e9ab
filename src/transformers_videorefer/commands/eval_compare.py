"""`videorefer eval compare`: two runs on the same samples, with paired tests."""

import argparse
import json
from pathlib import Path
from typing import TextIO

from transformers_videorefer.evaluation.results import compare_runs, format_comparison


DESCRIPTION = """\
Compares two scored runs of one benchmark, sample by sample:
  videorefer eval compare runs/base runs/tuned
The table goes to stdout: both scores, their difference with its 95 % interval, and two tests."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument("first", metavar="A", type=Path, help="--output folder of a scored run")
    parser.add_argument("second", metavar="B", type=Path, help="folder of the run to compare it with")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")


def run(arguments: argparse.Namespace, stream: TextIO) -> None:
    """Compare two runs.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer eval compare`.
        stream (`TextIO`): Where the table is written.

    Raises:
        ValueError: If the runs cannot be compared; the message says why.
        OSError: If one of the folders holds no finished run.
    """
    comparison = compare_runs(arguments.first, arguments.second)
    stream.write(json.dumps(comparison) + "\n" if arguments.json else format_comparison(comparison))
