"""What a video file tells without being decoded: where each frame lies, by an index of its packets, and whether it is whole."""

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np


# Codecs whose key frames reset the decoder, so that decoding may start at any of them. For other codecs (H.264 and
# HEVC apart, whose packets are looked into) decoding starts at the first packet.
CLEAN_KEY_FRAME_CODECS = frozenset(
    {"vp8", "vp9", "av1", "libdav1d", "libaom-av1", "libvpx", "libvpx-vp9", "mpeg1video", "mpeg2video", "mpeg4"}
    | {"mjpeg", "png", "ffv1", "prores", "dnxhd", "rawvideo"}
)
RECOVERY_POINT = 6
STRUCTURE_HEAD_SIZE = 4096
BOX_HEAD_SIZE = 8
# A table of contents at the end, and padding: a file cut inside them still has all its frames.
BOXES_WITHOUT_FRAMES = (b"mfra", b"free", b"skip")
# Frames of H.264 and H.265 that may be stored before one shown earlier.
LARGEST_REORDERING = 16
MATROSKA_HEADER, MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


class NalKinds(NamedTuple):
    """Where a NAL unit of a codec keeps its kind, and which kinds matter here."""

    shift: int
    mask: int
    slices: range
    clean_slices: range
    settings: range
    recovery: int | None


NAL_KINDS = {
    # Slices 1 to 5, of which 5 begins with a clean slate; settings 7 and 8; recovery points are told in kind 6.
    "h264": NalKinds(shift=0, mask=31, slices=range(1, 6), clean_slices=range(5, 6), settings=range(7, 9), recovery=6),
    # Slices 0 to 31, of which 16 to 21 are random access points that all later pictures respect; settings 32 to 34.
    "hevc": NalKinds(
        shift=1, mask=63, slices=range(32), clean_slices=range(16, 22), settings=range(32, 35), recovery=None
    ),
}


class PacketInfo(NamedTuple):
    """What the index keeps of one coded packet; times are in units of the stream's time base.

    Attributes:
        time (`int`, *optional*): Presentation time.
        duration (`int`): How long the frame is shown; 0 when unknown.
        size (`int`): Number of bytes.
        is_start (`bool`): Whether decoding may start here and still give every later frame exactly.
        is_hidden (`bool`): Whether the edit list of the file hides the frame.
        is_shown (`bool`): Whether the packet gives a frame of its own that is not hidden.
        is_cut (`bool`): Whether bytes of the packet are missing or known to be wrong.
        new_settings (`tuple[bytes, ...]`): Decoder settings that a key frame brings along and that are not those of
            the file's header.
    """

    time: int | None
    duration: int
    size: int
    is_start: bool
    is_hidden: bool
    is_shown: bool
    is_cut: bool
    new_settings: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class PacketIndex:
    """Frame numbers of a file whose packets all have distinct presentation times.

    Attributes:
        frame_times (`np.ndarray` of shape `(num_frames,)`): Presentation time of each frame, rising.
        frame_packets (`np.ndarray` of shape `(num_frames,)`): Position of each frame's packet in the file.
        starts (`np.ndarray` of shape `(num_starts,)`): Positions of the packets at which decoding may start.
        packets (`list[PacketInfo]`): All packets in the order of the file.
        packet_numbers (`dict[int, int]`): Position in the file for every presentation time.
    """

    frame_times: np.ndarray
    frame_packets: np.ndarray
    starts: np.ndarray
    packets: list[PacketInfo]
    packet_numbers: dict[int, int]

    def start_for(self, frame: int) -> int:
        """Position of the last packet from which decoding gives frame number `frame` exactly."""
        # A frame shown before a key frame but stored after it may need what lies before that key frame (open GOP).
        candidates = self.starts[: np.searchsorted(self.starts, self.frame_packets[frame], side="right")]
        place = len(candidates) - 1
        while place > 0 and self.packets[candidates[place]].time > self.frame_times[frame]:
            place -= 1
        return int(candidates[place])


def index_packets(
    packets: list[PacketInfo], is_reordered: bool = False, decoded_times: Sequence[int | None] | None = None
) -> PacketIndex | None:
    """Number the frames of a file by the presentation times of its packets; `None` when these do not tell the frames.

    `is_reordered` says that the decoder gives frames in another order than the packets come in. `decoded_times` are the
    presentation times of the frames that decoding the whole file gave; without them the packets are trusted only if
    nothing about them is unusual.
    """
    times = [packet.time for packet in packets]
    if None in times or len(set(times)) != len(times) or any(packet.size == 0 for packet in packets):
        return None
    if decoded_times is None:
        # A file that begins in the middle of a group of pictures gives fewer frames than it has packets.
        shown = [number for number, packet in enumerate(packets) if packet.is_shown]
        if not packets[0].is_start or any(times[number] < times[0] for number in shown):
            return None
        # Times that only rise although frames are reordered were made up by a program that did not know better.
        if is_reordered and times == sorted(times):
            return None
    else:
        numbers = {time: number for number, time in enumerate(times)}
        shown = [numbers.get(time) for time in decoded_times]
        if None in shown or any(later <= earlier for earlier, later in itertools.pairwise(decoded_times)):
            return None
    return _build_index(packets, shown)


def _build_index(packets: list[PacketInfo], shown: list[int]) -> PacketIndex:
    """Sort the packets that give a frame by time, and list the packets at which decoding may start."""
    times = [packet.time for packet in packets]
    shown = sorted(shown, key=times.__getitem__)
    starts = [0]
    # Where settings change on the way (recordings that were joined), a decoder must see all of them in order.
    if len({packet.new_settings for packet in packets if packet.is_start or packet.new_settings}) <= 1:
        # A packet stored before a start but shown after it would contradict the order that `start_for` relies on.
        latest = np.maximum.accumulate(np.asarray(times))
        starts += [
            number
            for number, packet in enumerate(packets)
            if number and packet.is_start and latest[number - 1] < packet.time
        ]
    return PacketIndex(
        frame_times=np.asarray([times[number] for number in shown], dtype=np.int64),
        frame_packets=np.asarray(shown, dtype=np.int64),
        starts=np.asarray(starts, dtype=np.int64),
        packets=packets,
        packet_numbers={time: number for number, time in enumerate(times)},
    )


def list_packets(packets: Iterable[Any], codec: str, extradata: bytes | None) -> list[PacketInfo]:
    """Note what the index needs of every `av.Packet` of a stream; `extradata` are the set-up bytes of the codec."""
    infos = []
    for packet in packets:
        if packet.dts is None and packet.size == 0:
            continue
        is_hidden = packet.is_discard
        is_start, new_settings = (
            inspect_key_frame(packet, codec, extradata or b"") if packet.is_keyframe else (False, ())
        )
        infos.append(
            PacketInfo(
                time=packet.pts,
                duration=packet.duration or 0,
                size=packet.size,
                is_start=is_start,
                is_hidden=is_hidden,
                is_shown=not is_hidden and not (codec == "vp8" and _is_invisible_vp8(packet)),
                is_cut=packet.is_corrupt,
                new_settings=new_settings,
            )
        )
    return infos


def _is_invisible_vp8(packet: Any) -> bool:
    """Whether a VP8 packet only updates reference pictures and shows nothing (RFC 6386, section 9.1)."""
    return packet.size > 0 and not (memoryview(packet)[0] >> 4) & 1


def inspect_key_frame(packet: Any, codec: str, extradata: bytes) -> tuple[bool, tuple[bytes, ...]]:
    """Find out whether no frame shown after a key frame needs anything stored before it.

    Containers also mark pictures as key frames from which a decoder only recovers after a while (periodic intra
    refresh), so H.264 and HEVC packets are looked into. Beside the answer the decoder settings in the packet are given
    that `extradata`, the set-up bytes of the codec, does not hold.
    """
    settings = [bytes(packet.get_sidedata("new_extradata"))] if packet.has_sidedata("new_extradata") else []
    is_start = codec in CLEAN_KEY_FRAME_CODECS
    if codec in NAL_KINDS:
        kinds, is_start, recovers = NAL_KINDS[codec], False, False
        for unit in _nal_units(memoryview(packet), codec, extradata):
            kind = unit[0] >> kinds.shift & kinds.mask
            if kind in kinds.settings:
                content = bytes(unit).rstrip(b"\0")
                settings += [] if content in extradata else [content]
            elif kind == kinds.recovery:
                recovers = recovers or _recovers_at_once(bytes(unit[1:]))
            elif kind in kinds.slices:
                is_start = kind in kinds.clean_slices or recovers
                break
    return is_start, tuple(settings)


def _nal_units(data: memoryview, codec: str, extradata: bytes) -> Iterable[memoryview]:
    """Split a packet into NAL units, with length fields or start codes as the set-up bytes tell."""
    length_byte = 4 if codec == "h264" else 21
    if len(extradata) > length_byte and extradata[:3] not in (b"\0\0\0", b"\0\0\1"):
        num_bytes, place = (extradata[length_byte] & 3) + 1, 0
        while place + num_bytes < len(data):
            size = int.from_bytes(data[place : place + num_bytes], "big")
            place += num_bytes
            if size:
                yield data[place : place + size]
            place += size
        return
    content = bytes(data)
    place = content.find(b"\0\0\1")
    while 0 <= place < len(content) - 3:
        following = content.find(b"\0\0\1", place + 3)
        yield data[place + 3 : following if following > 0 else len(content)]
        place = following


def _recovers_at_once(payload: bytes) -> bool:
    """Whether H.264 SEI bytes hold a recovery point that is exact from its own picture on."""
    payload = payload.replace(b"\0\0\3", b"\0\0")
    place = 0
    while place + 2 < len(payload):
        kind, place = _sei_number(payload, place)
        size, place = _sei_number(payload, place)
        if kind == RECOVERY_POINT:
            # First bit: recovery_frame_cnt is 0 in Exp-Golomb code; second bit: exact_match_flag.
            return place < len(payload) and payload[place] >> 6 == 0b11
        place += size
    return False


def _sei_number(payload: bytes, place: int) -> tuple[int, int]:
    """Read one number of an SEI header (bytes are summed up to the first that is not 255) and where it ends."""
    number = 0
    while place < len(payload):
        number, place = number + payload[place], place + 1
        if payload[place - 1] != 0xFF:
            break
    return number, place


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
    """Compare the structure of a file with its size; the position of the file object is changed."""
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
    """Tell how many frames a container, read to its end, says it holds.

    The number is an estimate where the container only tells its duration, and 0 where it tells nothing.
    """
    if stream.frames or not container.duration:
        return stream.frames
    unit = float(stream.time_base)
    end = max(((packet.time or 0) + packet.duration for packet in packets), default=0) * unit
    num_missing = round((container.duration / 1e6 - end) * rate)
    # Frames are stored in another order than they are shown, so one may be missing before the last that is there.
    times = sorted(packet.time * unit for packet in packets if packet.time is not None)[-LARGEST_REORDERING:]
    num_missing += sum(max(round((after - before) * rate) - 1, 0) for before, after in itertools.pairwise(times))
    # A fragmented MP4 file has no duration of its own: what is given then is that of the fragments that are there.
    return len(packets) + num_missing if num_missing > 0 or "matroska" in container.format.name else 0


__all__ = [
    "FileExtent",
    "PacketIndex",
    "PacketInfo",
    "count_promised_frames",
    "index_packets",
    "inspect_key_frame",
    "list_packets",
    "measure_file",
]
