"""Groups of commands such as `videorefer eval`: a table of modules becomes the commands of a parser."""

import argparse
import sys
from collections.abc import Mapping
from types import ModuleType


# Name, module and one line of help of each command. A module has `DESCRIPTION`, `add_arguments(parser)` and
# `run(arguments, stream)`, which may return an exit code.
CommandTable = Mapping[str, tuple[ModuleType, str]]


def add_table(
    parser: argparse.ArgumentParser, table: CommandTable, *, dest: str, parents: list[argparse.ArgumentParser]
) -> None:
    """Declare the commands of a group.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the group.
        table (`Mapping[str, tuple[ModuleType, str]]`): The commands.
        dest (`str`): Name under which the arguments hold the chosen command.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    group = parser.add_subparsers(dest=dest, metavar="COMMAND", required=True)
    for name, (module, summary) in table.items():
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
