"""What a user sees on stderr while waiting; stdout belongs to answers alone."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging


SLOW_AFTER_SECONDS = 1.0


@contextmanager
def report_when_slow(step: str) -> Iterator[None]:
    """Write a line to stderr when a step takes longer than a second.

    Args:
        step (`str`): What is being done, for example "reading dog.mp4".
    """
    timer = threading.Timer(SLOW_AFTER_SECONDS, report, args=(f"{step} ...",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def report(line: str) -> None:
    """Write one line to stderr.

    Args:
        line (`str`): The line, without its end.
    """
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def quiet_libraries(debug: bool) -> None:
    """Keep notes and, where nobody watches, progress bars of the libraries off stderr.

    Args:
        debug (`bool`): Leave everything as it is.
    """
    if debug:
        return
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()


class TokenProgress:
    """Counts generated tokens in a progress bar that appears after a second; used as a streamer of `generate`.

    Args:
        max_new_tokens (`int`): Length of the bar.
    """

    def __init__(self, max_new_tokens: int):
        # `disable=None` draws the bar on terminals only.
        self._bar = tqdm(
            total=max_new_tokens, desc="answering", unit="token", delay=SLOW_AFTER_SECONDS, leave=False, disable=None
        )
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Take the ids of the prompt, then those of each step.

        Args:
            value (`torch.Tensor`): Ids.
        """
        if self._prompt_seen:
            self._bar.update(value.numel())
        self._prompt_seen = True

    def end(self) -> None:
        """Remove the bar."""
        self._bar.close()


def progress_bar(total: int, *, task: str, unit: str) -> tqdm:
    """Make a progress bar on stderr that appears after a second, on terminals only.

    Args:
        total (`int`): What the bar counts to.
        task (`str`): What is being done, for example "checking".
        unit (`str`): What is counted; "B" for bytes.

    Returns:
        `tqdm`: The bar, to be used as a context manager.
    """
    return tqdm(
        total=total,
        desc=task,
        unit=unit,
        unit_scale=unit == "B",
        delay=SLOW_AFTER_SECONDS,
        leave=False,
        disable=None,  # draws the bar on terminals only
    )
