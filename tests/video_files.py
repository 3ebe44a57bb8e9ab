"""Writes small video files for the tests and decodes them the plain way, one frame after the other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageFilter


X264_PYRAMID = {"x264-params": "bframes=3:b-pyramid=normal:b-adapt=0:scenecut=0"}


def moving_texture(num_frames: int, height: int = 48, width: int = 64, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield uint8 RGB frames of a moving texture; every frame differs from all others."""
    noise = np.random.default_rng(seed).integers(0, 256, (height + 32, width + 32, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))
    for number in range(num_frames):
        top, left = (2 * number) % 32, (3 * number) % 32
        frame = texture[top : top + height, left : left + width].copy()
        # The number of the frame as bright and dark blocks, so that a wrong frame is wrong by a lot.
        for bit in range(10):
            frame[:6, 6 * bit : 6 * bit + 6] = 255 if number >> bit & 1 else 0
        yield frame


def write_video(
    path: Path,
    num_frames: int = 40,
    *,
    codec: str = "libx264",
    height: int = 48,
    width: int = 64,
    fps: int = 25,
    gop: int | None = None,
    b_frames: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
    time_stamps: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    pix_fmt: str = "yuv420p",
    frames: Iterable[np.ndarray] | None = None,
) -> Path:
    """Encode frames (by default a moving texture) into a file; `time_stamps` are in units of `time_base`."""
    time_base = time_base or Fraction(1, fps)
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        if gop is not None:
            stream.codec_context.gop_size = gop
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        for number, picture in enumerate(moving_texture(num_frames, height, width) if frames is None else frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if time_stamps is None else time_stamps[number]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(
    source: Path,
    target: Path,
    change: Callable[[int, Any], Any] = lambda number, packet: packet,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Copy the packets of a file into another one; `change` may alter a packet or drop it (`None`)."""
    with (
        av.open(str(source)) as reader,
        av.open(str(target), "w", format=container_format, options=container_options or {}) as writer,
    ):
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(reader.demux(reader.streams.video[0])):
            if packet.dts is None:
                continue
            packet = change(number, packet)
            if packet is not None:
                packet.stream = stream
                writer.mux(packet)
    return target


def hide_first_frames(source: Path, target: Path, num_hidden: int) -> Path:
    """Cut the first frames off without encoding anew, the way that leaves an edit list in an MP4 file."""
    with av.open(str(source)) as reader:
        times = sorted(packet.pts for packet in reader.demux(reader.streams.video[0]) if packet.pts is not None)

    def shift(number: int, packet: Any) -> Any:
        packet.pts -= times[num_hidden]
        packet.dts -= times[num_hidden]
        return packet

    return remux(source, target, shift, {"avoid_negative_ts": "disabled", "use_editlist": "1"})


def set_display_matrix(path: Path, matrix: Sequence[int]) -> Path:
    """Write the four numbers a, b, c, d of a display matrix (1 stands for 1.0) into the header of an MP4 file."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    for entry, value in zip((0, 1, 3, 4), matrix, strict=True):
        content[place + 4 * entry : place + 4 * entry + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    return path


def truncate(source: Path, target: Path, share: float) -> Path:
    """Keep the first `share` of the bytes of a file."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def decode_all(path: Path, *, ignore_edit_list: bool = False) -> list[np.ndarray]:
    """All frames of a file as plain sequential decoding gives them, without rotation."""
    options = {"ignore_editlist": "1"} if ignore_edit_list else {}
    with av.open(str(path), container_options=options) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
