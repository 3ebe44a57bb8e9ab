"""What every video reader offers: frames by their number in presentation order."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np


def is_tensor(value: Any) -> bool:
    """Tell a tensor without importing torch, which takes seconds: while nobody has imported it, there are none."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_array(value: Any) -> bool:
    """Tell arrays and tensors from everything else."""
    return isinstance(value, np.ndarray) or is_tensor(value)


class VideoReader(ABC):
    """Frames of one video by number, whatever the video is stored in.

    Frame numbers are positions in presentation order, starting at 0. A reader is a context manager; after `close` it
    gives no more frames.

    Attributes:
        name (`str`): What errors call the video: its path or address, never its content.
        num_frames (`int`): Number of frames.
        fps (`float`, *optional*): Average frames per second; `None` for pictures without time stamps.
        num_hidden_frames (`int`): Coded frames that an applied edit list hides and that have no number therefore.
        backend (`str`): What decodes the frames.
    """

    name: str
    num_frames: int
    fps: float | None
    num_hidden_frames: int = 0
    backend: str = "pillow"

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 (most readers hold nothing open)
        """Release files and decoders."""

    @property
    def frame_times(self) -> np.ndarray:
        """`np.ndarray` of shape `(num_frames,)`: Seconds of each frame, counted from the first frame.

        Raises:
            ValueError: If the frames have no time stamps and no `fps` was given.
        """
        if not self.fps:
            raise ValueError(
                f"The frames of {self.name} have no time stamps. Pass `fps` (frames per second) to use seconds."
            )
        return np.arange(self.num_frames) / self.fps

    @property
    def duration_seconds(self) -> float | None:
        """`float`, *optional*: Length of the video in seconds; `None` when the frames have no time stamps."""
        return self.num_frames / self.fps if self.fps else None

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames one by one, so that the caller can drop each before the next one comes.

        Args:
            indices (`Iterable[int]`): Frame numbers in any order; repeated ones count once.

        Returns:
            `Iterator[tuple[int, np.ndarray]]`: Pairs of frame number and uint8 RGB picture of shape
            `(height, width, 3)`, by rising frame number.

        Raises:
            ValueError: If a frame number lies outside the video.
            OSError: If a frame cannot be decoded.
        """
        wanted = sorted({int(index) for index in indices})
        for index in (wanted[0], wanted[-1]) if wanted else ():
            self.check_index(index)
        return self._read(wanted)

    def check_index(self, index: int) -> None:
        """Refuse a frame number outside the video.

        Args:
            index (`int`): Frame number.

        Raises:
            ValueError: If the video has no such frame.
        """
        if 0 <= index < self.num_frames:
            return
        hint = "Pass a frame number inside the video."
        if self.num_hidden_frames:
            hint = (
                f"Its edit list hides {self.num_hidden_frames} more coded frames: numbers that count those too need "
                '`edit_list="ignore"`.'
            )
        raise ValueError(
            f"Frame {index} does not exist: {self.name} has {self.num_frames} frames, numbered 0 to "
            f"{self.num_frames - 1}. {hint}"
        )

    @abstractmethod
    def _read(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the frames of a sorted list of distinct, valid numbers."""


__all__ = ["VideoReader", "is_array", "is_tensor"]
