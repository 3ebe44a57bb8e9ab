"""The place of an error: which sample, region and frame it is about, as fields and in front of its message.

What finds something wrong raises a plain error and need not know where it is. Whoever goes through samples, regions or
frames says so once, with [`located`].
"""

from types import TracebackType
from typing import Any


class MediaError(ValueError):
    """Something is wrong with a video, an image or a region, and this is where.

    Its siblings are errors of other kinds as well: of a TypeError, an OSError or a FileNotFoundError.

    Args:
        text (`str`): What is wrong and what to do.
        is_named (`bool`, *optional*, defaults to `False`): The text says itself which sample or file it is about.
        place: Any of the attributes below.

    Attributes:
        origin (`str`, *optional*): Name of the sample, such as "Row 'a'", which is written in the place of `sample`.
        sample (`int`, *optional*): Position in the batch.
        message, video, image, region (`int`, *optional*): Position among those of the sample.
        entry (`str`, *optional*): Entry of the region, such as "frames[2]".
        frame (`int`, *optional*): Frame number.
        argument (`str`, *optional*): Key whose value is wrong; the text names it.
    """

    origin: str | None = None
    sample: int | None = None
    # Rows of the batch that `sample` counts in, where the row at fault was searched for.
    num_rows: int | None = None
    message: int | None = None
    video: int | None = None
    image: int | None = None
    region: int | None = None
    entry: str | None = None
    frame: int | None = None
    argument: str | None = None

    def __init__(self, text: str, *, is_named: bool = False, **place: Any) -> None:
        super().__init__(text)
        self.text, self.is_named = text, is_named
        self.__dict__.update(place)  # which is pickled with an error

    def __str__(self) -> str:
        is_counted = self.origin is None and self.sample is not None and not self.is_named
        return self._spell(f"sample {self.sample}" if is_counted else self.origin)

    @property
    def reason(self) -> str:
        """`str`: The message without what names the sample."""
        return self._spell(None)

    def _spell(self, sample: str | None) -> str:
        """Write the place before the text."""
        words = [] if sample is None else [sample]
        if not self.is_named:
            named = [(name, getattr(self, name)) for name in ("message", "video", "image", "region", "frame")]
            spelled = {name: f"{name} {position}" for name, position in named if position is not None}
            if self.entry is not None:
                at = spelled.pop("frame", None)
                spelled["entry"] = self.entry if at is None else f"{self.entry} ({at})"
            words += spelled.values()
        return f"{', '.join(words)}: {self.text}" if words else self.text


class MediaTypeError(MediaError, TypeError):
    """A [`MediaError`] about a value of a wrong kind."""


class MediaFileError(MediaError, OSError):
    """A [`MediaError`] about a file that cannot be read."""


class MediaNotFoundError(MediaFileError, FileNotFoundError):
    """A [`MediaError`] about a file that does not exist."""


# The most special kind first.
_SIBLINGS = {
    FileNotFoundError: MediaNotFoundError,
    OSError: MediaFileError,
    TypeError: MediaTypeError,
    ValueError: MediaError,
}


def place_error(error: Exception, *, is_named: bool = False, **place: Any) -> MediaError | None:
    """Write a place into an error.

    Args:
        error (`Exception`): The error; a [`MediaError`] is changed itself.
        is_named (`bool`, *optional*, defaults to `False`): Whether the text of a plain error names its place.
        place: Attributes of [`MediaError`].

    Returns:
        [`MediaError`], *optional*: The same error, or the sibling of a plain one; `None` for errors of other kinds.
    """
    if isinstance(error, MediaError):
        error.__dict__.update(place)
        return error
    sibling = next((sibling for kind, sibling in _SIBLINGS.items() if isinstance(error, kind)), None)
    if sibling is None:
        return None
    fields = {"text": str(error), "is_named": is_named}
    if hasattr(error, "is_named"):  # raised by a copy of this file that came with a checkpoint
        fields = vars(error)
    placed = sibling(**{**fields, **place}).with_traceback(error.__traceback__)
    # It takes the place of a plain error; of others it names the cause.
    placed.__cause__ = error.__cause__ if type(error) in _SIBLINGS else error
    return placed


class located:  # used like a function, as `contextlib.suppress`
    """Context manager that says where errors of its block come from.

    Plain errors become a [`MediaError`] of their kind. In a `MediaError` the fields are filled in that it lacks; one that
    knows its sample is complete.

    Args:
        is_named (`bool`, *optional*, defaults to `False`): Whether the texts of plain errors name the place, as those
            about files do.
        place: Attributes of [`MediaError`]. `with` gives them as a dict, for long loops: `place["frame"] = index`.
    """

    __slots__ = ("_is_named", "_place")

    def __init__(self, *, is_named: bool = False, **place: Any) -> None:
        self._is_named, self._place = is_named, place

    def __enter__(self) -> dict[str, Any]:
        return self._place

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, MediaError):
            lacking = {name: value for name, value in self._place.items() if getattr(error, name) is None}
            if error.sample is None:
                place_error(error, **lacking)
        elif isinstance(error, Exception):
            placed = place_error(error, is_named=self._is_named, **self._place)
            if placed is not None:
                raise placed from placed.__cause__


__all__ = ["MediaError", "MediaFileError", "MediaNotFoundError", "MediaTypeError", "located", "place_error"]
