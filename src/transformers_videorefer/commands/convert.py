"""`videorefer convert`: a published checkpoint becomes a repository that loads without this package."""

import argparse
from typing import Any

from transformers_videorefer.published import conversion

from .progress import quiet_libraries, report, report_when_slow


def add_convert_parser(commands: Any, *, parents: list[argparse.ArgumentParser]) -> None:
    """Declare `videorefer convert`.

    Args:
        commands (`argparse._SubParsersAction`): Where commands are added.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    parser = commands.add_parser(
        "convert",
        parents=parents,
        allow_abbrev=False,
        help="write a self-contained repository from a published checkpoint",
        description="Writes safetensors with the key names of transformers, processor, code files and model card into "
        "OUTPUT; the folder loads with trust_remote_code=True on machines without this package.",
    )
    parser.add_argument("source", metavar="SOURCE", help="Hub id or folder of a published checkpoint")
    parser.add_argument("output", metavar="OUTPUT", help="folder to write; created where it is missing")
    parser.add_argument(
        "--component",
        action="append",
        metavar="FILE",
        help="region_encoder.bin or mm_projector.bin (or a folder, or a Hub id) to put in; may be given twice",
    )
    parser.add_argument("--vision-tower", metavar="TOWER", help="Hub id or folder of the SigLIP tower")
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> None:
    """Convert a checkpoint.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer convert`.

    Raises:
        ValueError: If the source is no checkpoint that can be converted.
        OSError: If a file cannot be read or written.
    """
    with report_when_slow(f"converting {args.source}"):
        quiet_libraries(args.debug)
        conversion.convert_checkpoint(
            args.source, args.output, component=args.component, vision_tower=args.vision_tower
        )
    report(f"wrote {args.output}")
