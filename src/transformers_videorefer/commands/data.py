"""`videorefer data`: commands for annotation files and their videos."""

import argparse
import sys
from types import ModuleType
from typing import Any

from . import data_audit, data_check, data_import, data_show


# Name, module and one line of help of each command. A module has `DESCRIPTION`, `add_arguments(parser)` and
# `run(arguments, stream)`, which may return an exit code.
COMMANDS: dict[str, tuple[ModuleType, str]] = {
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
    group = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = group.add_parser(
            name,
            parents=parents,
            allow_abbrev=False,
            help=summary,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=lambda arguments, module=module: module.run(arguments, sys.stdout))
