"""Opens any kind of video and tells one video from a list of them."""

import io
import math
import os
from typing import Any

from transformers_videorefer.video.container import ContainerReader
from transformers_videorefer.video.options import check_edit_list
from transformers_videorefer.video.pictures import (
    SIGNATURE_SIZE,
    AnimationReader,
    ArrayReader,
    FolderReader,
    PictureListReader,
    has_picture_signature,
    is_frame,
)
from transformers_videorefer.video.reader import VideoReader, is_array


SUPPORTED_VIDEOS = (
    "a path, an http(s) address, a binary file object, bytes, a folder of pictures, a list of PIL pictures, arrays or "
    "picture paths, or a uint8 array or tensor of shape (num_frames, height, width, 3)"
)


def open_video(
    source: Any,
    *,
    fps: float | None = None,
    edit_list: str = "apply",
    name: str = "the video",
    default_fps: float | None = None,
) -> VideoReader:
    """Open a video of any kind for reading frames by their number.

    Args:
        source (`str`, `os.PathLike`, `bytes`, `BinaryIO`, `list`, `np.ndarray` or `torch.Tensor`): Path of a video
            file, an animated picture or a folder of pictures; http(s) address of a video file; binary file object;
            content of a file; list of PIL pictures, uint8 arrays, tensors or paths; uint8 array or tensor of shape
            `(num_frames, height, width, 3)`, or `(num_frames, 3, height, width)` where only axis 1 is 3 long.
        fps (`float`, *optional*): Frames per second of sources without time stamps (folders, lists, arrays, still
            pictures). A file with times of its own refuses another rate.
        edit_list (`str`, *optional*, defaults to `"apply"`): `"apply"` numbers the frames that players show,
            `"ignore"` numbers all coded frames, also those that the edit list of an MP4 file hides.
        name (`str`, *optional*, defaults to `"the video"`): What errors call a source that has no path.
        default_fps (`float`, *optional*): Frames per second of a source without time stamps where `fps` is not given,
            such as those of its metadata. Files with times of their own go by them.

    Returns:
        `VideoReader`: The open video, to be used as a context manager or closed.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        OSError: If the file is truncated or cannot be read.
        TypeError: If `source` is of another kind.
        ValueError: If the source is no video or has no frames, an argument has a value that is not offered, or `fps`
            is not the rate of a file with times of its own.
    """
    check_edit_list(edit_list)
    if fps is not None and not fps > 0:
        raise ValueError(f"`fps` is {fps}. Pass a number above 0, or leave it out.")
    reader = _open(source, default_fps if fps is None else fps, edit_list, name)
    # In other processors of the library `fps` says how densely to sample: it must not be without effect in silence.
    if fps is not None and reader.fps and not math.isclose(fps, reader.fps, rel_tol=0.01):
        reader.close()
        raise ValueError(
            f"`fps` is {fps:g}, but {reader.name} carries its own times ({reader.fps:g} frames per second). `fps` is for "
            "folders and lists of pictures. Leave it out; `num_frames` says how many frames are sampled."
        )
    return reader


def _open(source: Any, fps: float | None, edit_list: str, name: str) -> VideoReader:
    """Choose the reader of a source."""
    if is_array(source):
        return ArrayReader(source, name, fps=fps)
    if isinstance(source, (list, tuple)):
        return PictureListReader(source, name, fps=fps)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), fps, edit_list)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, file = f"{name} (given as {len(source)} bytes)", io.BytesIO(source)
    elif callable(getattr(source, "read", None)):
        label = getattr(source, "name", None)
        name, file = label if isinstance(label, str) else name, _seekable(source)
    else:
        raise TypeError(f"{name} is a {type(source).__name__}. Pass {SUPPORTED_VIDEOS}.")
    file.seek(0)
    head = file.read(SIGNATURE_SIZE)
    if not isinstance(head, bytes):
        raise TypeError(f'{name} gives text. Open the file in binary mode ("rb").')
    if not head:
        raise ValueError(f"{name} is empty. Pass a video with at least one frame.")
    if has_picture_signature(head):
        file.seek(0)
        # A copy, because PIL would close the file of the caller.
        return AnimationReader(io.BytesIO(file.read()), name, fps=fps)
    return ContainerReader(file, name, edit_list=edit_list)


def _open_path(path: str, fps: float | None, edit_list: str) -> VideoReader:
    """Open a file, a folder or an address."""
    if path.startswith(("http://", "https://")):
        return ContainerReader(path, path, edit_list=edit_list)
    if os.path.isdir(path):
        return FolderReader(path, fps=fps)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no video {path}. Check the path (only http and https addresses are read).")
    with open(path, "rb") as file:
        head = file.read(SIGNATURE_SIZE)
    if not head:
        raise ValueError(f"{path} is empty. Pass a video with at least one frame.")
    if has_picture_signature(head):
        return AnimationReader(path, path, fps=fps)
    return ContainerReader(path, path, edit_list=edit_list)


def _seekable(file: Any) -> Any:
    """The file object itself, or its content where it cannot seek (a pipe)."""
    seekable = getattr(file, "seekable", None)
    if callable(getattr(file, "seek", None)) and (seekable is None or seekable()):
        return file
    return io.BytesIO(file.read())


def source_key(source: Any) -> str | int:
    """Key under which two mentions of a video in one call count as one: path or address, or identity in memory."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else id(source)


def list_videos(videos: Any) -> list[Any]:
    """Bring one video, a list of videos or lists of such lists into a flat list of videos.

    A list whose members are all single pictures (PIL, arrays of 2 or 3 axes, paths that end like a still picture) is
    one video; any other list holds one video per member.

    Args:
        videos (`Any`): One video of any kind that `open_video` takes, or (nested) lists of them.

    Returns:
        `list[Any]`: The videos in order.

    Raises:
        ValueError: If there is no video in a list.
    """
    if is_array(videos) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        return [videos]
    if not videos:
        raise ValueError(f"`videos` holds an empty list. Pass {SUPPORTED_VIDEOS}.")
    if all(is_frame(video) for video in videos):
        return [list(videos)]
    return [video for member in videos for video in list_videos(member)]


__all__ = ["list_videos", "open_video", "source_key"]
