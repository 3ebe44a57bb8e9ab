"""What differs between the supported releases of transformers, found out from the installed one."""

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from transformers import __version__
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import logging
from transformers.utils.deprecation import deprecate_kwarg


# One name for all copies of this file that the library makes of a repository: it warns once per logger and message.
logger = logging.get_logger("transformers_videorefer")

# Keyword and output field of the keys and values of earlier tokens: `past_key_values` up to transformers 5.23.
CACHE_NAME = next(
    name for name in ("cache", "past_key_values") if name in {field.name for field in fields(BaseModelOutputWithPast)}
)


def accept_old_cache_name(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a forward take `past_key_values` with the warning that the library's own models give, where it was renamed."""
    if CACHE_NAME == "past_key_values":
        return forward
    # The release in which the library's own models drop the old name.
    return deprecate_kwarg("past_key_values", "5.40.0", new_name=CACHE_NAME)(forward)


def warn_outside(tested: str | None) -> None:
    """Warn, once in a process, if the installed transformers lies outside the tested range, such as `">=5.23,<5.25"`."""
    if not tested:
        return
    bounds = re.fullmatch(r">=(\d{1,4}(?:\.\d{1,4})*),<(\d{1,4}(?:\.\d{1,4})*)", tested)
    if bounds is None:
        # What a repository says is not written to a terminal as it is.
        logger.warning_once(
            f"`tested_transformers` of the configuration is {tested[:40]!r}, not a range such as '>=1.2,<1.4'."
        )
        return
    release = _release(__version__)
    # A pre-release of the upper end has its release number, and lies outside too.
    if not _release(bounds[1]) <= release < _release(bounds[2]):
        logger.warning_once(
            f"This VideoRefer code was tested with transformers {tested}, but transformers {__version__} is "
            "installed. If it fails, install a tested release, or update transformers-videorefer and run "
            "`videorefer convert OLD NEW` on a saved repository."
        )


def _release(version: str) -> tuple[int, ...]:
    """Read the numbers of a version up to its first part that is none; zeros at the end do not count."""
    numbers = [int(part) for part in re.match(r"(?:\d+\.?)*", version).group().strip(".").split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


__all__ = ["CACHE_NAME", "accept_old_cache_name", "warn_outside"]
