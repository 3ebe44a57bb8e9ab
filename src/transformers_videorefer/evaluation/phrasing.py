"""Words in the place of `<region>` marks, for models that have no tokens for regions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


_NAME_BEFORE = re.compile(r"<object\d*>\s*$")  # the name by which the rest of a question speaks of the object
_NOUN_BEFORE = re.compile(r"\bobject\s*$", re.IGNORECASE)
_START_OF_SENTENCE = re.compile(r"(^|[.!?]\s+|\n)$")


def write_text(content: Sequence[Mapping[str, Any]], outlines: Sequence[str | None]) -> str:
    """Write the content of a message as plain text, with words in the place of regions.

    `[<region>]` becomes "the object outlined in red", "the highlighted object [<region>]" becomes "the highlighted
    object outlined in red", and `<object0> [<region>]` becomes "<object0> (the object outlined in red)". Without an
    outline the words are "the object", "the highlighted object" and "<object0>".

    Args:
        content (`Sequence[Mapping]`): Parts of a message as [`~data.to_chat`] returns them.
        outlines (`Sequence[str]`): For each region part what tells it, for example "outlined in red", or None.

    Returns:
        `str`: The text; media are left out.
    """
    outline_of_region = iter(outlines)
    written, in_brackets = "", False
    for part in content:
        if part["type"] == "text":
            text = part["text"]
            written += text.removeprefix("]") if in_brackets else text
            in_brackets = False
        elif part["type"] == "region":
            in_brackets = written.endswith("[")
            written = _name_region(written.removesuffix("["), next(outline_of_region))
    return written


def _name_region(before: str, outline: str | None) -> str:
    """Append the words for a region to the text before it."""
    if _NAME_BEFORE.search(before):
        return before.rstrip() + (f" (the object {outline})" if outline else "")
    if _NOUN_BEFORE.search(before):
        return before.rstrip() + (f" {outline}" if outline else "")
    article = "The" if _START_OF_SENTENCE.search(before) else "the"
    return f"{before}{article} object" + (f" {outline}" if outline else "")
