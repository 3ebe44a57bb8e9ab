"""The `videorefer` command: reads the command line, runs a command, and turns errors into one clear line."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from transformers_videorefer import __version__

from .commands.ask import add_ask_parser
from .commands.convert import add_convert_parser
from .commands.data import add_data_parser
from .commands.eval import add_eval_parser
from .commands.quickstart import add_quickstart_parser
from .commands.region_flags import REGION_FORMS


EXIT_OK, EXIT_BROKEN_PIPE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
# Coordinates may be negative; argparse would take such a value for a flag.
_NEGATIVE_VALUE = re.compile(r"-[\d.]")


class UsageError(ValueError):
    """The command line cannot be understood."""


class _Parser(argparse.ArgumentParser):
    """Raises one line in place of printing the usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (`{self.prog} --help` shows all flags)")


def build_parser() -> argparse.ArgumentParser:
    """Declare all commands and their flags.

    Returns:
        `argparse.ArgumentParser`: Its namespaces hold the function to call under `run`.
    """
    parser = _Parser(prog="videorefer", description="Ask about any region of a video.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"videorefer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show library messages, and errors with their traceback")
    for add_parser in (add_ask_parser, add_convert_parser, add_data_parser, add_eval_parser, add_quickstart_parser):
        add_parser(commands, parents=[common])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `videorefer`.

    Args:
        arguments (`Sequence[str]`, *optional*): The command line without the program; that of the process by default.

    Returns:
        `int`: Exit code: 0, 2 for wrong usage or bad input, 130 when interrupted, 1 when the reader of the answer
        went away or a check found something.
    """
    arguments = _attach_negative_values(list(sys.argv[1:] if arguments is None else arguments))
    try:
        args = build_parser().parse_args(arguments)
        code = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\nvideorefer: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes once more at its end; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        if "--debug" in arguments:
            raise
        sys.stderr.write(f"videorefer: error: {_one_line(error)}\n")
        return EXIT_USAGE
    return EXIT_OK if code is None else code


def _attach_negative_values(arguments: list[str]) -> list[str]:
    """Write `--polygon -5,0,...` as `--polygon=-5,0,...`."""
    attached: list[str] = []
    for argument in arguments:
        if attached and attached[-1] in REGION_FORMS and _NEGATIVE_VALUE.match(argument):
            attached[-1] += f"={argument}"
        else:
            attached.append(argument)
    return attached


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
