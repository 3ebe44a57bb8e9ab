"""Readers for videos that are stored as pictures: folders, lists, arrays and animated pictures."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from transformers_videorefer.video.reader import VideoReader, is_array, is_tensor


PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
# Bytes at the start of a file that `has_picture_signature` looks at.
SIGNATURE_SIZE = 16


def is_picture_file_name(source: Any) -> bool:
    """Whether `source` is a path or address that ends like a still picture (GIF counts as a video)."""
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() in PICTURE_SUFFIXES


def has_picture_signature(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a GIF, PNG, JPEG or WebP."""
    return head.startswith((b"GIF8", b"\x89PNG\r\n", b"\xff\xd8\xff")) or (
        head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    )


def is_frame(item: Any) -> bool:
    """Whether a member of a list is a single frame of a video, and not a video of its own."""
    if is_array(item):
        return item.ndim in (2, 3)
    if isinstance(item, bytes):
        return has_picture_signature(item[:SIGNATURE_SIZE]) and not item.startswith(b"GIF8")
    return isinstance(item, Image.Image) or is_picture_file_name(item)


def to_rgb_array(picture: Image.Image) -> np.ndarray:
    """Turn a PIL picture into an upright uint8 RGB array of shape `(height, width, 3)`."""
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def load_picture(picture: Any, name: str) -> np.ndarray:
    """Turn one frame of a list into pixels.

    Args:
        picture (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str`, `os.PathLike` or `bytes`): The frame; arrays
            are uint8 of shape `(height, width, 3)`, `(3, height, width)` (where only axis 0 is 3 long) or, for gray,
            `(height, width)`.
        name (`str`): What an error calls the frame.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: uint8 RGB.

    Raises:
        FileNotFoundError: If there is no file at the path.
        OSError: If the file is no picture or is truncated.
        TypeError: If the frame is of another kind or its values are not uint8.
        ValueError: If an array has another shape.
    """
    if isinstance(picture, Image.Image):
        return to_rgb_array(picture)
    if is_array(picture):
        return _to_rgb_frame(picture, name)
    if not isinstance(picture, (str, os.PathLike, bytes)):
        raise TypeError(
            f"{name} is a {type(picture).__name__}. Pass PIL pictures, uint8 arrays or tensors, paths or bytes."
        )
    if isinstance(picture, (str, os.PathLike)) and not os.path.exists(picture):
        raise FileNotFoundError(f"{name}: there is no file {os.fspath(picture)}. Check the path.")
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            return to_rgb_array(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # PIL reports broken files with all of these, some of them without the name of the file.
        path = "" if isinstance(picture, bytes) else f" ({os.fspath(picture)})"
        raise OSError(f"{name}{path} cannot be read as a picture: {error}. Replace or repair the file.") from error


def _to_rgb_frame(frame: Any, name: str) -> np.ndarray:
    """Check one array or tensor and bring it to shape `(height, width, 3)`."""
    array = frame.detach().cpu().numpy() if is_tensor(frame) else frame
    if array.dtype != np.uint8:
        raise TypeError(f"{name} has dtype {array.dtype}. Pass uint8 values from 0 to 255.")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    elif array.ndim == 3 and array.shape[0] == 3 and 3 not in array.shape[1:]:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"{name} has shape {tuple(array.shape)}. Pass (height, width, 3) or (3, height, width).")
    return np.ascontiguousarray(array)


class PictureListReader(VideoReader):
    """Frames from a list of PIL pictures, arrays, tensors, paths or encoded pictures, in the order of the list."""

    def __init__(self, pictures: Sequence[Any], name: str, *, fps: float | None = None):
        if not len(pictures):
            raise ValueError(f"{name} has no frames. Pass at least one picture.")
        self.name, self.fps, self.num_frames = name, fps, len(pictures)
        self._pictures = pictures

    def _read(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in wanted:
            yield index, load_picture(self._pictures[index], f"frame {index} of {self.name}")


class FolderReader(PictureListReader):
    """Frames from the picture files of a folder, sorted by the numbers in their names.

    Attributes:
        file_names (`tuple[str, ...]`): Name of the picture of each frame.
    """

    def __init__(self, folder: str | os.PathLike, *, fps: float | None = None):
        folder = Path(folder)
        files = [
            file
            for file in folder.iterdir()
            if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".") and file.is_file()
        ]
        if not files:
            raise ValueError(
                f"The folder {folder} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}). "
                "Pass a folder with one picture per frame."
            )
        files.sort(key=_natural_key)
        self.file_names = tuple(file.name for file in files)
        super().__init__(files, str(folder), fps=fps)


def _natural_key(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key that orders the digits in a file name by their value (`2.png` before `10.png`)."""
    # Splitting at digits alternates text and number, so keys of two names never compare text with a number.
    parts = re.split(r"(\d+)", file.stem)
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)], file.name


class ArrayReader(VideoReader):
    """Frames of one uint8 array or tensor of shape `(num_frames, height, width, 3)`, or with the channels in axis 1."""

    backend = "array"

    def __init__(self, frames: Any, name: str, *, fps: float | None = None):
        array = frames.detach().cpu().numpy() if is_tensor(frames) else frames
        if array.ndim == 4 and array.shape[1] == 3 and 3 not in array.shape[2:]:
            array = array.transpose(0, 2, 3, 1)  # (num_frames, height, width, 3), as a view
        if array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape[1:]:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}. Pass (num_frames, height, width, 3) or (num_frames, 3, height, "
                "width), and a single picture as an image."
            )
        if array.dtype != np.uint8:
            raise TypeError(f"{name} has dtype {array.dtype}. Pass uint8 values from 0 to 255.")
        if not len(array):
            raise ValueError(f"{name} has no frames. Pass at least one.")
        self.name, self.fps, self.num_frames = name, fps, len(array)
        self._frames = array

    def _read(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in wanted:
            yield index, np.ascontiguousarray(self._frames[index])


class AnimationReader(VideoReader):
    """Frames of an animated picture (GIF, WebP, PNG), each as it is shown, or of a still one (a single frame)."""

    def __init__(self, source: str | os.PathLike | BinaryIO, name: str, *, fps: float | None = None):
        self.name, self._given_fps = name, fps
        try:
            self._image = Image.open(source)
            self.num_frames = getattr(self._image, "n_frames", 1)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ValueError(f"{name} cannot be read as a picture: {error}. Repair or replace the file.") from error
        self._shown_seconds: np.ndarray | None = None
        try:
            # A cut file shows in its last frame; without looking there, only the number of frames would be lower.
            self._load(self.num_frames - 1)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    @property
    def fps(self) -> float | None:
        """`float`, *optional*: Average frames per second; the given one where the file has no times."""
        total = self._durations().sum()
        return float(self.num_frames / total) if total else self._given_fps

    @property
    def frame_times(self) -> np.ndarray:
        """`np.ndarray` of shape `(num_frames,)`: Seconds of each frame, counted from the first frame."""
        durations = self._durations()
        return np.cumsum(durations) - durations if durations.sum() else super().frame_times

    def _durations(self) -> np.ndarray:
        """Seconds that each frame is shown."""
        if self._shown_seconds is None:
            milliseconds = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(self._image)]
            self._shown_seconds = np.asarray(milliseconds, dtype=np.float64) / 1000
        return self._shown_seconds

    def _load(self, index: int) -> np.ndarray:
        """Decode one frame."""
        try:
            self._image.seek(index)
            return to_rgb_array(self._image)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise OSError(
                f"Frame {index} of {self.name} ({self.num_frames} frames) cannot be read: {error}. "
                "Repair or replace the file."
            ) from error

    def _read(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in wanted:
            yield index, self._load(index)


__all__ = [
    "SIGNATURE_SIZE",
    "AnimationReader",
    "ArrayReader",
    "FolderReader",
    "PictureListReader",
    "has_picture_signature",
    "is_frame",
    "is_picture_file_name",
    "load_picture",
    "to_rgb_array",
]
