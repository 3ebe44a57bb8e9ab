"""Keywords of the processor: which there are, which may change from call to call, and what misspelt ones were meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs, TextKwargs, VideosKwargs

from transformers_videorefer.video.options import VIDEO_OPTIONS


class VideoReferVideoProcessorKwargs(VideosKwargs, total=False):
    """Keyword arguments of the video processor besides the usual ones.

    Attributes:
        fps (`float` or `list[float]`, *optional*): Frames per second of folders, lists and arrays (one value or one
            per video). Files carry their own times.
        edit_list (`str` or `list[str]`, *optional*): `"apply"` or `"ignore"` the edit list of MP4 files.
        start_seconds (`float` or `list[float]`, *optional*): Start of the part that is sampled.
        end_seconds (`float` or `list[float]`, *optional*): End of the part that is sampled.
        resize_backend (`str`, *optional*): `"pil"` (the published pixels) or `"torch"` (faster, 1 to 2 levels off).
    """

    fps: float | int | list | tuple | None
    edit_list: str | list | tuple | None
    start_seconds: float | int | list | tuple | None
    end_seconds: float | int | list | tuple | None
    resize_backend: str | None


class VideoReferProcessorKwargs(ProcessingKwargs, total=False):
    """Keywords of [`VideoReferProcessor`]."""

    videos_kwargs: VideoReferVideoProcessorKwargs


# Keywords of the library that a call takes beside the named arguments.
LIBRARY_KEYWORDS = frozenset(
    {
        *TextKwargs.__annotations__,
        *ImagesKwargs.__annotations__,
        *VideoReferVideoProcessorKwargs.__annotations__,
        *VideoReferProcessorKwargs.__annotations__,
        "common_kwargs",
        "audio",  # which the library hands over as None
    }
)
# Settings of the two sub-processors that may change from call to call; the others belong to the checkpoint.
_CALL_SETTINGS = {
    "videos_kwargs": {
        "num_frames",
        "do_sample_frames",
        "video_metadata",
        "return_metadata",
        "return_tensors",
        "resize_backend",
        *VIDEO_OPTIONS,
    },
    "images_kwargs": {"return_tensors"},
}


def check_keywords(names: Iterable[str], known: Iterable[str], function: str) -> None:
    """Refuse unknown keywords of a function, which the library would drop with a warning."""
    known = sorted(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else "Leave it out."
            raise TypeError(f"{function} has no argument `{name}`. {hint}")


def check_near_misses(names: Iterable[str], known: Iterable[str], function: str) -> None:
    """Refuse unknown keywords that are nearly known ones; others are variables for other templates."""
    known = sorted(known)
    misspelt = [name for name in names if difflib.get_close_matches(name, known, n=1, cutoff=0.8)]
    check_keywords(misspelt, known, function)


def check_call_settings(merged: Mapping[str, Mapping[str, Any]], *, has_videos: bool, has_images: bool) -> None:
    """Refuse settings of the sub-processors that would not fit the vision tower, or would be ignored."""
    for group, has_any in (("videos_kwargs", has_videos), ("images_kwargs", has_images)):
        given = {name for name, value in merged[group].items() if value is not None}
        refused = sorted(given - _CALL_SETTINGS[group])
        if refused and has_any:
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in refused)} cannot change from call to call: the vision tower "
                "expects one size and scale, and tensors are moved with `.to(device)`. Set it on "
                "`processor.video_processor` and `processor.image_processor`, or leave it out."
            )


def as_python(value: Any) -> Any:
    """Turn a numpy scalar into the Python number that the library's checks accept."""
    return value.item() if isinstance(value, np.generic) else value


__all__ = [
    "LIBRARY_KEYWORDS",
    "VideoReferProcessorKwargs",
    "VideoReferVideoProcessorKwargs",
    "as_python",
    "check_call_settings",
    "check_keywords",
    "check_near_misses",
]
