"""What a video file really is: whether it can be read, how many frames it has, and how large they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from transformers_videorefer.video.container import TruncatedVideoError
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.packets import measure_file
from transformers_videorefer.video.pictures import load_picture


try:
    import av
except ImportError:  # folders of pictures and animated pictures are read without it
    av = None

STATUSES = {
    "ok": "whole, as far as it was read",
    "missing": "there is nothing at its path",
    "unreadable": "not a video or image that can be decoded, or damaged",
    "truncated": "the end of the file is missing",
}
# Everything that readers raise for broken files: some decoders report them as if the program were wrong.
_BROKEN_FILE_ERRORS = (
    *(OSError, ValueError, TypeError, RuntimeError, MemoryError, Image.DecompressionBombError),
    *(() if av is None else (av.FFmpegError,)),
)


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What was found out about a video or an image.

    Attributes:
        status (`str`): One of `STATUSES`.
        message (`str`): What is wrong; empty where nothing is.
        num_frames (`int`): Number of frames, 0 where it is not known.
        num_hidden_frames (`int`): Further coded frames that an applied edit list hides.
        height (`int`): Height in pixels after rotation, 0 where it is not known.
        width (`int`): Width in pixels after rotation, 0 where it is not known.
        fps (`float`, *optional*): Frames per second.
        duration_seconds (`float`, *optional*): Length in seconds.
    """

    status: str
    message: str = ""
    num_frames: int = 0
    num_hidden_frames: int = 0
    height: int = 0
    width: int = 0
    fps: float | None = None
    duration_seconds: float | None = None


def probe_video(path: str, *, edit_list: str = "apply", frame_indices: Sequence[int] = ()) -> MediaFacts:
    """Read a video as far as it takes to know its frames.

    The packets of a file are read to its end (its pictures are counted, not decoded), then its first frame and those
    of `frame_indices` that it has are decoded. So a file whose end is missing is found, and damage at these frames;
    damage of other pictures is not.

    Args:
        path (`str`): Video file, animated picture or folder of pictures.
        edit_list (`str`, *optional*, defaults to `"apply"`): As in `open_video`.
        frame_indices (`Sequence[int]`, *optional*): Further frames to decode; -1 stands for the last one.

    Returns:
        [`MediaFacts`].
    """
    counted: dict[str, int | float | None] = {}
    try:
        with open_video(path, edit_list=edit_list) as reader:
            counted = {
                "num_frames": reader.num_frames,
                "num_hidden_frames": reader.num_hidden_frames,
                "fps": reader.fps,
                "duration_seconds": reader.duration_seconds,
            }
            wanted = {index % reader.num_frames if index == -1 else index for index in (0, *frame_indices)}
            for _, frame in reader.read(index for index in wanted if 0 <= index < reader.num_frames):
                if "height" not in counted:
                    counted["height"], counted["width"] = frame.shape[:2]
    except FileNotFoundError as error:
        return MediaFacts("missing", _one_line(error))
    except _BROKEN_FILE_ERRORS as error:
        return MediaFacts("truncated" if _is_cut(path, error) else "unreadable", _one_line(error), **counted)
    return MediaFacts("ok", **counted)


def probe_image(path: str) -> MediaFacts:
    """Decode an image.

    Args:
        path (`str`): Picture file.

    Returns:
        [`MediaFacts`]: An image has one frame.
    """
    try:
        picture = load_picture(path, "the image")
    except FileNotFoundError as error:
        return MediaFacts("missing", _one_line(error))
    except _BROKEN_FILE_ERRORS as error:
        return MediaFacts("truncated" if "truncated" in str(error) else "unreadable", _one_line(error))
    return MediaFacts("ok", num_frames=1, height=picture.shape[0], width=picture.shape[1])


def _is_cut(path: str, error: Exception) -> bool:
    """Tell a file that lost its end from one that is broken in another way."""
    if isinstance(error, TruncatedVideoError):
        return True
    try:
        with open(path, "rb") as file:
            extent = measure_file(file)
    except OSError:  # a folder, or a file that may not be read
        return False
    return extent.announced > extent.size


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
