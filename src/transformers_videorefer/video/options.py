"""What a call says about its videos: options with one value per video, descriptions, and lengths that fit a batch."""

from collections.abc import Sequence
from typing import Any

from transformers_videorefer.video.reader import VideoReader


# Options that take one value, or one per video.
VIDEO_OPTIONS = ("edit_list", "start_seconds", "end_seconds", "fps")
EDIT_LISTS = ("apply", "ignore")


def check_edit_list(edit_list: Any) -> None:
    """Refuse a value of `edit_list` that is not offered."""
    if edit_list not in EDIT_LISTS:
        raise ValueError(f"`edit_list` is {edit_list!r:.80}. Pass one of {', '.join(map(repr, EDIT_LISTS))}.")


def describe_video(reader: VideoReader, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe an open video, with what the caller knows about frames that were taken from a longer one.

    Args:
        reader (`VideoReader`): The open video.
        known (`dict`, *optional*): `VideoMetadata` fields. `frames_indices` tells, for each frame of the reader, its
            number in the source video; `total_num_frames` and `fps` are then those of the source.

    Returns:
        `dict`: The fields of a `VideoMetadata`; `frames_indices` is `None` when the reader's frames are the source's.

    Raises:
        ValueError: If `frames_indices` does not name one frame of the source for each frame of the reader.
    """
    known = {name: value for name, value in (known or {}).items() if value is not None}
    numbers = known.get("frames_indices")
    total = reader.num_frames
    if numbers is not None:
        if len(numbers) != reader.num_frames:
            raise ValueError(
                f"`video_metadata` names {len(numbers)} `frames_indices` for {reader.name}, which has "
                f"{reader.num_frames} frames. Pass the number in the source video for each frame."
            )
        total = max(known.get("total_num_frames", 0), max(map(int, numbers)) + 1)
    return {
        "total_num_frames": total,
        "fps": known.get("fps", reader.fps) if numbers is not None else reader.fps,
        "duration": known.get("duration", reader.duration_seconds),
        "video_backend": reader.backend,
        "frames_indices": None if numbers is None else [int(number) for number in numbers],
    }


def spread_option(name: str, value: Any, num_videos: int) -> list[Any]:
    """Give every video its value of an option that takes one value, or a list or tuple with one per video."""
    if not isinstance(value, (list, tuple)):
        return [value] * num_videos
    if len(value) != num_videos:
        raise ValueError(
            f"`{name}` has {len(value)} values for {num_videos} videos. Pass one value, or one per video."
        )
    return list(value)


def flatten_metadata(metadata: Any) -> list[Any] | None:
    """Bring `video_metadata` (one description, a list of them, or one list per sample) into one entry per video."""
    if metadata is None:
        return None
    entries = metadata if isinstance(metadata, (list, tuple)) else [metadata]
    return [item for entry in entries for item in (entry if isinstance(entry, (list, tuple)) else [entry])]


def check_scene_lengths(lengths: Sequence[int], least: int = 1) -> None:
    """Refuse videos whose numbers of scene frames differ or are too small; only those taken as they are can be so."""
    if len(set(lengths)) > 1:
        raise ValueError(
            f"Videos of {', '.join(map(str, lengths))} frames cannot share a batch with `do_sample_frames=False`. "
            "Pass the same number of frames for each, or let the processor sample."
        )
    if lengths and lengths[0] < least:
        raise ValueError(
            f"With `do_sample_frames=False` a video needs at least {least} frames, got {lengths[0]}. Let the processor "
            "sample, or pass a single picture as an image."
        )


__all__ = [
    "EDIT_LISTS",
    "VIDEO_OPTIONS",
    "check_edit_list",
    "check_scene_lengths",
    "describe_video",
    "flatten_metadata",
    "spread_option",
]
