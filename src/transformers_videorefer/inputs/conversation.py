"""Chat template, and how media and regions are collected from the parts of a conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transformers_videorefer.inputs.items import (
    MARKS,
    MARKS_PATTERN,
    SampleMedia,
    VideoItem,
    find_marks,
    group_by_sample,
)
from transformers_videorefer.regions.errors import located
from transformers_videorefer.video.options import VIDEO_OPTIONS


_PAYLOAD_KEYS = {"video": ("video", "url", "path"), "image": ("image", "url", "path", "base64")}

# Qwen2's ChatML with its default system turn. The supervised span of a turn is the answer, its end token and the
# newline behind it, as in the published training.
CHAT_TEMPLATE = (
    "{%- macro render(content) -%}"
    "{%- if content is string -%}{{ content }}"
    "{%- else -%}{%- for part in content -%}"
    "{%- if part['type'] == 'text' -%}{{ part['text'] }}"
    "{%- elif part['type'] == 'video' -%}{{ '<video>\\n' }}"
    "{%- elif part['type'] == 'image' -%}{{ '<image>\\n' }}"
    "{%- elif part['type'] == 'region' -%}{{ '<region>' }}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{ render(message['content']) + '<|im_end|>\\n' }}{%- endgeneration -%}"
    "{%- else -%}{{ render(message['content']) + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


@dataclass(frozen=True)
class _Mark:
    """One mark of a conversation; `payload` is `None` when it takes its own from the lists of the call."""

    kind: str
    payload: Any
    options: dict[str, Any]


def collect_media(
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    *,
    videos: Any = None,
    images: Any = None,
    regions: Any = None,
    is_batch: bool = True,
    allow_marks_in_text: bool = False,
) -> list[SampleMedia]:
    """Collect videos, images and regions of conversations, over all their turns.

    Args:
        conversations (`Sequence[Sequence[Mapping]]`): For each sample its messages with `role` and `content`, a string
            with marks or a list of parts.
        videos (`Any`, *optional*): Videos for marks and parts that bring none, in order, as in `group_by_sample`.
        images (`Any`, *optional*): Images, likewise.
        regions (`Any`, *optional*): Regions, likewise.
        is_batch (`bool`, *optional*, defaults to `True`): Whether the caller passed a list of conversations.
        allow_marks_in_text (`bool`, *optional*, defaults to `False`): Whether texts may spell marks, because those
            will be encoded as plain text.

    Returns:
        `list[SampleMedia]`: Media and regions of each sample.

    Raises:
        ValueError: If a payload is missing or left over, a part is malformed, or a text part spells a mark.
        TypeError: If something in the lists is no item of its kind.
    """
    found = check_conversations(conversations, allow_marks_in_text=allow_marks_in_text)
    supplies = {}
    for kind, values in (("video", videos), ("image", images), ("region", regions)):
        num_open = [sum(mark.kind == kind and mark.payload is None for mark in marks) for marks in found]
        name = "mark(s) that bring none themselves"
        supplies[kind] = group_by_sample(values, num_open, kind=kind, is_batch=is_batch, marks=name)
    return [
        _fill(marks, {kind: iter(groups[sample]) for kind, groups in supplies.items()})
        for sample, marks in enumerate(found)
    ]


def check_conversations(
    conversations: Sequence[Sequence[Mapping[str, Any]]], *, allow_marks_in_text: bool = False
) -> list[list[_Mark]]:
    """Check the form of conversations and list their marks.

    Args:
        conversations (`Sequence[Sequence[Mapping]]`): As in `collect_media`.
        allow_marks_in_text (`bool`, *optional*, defaults to `False`): As in `collect_media`.

    Returns:
        `list[list]`: The marks of each sample in order.

    Raises:
        ValueError: If a message or part is malformed, a text part spells a mark, or a region stands outside a user
            turn.
    """
    found: list[list[_Mark]] = [[] for _ in conversations]
    for sample, messages in enumerate(conversations):
        for turn, message in enumerate(messages):
            with located(sample=sample, message=turn):
                found[sample] += _marks_of_message(message, allow_marks_in_text)
    return found


def _marks_of_message(message: Mapping[str, Any], allow_marks_in_text: bool) -> list[_Mark]:
    """List the marks of one message and check its parts."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f'a message is {{"role": "user", "content": ...}}, got {message!r:.80}.')
    content = message.get("content")
    if content is None or isinstance(content, str):
        found = [] if allow_marks_in_text else find_marks(content or "")
        marks = [_Mark(match.lastgroup, None, {}) for match in found]
    elif isinstance(content, (Sequence, np.ndarray)):
        marks = [_read_part(part) for part in content if not _is_text(part, allow_marks=allow_marks_in_text)]
    else:
        raise ValueError(f"`content` must be a string or a list of parts, got {type(content).__name__}.")
    if message["role"] != "user" and any(mark.kind == "region" for mark in marks):
        raise ValueError(
            f"a region in a {message['role']!r} turn. Regions belong into user turns; an answer can only "
            "speak of them."
        )
    return marks


def _is_text(part: Any, *, allow_marks: bool) -> bool:
    """Whether a part is text; check that it is well-formed on the way."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in MARKS:
        return False
    if kind != "text":
        raise ValueError(f'unknown part {part!r:.80}. Use {{"type": ...}} with "text", "video", "image" or "region".')
    if not isinstance(part.get("text"), str):
        raise ValueError(f'a text part needs a string under "text", got {part.get("text")!r:.80}.')
    spelled = None if allow_marks else MARKS_PATTERN.search(part["text"])
    if spelled:
        raise ValueError(
            f'a text part spells the mark `{spelled.group()}`. Use a part {{"type": "{spelled.lastgroup}", '
            "...}, or one string with marks as the whole content."
        )
    return True


def _read_part(part: Mapping[str, Any]) -> _Mark:
    """Take apart a video, image or region part. Keys whose value is `None` count as absent."""
    kind = part["type"]
    given = {key: value for key, value in part.items() if key != "type" and value is not None}
    if kind == "region":
        return _Mark(kind, given or None, {})
    payload_keys, option_keys = _PAYLOAD_KEYS[kind], VIDEO_OPTIONS if kind == "video" else ()
    unknown = sorted(set(given) - {*payload_keys, *option_keys}, key=str)
    if unknown:
        raise ValueError(
            f"unknown key(s) {', '.join(f'`{key}`' for key in unknown)} in a `{kind}` part. It takes "
            f"{', '.join(f'`{key}`' for key in (*payload_keys, *option_keys))}."
        )
    payloads = [given[key] for key in payload_keys if key in given]
    if len(payloads) > 1:
        raise ValueError(f"a `{kind}` part has several sources ({', '.join(payload_keys)}). Keep one.")
    options = {key: given[key] for key in option_keys if key in given}
    for key, value in options.items():
        if not isinstance(value, (str, int, float, np.generic)):
            raise ValueError(f"`{key}` of a `{kind}` part must be one value, got {value!r:.80}.")
    return _Mark(kind, payloads[0] if payloads else None, options)


def _fill(marks: Sequence[_Mark], supplies: Mapping[str, Any]) -> SampleMedia:
    """Give every mark its payload."""
    items: dict[str, list[Any]] = {kind: [] for kind in MARKS}
    for mark in marks:
        payload = next(supplies[mark.kind]) if mark.payload is None else mark.payload
        items[mark.kind].append(VideoItem(payload, mark.options) if mark.kind == "video" else payload)
    return SampleMedia(
        kinds=tuple(mark.kind for mark in marks if mark.kind != "region"),
        videos=tuple(items["video"]),
        images=tuple(items["image"]),
        regions=tuple(items["region"]),
    )


def without_payloads(message: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce media and region parts to what a template can show: their type, and values that are text or numbers.

    Args:
        message (`Mapping[str, Any]`): One message; it is not changed.

    Returns:
        `dict[str, Any]`: The message for the template; in place of other values stand the names of their types.
    """
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        content = [_shown(part) if part["type"] in MARKS else part for part in content]
    return {**message, "content": "" if content is None else content}


def _shown(part: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the values of a part that are no text, number or `None` by the names of their types."""
    return {
        key: value if value is None or isinstance(value, (str, int, float)) else f"<{type(value).__name__}>"
        for key, value in part.items()
    }


__all__ = ["CHAT_TEMPLATE", "check_conversations", "collect_media", "without_payloads"]
