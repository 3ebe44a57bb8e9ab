"""JSON lines of our own rows, written by hand or by a script: regions of every form that JSON can hold.

A line is a row of the conversation schema: `video` or `image` (path below the folder of videos), `messages` and
`regions`, with `id`, `edit_list`, `task` and `source` as they are known. Instead of `messages`, `question` and `answer`
may stand, with `options` for a question of multiple choice, or a `caption`: such rows, those of the benchmarks too, get
the published prompt, and their `type` and `frame_index` have no place in a conversation. The frames of a region are marked by `rle`, `polygon`, `box`, `scribble` or `mask` (path of a picture,
relative to the file), with `size` and `label` as the processor takes them; `masks` with `frame_indices` works too. All
become run lengths or boxes. A JSON array of rows is read as well.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from transformers_videorefer.data.batches.chat import MEDIA_KINDS
from transformers_videorefer.data.batches.prompts import BENCH_D_PROMPT, SHORT_CAPTION_PROMPT, multiple_choice_prompt
from transformers_videorefer.data.defects import Defect, FrameError, RecordError, make_defect
from transformers_videorefer.data.frames import null_frame
from transformers_videorefer.data.json_files.json_stream import BrokenRecord, iterate_records
from transformers_videorefer.data.paths import is_unsafe_path
from transformers_videorefer.data.rows.record_masks import MAX_FRAME_NUMBER
from transformers_videorefer.data.rows.records import ROLES
from transformers_videorefer.data.wording import count_of
from transformers_videorefer.inputs.items import MARKS, find_marks
from transformers_videorefer.regions.errors import place_error
from transformers_videorefer.regions.form import RegionFrame, parse_region
from transformers_videorefer.regions.grid import decode_mask
from transformers_videorefer.regions.rle import encode_rle
from transformers_videorefer.regions.selection import select_frames
from transformers_videorefer.video.options import check_edit_list

from .common import DEFAULT_QUESTION, Candidate, ImportOptions, fail
from .loose_json import as_list, as_mapping
from .videos import VideoFolder, VideoInfo


SOURCE = "jsonl"
_TEXTS = ("question", "answer", "options", "caption")
# Kinds of defects by the form that is broken; there are none for mask pictures and scribbles.
_BROKEN_FORMS = {form: f"broken_{form}" for form in ("rle", "polygon", "box")}
_READING_ERRORS = (ValueError, TypeError, OSError, OverflowError)


def read_jsonl(path: Path, videos: VideoFolder, options: ImportOptions) -> Iterator[Candidate]:
    """Read rows from JSON lines.

    Args:
        path (`Path`): The file, also gzipped; it is read as a stream.
        videos ([`VideoFolder`]): Where videos and images are.
        options ([`ImportOptions`]): `question` and `answer_field` (`"answer"` by default) are for rows without
            `messages`; `stride` thins the frames of each region.

    Yields:
        [`Candidate`]: One for each line.

    Raises:
        ValueError: If the file is neither JSON lines nor a JSON array.
    """
    for number, (position, record) in enumerate(iterate_records(path)):
        given = record.get("id") if isinstance(record, Mapping) else None
        row_id = str(given) if isinstance(given, (str, int)) and given != "" else str(number)
        where = f"{path.name}, row {number} (byte {position}), id {row_id}"
        yield Candidate(where, row_id, partial(_row, record, row_id, path.parent, videos, options))


def _row(
    record: Any, row_id: str, folder: Path, videos: VideoFolder, options: ImportOptions
) -> tuple[dict[str, Any] | None, list[Defect]]:
    if isinstance(record, BrokenRecord):
        raise fail("broken_json", record.reason)
    if not isinstance(record, Mapping):
        raise fail("wrong_type", "a row is a JSON object.")
    texts = {key: _text(record, key) for key in (*MEDIA_KINDS, "task", "source", "edit_list")}
    edit_list = texts["edit_list"] or "apply"
    try:
        check_edit_list(edit_list)
    except ValueError as error:
        raise fail("wrong_type", str(error)) from error
    media = {kind: videos.find([texts[kind]], edit_list=edit_list) for kind in MEDIA_KINDS if texts[kind]}
    regions = record.get("regions") or []
    if not isinstance(regions, list):
        raise fail("wrong_type", "`regions` must be a list.")
    defects: list[Defect] = []
    messages = _messages(record, options, list(media))
    marks = [mark for message in messages for mark in _marks(message, defects)]
    if marks.count("region") != len(regions):
        found = count_of(marks.count("region"), f"{MARKS['region']} mark")
        message = f"there are {found} for {count_of(len(regions), 'region')}. Write one for each."
        raise fail("region_mark_mismatch", message)
    order = [mark for mark in marks if mark in MEDIA_KINDS]
    if sorted(order) != sorted(media):
        raise fail("media_mark_mismatch", f"there are {count_of(len(order), 'media mark')} for {len(media)} media.")
    converted = []
    for position, region in enumerate(regions):
        where = f"region {position}"
        converted.append(_region(region, position, media, order, folder, options.stride, defects, where))
    row = {
        "id": row_id,
        **{kind: media[kind].name if kind in media else None for kind in MEDIA_KINDS},
        "messages": messages,
        "regions": converted,
        "edit_list": edit_list,
        "task": texts["task"],
        "source": texts["source"] or SOURCE,
    }
    is_lost = any(not any(frame["rle"] or frame["box"] for frame in region["frames"]) for region in converted)
    if is_lost and not any(defect.is_fatal for defect in defects):
        defects.append(make_defect("region_without_mask", "a region shows nothing in any frame."))
    return None if is_lost else row, defects


def _text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise fail("wrong_type", f"`{key}` must be a text, got {value!r:.60}.")
    return value or None


def _messages(record: Mapping[str, Any], options: ImportOptions, media: Sequence[str]) -> list[dict[str, str]]:
    """Read the conversation, or make one of question and answer; marks of media that are missing stand in front."""
    given = record.get("messages")
    if given is None:
        question, answer = _question_and_answer(record, options)
        messages = [{"role": "user", "content": question}]
        messages += [{"role": "assistant", "content": answer.strip()}] if answer and answer.strip() else []
    else:
        beside = next((key for key in _TEXTS if record.get(key)), None)
        if beside is not None:
            raise fail("wrong_type", f"`{beside}` stands beside `messages`, nobody knows which is meant. Keep one.")
        if not isinstance(given, list) or not given:
            raise fail("wrong_type", "`messages` must be a list with at least one turn.")
        messages = []
        for turn in given:
            known = isinstance(turn, Mapping) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)
            if not known:
                raise fail("wrong_type", f"a turn has a `role` of {', '.join(ROLES)} and a text as `content`.")
            messages.append({"role": turn["role"], "content": turn["content"]})
    first = next((message for message in messages if message["role"] == "user"), None)
    if first is None:
        raise fail("missing_field", "the messages have no turn of the user.")
    for kind in reversed(media):
        if not any(MARKS[kind] in message["content"] for message in messages):
            first["content"] = f"{MARKS[kind]}\n{first['content']}"
    return messages


def _question_and_answer(record: Mapping[str, Any], options: ImportOptions) -> tuple[str, str | None]:
    """Read a row without messages: a question, one of multiple choice, or a description."""
    published = next((key for key in ("conversations", "Question") if key in record), None)
    if published is not None:
        raise fail("wrong_type", f"a row with `{published}` is a published record. Convert it with `from_published`.")
    question, choices = _text(record, "question"), record.get("options") or []
    answer_field = options.answer_field or "answer"
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise fail("wrong_type", f"`options` must be a list of texts, got {choices!r:.60}.")
    if choices and question is None:
        raise fail("missing_field", "there are `options`, but no `question`.")
    caption = _text(record, "caption") if answer_field != "caption" else None
    if caption is None:
        question = options.question if question is None else question
        return multiple_choice_prompt(question, choices) if choices else question, _text(record, answer_field)
    if question is not None or record.get(answer_field):
        beside = "question" if question is not None else answer_field
        raise fail("wrong_type", f"`{beside}` stands beside `caption`, nobody knows which is meant. Keep one.")
    if options.question != DEFAULT_QUESTION:
        return options.question, caption
    return SHORT_CAPTION_PROMPT if _has_boxes(record) else BENCH_D_PROMPT, caption


def _has_boxes(record: Mapping[str, Any]) -> bool:
    """Tell rows of HC-STVG, whose captions are short, from those of VideoRefer-Bench-D, as `to_chat` does."""
    frames = (
        frame for region in as_list(record.get("regions")) for frame in as_list(as_mapping(region).get("frames"))
    )
    return any(as_mapping(frame).get("box") for frame in frames)


def _marks(message: Mapping[str, str], defects: list[Defect]) -> list[str]:
    """List the marks of a turn in their order."""
    found = find_marks(message["content"])
    if found and message["role"] != "user":
        defects.append(make_defect("mark_in_answer", f"a turn of the {message['role']} holds {found[0].group()}."))
        return []
    return [match.lastgroup for match in found]


def _region(
    region: Any,
    position: int,
    media: Mapping[str, VideoInfo],
    order: Sequence[str],
    folder: Path,
    stride: int,
    defects: list[Defect],
    where: str,
) -> dict[str, Any]:
    """Convert a region; frames that are broken become null and a defect."""
    if not isinstance(region, Mapping):
        raise fail("wrong_type", f"{where}: a region is a JSON object.")
    place = region.get("media")
    if not order or (place is None and len(order) > 1):
        raise fail("region_without_media", f"{where}: `media` must say which of the {len(order)} media it is on.")
    place = 0 if place is None else place
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(order):
        raise fail("region_without_media", f"{where}: `media` is {place!r}, but there are {len(order)} media.")
    video, is_image = media[order[place]], order[place] == "image"
    entries = region.get("frames")
    is_split = isinstance(entries, list) and len(entries) > 0
    parts = [{**region, "frames": [entry]} for entry in entries] if is_split else [region]
    frames: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        at = {"region": position, "entry": f"frames[{number}]"} if is_split else {"region": position}
        try:
            frames += _part_frames(_with_pictures(part, folder), video, is_image, at)
        except RecordError as error:
            defects.extend(error.defects)
        except FrameError as error:
            # Reports lie beside the rows and name no folder of this machine.
            defects.append(Defect(error.kind, str(error).replace(f"{folder}{os.sep}", ""), is_fatal=True))
            index = as_mapping(as_list(part.get("frames"))[0]).get("frame_index") if is_split else None
            if isinstance(index, int) and 0 <= index < min(video.num_frames, MAX_FRAME_NUMBER):
                frames.append(null_frame(int(index)))
    object_id = region.get("object_id")
    return {"object_id": str(position if object_id is None else object_id), "media": place, "frames": frames[::stride]}


def _with_pictures(region: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve the paths of mask pictures, which are relative to the file and must stay below its folder."""

    def resolve(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if is_unsafe_path(value):
            raise fail("unsafe_path", f"the mask picture {value!r} is no path below the folder of the file.")
        return str(folder / value)

    resolved = dict(region)
    if isinstance(region.get("object_id"), int):
        resolved["object_id"] = str(region["object_id"])
    if isinstance(region.get("frames"), list):
        resolved["frames"] = [
            {**entry, "mask": resolve(entry["mask"])} if isinstance(entry, Mapping) and "mask" in entry else entry
            for entry in region["frames"]
        ]
    if isinstance(region.get("masks"), list):
        resolved["masks"] = [resolve(mask) for mask in region["masks"]]
    return resolved


def _part_frames(
    region: Mapping[str, Any], video: VideoInfo, is_image: bool, at: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Convert the frames of a region; an explicit null, and a mask without a pixel, stay as null."""

    def frame_times() -> np.ndarray:
        if video.frame_times is None:
            raise ValueError("a folder of pictures has no times. Give `frame_index`.")
        return video.frame_times

    try:
        parsed = parse_region(region)
    except _READING_ERRORS as error:
        raise _frame_error(_BROKEN_FORMS.get(getattr(error, "argument", None), "wrong_type"), error, at) from error
    if all(frame.form is None for frame in parsed.frames):
        return [null_frame(frame.frame_index or 0) for frame in parsed.frames]
    try:
        selected = select_frames(
            parsed,
            num_frames=video.num_frames,
            frame_times=frame_times,
            max_frames=None,
            empty_masks="keep",
            is_image=is_image,
        )
    except _READING_ERRORS as error:
        is_numbered = all(one.frame_index is not None or one.time_seconds is not None for one in parsed.frames)
        raise _frame_error("frame_outside_video" if is_numbered else "broken_frame_number", error, at) from error
    return [_frame(index, frame, video, {**at, "frame": index}) for index, frame in selected]


def _frame(index: int, frame: RegionFrame, video: VideoInfo, at: Mapping[str, Any]) -> dict[str, Any]:
    try:
        mask = decode_mask(frame, height=video.height, width=video.width)
    except _READING_ERRORS as error:
        has_other_size = frame.form == "rle" and tuple(frame.value["size"]) != video.size
        kind = "mask_size_differs" if has_other_size else _BROKEN_FORMS.get(frame.form, "wrong_type")
        raise _frame_error(kind, error, at) from error
    entry = null_frame(index)
    if not mask.any():
        return entry
    if frame.form == "box":
        height, width = frame.size or video.size
        scale = np.array([video.width / width, video.height / height] * 2)
        entry["box"] = (frame.value * scale).tolist()
        return entry
    entry["rle"] = encode_rle(mask)
    if mask.shape != video.size:
        entry["size"] = list(mask.shape)
    return entry


def _frame_error(kind: str, error: Exception, at: Mapping[str, Any]) -> FrameError:
    """Name the place of an error within the row, and the kind of the defect."""
    return FrameError(kind, str(place_error(error, **at) or error))


__all__ = ["read_jsonl"]
