"""Reader for video files: exact by frame number, decoding no more than the wanted frames need."""

import itertools
import logging
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from transformers_videorefer.video.packets import (
    FileExtent,
    PacketInfo,
    count_promised_frames,
    index_packets,
    list_packets,
    measure_file,
)
from transformers_videorefer.video.reader import VideoReader


try:
    import av
except ImportError:
    av = None


logger = logging.getLogger(__name__)

# Containers that store one frame per packet and when it is shown. In others (AVI, transport streams) a packet may lack
# a time, hold half a frame or begin before the first key frame.
INDEXED_CONTAINERS = ("mov", "matroska")
# Codecs whose unwanted non-reference pictures may be left out: nothing else is ever predicted from them. (In HEVC the
# same mark only speaks about one temporal layer.)
SKIPPABLE_CODECS = frozenset({"h264", "mpeg1video", "mpeg2video"})
# Up to this many packets are read and dropped instead of seeking over them.
MAX_PACKETS_TO_PASS = 50
# Starts to try, counted back from the wanted one, when a seek lands too late.
SEEK_STEPS_BACK = (0, 1, 4)
OPEN_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS = 20, 60
# From version 17 on the conversion to RGB starts threads, which live until the garbage collector finds the frame. A
# loader worker that was forked in between would wait for them for ever.
SINGLE_THREAD = {"threads": 1} if av is not None and int(av.__version__.split(".")[0]) >= 17 else {}

# Cosine and sine of the angles by which a frame may be turned counterclockwise.
QUARTER_TURNS = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}
# Formats that name other files or addresses to read. A local file must not lead out of the folder it was taken from.
LINKING_FORMATS = frozenset(
    {"avisynth", "concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vapoursynth"}
)


class TruncatedVideoError(OSError):
    """The end of a video file is missing."""


class _PictureMissingError(Exception):
    """The decoder did not give the picture that the index promises."""


class ContainerReader(VideoReader):
    """Frames of a video file, found through an index of its packets and decoded from the nearest clean key frame.

    Every decoded picture is recognised by its presentation time. Where that is not possible, or a picture does not
    come as expected, frames are decoded one after the other from the beginning: slower, but never another picture.
    One `read` at a time.

    Attributes:
        num_decoded_frames (`int`): Pictures that the decoder has given so far, wanted or not.
    """

    backend = "pyav"
    num_decoded_frames = 0

    def __init__(self, source: str | BinaryIO, name: str, *, edit_list: str = "apply"):
        if av is None:
            raise ImportError(f"Reading {name} needs PyAV. Install it with `pip install av`.")
        self.name = name
        self._source, self._edit_list = source, edit_list
        self._is_address = isinstance(source, str) and source.startswith(("http://", "https://"))
        self._container: Any = None
        self._packets: Any = None
        self._extent = self._measure()
        self._open()
        try:
            self._make_index()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the container; a file object of the caller stays open."""
        if self._packets is not None:
            self._packets.close()
        if self._container is not None:
            self._container.close()
        self._packets = self._container = None

    def _open(self) -> None:
        """Open the container at its first packet."""
        self.close()
        file, timeout = self._source, None
        if not isinstance(file, str):
            file.seek(0)
        elif self._is_address:
            timeout = (OPEN_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
        else:
            # Without the prefix a colon in a file name would be taken for a protocol.
            file = f"file:{file}"
        options = {"ignore_editlist": "1"} if self._edit_list == "ignore" else {}
        if not self._is_address:
            options["format_whitelist"] = ",".join(sorted(av.formats_available - LINKING_FORMATS))
        try:
            self._container = av.open(file, container_options=options, metadata_errors="replace", timeout=timeout)
        except av.FFmpegError as error:
            raise self._explain_open_error(error) from error
        self._stream = self._choose_stream()
        self._codec = self._stream.codec_context
        # Loader workers run side by side; threads of a decoder would only compete with them.
        self._codec.thread_count = 1
        self._packets = self._container.demux(self._stream)
        # Number of the packet that comes next; `None` when it is not known.
        self._position: int | None = 0

    def _measure(self) -> FileExtent | None:
        """Size of a local file, taken before the decoder library keeps track of the position in it."""
        if not isinstance(self._source, str):
            return measure_file(self._source)
        if self._is_address:
            return None
        with open(self._source, "rb") as file:
            return measure_file(file)

    def _explain_open_error(self, error: Exception) -> Exception:
        """Say what is wrong with a file that cannot be opened."""
        if not self._is_address and isinstance(error, av.ArgumentError):
            return ValueError(
                f"{self.name} is no video itself but a list of other files or addresses. Pass the video they belong to."
            )
        if not isinstance(error, (av.InvalidDataError, av.EOFError)):
            return OSError(f"{self.name} cannot be opened: {error}. Check the address and the access rights.")
        if self._extent is not None and self._extent.head[4:8] == b"ftyp":
            return TruncatedVideoError(
                f"{self.name} is truncated: the list of its frames is missing, so not even frame 0 can be read. "
                "Download or copy the file again."
            )
        return ValueError(
            f"{self.name} is not a video that can be decoded, or it is truncated ({error}). Pass a video file."
        )

    def _choose_stream(self) -> Any:
        """The video stream that players show; cover pictures do not count."""
        attached = av.stream.Disposition.attached_pic
        streams = [
            stream
            for stream in self._container.streams.video
            if stream.codec_context is not None and not stream.disposition & attached
        ]
        if not streams:
            self.close()
            raise ValueError(f"{self.name} has no video stream that can be decoded. Pass a file with a video in it.")
        best = self._container.streams.best("video")
        return best if best in streams else streams[0]

    def _make_index(self) -> None:
        """Find out which frames there are."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        try:
            packets = list_packets(self._packets, self._codec.name, self._codec.extradata)
        except av.FFmpegError as error:
            raise OSError(f"{self.name} cannot be read to its end: {error}. Download or copy it again.") from error
        self._position = None
        self._refuse_cut_file(packets, float(rate or 0))
        is_trusted = any(kind in self._container.format.name for kind in INDEXED_CONTAINERS)
        self._index = index_packets(packets, self._codec.has_b_frames) if packets and is_trusted else None
        if self._index is not None:
            self._times = self._index.frame_times.tolist()
        else:
            logger.info(f"The packets of {self.name} do not tell its frames; it is decoded once to count them.")
            self._times = [frame.pts for frame in self._decode_all()]
            if self._times:
                self._index = index_packets(packets, decoded_times=self._times)
        self.num_frames = len(self._times)
        if self._edit_list == "apply" and "mov" in self._container.format.name:
            self.num_hidden_frames = max(0, max(self._stream.frames, len(packets)) - self.num_frames)
        if not self.num_frames:
            hint = 'Its edit list hides all of them; see `edit_list="ignore"`.' if self.num_hidden_frames else ""
            raise ValueError(f"{self.name} has no frames. {hint or 'Pass a video with at least one.'}")
        self._set_times(packets, float(rate or 0))

    def _set_times(self, packets: list[PacketInfo], rate: float) -> None:
        """Work out when each frame is shown, and the frame rate."""
        if None in self._times:
            self.fps = rate or None
            return
        unit = float(self._stream.time_base)
        first, last = self._times[0], self._times[-1]
        shown = {packet.time: packet.duration for packet in packets}.get(last, 0) * unit
        if not shown:
            shown = 1 / rate if rate else 0
        self._seconds = (np.asarray(self._times) - first) * unit
        self._duration = (last - first) * unit + shown
        self.fps = rate or (self.num_frames / self._duration if self._duration else None)

    def _refuse_cut_file(self, packets: list[PacketInfo], rate: float) -> None:
        """Raise for a file that ends before its last frame."""
        is_short = self._extent is not None and self._extent.announced > self._extent.size
        # Transport streams mark packets after a disturbed reception, too.
        is_cut = bool(packets) and packets[-1].is_cut and "mpegts" not in self._container.format.name
        if not is_short and not is_cut:
            return
        whole = sum(not packet.is_cut for packet in packets)
        promised = count_promised_frames(self._container, self._stream, packets, rate)
        # A file that only lost its table of contents still has all its frames.
        if 0 < promised <= whole:
            return
        of = f" of {promised}" if promised else ""
        raise TruncatedVideoError(
            f"{self.name} is truncated: it ends after {whole}{of} frames, so frame {whole} cannot be read. "
            "Download or copy the file again."
        )

    @property
    def frame_times(self) -> np.ndarray:
        """`np.ndarray` of shape `(num_frames,)`: Seconds of each frame, counted from the first frame."""
        return super().frame_times if None in self._times else self._seconds

    @property
    def duration_seconds(self) -> float | None:
        """`float`, *optional*: Length of the video in seconds."""
        return super().duration_seconds if None in self._times else self._duration

    def _read(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        if self._container is None:
            raise ValueError(f"{self.name} is closed. Open it again to read frames.")
        if self._index is None:
            yield from self._read_by_counting(wanted)
            return
        for start, frames in self._runs(wanted):
            yield from self._read_run(start, frames)

    def _runs(self, wanted: list[int]) -> list[tuple[int, list[int]]]:
        """Group frames by the packet at which decoding starts for them."""
        runs: list[tuple[int, list[int]]] = []
        last = -1
        for frame in wanted:
            start, packet = self._index.start_for(frame), int(self._index.frame_packets[frame])
            # A start that the run before has to pass anyway is no reason to begin anew.
            if start <= last:
                runs[-1][1].append(frame)
            else:
                runs.append((start, [frame]))
            last = max(last, packet)
        return runs

    def _read_run(self, start: int, frames: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode the frames of one run; a second time from the very beginning where the first does not give them."""
        waiting = deque(frames)
        for is_thorough in (False, True):
            try:
                for picture in self._decode_run(0 if is_thorough else start, waiting, is_thorough):
                    yield waiting.popleft(), picture
            except (_PictureMissingError, av.FFmpegError) as error:
                reason = error
            if not waiting:
                return
            logger.info(f"{self.name}: frame {waiting[0]} is looked for from the beginning of the file.")
        raise OSError(
            f"Frame {waiting[0]} of {self.name} ({self.num_frames} frames) cannot be decoded: {reason}. "
            "The file is damaged; copy it again or encode it anew."
        ) from reason

    def _decode_run(self, start: int, frames: deque[int], is_thorough: bool) -> Iterator[np.ndarray]:
        """Decode from packet `start` on and yield the pictures of `frames`, which the caller takes off one by one."""
        index = self._index
        numbers = {int(index.frame_times[frame]): frame for frame in frames}
        needed = {int(index.frame_packets[frame]) for frame in frames}
        can_skip = not is_thorough and self._codec.name in SKIPPABLE_CODECS and index.packets[start].is_start
        if is_thorough:
            self._open()
        for number, packet in itertools.chain(self._packets_between(start, max(needed)), [(None, None)]):
            # Pictures that nothing depends on and nobody asked for are not decoded.
            skip = can_skip and number is not None and number not in needed
            self._codec.skip_frame = "NONREF" if skip else "DEFAULT"
            for frame in self._codec.decode(packet):
                self.num_decoded_frames += 1
                if frame.pts not in numbers:
                    continue
                if not frames or numbers[frame.pts] != frames[0]:
                    raise _PictureMissingError("the decoder left it out")
                if frame.is_corrupt and not is_thorough:
                    raise _PictureMissingError("the decoder doubts the picture")
                yield _to_rgb(frame)
        if frames:
            raise _PictureMissingError("the decoder left it out")

    def _packets_between(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """Yield packets `first` to `last` with their positions, each checked against the index."""
        if self._position is None or not 0 <= first - self._position <= MAX_PACKETS_TO_PASS:
            self._seek(first)
        self._codec.flush_buffers()
        while self._position <= last:
            packet = next(self._packets, None)
            number = self._position
            expected = self._index.packets[number]
            if packet is None or (packet.pts, packet.size) != (expected.time, expected.size):
                raise _PictureMissingError("the packets of the file came in another order than before")
            self._position += 1
            if number >= first:
                yield number, packet

    def _seek(self, target: int) -> None:
        """Go to packet `target` or a little before it."""
        starts, place = self._index.starts, int(np.searchsorted(self._index.starts, target))
        for steps in SEEK_STEPS_BACK:
            start = self._index.packets[int(starts[max(place - steps, 0)])]
            try:
                self._container.seek(start.time, stream=self._stream)
            except av.FFmpegError:
                break
            packets = self._container.demux(self._stream)
            landed = next(packets)
            number = self._index.packet_numbers.get(landed.pts)
            if number is not None and number <= target:
                self._packets, self._position = _prepend(landed, packets), number
                return
        self._open()

    def _decode_all(self) -> Iterator[Any]:
        """Decode the whole file from its beginning, without leaving out anything."""
        self._open()
        self._position = None
        num_frames = 0
        for packet in self._packets:
            # An empty packet stands for a repeated picture; to a decoder it would mean the end of the stream.
            if packet.size == 0 and packet.dts is not None:
                continue
            try:
                frames = self._codec.decode(packet)
            except av.FFmpegError as error:
                # Before the first key frame of a file that was cut out of a longer one, errors are normal.
                if num_frames == 0:
                    continue
                raise OSError(
                    f"Frame {num_frames} of {self.name} cannot be decoded: {error}. "
                    "The file is damaged; copy it again or encode it anew."
                ) from error
            num_frames += len(frames)
            self.num_decoded_frames += len(frames)
            yield from frames

    def _read_by_counting(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode everything up to the last wanted frame and count."""
        waiting = deque(wanted)
        for number, frame in enumerate(self._decode_all() if wanted else ()):
            if number == waiting[0]:
                yield waiting.popleft(), _to_rgb(frame)
            if not waiting:
                return
        if waiting:
            raise OSError(f"Frame {waiting[0]} of {self.name} is missing. Was the file changed while it was read?")


def _to_rgb(frame: Any) -> np.ndarray:
    """Convert a decoded frame to upright RGB."""
    picture = frame.to_ndarray(format="rgb24", **SINGLE_THREAD)
    matrix = display_matrix(frame)
    return picture if matrix is None else turn_upright(picture, matrix)


def display_matrix(frame: Any) -> np.ndarray | None:
    """Read how a decoded frame is turned for display: 9 fixed-point numbers; `None` when it is shown as it is coded."""
    try:
        return next(
            (np.frombuffer(bytes(d), np.int32) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None
        )
    except ValueError:
        # PyAV stumbles over kinds of side data that it does not know; the angle is all there is then.
        cosine, sine = QUARTER_TURNS.get(frame.rotation % 360, (1, 1))
        return np.asarray([cosine, -sine, 0, sine, cosine, 0, 0, 0, 1], np.int32)


def turn_upright(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a display matrix made of quarter turns and mirrorings, the only ones players agree on."""
    # A point (x, y) of the coded picture is shown at (a * x + c * y, b * x + d * y).
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    # Some programs leave rounding errors where a 0 belongs.
    smallest = max(map(abs, (a, b, c, d))) / 100
    is_upright, is_sideways = max(abs(a), abs(d)) > smallest, max(abs(b), abs(c)) > smallest
    if is_upright and is_sideways:
        _warn_of_odd_angle()
        return picture
    if is_sideways:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


@lru_cache(maxsize=1)
def _warn_of_odd_angle() -> None:
    """Say once in a process that a video is not turned."""
    logger.warning("A video is rotated by an angle other than quarter turns; it is read as it is coded.")


def _prepend(packet: Any, packets: Iterator[Any]) -> Iterator[Any]:
    """Put back a packet that was read to see where a seek landed."""
    yield packet
    yield from packets


__all__ = ["ContainerReader", "TruncatedVideoError", "display_matrix", "turn_upright"]
