"""The `videorefer` command: reads the command line, runs a command, and tells wrong input from faults of ours."""

import argparse
import dis
import os
import pickle
import re
import sys
import traceback
import zipfile
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

import torch
from huggingface_hub.errors import HTTPError, StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError

from transformers_videorefer import __version__
from transformers_videorefer.data.file_errors import FILE_ERRORS
from transformers_videorefer.evaluation.scoring import JudgeError
from transformers_videorefer.regions.errors import MediaTypeError
from transformers_videorefer.version import DISTRIBUTION

from .commands.ask import add_ask_parser
from .commands.convert import add_convert_parser
from .commands.data import add_data_parser
from .commands.env import add_env_parser, format_library_versions, library_versions
from .commands.eval import add_eval_parser
from .commands.eval_score import EXIT_NOT_JUDGED
from .commands.quickstart import add_quickstart_parser
from .commands.region_flags import REGION_FORMS


EXIT_OK, EXIT_FAULT, EXIT_BROKEN_PIPE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 1, 2, 130
# Raised for files that are cut short or damaged. Few of these messages say so, and none says which file it is.
_DAMAGED_FILE_ERRORS = (SafetensorError, zipfile.BadZipFile, pickle.UnpicklingError, zlib.error)
# What speaks of the input or of the machine, whoever raises it.
_INPUT_ERRORS = (
    *(ValueError, OSError, ImportError, MemoryError),
    *FILE_ERRORS,
    *(HTTPError, StrictDataclassError, TemplateError),  # addresses; settings and chat templates of checkpoints
)
# Readers that do not check what they find: a damaged file makes them raise anything.
_WEIGHT_READER, _JSON_READER = "torch.serialization", "json.decoder"
# How torch words that memory beside that of accelerators is used up.
_OUT_OF_MEMORY = re.compile(r"DefaultCPUAllocator: (?:can't allocate|not enough) memory")
# Libraries that a fault is most often about; the last two are named only where they are installed.
_LIBRARIES_OF_FAULTS, _OPTIONAL_LIBRARIES_OF_FAULTS = ("transformers", "torch"), ("trl", "datasets")
_MOST_CHARACTERS = 500
_RAISE = dis.opmap["RAISE_VARARGS"]
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
    for add_parser in (
        *(add_ask_parser, add_convert_parser, add_data_parser, add_eval_parser, add_quickstart_parser),
        add_env_parser,
    ):
        add_parser(commands, parents=[common])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `videorefer`.

    Args:
        arguments (`Sequence[str]`, *optional*): The command line without the program; that of the process by default.

    Returns:
        `int`: Exit code: 0; 2 for wrong usage or input that cannot be used; 130 when interrupted; 1 for a fault of this
        package, and when a check found something, a judge scored nothing or the reader of the answer went away.
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
    except Exception as error:  # noqa: BLE001 (the one place that tells the user; every error is written to stderr)
        return _report_error(error, debug="--debug" in arguments)
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


def _report_error(error: Exception, *, debug: bool) -> int:
    """Write what happened to stderr, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    message = _describe_input_error(error)
    if message is None:
        sys.stderr.write(_describe_fault(error, debug=debug))
        return EXIT_FAULT
    sys.stderr.write(f"videorefer: error: {message}\n")
    return EXIT_NOT_JUDGED if isinstance(error, JudgeError) else EXIT_USAGE


def _describe_input_error(error: Exception) -> str | None:
    """Word what is wrong with the input or the machine as one line; None for a fault of this package."""
    text, places = _one_line(error), _places(error)
    modules = [_module_of(place) for place in places]
    if isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(text) is not None
    ):
        return (
            f"The memory is too small: {text} Use smaller batches, fewer frames or `--dtype bfloat16`, where the "
            "command has a flag for it."
        )
    if isinstance(error, ImportError) and places and not _is_missing_library(error, places[-1]):
        return None
    if isinstance(error, _INPUT_ERRORS) and not isinstance(error, MediaTypeError):
        return text
    if isinstance(error, TypeError) and places and _is_raised_on_purpose(places[-1]):
        return text
    if type(error) is Exception:  # what the Rust code of tokenizers raises for files that it cannot read
        return text
    if (
        isinstance(error, _DAMAGED_FILE_ERRORS)
        or _WEIGHT_READER in modules
        or (isinstance(error, RecursionError) and modules[-1:] == [_JSON_READER])
    ):
        return (
            f"A file of the model or of the data cannot be read, it may be damaged or cut short ({_name_error(error)}). "
            "Download or copy it again."
        )
    return None


def _places(error: Exception) -> list[TracebackType]:
    """List where an error came through, from `main` inwards."""
    places, place = [], error.__traceback__
    while place is not None:
        places.append(place)
        place = place.tb_next
    return places


def _module_of(place: TracebackType) -> str:
    return place.tb_frame.f_globals.get("__name__", "")


def _is_raised_on_purpose(place: TracebackType) -> bool:
    """Whether an error was raised here by a `raise` of this package, and did not merely happen."""
    module = _module_of(place)
    # Exported files also run as copies that come with a checkpoint.
    is_ours = module.split(".")[0] in ("transformers_videorefer", "transformers_modules")
    return is_ours and _is_at_raise(place)


def _is_at_raise(place: TracebackType) -> bool:
    """Whether an error comes from a `raise`: by the instruction, as a line may hold a condition or a call beside it."""
    return place.tb_frame.f_code.co_code[place.tb_lasti] == _RAISE


def _is_missing_library(error: ImportError, place: TracebackType) -> bool:
    """Whether something must be installed; a name that a library no longer has is a fault of this package."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").split(".")[0] != "transformers_videorefer"
    return _is_at_raise(place)


def _describe_fault(error: Exception, *, debug: bool) -> str:
    """Say that an error is no fault of the user, and what a report of it needs."""
    named = _name_error(error)
    if len(named) > _MOST_CHARACTERS:
        named = f"{named[:_MOST_CHARACTERS]} ..."
    versions = library_versions(_LIBRARIES_OF_FAULTS)
    versions += [version for version in library_versions(_OPTIONAL_LIBRARIES_OF_FAULTS) if version.installed]
    outside = [f'"{version.name}{version.tested}"' for version in versions if version.is_outside]
    lines = [
        f"videorefer: fault: {named}",
        f"This is a fault in {DISTRIBUTION} {__version__}, not in what you passed.",
        format_library_versions(versions).rstrip("\n"),
    ]
    if outside:
        lines.append(f"Releases outside the tested ranges may be the cause. Try: pip install {' '.join(outside)}")
    again = "Report the traceback above" if debug else "Run the command again with --debug, and report the traceback"
    lines.append(f"{again} together with what `videorefer env` prints.")
    return "".join(f"{line}\n" for line in lines)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _name_error(error: Exception) -> str:
    """Write the kind of an error before its message."""
    kind, text = type(error).__name__, _one_line(error)
    return kind if text == kind else f"{kind}: {text}"


if __name__ == "__main__":
    sys.exit(main())
