"""Regions on their way to the model: which frames of an object are used, and their masks on the patch grid.

`parse_region` checks the form of a region, `select_frames` picks the frames to use before any mask is decoded,
`decode_mask` makes the mask of one frame in pixels, and `grid_mask` brings it to the patch grid; `frame_to_grid` does
the last two.
"""

from collections.abc import Callable

import numpy as np

from transformers_videorefer.regions.errors import MediaError, located
from transformers_videorefer.regions.form import Region, RegionFrame
from transformers_videorefer.regions.grid import decode_mask, grid_mask
from transformers_videorefer.video.sampling import uniform_indices


EMPTY_MASKS = ("error", "drop", "keep")
# Times in seconds are rounded on their way through JSON and division; frames lie milliseconds apart.
TIME_SLACK = 1e-6
_EMPTY_MESSAGE = (
    'the mask is empty. Leave the frame out, check the mask, or pass `empty_masks="drop"` (leaves such frames out) or '
    '"keep" (the published behaviour: an empty mask counts as a frame).'
)


def check_empty_masks(empty_masks: str) -> None:
    """Refuse a value of `empty_masks` that is not offered.

    Args:
        empty_masks (`str`): What was given.

    Raises:
        ValueError: If it is none of `EMPTY_MASKS`.
    """
    if empty_masks not in EMPTY_MASKS:
        raise ValueError(f'`empty_masks` must be "error", "drop" or "keep", got {empty_masks!r}.')


def num_tokens(num_frames: int, num_region_tokens: int) -> int:
    """Count the tokens that a region gives.

    Args:
        num_frames (`int`): Frames of the region.
        num_region_tokens (`int`): Most tokens a region may give (u in the paper).

    Returns:
        `int`: The smaller of the two.
    """
    return min(num_frames, num_region_tokens)


def select_frames(
    region: Region,
    *,
    num_frames: int,
    frame_times: Callable[[], np.ndarray],
    max_frames: int | None,
    empty_masks: str,
    is_image: bool = False,
) -> list[tuple[int, RegionFrame]]:
    """Pick the frames of a region that are used, in the order given, before any mask is decoded.

    The visible frames are cut into `max_frames` equal parts and the midpoint of each part is taken. Mask pictures are
    opened only where there are more than `max_frames` of them and the empty ones have to be left out. Frames that
    turn out to be empty when they are drawn are treated in `frame_to_grid`.

    Args:
        region (`Region`): What `parse_region` returned.
        num_frames (`int`): Number of frames of the video, 1 for an image.
        frame_times (`Callable`): Returns the presentation times of all frames in seconds, counted from the first;
            called only where a frame is given by `time_seconds`.
        max_frames (`int`, *optional*): Most frames to use; None keeps all.
        empty_masks (`str`): "error", "drop" or "keep": what an empty mask in `frames` does. Empty entries of `masks`
            mean "not visible" and are left out unless "keep".
        is_image (`bool`, *optional*, defaults to `False`): The region lies on a still image, which has no times.

    Returns:
        `list[tuple[int, RegionFrame]]`: Position in the video and entry of each frame that is used.

    Raises:
        ValueError: If a frame lies outside the video, the number of masks does not fit it, a mask is empty and must
            not be, no mask is left, or an option has an unknown value.
    """
    check_empty_masks(empty_masks)
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"`num_region_frames` is {max_frames}. Pass 1 or more, or None to keep all frames.")
    if region.positional and len(region.frames) != num_frames:
        raise ValueError(
            f"`masks` has {len(region.frames)} masks but the {'image' if is_image else 'video'} has "
            f"{num_frames} frame{'s' if num_frames != 1 else ''}. Pass `frame_indices` that say which frames they are."
        )
    indices = _resolve_indices(region, num_frames, frame_times, is_image)
    numbered = list(zip(indices, region.frames, strict=True))
    visible = _visible_frames(region, numbered, max_frames, empty_masks)
    if not visible:
        raise ValueError(no_mask_left_message(len(numbered)))
    if max_frames is None or len(visible) <= max_frames:
        return visible
    return [visible[position] for position in uniform_indices(len(visible), max_frames)]


def no_mask_left_message(num_given: int) -> str:
    """Word the error for a region of which every mask is empty.

    Args:
        num_given (`int`): Number of masks that were given.

    Returns:
        `str`: What is wrong and what to do.
    """
    return (
        f"no mask is left, all {num_given} given are empty. Pass a frame in which the object is visible, or "
        '`empty_masks="keep"` (the published behaviour).'
    )


def _visible_frames(
    region: Region, numbered: list[tuple[int, RegionFrame]], max_frames: int | None, empty_masks: str
) -> list[tuple[int, RegionFrame]]:
    """Leave empty masks out, keep them, or raise, as `empty_masks` says."""
    if empty_masks == "keep":
        return numbered
    is_strict = empty_masks == "error" and not region.from_masklet
    judged = []
    with located() as place:
        for index, frame in numbered:
            place["frame"] = index
            is_empty = frame.is_empty()
            if is_empty and is_strict:
                raise ValueError(_EMPTY_MESSAGE)
            if not is_empty:
                judged.append((index, frame, is_empty))
    if is_strict or max_frames is None or len(judged) <= max_frames:
        return [(index, frame) for index, frame, _ in judged]
    # Which frames are the midpoints depends on which are visible, so pictures must be looked at now.
    visible = []
    with located() as place:
        for index, frame, is_empty in judged:
            place["frame"] = index
            if is_empty is False or not frame.picture_is_empty():
                visible.append((index, frame))
    return visible


def _resolve_indices(
    region: Region, num_frames: int, frame_times: Callable[[], np.ndarray], is_image: bool
) -> list[int]:
    """Turn the frames of a region into positions within the video."""
    times = None
    if any(frame.time_seconds is not None for frame in region.frames):
        if is_image:
            raise ValueError("`time_seconds` is given, but an image has no times. Leave it out.")
        times = np.asarray(frame_times(), dtype=np.float64)
    indices = []
    for position, frame in enumerate(region.frames):
        index = frame.frame_index or 0
        if frame.time_seconds is not None:
            with located(entry=f"frames[{position}]"):
                index = _index_at(frame.time_seconds, times)
        elif frame.frame_index is None and num_frames > 1:
            raise MediaError(
                f"the video has {num_frames} frames, but neither `frame_index` nor `time_seconds` says which one is "
                "meant. Pass one of them.",
                entry=f"frames[{position}]",
            )
        elif index >= num_frames:
            kind = "an image, whose only frame is 0"
            if not is_image:
                kind = f"a video of {num_frames} frames (0 to {num_frames - 1})"
            raise MediaError(
                f"the frame lies outside, the region belongs to {kind}. Frames are counted from 0 in the source video.",
                frame=index,
            )
        indices.append(index)
    return indices


def _index_at(time_seconds: float, times: np.ndarray) -> int:
    """Find the last frame that is shown at or before a time."""
    # The last frame stays on screen as long as the one before it; a lone frame for an unknown time, at most a second.
    end = times[-1] + (times[-1] - times[-2] if len(times) > 1 else 1.0)
    if time_seconds < 0 or time_seconds > end + TIME_SLACK:
        raise ValueError(
            f"`time_seconds` {time_seconds:g} lies outside the video, which shows frames from 0 to {end:g} "
            "seconds. Times are counted from the first frame shown."
        )
    return int(np.searchsorted(times, time_seconds + TIME_SLACK, side="right")) - 1


def frame_to_grid(
    region: Region,
    entry: RegionFrame,
    *,
    height: int,
    width: int,
    grid: tuple[int, int],
    empty_masks: str,
) -> np.ndarray | None:
    """Decode the mask of one selected frame and bring it to the patch grid.

    Args:
        region (`Region`): The region that the frame belongs to.
        entry (`RegionFrame`): One of the frames that `select_frames` returned.
        height (`int`): Height of the video frame in pixels, as decoded, after rotation.
        width (`int`): Width of the video frame in pixels.
        grid (`tuple[int, int]`): Rows and columns of the patch grid of the frame.
        empty_masks (`str`): "error", "drop" or "keep", as in `select_frames`, for masks whose emptiness shows only now.

    Returns:
        `np.ndarray` of shape `(rows, columns)` and dtype bool, *optional*: None where the mask is empty and
        the frame has to be left out. A region that is left without any frame is an error (`no_mask_left_message`).

    Raises:
        OSError: If a mask picture cannot be read.
        ValueError: If the mask does not fit the frame, or is empty and must not be.
    """
    mask = decode_mask(entry, height=height, width=width)
    keep = empty_masks == "keep"
    cells = grid_mask(mask, grid, keep_vanished=keep)
    if keep or cells.any():
        return cells
    if empty_masks == "error" and not region.from_masklet:
        raise ValueError(_EMPTY_MESSAGE)
    return None


__all__ = [
    "EMPTY_MASKS",
    "TIME_SLACK",
    "check_empty_masks",
    "frame_to_grid",
    "no_mask_left_message",
    "num_tokens",
    "select_frames",
]
