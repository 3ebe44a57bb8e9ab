"""The flags that mark regions, such as `--box [NAME=]x0,y0,x1,y1@FRAME`: from their text to regions of a message."""

import argparse
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transformers_videorefer.regions.selection import TIME_SLACK


REGION_FORMS = {
    "--box": "[NAME=]x0,y0,x1,y1@FRAME",
    "--polygon": "[NAME=]x0,y0,x1,y1,x2,y2,...@FRAME",
    "--scribble": "[NAME=]x0,y0,x1,y1,...:WIDTH@FRAME",
    "--mask": "[NAME=]FILE.png[#LABEL]@FRAME",
    "--masklet": "[NAME=]FILE.npz|DIR[#LABEL]",
}
_EXAMPLES = {
    "--box": "--box 300,0,800,430@0 or --box dog=300,0,800,430@1.5s",
    "--polygon": "--polygon 10,10,60,10,60,80@0",
    "--scribble": "--scribble 10,10,60,80:12@0 for a line 12 pixels wide",
    "--mask": "--mask mask.png@12 or --mask dog=mask.png@1.5s",
    "--masklet": "--masklet dog=masks.npz or --masklet dog=masks/",
}

# A name ends at the first "="; a path with "=" in it is told apart by its slash ("./a=b.png").
_NAME = re.compile(r"(?P<name>[^=/\\,@]*)=(?P<rest>.*)", re.DOTALL)
_FRAME = re.compile(r"(?P<rest>.*)@(?:(?P<index>\d+)|(?P<seconds>\d+(?:\.\d*)?|\.\d+)s)", re.DOTALL)
_LABEL = re.compile(r"(?P<path>.+)#(?P<label>\d+)", re.DOTALL)


@dataclass(frozen=True)
class RegionFlag:
    """One flag that marks a region, as typed and as understood.

    Attributes:
        typed (`str`): The flag and its value, for messages.
        option (`str`): One of `REGION_FORMS`.
        name (`str`, *optional*): Name of the region; flags without a name are regions of their own.
        entry (`dict`): What the flag adds to its frame: `box`, `polygon`, `scribble` or `mask` with `label`. For a
            masklet `path` and `label`.
        frame_index (`int`, *optional*): Frame number.
        time_seconds (`float`, *optional*): Time of the frame instead of its number.
    """

    typed: str
    option: str
    name: str | None
    entry: dict[str, Any]
    frame_index: int | None = None
    time_seconds: float | None = None


@dataclass
class MarkedRegion:
    """One region of the question: all flags with one name, or one flag without.

    Attributes:
        name (`str`, *optional*): Its name.
        flags (`list[RegionFlag]`): Its flags in the order typed.
    """

    name: str | None
    flags: list[RegionFlag] = field(default_factory=list)

    @property
    def typed(self) -> str:
        """`str`: The flags as typed, for messages."""
        return " ".join(flag.typed for flag in self.flags)


class AppendRegion(argparse.Action):
    """Collects all kinds of region flags in one list, because their joint order is the order of the marks."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Parse one flag and append it."""
        try:
            flag = parse_region_flag(option_string, values)
        except ValueError as error:
            raise argparse.ArgumentError(None, str(error)) from error
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), flag])


def parse_region_flag(option: str, text: str) -> RegionFlag:
    """Read the value of a flag that marks a region.

    Args:
        option (`str`): One of `REGION_FORMS`.
        text (`str`): Its value, for example `dog=300,0,800,430@0`.

    Returns:
        [`RegionFlag`].

    Raises:
        ValueError: If the text does not have the form of the flag; the message shows text and form.
    """
    name, rest = None, text
    named = _NAME.fullmatch(text)
    if named and not (option in ("--mask", "--masklet") and Path(text).exists()):
        name, rest = named["name"].strip(), named["rest"]
        if not name:
            raise _wrong_form(option, text, "the name before `=` is empty")
    frame_index, time_seconds = None, None
    if option != "--masklet":
        rest, frame_index, time_seconds = _split_frame(option, text, rest)
    if option in ("--mask", "--masklet"):
        entry = _parse_path(option, text, rest)
    elif option == "--scribble":
        points, _, width = rest.rpartition(":")
        numbers, widths = _parse_numbers(option, text, points or width), _parse_numbers(option, text, width)
        if not points or len(widths) != 1:
            raise _wrong_form(option, text, "the width of the line is missing")
        if len(numbers) % 2:
            raise _wrong_form(option, text, f"{len(numbers)} numbers make no points x,y")
        entry = {"scribble": {"points": list(zip(numbers[::2], numbers[1::2], strict=True)), "width": widths[0]}}
    elif option == "--polygon":
        parts = [_parse_numbers(option, text, part) for part in rest.split(";")]
        for part in parts:
            if len(part) < 6 or len(part) % 2:
                raise _wrong_form(option, text, f"{len(part)} numbers make no polygon of at least three points x,y")
        entry = {"polygon": parts}
    else:
        box = _parse_numbers(option, text, rest)
        if len(box) != 4:
            raise _wrong_form(option, text, f"a box has 4 numbers, not {len(box)}")
        entry = {"box": box}
    return RegionFlag(f"{option} {text}", option, name, entry, frame_index, time_seconds)


def _wrong_form(option: str, text: str, reason: str) -> ValueError:
    return ValueError(f"`{option} {text}`: {reason}. Write {option} {REGION_FORMS[option]}, e.g. {_EXAMPLES[option]}.")


def _split_frame(option: str, text: str, rest: str) -> tuple[str, int | None, float | None]:
    """Take the frame off the end of a value; it may be missing, which is right for images only."""
    found = _FRAME.fullmatch(rest)
    if found:
        seconds = found["seconds"]
        return found["rest"], None if seconds else int(found["index"]), float(seconds) if seconds else None
    if "@" in rest and not (option == "--mask" and Path(rest).exists()):
        frame = rest.rpartition("@")[2]
        raise _wrong_form(option, text, f"{frame!r} is neither a frame number (@12) nor seconds (@1.5s)")
    return rest, None, None


def _parse_numbers(option: str, text: str, numbers: str) -> list[float]:
    values = []
    for number in numbers.split(","):
        try:
            values.append(float(number))
        except ValueError as error:
            raise _wrong_form(option, text, f"{number.strip()!r} is no number") from error
    return values


def _parse_path(option: str, text: str, rest: str) -> dict[str, Any]:
    """Split `FILE#LABEL`; a file whose name ends like that wins."""
    label = None if Path(rest).exists() else _LABEL.fullmatch(rest)
    path = Path(label["path"] if label else rest)
    if not rest:
        raise _wrong_form(option, text, "the file is missing")
    if not path.exists():
        raise ValueError(f"`{option} {text}`: there is no file {path}. Check the path.")
    if option == "--mask" and path.is_dir():
        raise ValueError(f"`{option} {text}`: {path} is a folder. Pass a folder of masks with --masklet.")
    return {"mask" if option == "--mask" else "path": str(path), **({"label": int(label["label"])} if label else {})}


def group_flags(flags: Sequence[RegionFlag]) -> list[MarkedRegion]:
    """Join the flags of one name; regions stand in the order in which they are first named.

    Args:
        flags (`Sequence[RegionFlag]`): Flags in the order of the command line.

    Returns:
        `list[MarkedRegion]`: One for each mark.
    """
    regions: dict[Any, MarkedRegion] = {}
    for position, flag in enumerate(flags):
        key = position if flag.name is None else flag.name
        regions.setdefault(key, MarkedRegion(flag.name)).flags.append(flag)
    return list(regions.values())


def build_region(
    marked: MarkedRegion, *, is_image: bool, frame_times: Callable[[], Sequence[float]]
) -> dict[str, Any]:
    """Build the part of a message that stands for a region, its frames in the order of time.

    Args:
        marked (`MarkedRegion`): The region.
        is_image (`bool`): Whether the region lies on a still image, where the frame may be left out.
        frame_times (`Callable`): Returns the time of every frame in seconds, counted from the first; called only where
            frame numbers and seconds are mixed.

    Returns:
        `dict`: `{"type": "region", "object_id"?, "frames": [...]}`, or with `masks` and `frame_indices` for masklets.

    Raises:
        ValueError: If a frame is missing or marked twice, or a masklet is malformed.
        OSError: If a masklet cannot be read.
    """
    region: dict[str, Any] = {"type": "region"}
    if marked.name is not None:
        region["object_id"] = marked.name
    masklets = [flag for flag in marked.flags if flag.option == "--masklet"]
    if masklets and len(masklets) < len(marked.flags):
        raise ValueError(
            f"`{marked.typed}`: a masklet cannot share its name with flags of another kind. Put their masks into the "
            "masklet, or give them a name and a `<region>` mark of their own."
        )
    if masklets:
        return {**region, **_join_masklets([_read_masklet(flag) for flag in masklets], marked)}
    entries = []
    for flag in marked.flags:
        at = {"frame_index": flag.frame_index, "time_seconds": flag.time_seconds}
        at = {key: value for key, value in at.items() if value is not None}
        if not at and not is_image:
            raise _wrong_form(flag.option, flag.typed.partition(" ")[2], "the frame is missing")
        entry = {**at, **flag.entry}
        if any(_same_frame(entry, other) for other in entries):
            raise ValueError(
                f"`{flag.typed}`: this frame of the region is marked twice. Keep one of the flags, or leave their "
                "names out to mark two regions."
            )
        entries.append(entry)
    return {**region, "frames": _in_time_order(entries, frame_times)}


def _same_frame(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("frame_index", "time_seconds"))


def _in_time_order(entries: list[dict[str, Any]], frame_times: Callable[[], Sequence[float]]) -> list[dict[str, Any]]:
    """Sort frames by time. The order matters: the model joins neighbouring frames of a region."""
    if len(entries) < 2:
        return entries
    timed = [entry for entry in entries if "time_seconds" in entry]
    if len(timed) == len(entries):
        return sorted(entries, key=lambda entry: entry["time_seconds"])
    times = frame_times() if timed else ()

    def seconds(entry: dict[str, Any]) -> float:
        if "time_seconds" in entry:
            return entry["time_seconds"] + TIME_SLACK
        # A frame outside the video is refused later, with a better message than sorting could give.
        return times[min(entry["frame_index"], len(times) - 1)] if timed else entry["frame_index"]

    return sorted(entries, key=seconds)


def _read_masklet(flag: RegionFlag) -> dict[str, Any]:
    """Read the masks of a tracked object, or list the pictures that hold them."""
    path = Path(flag.entry["path"])
    label = {"label": flag.entry["label"]} if "label" in flag.entry else {}
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() == ".png" and file.stem.isdecimal()]
        pictures = {int(file.stem): file for file in files}
        if not pictures:
            raise ValueError(
                f"`{flag.typed}`: the folder holds no masks. Name them by their frame numbers, e.g. 00012.png."
            )
        indices = sorted(pictures)
        return {"masks": [str(pictures[index]) for index in indices], "frame_indices": indices, **label}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            masks = arrays["masks"]
            indices = arrays["frame_indices"].tolist() if "frame_indices" in arrays else None
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        # Everything numpy raises for a file that is broken, or holds something else.
        raise ValueError(
            f"`{flag.typed}`: no masklet in this file. Write it with numpy.savez_compressed({path.name!r}, "
            "masks=masks of shape (num_frames, height, width), frame_indices=frame numbers)."
        ) from error
    return {"masks": masks, **({} if indices is None else {"frame_indices": indices}), **label}


def _join_masklets(masklets: list[dict[str, Any]], marked: MarkedRegion) -> dict[str, Any]:
    """Bring one or more masklets of an object into one, in the order of time."""
    if len(masklets) == 1 and "frame_indices" not in masklets[0]:
        return masklets[0]
    if any("frame_indices" not in masklet for masklet in masklets):
        raise ValueError(
            f"`{marked.typed}`: several masklets of one region need `frame_indices` in each file, to tell which "
            "frames they are."
        )
    if len({masklet.get("label") for masklet in masklets}) > 1:
        raise ValueError(f"`{marked.typed}`: the masklets of one region have different labels. Use one for all.")
    for masklet in masklets:
        if len(masklet["masks"]) != len(masklet["frame_indices"]):
            return masklet  # the processor's message names both numbers
    pairs = [
        (index, mask)
        for masklet in masklets
        for index, mask in zip(masklet["frame_indices"], masklet["masks"], strict=True)
    ]
    indices = [index for index, _ in pairs]
    if len(set(indices)) < len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise ValueError(f"`{marked.typed}`: frame {twice} of the region has two masks. Keep one mask for each frame.")
    pairs.sort(key=lambda pair: pair[0])
    return {**masklets[0], "masks": [mask for _, mask in pairs], "frame_indices": [index for index, _ in pairs]}
