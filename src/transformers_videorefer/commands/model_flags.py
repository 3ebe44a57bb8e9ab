"""Flags that say which model runs, where and in which precision, and the checkpoint that they name."""

import argparse
import re
from pathlib import Path
from typing import Any

from transformers_videorefer.bundled import TINY_MODEL, TINY_NOTICE
from transformers_videorefer.inference.loading import (
    DTYPE_ELSEWHERE,
    DTYPE_ON_ACCELERATOR,
    DTYPES,
    Checkpoint,
    DeviceError,
    choose_device,
    find_checkpoint,
)
from transformers_videorefer.inference.locating import CheckpointError

from .progress import report, report_when_slow


PUBLISHED_MODEL = "DAMO-NLP-SG/VideoRefer-7B"


def add_model_flags(group: Any) -> None:
    """Declare which model answers, and how it is loaded.

    Args:
        group (`argparse._ArgumentGroup`): Group that gets the flags.
    """
    group.add_argument(
        "--model", metavar="ID_OR_DIR", help=f"Hub id or folder of a checkpoint, e.g. {PUBLISHED_MODEL}"
    )
    add_loading_flags(group)


def add_loading_flags(group: Any) -> None:
    """Declare how a model is loaded.

    Args:
        group (`argparse._ArgumentGroup`): Group that gets the flags.
    """
    group.add_argument(
        "--device", default="auto", help="where the model runs (default: an accelerator if there is one)"
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help=f"precision (default: {DTYPE_ON_ACCELERATOR} on an accelerator, otherwise {DTYPE_ELSEWHERE})",
    )
    group.add_argument(
        "--vision-tower", metavar="ID_OR_DIR", help="SigLIP tower of a published checkpoint without one"
    )
    group.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")


def check_model_flag(args: argparse.Namespace) -> None:
    """Find what is wrong with `--model` alone.

    Args:
        args (`argparse.Namespace`): Flags of a command.

    Raises:
        ValueError: If it is missing, or names neither a folder nor a Hub id.
    """
    if args.model is None:
        raise ValueError(
            f"--model is missing. Pass --model {PUBLISHED_MODEL} (the published weights, 16 GB), another Hub id or a "
            f"folder with a checkpoint. --model {TINY_MODEL} needs no download, but {TINY_NOTICE}"
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", args.model) and not Path(args.model).is_dir():
        raise ValueError(
            f"`--model {args.model}`: there is no such folder, and a Hub id looks like {PUBLISHED_MODEL}."
        )


def check_device_flag(args: argparse.Namespace) -> None:
    """Find a `--device` that cannot be used, before anything is read for it.

    Args:
        args (`argparse.Namespace`): Flags of a command.

    Raises:
        ValueError: If torch cannot use it.
    """
    try:
        choose_device(args.device)
    except DeviceError as error:
        raise ValueError(f"`--device {error.device}`: {error.problem} Leave --device out.") from error


def find_model(args: argparse.Namespace) -> Checkpoint:
    """Find the checkpoint that the flags name.

    Args:
        args (`argparse.Namespace`): Flags, of which `model`, `vision_tower` and `trust_remote_code` count.

    Returns:
        [`Checkpoint`].

    Raises:
        OSError: If the checkpoint is not there, or cannot be reached.
    """
    try:
        with report_when_slow(f"looking for {args.model}"):
            checkpoint = find_checkpoint(
                args.model, vision_tower=args.vision_tower, trust_remote_code=args.trust_remote_code
            )
    except CheckpointError as error:
        raise OSError(f"`--model {args.model}`: {error.problem}") from error
    if checkpoint.is_only_cached:
        report(f"The Hub cannot be reached; {args.model} is taken from its cache.")
    return checkpoint
