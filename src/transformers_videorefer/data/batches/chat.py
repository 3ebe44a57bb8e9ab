"""Rows as messages that the processor takes as they are."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from transformers_videorefer.data.paths import resolve_media
from transformers_videorefer.data.rows.records import ROLES
from transformers_videorefer.data.rows.region_parts import frame_keys, keep_frame, region_part
from transformers_videorefer.inputs.items import MARKS, find_marks
from transformers_videorefer.regions.errors import located

from .prompts import BENCH_D_PROMPT, SHORT_CAPTION_PROMPT, multiple_choice_prompt


MEDIA_KINDS = ("video", "image")
_PATH_KEYS = ("path", "url", "video", "image")


def to_chat(
    row: Mapping[str, Any],
    data_root: str | os.PathLike | None = None,
    *,
    single_frame: bool = False,
    frame_index: int | None = None,
) -> list[dict[str, Any]]:
    """Write a row as messages for `processor.apply_chat_template`.

    As in the published training the mark of a video or image moves to the front of its turn, and assistant turns
    before the first user turn are left out; empty answers stay. Rows of the benchmarks become the published prompts
    (see `prompts.py`), without an answer. Rows of HC-STVG, whose regions are boxes, ask for a short caption as
    VideoRefer-700K does, because the captions of HC-STVG are one sentence long.

    Args:
        row (`Mapping[str, Any]`): Row of VideoRefer-700K and sets like it (`messages` with `video`, `image` and
            `regions`, where the content of a message may also be a list of parts, and `videos` and `images` may be
            lists), of VideoRefer-Bench-Q (`question`), or of VideoRefer-Bench-D or HC-STVG (`caption`).
        data_root (`str` or `os.PathLike`, *optional*): Folder that paths in the row are relative to. Without it they
            are taken as they are.
        single_frame (`bool`, *optional*, defaults to `False`): Keep one frame of each region instead of all.
        frame_index (`int`, *optional*): That frame; the row's own `frame_index` by default.

    Returns:
        `list[dict]`: Messages whose content is a list of parts with their payloads.

    Raises:
        ValueError: If regions or media and their marks differ in number, a mark stands in a turn other than the
            user's, a path leaves the data root, or a region lacks the frame; the message names the row.
        TypeError: If the row holds something of a wrong kind.
    """
    if frame_index is not None and not single_frame:
        raise ValueError("`frame_index` goes with `single_frame=True`. Pass both, or leave it out for all frames.")
    with located(origin=name_of(row)):
        messages = _Conversation(row, data_root).build()
        if single_frame:
            messages = _keep_frame_index(messages, row.get("frame_index") if frame_index is None else frame_index)
    return messages


def name_of(row: Mapping[str, Any]) -> str:
    """Name a row in error messages.

    Args:
        row (`Mapping[str, Any]`): The row.

    Returns:
        `str`: "Row" and its id, or what it asks where it has none.

    Raises:
        TypeError: If it is no row.
    """
    if not isinstance(row, Mapping):
        raise TypeError(f"A row must be a dictionary, got {type(row).__name__}. Pass rows of a dataset.")
    identity = row.get("id")
    return f"Row {identity!r}" if identity is not None else f"A row without `id` ({_first_words(row)!r})"


def _first_words(row: Mapping[str, Any]) -> str:
    for key in ("messages", "question", "caption"):
        if row.get(key) is not None:
            return f"{row[key]!s:.60}"
    return ", ".join(map(str, row))[:60]


def map_regions(messages: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put other regions in the place of those of a conversation.

    Args:
        messages (`Sequence[Mapping]`): What `to_chat` returned; it is not changed.
        regions (`Sequence[Mapping]`): One part for each region part, in order.

    Returns:
        `list[dict]`: The messages with these regions.
    """
    iterator = iter(regions)
    return [
        {
            **message,
            "content": [next(iterator) if part["type"] == "region" else part for part in message["content"]],
        }
        for message in messages
    ]


def parts_of(messages: Sequence[Mapping[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """List the parts of some kinds.

    Args:
        messages (`Sequence[Mapping]`): What `to_chat` returned.
        kinds (`str`): Their types.

    Returns:
        `list[dict]`: The parts in order over all turns.
    """
    return [part for message in messages for part in message["content"] if part["type"] in kinds]


def _keep_frame_index(messages: list[dict[str, Any]], frame_index: int | None) -> list[dict[str, Any]]:
    """Reduce all regions to one frame."""
    regions = parts_of(messages, "region")
    if frame_index is None and regions:
        raise ValueError(
            "there is no `frame_index` in the row, so `single_frame=True` cannot know the frame. Pass `frame_index`."
        )
    kept = []
    for number, region in enumerate(regions):
        keys = frame_keys(region)
        if frame_index not in keys:
            known = ", ".join(map(str, keys[:10])) + (", ..." if len(keys) > 10 else "")
            raise ValueError(
                f"region {number} has no mask on frame {frame_index}, only on {known}. Choose a `frame_index` that all "
                "regions have, or use all frames (`single_frame=False`)."
            )
        kept.append(keep_frame(region, keys.index(frame_index)))
    return map_regions(messages, kept)


class _Conversation:
    """Builds the messages of one row; media and regions are handed out in the order of their marks.

    Args:
        row (`Mapping[str, Any]`): The row.
        data_root (`str` or `os.PathLike`, *optional*): Folder that paths in the row are relative to.
    """

    def __init__(self, row: Mapping[str, Any], data_root: str | os.PathLike | None):
        self._row = row
        self._data_root = data_root
        self._supplies: dict[str, list[dict[str, Any]]] = {
            **{kind: self._media(kind) for kind in MEDIA_KINDS},
            "region": [region_part(region) for region in _as_list(row.get("regions"), "regions")],
        }
        self._num_used = dict.fromkeys(MARKS, 0)

    def build(self) -> list[dict[str, Any]]:
        """Make the messages and check that every medium and region has its mark."""
        messages = [self._message(message) for message in _spoken_turns(_messages_of_row(self._row))]
        self._insert_unmarked(messages)
        for kind, mark in MARKS.items():
            num_used, num_given = self._num_used[kind], len(self._supplies[kind])
            if num_used != num_given:
                raise ValueError(
                    f"it has {num_given} {kind}(s) but {num_used} `{mark}` mark(s) in its user turns. Mend or leave out "
                    f"the row: every `{mark}` needs one {kind}, in order."
                )
        return messages

    def _media(self, kind: str) -> list[dict[str, Any]]:
        """Write the media of one kind as parts."""
        values = [self._row.get(kind), *_as_list(self._row.get(f"{kind}s"), f"{kind}s")]
        return [self._with_payload({"type": kind}, kind, value) for value in values if value is not None]

    def _with_payload(self, part: dict[str, Any], kind: str, value: Any) -> dict[str, Any]:
        """Complete a part of a medium: paths are joined, and videos say how their frames are counted."""
        if isinstance(value, Mapping) and {"bytes", "path"} & set(value):  # an undecoded picture of a dataset
            value = value["path"] if value.get("bytes") is None else value["bytes"]
        is_path = isinstance(value, str)
        part = {**part, "path" if is_path else kind: resolve_media(value, self._data_root) if is_path else value}
        if kind == "video" and self._row.get("edit_list") is not None:
            part.setdefault("edit_list", self._row["edit_list"])
        return part

    def _message(self, message: Any) -> dict[str, Any]:
        role = message["role"]
        content = message.get("content")
        if content is None:
            content = ""
        if isinstance(content, str):
            parts = self._parts_of_text(content) if role == "user" else [{"type": "text", "text": content}]
            spelled = [] if role == "user" else [match.group() for match in find_marks(content)]
        else:
            parts = [self._part(part) for part in _as_list(content, "content")]
            spelled = [match.group() for part in parts for match in find_marks(part.get("text", ""))]
            spelled += [MARKS[part["type"]] for part in parts if part["type"] in MARKS and role != "user"]
        if spelled:
            raise ValueError(
                f"a turn of the {role} holds `{spelled[0]}` where it stands for nothing. Marks belong into user turns written "
                "as one string; among parts a video, image or region is a part of its own."
            )
        return {"role": role, "content": parts}

    def _parts_of_text(self, text: str) -> list[dict[str, Any]]:
        """Split a user turn at its marks, those of media first."""
        kinds = [match.lastgroup for match in find_marks(text) if match.lastgroup in MEDIA_KINDS]
        for kind in set(kinds):
            text = text.replace(MARKS[kind], "").strip()
            if len(self._supplies[kind]) == 1:  # as published, several marks of the only video of a turn are one
                kinds = _without_repeats(kinds, kind)
        parts = [self._next(kind) for kind in kinds]
        for position, piece in enumerate(text.split(MARKS["region"])):
            parts += [self._next("region")] if position else []
            parts += [{"type": "text", "text": piece}] if piece else []
        return parts or [{"type": "text", "text": ""}]

    def _part(self, part: Any) -> dict[str, Any]:
        """Complete a part that the row brings. Columns of tables fill absent keys with None."""
        if not isinstance(part, Mapping) or part.get("type") not in ("text", *MARKS):
            raise ValueError(
                f'unknown part {part!r:.80}. Use {{"type": ...}} with "text", "video", "image" or "region".'
            )
        kind = part["type"]
        given = {key: value for key, value in part.items() if value is not None and key != "type"}
        if kind == "text":
            return {"type": "text", "text": str(given.get("text", ""))}
        if kind == "region":
            return region_part(given) if given.keys() & {"frames", "masks"} else self._next("region")
        key = next((key for key in _PATH_KEYS if key in given), None)
        if key is None and "base64" not in given:
            return {**self._next(kind), **given}
        if key is None:
            return {"type": kind, **given}
        payload = given.pop(key)
        return self._with_payload({"type": kind, **given}, kind, payload)

    def _next(self, kind: str) -> dict[str, Any]:
        """Take the next medium or region, and count its mark also where there is none left."""
        position = self._num_used[kind]
        self._num_used[kind] += 1
        supply = self._supplies[kind]
        return supply[position] if position < len(supply) else {"type": kind}

    def _insert_unmarked(self, messages: list[dict[str, Any]]) -> None:
        """Put media that no mark speaks of before the first user turn, as TRL does with `images` and `videos`."""
        first = next(message for message in messages if message["role"] == "user")
        for kind in reversed(MEDIA_KINDS):
            if not isinstance(self._row.get(kind), str) and not self._num_used[kind]:
                first["content"] = [*(self._next(kind) for _ in self._supplies[kind]), *first["content"]]


def _without_repeats(kinds: Sequence[str], kind: str) -> list[str]:
    first = list(kinds).index(kind)
    return [one for position, one in enumerate(kinds) if one != kind or position == first]


def _as_list(value: Any, name: str) -> list[Any]:
    """Read a column that is a list, an array of objects, or absent."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)) or isinstance(value, np.ndarray):
        return list(value)
    raise TypeError(f"`{name}` must be a list, got {type(value).__name__}. Write one entry per mark.")


def _messages_of_row(row: Mapping[str, Any]) -> list[Any]:
    """Return the messages of a row of any set, with marks."""
    messages = row.get("messages")
    if isinstance(messages, str):  # a `Json` column read without its type
        messages = json.loads(messages)
    if messages is not None:
        return _as_list(messages, "messages")
    if row.get("question") is not None:
        if not isinstance(row["question"], str):
            raise TypeError(f"`question` must be text, got {type(row['question']).__name__}.")
        question = multiple_choice_prompt(row["question"], _as_list(row.get("options"), "options"))
    elif "caption" in row:
        question = SHORT_CAPTION_PROMPT if _has_boxes(row) else BENCH_D_PROMPT
    else:
        raise ValueError("it has none of `messages`, `question` and `caption`. Convert it with `from_published`.")
    return [{"role": "user", "content": f"{MARKS['video']}\n{question}"}]


def _has_boxes(row: Mapping[str, Any]) -> bool:
    frames = (frame for region in _as_list(row.get("regions"), "regions") for frame in region.get("frames") or ())
    return any(frame.get("box") is not None and len(frame["box"]) for frame in frames)


def _spoken_turns(messages: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Check the turns and yield them without the answers that no user turn stands before."""
    has_question = False
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise ValueError(
                f"message {number} has the role {role!r}. Use system, user or assistant; records with `from` and "
                "`value` are converted by `from_published`."
            )
        has_question = has_question or role == "user"
        if role != "assistant" or has_question:
            yield message
    if not has_question:
        raise ValueError("it has no user turn. Leave the row out.")
