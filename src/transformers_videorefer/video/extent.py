"""Finds out whether a video file is whole: how long it says it is, against how long it is."""

import io
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

from transformers_videorefer.video.packets import PacketInfo


STRUCTURE_HEAD_SIZE = 4096
BOX_HEAD_SIZE = 8
# A table of contents at the end, and padding: a file cut inside them still has all its frames.
BOXES_WITHOUT_FRAMES = (b"mfra", b"free", b"skip")
# Frames of H.264 and H.265 that may be stored before one shown earlier.
LARGEST_REORDERING = 16
MATROSKA_HEADER, MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


class FileExtent(NamedTuple):
    """Size of a file.

    Attributes:
        head (`bytes`): The first bytes.
        size (`int`): Number of bytes there are.
        announced (`int`): Number of bytes that the file's own structure speaks of, 0 where it does not.
    """

    head: bytes
    size: int
    announced: int


def measure_file(file: BinaryIO) -> FileExtent:
    """Compare the structure of a file with its size.

    Args:
        file (`BinaryIO`): A file object that can seek; its position is changed.

    Returns:
        `FileExtent`: The size and what the file says about it.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(STRUCTURE_HEAD_SIZE)
    announced = 0
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        announced = _end_of_boxes(file, size)
    elif head.startswith(MATROSKA_HEADER):
        announced = _end_of_matroska(head)
    elif head[:4] == b"RIFF":
        announced = 8 + int.from_bytes(head[4:8], "little")
    return FileExtent(head, size, announced)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last of the outermost boxes of an MP4 or QuickTime file that frames depend on ends."""
    place, kind = 0, b""
    while place + BOX_HEAD_SIZE <= size:
        file.seek(place)
        header = file.read(2 * BOX_HEAD_SIZE)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        # A length of 0 stands for the rest of the file; other small ones are no boxes.
        if length < BOX_HEAD_SIZE:
            return size
        place += length
    if place > size:
        return size if kind in BOXES_WITHOUT_FRAMES else place
    file.seek(place)
    # The head of a fragment speaks of the data behind it, and the first bytes of a header of the rest of it.
    return place + BOX_HEAD_SIZE if kind == b"moof" or any(file.read()) else size


def _end_of_matroska(head: bytes) -> int:
    """Where the segment of a Matroska or WebM file ends; 0 for a live recording, which does not know."""
    place = 0
    for element in (MATROSKA_HEADER, MATROSKA_SEGMENT):
        if head[place : place + 4] != element or len(head) < place + 12:
            return 0
        # The number of leading zero bits of the first byte tells how many bytes the size takes.
        num_bytes = 9 - head[place + 4].bit_length()
        unknown = (1 << 7 * num_bytes) - 1
        size = int.from_bytes(head[place + 4 : place + 4 + num_bytes], "big") & unknown
        if size == unknown:
            return 0
        place += 4 + num_bytes + size
    return place


def count_promised_frames(container: Any, stream: Any, packets: list[PacketInfo], rate: float) -> int:
    """How many frames a container says it holds.

    Args:
        container (`av.container.InputContainer`): The open file, read to its end.
        stream (`av.VideoStream`): The stream of the frames.
        packets (`list[PacketInfo]`): Its packets.
        rate (`float`): Average frames per second, or 0.

    Returns:
        `int`: The number; an estimate from the duration where the container only tells that, 0 where it tells nothing.
    """
    if stream.frames or not container.duration:
        return stream.frames
    unit = float(stream.time_base)
    end = max(((packet.time or 0) + packet.duration for packet in packets), default=0) * unit
    num_missing = round((container.duration / 1e6 - end) * rate)
    # Frames are stored in another order than they are shown, so one may be missing before the last that is there.
    times = sorted(packet.time * unit for packet in packets if packet.time is not None)[-LARGEST_REORDERING:]
    num_missing += sum(max(round((after - before) * rate) - 1, 0) for before, after in pairwise(times))
    # A fragmented MP4 file has no duration of its own: what is given then is that of the fragments that are there.
    return len(packets) + num_missing if num_missing > 0 or "matroska" in container.format.name else 0


__all__ = ["FileExtent", "count_promised_frames", "measure_file"]
