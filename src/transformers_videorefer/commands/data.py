"""`videorefer data`: commands for annotation files and their videos."""

import argparse
from typing import Any

from . import data_audit, data_check, data_import, data_show
from .command_table import CommandTable, add_table


COMMANDS: CommandTable = {
    "check": (data_check, "find every defect of an annotation file"),
    "audit": (data_audit, "find out which videos of an annotation file are missing or broken"),
    "show": (data_show, "draw one row: frames with outlined regions beside the conversation"),
    "import": (data_import, "turn annotations of other tools into a dataset"),
}


def add_data_parser(commands: Any, *, parents: list[argparse.ArgumentParser]) -> None:
    """Declare `videorefer data` and its commands.

    Args:
        commands (`argparse._SubParsersAction`): Where commands are added.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    parser = commands.add_parser(
        "data", allow_abbrev=False, help="check, audit, show and import annotations", description=__doc__
    )
    add_table(parser, COMMANDS, dest="data_command", parents=parents)
