"""Defects of records: what can be wrong with one, the error that names it, and the report that counts and lists them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any


BAD_ROWS = ("raise", "skip", "keep")
DEFECT_KINDS = {
    # of the file
    "broken_json": "the text of the record is no JSON",
    "wrong_type": "a field holds a value of another kind than it should",
    "missing_field": "a field that the set needs is missing or null",
    "broken_text": "a text holds half a character and cannot be stored as UTF-8",
    "ambiguous_annotation": "the record has both `annotation` and `masks`",
    "unsafe_path": "the path of the video or image leaves the data folder",
    "missing_id": "the record has no id",
    "duplicate_id": "the id stands in an earlier record of the file",
    # of the text
    "unknown_speaker": 'a turn comes from somebody else than "human", "gpt" and "system"',
    "unknown_question_type": "the type of the question is none of the five of the benchmark",
    "empty_answer": "an answer is empty",
    "mark_in_answer": "an answer holds a <region> mark",
    "media_mark_mismatch": "the <video> and <image> marks do not fit the video or image of the record",
    "region_mark_mismatch": "there are more or fewer objects than <region> marks",
    "region_without_media": "there are objects, but neither a video nor an image",
    # of the masks
    "null_segmentation": "a frame of an object has a null mask, which counts as empty",
    "missing_segmentation": "a frame of an object has no mask, which counts as empty",
    "empty_mask": "a mask has no pixel",
    "region_without_mask": "an object has no mask in any frame",
    "frame_without_mask": "an object has no mask in the frame of the single-frame mode",
    "broken_frame_number": "the number of a frame is no whole number from 0 to 2147483647",
    "duplicate_frame": "a frame is listed twice for one object",
    "broken_rle": "run lengths are unreadable or do not cover the picture",
    "broken_size": "a size is no pair of whole numbers, or too large",
    "broken_polygon": "a polygon has too few points, or points that make no sense",
    "polygon_without_size": "a polygon stands in a record without height and width",
    "broken_box": "a box is no box, or lies outside the picture",
    "box_clipped": "a box reached up to one pixel outside the picture and was clipped",
    "mask_size_differs": "the size of a mask differs from the record, from another mask, or from the video",
    # of the media
    "frame_outside_video": "a frame number lies beyond the end of the video or image",
    "missing_video": "the file does not exist",
    "unreadable_video": "the file cannot be decoded",
    "truncated_video": "the file ends early",
    "edit_list": "the file hides frames by an edit list",
}
# The row can be used although it has them.
HARMLESS_KINDS = frozenset(
    (
        "missing_id",
        "duplicate_id",
        "empty_answer",
        "null_segmentation",
        "missing_segmentation",
        "empty_mask",
        "frame_without_mask",
        "box_clipped",
        "mask_size_differs",
        "edit_list",
    )
)
MAX_EXAMPLES = 5
_BUFFERED_SKIPS = 1000
_MAX_QUOTED = 80


def check_bad_rows(policy: str) -> None:
    """Check the name of a policy on bad rows.

    Args:
        policy (`str`): "raise", "skip" or "keep".

    Raises:
        ValueError: If it is none of them.
    """
    if policy not in BAD_ROWS:
        raise ValueError(
            f'`bad_rows` must be one of {", ".join(map(repr, BAD_ROWS))}, got {policy!r}. Pass "skip" to leave bad '
            'rows out or "keep" to keep them without their broken parts.'
        )


def describe(value: Any) -> str:
    """Name a value of a JSON file in a message, whatever it is and however long.

    Args:
        value (`Any`): The value.

    Returns:
        `str`: Its text for texts and numbers, cut to 80 characters; kind and length for lists and dicts.
    """
    if isinstance(value, (str, bytes)):
        quoted = repr(value[:_MAX_QUOTED])
        return (
            quoted if len(quoted) <= _MAX_QUOTED and len(value) <= _MAX_QUOTED else f"{quoted[: _MAX_QUOTED - 3]}..."
        )
    if isinstance(value, int) and abs(value) >= 10**_MAX_QUOTED:
        return "a number of more than 80 digits"  # Python refuses to print the longest ones
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong with a record.

    Args:
        kind (`str`): A key of `DEFECT_KINDS`.
        message (`str`): What is wrong where in the record ("object 0, frame 12: ...").
        is_fatal (`bool`): The row cannot be used as it is: the processor would refuse it, or a part of the record
            cannot be told for sure.
    """

    kind: str
    message: str
    is_fatal: bool


def make_defect(kind: str, message: str) -> Defect:
    """Make a defect that is fatal unless its kind is one of `HARMLESS_KINDS`.

    Args:
        kind (`str`): A key of `DEFECT_KINDS`.
        message (`str`): What is wrong where in the record.

    Returns:
        [`Defect`].
    """
    return Defect(kind, message, kind not in HARMLESS_KINDS)


class FrameError(ValueError):
    """A frame of a region that cannot be read.

    Args:
        kind (`str`): A key of `DEFECT_KINDS`.
        message (`str`): What is wrong where in the record.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, str(self))  # so that it crosses from a worker process

    @property
    def defect(self) -> Defect:
        """[`Defect`]: The same as a defect; fatal whatever its kind, since nothing of the frame is kept."""
        return Defect(self.kind, str(self), is_fatal=True)


class RecordError(ValueError):
    """A record that cannot become a row.

    Args:
        defects (`Sequence[Defect]`): What is wrong with it.
        where (`str`, *optional*, defaults to `""`): File, position and id of the record.
        hint (`str`, *optional*, defaults to `""`): What to do.
    """

    def __init__(self, defects: Sequence[Defect], where: str = "", hint: str = "") -> None:
        self.defects = list(defects)
        self.where = where
        self.hint = hint
        named = "; ".join(defect.message for defect in self.defects[:MAX_EXAMPLES])
        if len(self.defects) > MAX_EXAMPLES:
            named += f"; and {len(self.defects) - MAX_EXAMPLES} more"
        if hint:
            named += f" {hint}" if named.endswith(".") else f". {hint}"
        super().__init__(f"{where}: " * bool(where) + named)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.defects, self.where, self.hint)  # so that it crosses from a worker process


class DefectReport:
    """Counts defects by kind, keeps a few examples of each, and lists every skipped row.

    Args:
        skipped_path (`str` or `PathLike`, *optional*): JSON-lines file that takes the list of skipped rows, so that
            memory stays bounded; replaced if it exists. Without it they are kept in memory.

    Attributes:
        counts (`dict[str, int]`): Defects by kind.
        examples (`dict[str, list[str]]`): The first few of each kind, as "where: message".
        num_rows (`int`): Records read.
        num_skipped (`int`): Records left out.
    """

    def __init__(self, skipped_path: str | PathLike[str] | None = None) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.num_rows = 0
        self.num_skipped = 0
        self.skipped_path = None if skipped_path is None else Path(skipped_path)
        self._skipped: list[dict[str, Any]] = []  # all of them, or those not yet in the file
        if self.skipped_path is not None:
            self.skipped_path.write_text("", encoding="utf-8")

    def add(self, defects: Sequence[Defect], *, where: str) -> None:
        """Count defects.

        Args:
            defects (`Sequence[Defect]`): Defects of one record.
            where (`str`): File, position and id of the record.
        """
        for defect in defects:
            self.counts[defect.kind] = self.counts.get(defect.kind, 0) + 1
            examples = self.examples.setdefault(defect.kind, [])
            if len(examples) < MAX_EXAMPLES:
                examples.append(f"{where}: {defect.message}")

    def skip(self, defects: Sequence[Defect], *, position: int, row_id: str | None = None, file: str = "") -> None:
        """List a row that is left out.

        Args:
            defects (`Sequence[Defect]`): Its defects; the fatal ones are the reasons.
            position (`int`): Where it stands: of published files the byte at which it begins, of imported annotations
                its number in their order.
            row_id (`str`, *optional*): Its id.
            file (`str`, *optional*, defaults to `""`): Name of the file, or what names the object in it.
        """
        self.num_skipped += 1
        reasons = [{"kind": defect.kind, "message": defect.message} for defect in defects if defect.is_fatal]
        self._skipped.append({"file": file, "position": position, "id": row_id, "reasons": reasons})
        if self.skipped_path is not None and len(self._skipped) >= _BUFFERED_SKIPS:
            self.flush()

    def flush(self) -> None:
        """Write the skipped rows that are still in memory to `skipped_path`, if there is one."""
        if self.skipped_path is None or not self._skipped:
            return
        with self.skipped_path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(entry)}\n" for entry in self._skipped)
        self._skipped = []

    def iterate_skipped(self) -> Iterator[dict[str, Any]]:
        """Go through the skipped rows without loading them all.

        Yields:
            `dict`: `file`, `position`, `id` as [`skip`] took them, and `reasons`, a list of {kind, message}.
        """
        self.flush()
        if self.skipped_path is None:
            yield from self._skipped
            return
        with self.skipped_path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """`list[dict]`: Every skipped row, see `iterate_skipped`."""
        return list(self.iterate_skipped())

    def merge(self, other: "DefectReport") -> None:
        """Add what another report counted, for example that of another process.

        Args:
            other ([`DefectReport`]): The other report; it is left as it is.
        """
        self.num_rows += other.num_rows
        self.num_skipped += other.num_skipped
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
        for kind, examples in other.examples.items():
            kept = self.examples.setdefault(kind, [])
            kept.extend(examples[: MAX_EXAMPLES - len(kept)])
        for entry in other.iterate_skipped():
            self._skipped.append(entry)
            if self.skipped_path is not None and len(self._skipped) >= _BUFFERED_SKIPS:
                self.flush()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as it is written to a JSON file.

        Returns:
            `dict`: `num_rows`, `num_skipped`, `counts`, `examples`, and `skipped`, the rows or, where they stand in a
            file, its name.
        """
        self.flush()
        return {
            "num_rows": self.num_rows,
            "num_skipped": self.num_skipped,
            "counts": dict(self.counts),
            "examples": {kind: list(examples) for kind, examples in self.examples.items()},
            "skipped": self.skipped if self.skipped_path is None else self.skipped_path.name,
        }

    def summary(self) -> str:
        """Return the report as a table for people.

        Returns:
            `str`: One line on rows, then one line for each kind, the most frequent first, with an example.
        """
        lines = [f"{self.num_rows} rows read, {self.num_skipped} skipped, {sum(self.counts.values())} defects"]
        for kind, count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0])):
            lines.append(f"{count:>10}  {kind}: {DEFECT_KINDS.get(kind, kind)}")
            lines.extend(f"{'':>12}e.g. {example}" for example in self.examples.get(kind, [])[:1])
        return "\n".join(lines)
