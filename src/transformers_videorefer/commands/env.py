"""`videorefer env`: what a report of a fault needs, without names of people, machines and folders."""

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from transformers_videorefer.version import DISTRIBUTION, __version__, tested_range


try:
    import av
except ImportError:  # folders of pictures are read without it
    av = None

LIBRARIES = (
    *("transformers", "torch", "huggingface_hub", "safetensors", "numpy", "pillow", "av"),
    *("datasets", "trl", "accelerate", "peft", "evaluate", "openai", "pycocotools", "torchvision", "torchcodec"),
)
NOT_INSTALLED, OUTSIDE = "not installed", "outside"
_UNKNOWN = "unknown"
_GIBIBYTE = 1 << 30


@dataclass(frozen=True)
class LibraryVersion:
    """An installed library beside what this package was tested with.

    Attributes:
        name (`str`): Name of the library on the package index.
        installed (`str`, *optional*): Its version; None where it is not installed.
        tested (`str`, *optional*): Releases that were tested, such as ">=5.23,<5.25"; None where no range is stated.
        is_outside (`bool`): Whether the installed release lies outside of them.
    """

    name: str
    installed: str | None
    tested: str | None
    is_outside: bool


def library_versions(names: Sequence[str] = LIBRARIES) -> list[LibraryVersion]:
    """Look up which releases of libraries are installed. No library is imported for it.

    Args:
        names (`Sequence[str]`, *optional*): Names on the package index; all that this package works with by default.

    Returns:
        `list[LibraryVersion]`: One for each name, in their order.
    """
    versions = []
    for name in names:
        installed, tested = _installed_version(name), tested_range(name)
        versions.append(LibraryVersion(name, installed, tested, _lies_outside(installed, tested)))
    return versions


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lies_outside(installed: str | None, tested: str | None) -> bool:
    if installed is None or tested is None:
        return False
    try:
        return not SpecifierSet(tested).contains(installed, prereleases=True)
    except InvalidVersion:  # a build that names itself as no release does was not tested either
        return True


def format_library_versions(versions: Sequence[LibraryVersion]) -> str:
    """Write versions as a table.

    Args:
        versions (`Sequence[LibraryVersion]`): What `library_versions` returned.

    Returns:
        `str`: A line with the columns, then one for each library, which ends in "outside" where that holds.
    """
    rows = [("library", "installed", "tested", "")]
    for version in versions:
        mark = OUTSIDE if version.is_outside else ""
        rows.append((version.name, version.installed or NOT_INSTALLED, version.tested or "-", mark))
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Write rows below each other, with at least two spaces between columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def add_env_parser(commands: Any, *, parents: list[argparse.ArgumentParser]) -> None:
    """Declare `videorefer env`.

    Args:
        commands (`argparse._SubParsersAction`): Where commands are added.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    parser = commands.add_parser(
        "env",
        parents=parents,
        allow_abbrev=False,
        help="print what a report of a fault needs",
        description="Prints the versions of this package, of Python and of the libraries, the releases that were "
        "tested, and the hardware. Names of people, machines and folders are not among them.",
    )
    parser.set_defaults(run=run_env)


def run_env(args: argparse.Namespace) -> None:
    """Print what a report of a fault needs.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer env`.
    """
    machine = [
        (DISTRIBUTION, __version__),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("platform", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("processors", _describe_processors()),
        ("memory", _describe_memory()),
        ("torch build", _describe_torch_build()),
        ("devices", ", ".join(_device_names()) or "none"),
        ("ffmpeg", _describe_ffmpeg()),
    ]
    sys.stdout.write(f"{_align(machine)}\n{format_library_versions(library_versions())}")


def _describe_processors() -> str:
    total = os.cpu_count()
    if total is None:
        return _UNKNOWN
    # A container may be given fewer than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return str(total) if usable == total else f"{total}, of which {usable} may be used"


def _describe_memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system can be asked
        return _UNKNOWN
    return f"{size / _GIBIBYTE:.1f} GiB"


def _describe_torch_build() -> str:
    if torch.version.cuda is not None:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip is not None:
        return f"ROCm {torch.version.hip}"
    accelerator = torch.accelerator.current_accelerator()
    return "CPU" if accelerator is None else accelerator.type


def _device_names() -> Iterator[str]:
    """Name the accelerators that torch can use."""
    if not torch.accelerator.is_available():
        return
    kind = torch.accelerator.current_accelerator().type
    name_of = getattr(torch.get_device_module(kind), "get_device_name", None)
    for index in range(torch.accelerator.device_count()):
        yield f"{kind}:{index}" if name_of is None else f"{kind}:{index} {name_of(index)}"


def _describe_ffmpeg() -> str:
    """Name the libraries of FFmpeg that PyAV brought along."""
    if av is None:
        return f"PyAV is {NOT_INSTALLED}"
    return ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in av.library_versions.items())
