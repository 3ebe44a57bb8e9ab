"""Published records and our rows: VideoRefer-700K and the two benchmarks, both ways.

A record is read part by part. A part that cannot be told for sure becomes null and gives a defect, so that one reading
serves all policies on bad rows: with defects that matter the record is refused, or kept without its broken parts.
"""

from collections.abc import Sequence
from typing import Any

from transformers_videorefer.data.defects import Defect, RecordError, describe, make_defect
from transformers_videorefer.data.json_files.json_window import RepeatedKeys
from transformers_videorefer.data.paths import is_unsafe_path
from transformers_videorefer.video.options import check_edit_list

from .record_masks import drop_broken_masks, mask_frames, parse_frame_number, read_regions
from .row_checks import QUESTION_TYPES, row_defects


KINDS = ("conversations", "bench_d", "bench_q")
# Field that tells the kind of a record.
_KIND_FIELDS = {"conversations": "conversations", "Question": "bench_q", "caption": "bench_d"}
_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}
ROLES = tuple(_SPEAKERS)
_HINT = "Mend the record, or take `salvage(record)`, which keeps what is whole of it and says what is not."


def from_published(
    record: Any,
    *,
    task: str | None = None,
    source: str | None = None,
    edit_list: str = "ignore",
    video_size: tuple[int, int] | None = None,
    check_masks: bool = True,
) -> dict[str, Any]:
    """Turn a published record into a row.

    Args:
        record (`dict`): A record of VideoRefer-700K (with `conversations`), of VideoRefer-Bench-Q (with `Question`) or
            of VideoRefer-Bench-D (with `caption`); annotations in either naming, masks of any kind.
        task (`str`, *optional*): What the column `task` says; conversations only.
        source (`str`, *optional*): What the column `source` says; conversations only.
        edit_list (`str`, *optional*, defaults to `"ignore"`): How frames are counted; the published annotations count
            those that an edit list hides.
        video_size (`tuple[int, int]`, *optional*): Height and width in pixels, for polygons of records without them.
        check_masks (`bool`, *optional*, defaults to `True`): Check the run lengths of compressed masks. Pass `False`
            to check those of many rows at once with `broken_rles`.

    Returns:
        `dict`: The row. Texts are unchanged, marks included; frames and objects keep their order; masks are compressed
        COCO run lengths, null segmentations null.

    Raises:
        RecordError: If a part of the record cannot be told for sure: broken masks, wrong types, missing fields, a path
            that leaves the data folder. Objects that do not fit the marks are no reason, see [`record_defects`].
        ValueError: If `edit_list` is unknown.
    """
    row, defects = salvage(
        record, task=task, source=source, edit_list=edit_list, video_size=video_size, check_masks=check_masks
    )
    fatal = [defect for defect in defects if defect.is_fatal]
    if row is None or fatal:
        where = f"record {describe(record.get('id'))}" if isinstance(record, dict) else ""
        raise RecordError(fatal, where=where, hint=_HINT)
    return row


def salvage(
    record: Any,
    *,
    kind: str | None = None,
    task: str | None = None,
    source: str | None = None,
    edit_list: str = "ignore",
    video_size: tuple[int, int] | None = None,
    check_masks: bool = True,
) -> tuple[dict[str, Any] | None, list[Defect]]:
    """Turn as much of a published record into a row as can be told for sure.

    Args:
        record (`Any`): The record, whatever it is.
        kind (`str`, *optional*): "conversations", "bench_d" or "bench_q"; by default the fields tell.
        task (`str`, *optional*): As in [`from_published`].
        source (`str`, *optional*): As in [`from_published`].
        edit_list (`str`, *optional*, defaults to `"ignore"`): As in [`from_published`].
        video_size (`tuple[int, int]`, *optional*): As in [`from_published`].
        check_masks (`bool`, *optional*, defaults to `True`): As in [`from_published`].

    Returns:
        The row, in which broken parts are null (masks, texts, paths) or left out (frames without a valid number), or
        `None` where nothing can be kept; and what is wrong with the record.

    Raises:
        ValueError: If `edit_list` or `kind` is unknown.
    """
    check_edit_list(edit_list)
    if kind is not None and kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    if not isinstance(record, dict):
        return None, [make_defect("wrong_type", f"a record is a dict, got {describe(record)}")]
    if kind is None:
        kind = next((kind for field, kind in _KIND_FIELDS.items() if field in record), None)
        if kind is None:
            message = "the record has none of `conversations`, `Question` and `caption`"
            return None, [make_defect("missing_field", message)]
    reader = _RecordReader(record, video_size, edit_list)
    if isinstance(record, RepeatedKeys):
        reader.report("wrong_type", f"the record holds `{record.repeated[0]:.80}` twice")
    if kind == "conversations":
        row = reader.conversation(task, source)
    elif kind == "bench_d":
        row = reader.bench_d()
    else:
        row = reader.bench_q()
    if row is not None and check_masks:
        reader.defects += drop_broken_masks(row)
    return row, reader.defects


def record_defects(record: Any, *, kind: str | None = None) -> list[Defect]:
    """Find everything that is wrong with a published record as far as it shows without its video.

    Args:
        record (`Any`): The record.
        kind (`str`, *optional*): As in [`salvage`].

    Returns:
        `list[Defect]`: What cannot be told for sure, and what the processor would refuse.
    """
    row, defects = salvage(record, kind=kind)
    return defects if row is None else merge_defects(defects, row)


def merge_defects(defects: list[Defect], row: dict[str, Any]) -> list[Defect]:
    """Add the defects that a row shows to those found while its record was read.

    Args:
        defects (`list[Defect]`): Defects of the record.
        row (`dict`): The row made of it.

    Returns:
        `list[Defect]`: All of them; null masks, which reading reports with their reason, once.
    """
    return defects + [defect for defect in row_defects(row) if defect.kind != "null_segmentation"]


class _RecordReader:
    """Reads the fields of one record and collects defects."""

    def __init__(self, record: dict[str, Any], video_size: tuple[int, int] | None, edit_list: str) -> None:
        self.record = record
        self.defects: list[Defect] = []
        self.video_size = video_size
        self.edit_list = edit_list

    def report(self, kind: str, message: str) -> None:
        self.defects.append(make_defect(kind, message))

    def conversation(self, task: str | None, source: str | None) -> dict[str, Any] | None:
        """Make a row of VideoRefer-700K."""
        messages = self.messages()
        if messages is None:
            return None
        video, image = self.path("video"), self.path("image")
        if video is not None and image is not None:
            self.report("wrong_type", "the record has both a `video` and an `image`")
        return {
            "id": self.row_id(),
            "video": video,
            "image": image,
            "messages": messages,
            "regions": self.regions(has_media="video" in self.record or "image" in self.record),
            "edit_list": self.edit_list,
            "task": task,
            "source": source,
        }

    def bench_d(self) -> dict[str, Any]:
        """Make a row of VideoRefer-Bench-D."""
        return {
            "id": self.row_id(),
            "video": self.path("video", is_needed=True),
            "caption": self.text("caption"),
            "frame_index": self.frame_index(),
            "regions": self.regions(has_media=True),
            "edit_list": self.edit_list,
        }

    def bench_q(self) -> dict[str, Any]:
        """Make a row of VideoRefer-Bench-Q."""
        question_type = self.text("type")
        if question_type is not None and question_type not in QUESTION_TYPES:
            self.report("unknown_question_type", f"`type` {describe(question_type)} is none of the five")
            question_type = None
        return {
            "id": self.row_id(),
            "video": self.path("video", is_needed=True),
            "question": self.text("Question"),
            "options": self.options(),
            "answer": self.text("Answer"),
            "type": question_type,
            "frame_index": self.frame_index(),
            "regions": self.regions(has_media=True),
            "edit_list": self.edit_list,
        }

    def row_id(self) -> str | None:
        value = self.record.get("id")
        if value is None:
            self.report("missing_id", "the record has no `id`")
        elif type(value) is int:
            text = describe(value)
            return text if text.lstrip("-").isdigit() else None
        elif isinstance(value, str):
            return self.checked_text("id", value)
        else:
            self.report("wrong_type", f"`id` must be text or a whole number, got {describe(value)}")
        return None

    def checked_text(self, name: str, value: Any) -> str | None:
        """Return a text that can be stored."""
        if not isinstance(value, str):
            self.report("wrong_type", f"`{name}` must be text, got {describe(value)}")
            return None
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                self.report("broken_text", f"`{name}` {describe(value)} holds half a character")
                return None
        return value

    def text(self, name: str) -> str | None:
        value = self.record.get(name)
        if value is None:
            self.report("missing_field", f"the record has no `{name}`")
            return None
        return self.checked_text(name, value)

    def options(self) -> list[str | None] | None:
        value = self.record.get("options")
        if value is None:
            self.report("missing_field", "the record has no `options`")
            return None
        if not isinstance(value, list) or not value:
            self.report("wrong_type", f"`options` must be a list of texts, got {describe(value)}")
            return None
        return [self.checked_text(f"options[{position}]", option) for position, option in enumerate(value)]

    def path(self, name: str, *, is_needed: bool = False) -> str | None:
        value = self.record.get(name)
        if value is None:
            if is_needed:
                self.report("missing_field", f"the record has no `{name}`")
            return None
        path = self.checked_text(name, value)
        if path is not None and is_unsafe_path(path):
            self.report("unsafe_path", f"`{name}` {describe(path)} is no path inside the data folder")
            return None
        return path

    def frame_index(self) -> int | None:
        """Read the frame of the single-frame mode, a whole number or its text."""
        value = self.record.get("frame_idx")
        if value is None:
            self.report("missing_field", "the record has no `frame_idx`")
            return None
        index = parse_frame_number(value)
        if index is None:
            self.report("broken_frame_number", f"`frame_idx` {describe(value)} is no frame number")
        return index

    def messages(self) -> list[dict[str, Any]] | None:
        """Read the turns; text and speaker are left as they are, only renamed."""
        turns = self.record.get("conversations")
        if turns is None:
            self.report("missing_field", "the record has no `conversations`")
            return None
        if not isinstance(turns, list) or not turns:
            self.report("wrong_type", f"`conversations` must be a list of turns, got {describe(turns)}")
            return None
        messages = []
        for position, turn in enumerate(turns):
            if not isinstance(turn, dict):
                self.report("wrong_type", f"turn {position} must be a dict, got {describe(turn)}")
                messages.append({"role": None, "content": None})
                continue
            speaker = turn.get("from")
            role = _ROLES.get(speaker) if isinstance(speaker, str) else None
            if role is None:
                self.report("unknown_speaker", f'turn {position} is from {describe(speaker)}, not "human" or "gpt"')
            messages.append({"role": role, "content": self.checked_text(f"turn {position}", turn.get("value"))})
        return messages

    def regions(self, *, has_media: bool) -> list[dict[str, Any]]:
        regions, defects = read_regions(self.record, self.video_size, media=0 if has_media else None)
        self.defects += defects
        return regions


def to_published(row: dict[str, Any]) -> dict[str, Any]:
    """Turn a row back into a published record.

    Args:
        row (`dict`): A row of VideoRefer-700K, VideoRefer-Bench-D or VideoRefer-Bench-Q; its `type` may be the number
            that a `ClassLabel` column gives.

    Returns:
        `dict`: The record in the `annotation`/`segmentation` naming, masks as compressed run lengths, frame numbers as
        text in the order of the row; conversations get `height` and `width` from their masks where all agree.

    Raises:
        ValueError: If the row is of no such set, holds boxes, or lists a frame twice for one object.
    """
    row_id = row.get("id")
    record: dict[str, Any] = {} if row_id is None else {"id": _published_id(row_id)}
    record.update({name: row[name] for name in ("video", "image") if row.get(name) is not None})
    if row.get("messages") is not None:
        sizes = {tuple(frame["rle"]["size"]) for frame in mask_frames(row)}
        if len(sizes) == 1:
            (size,) = sizes
            record.update(height=int(size[0]), width=int(size[1]))
        record["conversations"] = [
            {"from": _SPEAKERS.get(message["role"], message["role"]), "value": message["content"]}
            for message in row["messages"]
        ]
    elif "question" in row:
        question_type = row["type"]
        if isinstance(question_type, int):
            question_type = QUESTION_TYPES[question_type]
        record.update(Question=row["question"], type=question_type, options=_listed(row["options"]))
        record.update(Answer=row["answer"], frame_idx=row["frame_index"])
    elif "caption" in row:
        record.update(caption=row["caption"], frame_idx=row["frame_index"])
    else:
        raise ValueError(f"A row with the columns {sorted(row)} is of no published set. Pass rows of our datasets.")
    if row.get("regions"):
        record["annotation"] = [
            _published_object(region, position, row_id) for position, region in enumerate(row["regions"])
        ]
    return record


def _published_id(row_id: str) -> str | int:
    """Return the id as the published files write it: whole numbers as such."""
    is_number = row_id.isascii() and row_id.isdigit() and (row_id == "0" or row_id[0] != "0") and len(row_id) < 19
    return int(row_id) if is_number else row_id


def _listed(options: Sequence[Any] | None) -> list[Any] | None:
    return None if options is None else list(options)


def _published_object(region: dict[str, Any], position: int, row_id: str | None) -> dict[str, Any]:
    """Turn a region into an object of the annotation."""
    where = f"row {row_id!r}, region {position}"
    published: dict[str, Any] = {}
    for frame in region["frames"] or ():
        number = str(frame["frame_index"])
        if frame.get("box") is not None:
            raise ValueError(
                f"{where}: frame {number} has a box, which the published form cannot hold. Fill it with `fill_box` and "
                "encode the mask with `encode_rle` first."
            )
        if number in published:
            raise ValueError(f"{where}: frame {number} is listed twice. Keep one mask for each frame.")
        rle = frame["rle"]
        segmentation = None if rle is None else {"size": [int(side) for side in rle["size"]], "counts": rle["counts"]}
        published[number] = {"segmentation": segmentation}
    return published
