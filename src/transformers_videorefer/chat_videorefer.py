"""`apply_chat_template`: conversations with media and region parts in, model inputs out."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging

from .conversation_videorefer import check_conversations, collect_media, without_payloads
from .processor_options_videorefer import LIBRARY_KEYWORDS, check_near_misses


logger = logging.get_logger(__name__)

# Arguments of the library.
_CHAT_ARGUMENTS = frozenset(inspect.signature(ProcessorMixin.apply_chat_template).parameters) - {"self", "kwargs"}


class VideoReferChatMixin:
    """The `apply_chat_template` of [`VideoReferProcessor`]."""

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        videos: Any = None,
        images: Any = None,
        regions: Any = None,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render a conversation and, with `tokenize=True`, make model inputs.

        Args:
            conversation (`list`): Messages, or a list of such lists. The content of a message is a string with marks, or
                a list of parts `{"type": "text" | "video" | "image" | "region", ...}`.
            chat_template (`str`, *optional*): Template to use in place of the processor's.
            videos (`Any`, *optional*): Videos for marks and parts that bring none, in order over the whole
                conversation; one list per conversation for a batch.
            images (`Any`, *optional*): Images, likewise.
            regions (`Any`, *optional*): Regions, likewise.
            processor_kwargs (`dict`, *optional*): Keywords of [`__call__`]; they may also be given directly.
            kwargs: Keywords of the library (`add_generation_prompt`, `tokenize`, `return_dict`, `return_tensors`,
                `return_assistant_tokens_mask`, ...), of the template, and of [`__call__`].

        Returns:
            `str`, `list[str]`, ids or `BatchFeature`, as in `ProcessorMixin.apply_chat_template`.

        Raises:
            ValueError: If a payload is missing or left over, a part is malformed, or a text part spells a mark.
            TypeError: If a keyword is misspelt, or something is of a wrong kind.
        """
        processor_kwargs = dict(processor_kwargs or {})
        lists = {"videos": videos, "images": images, "regions": regions}
        for name in lists:
            nested = processor_kwargs.pop(name, None)
            if nested is not None and lists[name] is not None:
                raise ValueError(f"`{name}` is given directly and in `processor_kwargs`. Pass it once.")
            lists[name] = nested if lists[name] is None else lists[name]
        # A variable of a template is a word of it; the library looks closer at what it is handed.
        words = set(re.findall(r"\w+", f"{chat_template} {self.chat_template}"))
        of_call = {*LIBRARY_KEYWORDS, *inspect.signature(type(self).__call__).parameters}
        kwargs, processor_kwargs = _sort_keywords(kwargs, processor_kwargs, words, of_call)
        kwargs.pop("load_audio_from_video", None)  # servers ask every model that takes videos for it

        conversations, is_batch = self._normalize_conversations(_check_is_list(conversation))
        allow_marks_in_text = bool(kwargs.get("sanitize_control_tokens"))
        if kwargs.get("tokenize"):
            processor_kwargs["media"] = collect_media(
                conversations, **lists, is_batch=is_batch, allow_marks_in_text=allow_marks_in_text
            )
            # Left alone, the library would sample whenever `fps` is given, which only says how fast a folder is.
            processor_kwargs.setdefault("do_sample_frames", None)
        else:
            check_conversations(conversations, allow_marks_in_text=allow_marks_in_text)
        conversations = [[without_payloads(message) for message in messages] for messages in conversations]
        return super().apply_chat_template(
            conversations if is_batch else conversations[0],
            chat_template=chat_template,
            processor_kwargs=processor_kwargs,
            **kwargs,
        )

    def _multimodal_inputs_from_conversations(self, *args: Any, **kwargs: Any) -> tuple[list, list, list, dict]:
        # Media were collected before, with the regions; the library would open them a second time.
        return [], [], [], {}


def _sort_keywords(
    kwargs: dict[str, Any],
    processor_kwargs: dict[str, Any],
    template_words: set[str],
    call_keywords: set[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the keywords of `apply_chat_template` into those of the library and template, and those of `__call__`.

    The library takes the latter only in `processor_kwargs`, and warns about others.
    """
    of_library = {name: value for name, value in kwargs.items() if name in _CHAT_ARGUMENTS | template_words}
    of_call = {name: value for name, value in kwargs.items() if name not in of_library and name in call_keywords}
    unused = sorted(set(kwargs) - set(of_library) - set(of_call))
    check_near_misses(unused, _CHAT_ARGUMENTS | call_keywords, "`apply_chat_template`")
    if unused:
        logger.warning_once(f"The chat template has no use for {', '.join(f'`{name}`' for name in unused)}.")
    twice = sorted(set(of_call) & set(processor_kwargs))
    if twice:
        raise ValueError(f"`{twice[0]}` is given directly and in `processor_kwargs`. Pass it once.")
    if "return_tensors" in processor_kwargs:
        of_library.setdefault("return_tensors", processor_kwargs.pop("return_tensors"))
    return of_library, {**processor_kwargs, **of_call}


def _check_is_list(conversation: Any) -> list[Any]:
    """Refuse what the library would fail on in ways that are hard to read."""
    is_list = isinstance(conversation, Iterable) and not isinstance(conversation, (str, Mapping))
    conversation = list(conversation) if is_list else conversation
    if not is_list or any(isinstance(entry, str) for entry in conversation):
        raise TypeError(
            f"`conversation` must be a list of messages, got {conversation!r:.80}. Write "
            '`[{"role": "user", "content": ...}]`.'
        )
    if not conversation:
        raise ValueError("`conversation` is empty. Pass at least one message.")
    return conversation


__all__ = ["VideoReferChatMixin"]
