"""Every frame of every kind of file must be the one that plain sequential decoding gives at that position."""

import functools
import gc
import http.server
import io
import random
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import load_arrays
from video_files import (
    X264_PYRAMID,
    decode_all,
    hide_first_frames,
    moving_texture,
    remux,
    set_display_matrix,
    truncate,
    write_video,
)

from transformers_videorefer.video import container as video_container
from transformers_videorefer.video.opening import open_video


NUM_FRAMES = 40
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
OPEN_GOP = {"x264-params": "bframes=3:b-pyramid=normal:keyint=12:min-keyint=12:open-gop=1:scenecut=0:b-adapt=0"}
INTRA_REFRESH = {"x264-params": "bframes=0:keyint=12:intra-refresh=1:scenecut=0"}
TEMPORAL_LAYERS = {"x265-params": "keyint=15:bframes=4:temporal-layers=3:log-level=none"}
FAST_VPX = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "8"}
# Steps of 1 to 80 thousandths of a second.
VARIABLE_TIMES = np.cumsum(np.random.default_rng(0).integers(1, 81, NUM_FRAMES)).tolist()
VARIABLE = {"time_stamps": VARIABLE_TIMES, "time_base": Fraction(1, 1000)}

FILES: dict[str, dict] = {
    "gop1.mp4": {"gop": 1, "options": X264_PYRAMID},
    "gop12.mp4": {"gop": 12, "options": X264_PYRAMID},
    "gop250.mp4": {"gop": 250, "options": X264_PYRAMID},
    "gop12.mkv": {"gop": 12, "options": X264_PYRAMID},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.mkv": {"options": OPEN_GOP},
    "intra_refresh.mp4": {"options": INTRA_REFRESH},
    "variable.mp4": {"gop": 12, "options": X264_PYRAMID, **VARIABLE},
    "variable.mkv": {"gop": 12, "options": X264_PYRAMID, **VARIABLE},
    "late_start.mp4": {"gop": 12, "options": X264_PYRAMID, "time_stamps": list(range(50, 50 + NUM_FRAMES))},
    "fragments.mp4": {"gop": 12, "container_options": FRAGMENTED},
    "no_index.mkv": {"gop": 12, "options": X264_PYRAMID, "container_options": {"live": "1"}},
    "interlaced.mp4": {"options": {"x264-params": "tff=1:keyint=12:bframes=2"}},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 15, "options": FAST_VPX},
    "vp8.webm": {"codec": "libvpx", "gop": 15, "options": FAST_VPX},
    "hevc_layers.mp4": {"codec": "libx265", "options": TEMPORAL_LAYERS},
    "mpeg2.mkv": {"codec": "mpeg2video", "gop": 12, "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 12, "b_frames": 2},
    "h264.avi": {"gop": 12, "options": X264_PYRAMID},
    "stream.ts": {"gop": 12, "options": X264_PYRAMID, "container_format": "mpegts"},
    "odd_size.mp4": {"gop": 12, "height": 50, "width": 70},
}


@pytest.fixture(scope="module")
def make_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a file of the table above once and give its path."""
    folder = tmp_path_factory.mktemp("videos")

    @functools.cache
    def make(name: str) -> Path:
        options = dict(FILES[name])
        try:
            av.codec.Codec(options.get("codec", "libx264"), "w")
        except ValueError:
            pytest.skip(f"this PyAV has no {options['codec']}")
        return write_video(folder / name, NUM_FRAMES, **options)

    return make


def assert_exact(path: Path, frames: list[np.ndarray], **options: object) -> None:
    """Read every frame: all at once, each alone in random order, and in random handfuls."""
    chance = random.Random(0)
    with open_video(path, **options) as reader:
        assert reader.num_frames == len(frames)
        everything = range(len(frames))
        requests = [list(everything), *[[index] for index in chance.sample(everything, len(frames))]]
        requests += [chance.choices(everything, k=chance.choice((2, 3, 7))) for _ in range(15)]
        for request in requests:
            given = list(reader.read(request))
            assert [index for index, _ in given] == sorted(set(request))
            for index, picture in given:
                assert picture.dtype == np.uint8
                assert np.array_equal(picture, frames[index]), f"frame {index}, read as part of {request}"


@pytest.mark.parametrize("name", ["clip", "long", "short"])
def test_frames_equal_the_published_decoder(reference: Path, name: str) -> None:
    frames = load_arrays("preprocess/decoded_frames.npz")[name]
    assert_exact(reference / "media" / f"{name}.mp4", list(frames))


@pytest.mark.parametrize("name", FILES)
def test_every_frame_of_every_kind_of_file(make_file: Callable[[str], Path], name: str) -> None:
    path = make_file(name)
    frames = decode_all(path)
    assert len(frames) == NUM_FRAMES
    assert_exact(path, frames)


def test_only_what_is_needed_is_decoded(make_file: Callable[[str], Path]) -> None:
    with open_video(make_file("gop12.mp4")) as reader:
        list(reader.read([36]))
        # Frame 36 is the fourth key frame.
        assert reader.num_decoded_frames == 1
        list(reader.read([35, 13]))
        # Frame 35 ends a group of 12 and frame 13 begins one; 3 of 4 frames are B-frames, of which one is referred to.
        assert reader.num_decoded_frames <= 1 + 8 + 4
    with open_video(make_file("gop250.mp4")) as reader:
        list(reader.read([39]))
        assert reader.num_decoded_frames <= 22


@pytest.mark.parametrize(
    "name", ["gop12.mp4", "open_gop.mkv", "variable.mkv", "no_index.mkv", "vp9.webm", "stream.ts"]
)
def test_seeking_needs_no_second_opening(
    make_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with open_video(make_file(name)) as reader:
        # The start of the file is reached by opening it anew; everything else by seeking.
        starts = [int(start) for start in reader._index.starts[1:]]
        assert starts
        monkeypatch.setattr(reader, "_open", lambda: pytest.fail("the file was opened again"))
        later = [frame for frame in range(NUM_FRAMES) if reader._index.start_for(frame) in starts]
        for frame in random.Random(0).sample(later, len(later)):
            list(reader.read([frame]))


def test_frames_come_one_by_one(make_file: Callable[[str], Path]) -> None:
    with open_video(make_file("gop1.mp4")) as reader:
        frames = reader.read(range(NUM_FRAMES))
        next(frames)
        assert reader.num_decoded_frames < 5
        # An abandoned read does not disturb the next one.
        assert [index for index, _ in reader.read([3, 30])] == [3, 30]


@pytest.mark.parametrize("num_hidden", [1, 5, 12, 19])
def test_edit_list_in_both_modes(make_file: Callable[[str], Path], tmp_path: Path, num_hidden: int) -> None:
    path = hide_first_frames(make_file("gop12.mp4"), tmp_path / "cut.mp4", num_hidden)
    shown, coded = decode_all(path), decode_all(path, ignore_edit_list=True)
    assert (len(shown), len(coded)) == (NUM_FRAMES - num_hidden, NUM_FRAMES)
    assert np.array_equal(shown[0], coded[num_hidden])
    assert_exact(path, shown)
    assert_exact(path, coded, edit_list="ignore")
    with open_video(path) as reader:
        assert reader.num_hidden_frames == num_hidden
        assert reader.frame_times[0] == 0
    with open_video(path, edit_list="ignore") as reader:
        assert reader.num_hidden_frames == 0


def test_edit_list_that_hides_the_end(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    content = bytearray(make_file("gop12.mp4").read_bytes())
    place = content.index(b"elst") + 12
    duration = int.from_bytes(content[place : place + 4], "big")
    content[place : place + 4] = (duration // 2).to_bytes(4, "big")
    path = tmp_path / "short.mp4"
    path.write_bytes(content)
    assert_exact(path, decode_all(path))
    with open_video(path) as reader:
        assert (reader.num_frames, reader.num_hidden_frames) == (NUM_FRAMES // 2, NUM_FRAMES // 2)


def test_index_past_a_hidden_end_names_the_edit_list(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    path = hide_first_frames(make_file("gop12.mp4"), tmp_path / "cut.mp4", 5)
    with (
        open_video(path) as reader,
        pytest.raises(ValueError, match=r"Frame 38 .*35 frames.*hides 5 more.*`edit_list=\"ignore\"`"),
    ):
        reader.read([38])
    with open_video(make_file("gop12.mp4")) as reader:
        with pytest.raises(ValueError, match=r"Frame 40 .*gop12.mp4 has 40 frames.*inside the video"):
            reader.read([0, 40])
        with pytest.raises(ValueError, match="Frame -1"):
            reader.read([-1])


def test_times_that_were_made_up_are_not_trusted(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    def number_as_stored(number: int, packet: av.Packet) -> av.Packet:
        packet.pts = packet.dts = number * 512
        return packet

    path = remux(make_file("gop12.mp4"), tmp_path / "made_up.mp4", number_as_stored)
    frames = decode_all(path)
    assert len(frames) == NUM_FRAMES
    assert_exact(path, frames)


def test_equal_times_are_not_trusted(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    def collide(number: int, packet: av.Packet) -> av.Packet:
        packet.pts += packet.pts % 80
        return packet

    path = remux(make_file("gop12.mkv"), tmp_path / "equal.mkv", collide)
    assert_exact(path, decode_all(path))


def test_start_in_the_middle_of_a_group(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    path = remux(make_file("gop12.mp4"), tmp_path / "tail.mkv", lambda number, packet: packet if number > 4 else None)
    frames = decode_all(path)
    # The decoder drops what comes before the next key frame: fewer frames than packets.
    assert len(frames) == NUM_FRAMES - 12
    assert_exact(path, frames)


def test_packets_that_show_nothing(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    def hide(number: int, packet: av.Packet) -> av.Packet:
        if number != 7:
            return packet
        content = bytearray(bytes(packet))
        content[0] &= ~(1 << 4)
        hidden = av.Packet(bytes(content))
        hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
        return hidden

    path = remux(make_file("vp8.webm"), tmp_path / "invisible.webm", hide)
    frames = decode_all(path)
    assert len(frames) == NUM_FRAMES - 1
    assert_exact(path, frames)


def test_recordings_that_were_joined(tmp_path: Path) -> None:
    first = write_video(tmp_path / "1.ts", 30, gop=12, options=X264_PYRAMID, container_format="mpegts")
    second = write_video(
        tmp_path / "2.ts",
        30,
        gop=12,
        height=64,
        width=96,
        options={"x264-params": "bframes=1:ref=1:cabac=0"},
        container_format="mpegts",
        time_stamps=list(range(100, 130)),
    )
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    frames = decode_all(path)
    assert [frame.shape[0] for frame in frames] == [48] * 30 + [64] * 30
    assert_exact(path, frames)
    with open_video(path) as reader:
        assert [picture.shape[:2] for _, picture in reader.read([3, 50])] == [(48, 64), (64, 96)]


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda picture: picture),
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
        ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    ],
)
def test_rotation(make_file: Callable[[str], Path], tmp_path: Path, matrix: tuple[int, ...], turn: Callable) -> None:
    path = tmp_path / "turned.mp4"
    path.write_bytes(make_file("gop12.mp4").read_bytes())
    coded = decode_all(set_display_matrix(path, matrix))
    assert_exact(path, [turn(picture) for picture in coded])


def test_times_and_rates(make_file: Callable[[str], Path]) -> None:
    with open_video(make_file("variable.mkv")) as reader:
        expected = (np.array(VARIABLE_TIMES) - VARIABLE_TIMES[0]) / 1000
        assert np.allclose(reader.frame_times, expected, atol=1e-9)
    with open_video(make_file("late_start.mp4")) as reader:
        assert np.allclose(reader.frame_times, np.arange(NUM_FRAMES) / 25)
        assert (reader.fps, reader.backend) == (25.0, "pyav")
        assert reader.duration_seconds == pytest.approx(NUM_FRAMES / 25)
    with open_video(make_file("h264.avi")) as reader:
        assert len(reader.frame_times) == NUM_FRAMES
        assert reader.fps == 25.0


@pytest.mark.parametrize("name", ["gop12.mkv", "vp9.webm", "fragments.mp4"])
def test_files_that_do_not_tell_their_number_of_frames(make_file: Callable[[str], Path], name: str) -> None:
    with av.open(str(make_file(name))) as container:
        assert container.streams.video[0].frames == 0
    with open_video(make_file(name)) as reader:
        assert reader.num_frames == NUM_FRAMES


def test_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", 1)
    assert_exact(path, decode_all(path))
    with open_video(path) as reader:
        assert reader.frame_times.tolist() == [0]
        assert list(reader.read([])) == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_cover_pictures_and_further_streams_are_passed_over(
    make_file: Callable[[str], Path], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"cover.{suffix}"
    with av.open(str(make_file("gop12.mp4"))) as source, av.open(str(path), "w") as target:
        cover = target.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        stream = target.add_stream_from_template(source.streams.video[0])
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        frame.pts = 0
        target.mux(cover.encode(frame))
        target.mux(cover.encode(None))
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert_exact(path, decode_all(make_file("gop12.mp4")))


CUTTABLE = {"front.mp4": {"movflags": "faststart"}, "plain.mkv": {}, "pieces.mp4": FRAGMENTED}


def packet_extents(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(packet.pos, packet.pos + packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("packet", [0, 17, 36, 54, 59])
@pytest.mark.parametrize("kind", CUTTABLE)
def test_truncated_file(tmp_path: Path, kind: str, packet: int) -> None:
    whole = write_video(tmp_path / kind, 60, gop=12, options=X264_PYRAMID, container_options=CUTTABLE[kind])
    start, end = packet_extents(whole)[packet]
    path = tmp_path / f"cut_{kind}"
    path.write_bytes(whole.read_bytes()[: (start + end) // 2])
    promised = r" of \d\d frames" if kind != "pieces.mp4" else r"( of \d\d)? frames"
    with pytest.raises(
        OSError, match=rf"cut_{kind} is truncated: it ends after {packet}{promised}, so frame {packet}"
    ):
        open_video(path)
    with path.open("rb") as file, pytest.raises(OSError, match="is truncated"):
        open_video(file)


@pytest.mark.parametrize("kind", ["plain.mkv", "pieces.mp4"])
def test_file_without_the_table_of_contents_at_its_end(tmp_path: Path, kind: str) -> None:
    whole = write_video(tmp_path / kind, 60, gop=12, options=X264_PYRAMID, container_options=CUTTABLE[kind])
    content, (_, end) = whole.read_bytes(), packet_extents(whole)[-1]
    path = tmp_path / f"cut_{kind}"
    # In Matroska the place of a packet is that of its header of at most 12 bytes.
    for size in (end + 12, len(content) - 10):
        assert size < len(content)
        path.write_bytes(content[:size])
        assert_exact(path, decode_all(whole))


def test_file_cut_in_the_head_of_a_fragment(tmp_path: Path) -> None:
    whole = write_video(
        tmp_path / "pieces.mp4", 36, gop=12, options=X264_PYRAMID, container_options=CUTTABLE["pieces.mp4"]
    )
    content = whole.read_bytes()
    head = content.index(b"moof", content.index(b"moof") + 4) - 4
    data = content.index(b"mdat", head) - 4
    num_frames = sum(end <= head for _, end in packet_extents(whole))
    path = tmp_path / "cut.mp4"
    for size in (head + 4, head + 8, head + 30, data - 1, data, data + 4, data + 8, data + 9):
        path.write_bytes(content[:size])
        with pytest.raises(OSError, match=r"cut.mp4 is truncated"):
            open_video(path)
    # What ends with a fragment is a whole file of fewer frames.
    path.write_bytes(content[:head])
    assert_exact(path, decode_all(path))
    with open_video(path) as reader:
        assert reader.num_frames == num_frames


def test_truncated_file_names_the_first_lost_frame(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 60, gop=12, container_options={"movflags": "faststart"})
    with av.open(str(whole)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: ends[41]])
    with pytest.raises(OSError, match=r"cut.mp4 is truncated: it ends after 42 of 60 frames, so frame 42 cannot"):
        open_video(path)


def test_truncated_file_without_its_index(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    path = truncate(make_file("gop12.mp4"), tmp_path / "cut.mp4", 0.5)
    with pytest.raises(OSError, match=r"cut.mp4 is truncated.*frame 0"):
        open_video(path)


def test_damaged_group_of_pictures(make_file: Callable[[str], Path], tmp_path: Path) -> None:
    source = make_file("gop12.mp4")
    frames = decode_all(source)
    with av.open(str(source)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][14]
    content = bytearray(source.read_bytes())
    # A length that points far outside the packet.
    content[place : place + 4] = b"\x7f\xff\xff\xff"
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    with open_video(path) as reader:
        for good in (5, 30):
            assert np.array_equal(dict(reader.read([good]))[good], frames[good])
        with pytest.raises(OSError, match=r"Frame 23 of .*damaged.mp4 \(40 frames\) cannot be decoded"):
            list(reader.read([23]))


def test_file_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "empty.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match="empty.avi has no frames"):
        open_video(path)


def test_file_with_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="sound.mp4 has no video stream"):
        open_video(path)


def test_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(b"plain text " * 100)
    with pytest.raises(ValueError, match="notes.mp4 is not a video"):
        open_video(path)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n../outside.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile outside.mp4\n",
    ],
    ids=["playlist", "concat"],
)
def test_lists_of_other_files_are_refused(
    make_file: Callable[[str], Path], tmp_path: Path, text: str, in_memory: bool
) -> None:
    (tmp_path / "inside").mkdir()
    for folder in (tmp_path, tmp_path / "inside"):
        (folder / "outside.mp4").write_bytes(make_file("odd_size.mp4").read_bytes())
    path = tmp_path / "inside" / "list.m3u8"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no video itself but a list|is not a video that can be decoded"):
        open_video(path.read_bytes() if in_memory else str(path))


def test_content_in_memory_and_file_objects(make_file: Callable[[str], Path]) -> None:
    path = make_file("gop12.mp4")
    frames, content = decode_all(path), path.read_bytes()
    assert_exact(content, frames)
    with path.open("rb") as file:
        assert_exact(file, frames)
        # The file of the caller stays open, wherever it stands.
        assert_exact(file, frames)
        with open_video(file) as reader:
            assert reader.name == str(path)


def test_pipe(make_file: Callable[[str], Path]) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *place: int) -> int:
            raise OSError("a pipe does not seek")

    path = make_file("gop12.mp4")
    with open_video(Pipe(path.read_bytes())) as reader:
        assert np.array_equal(dict(reader.read([20]))[20], decode_all(path)[20])


def test_colon_in_the_name(make_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "12:30.mp4").write_bytes(make_file("gop12.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    with open_video("12:30.mp4") as reader:
        assert reader.num_frames == NUM_FRAMES


@pytest.fixture
def address(make_file: Callable[[str], Path]) -> Iterator[str]:
    """Serve the files on this machine."""
    handler = functools.partial(QuietHandler, directory=str(make_file("gop12.mp4").parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that keeps no log."""

    def log_message(self, *content: object) -> None:
        pass


def test_address(make_file: Callable[[str], Path], address: str) -> None:
    frames = decode_all(make_file("gop12.mp4"))
    with open_video(f"{address}/gop12.mp4") as reader:
        for index, picture in reader.read([1, 25]):
            assert np.array_equal(picture, frames[index])
    with pytest.raises(OSError, match=r"http://.*/missing.mp4 cannot be opened"):
        open_video(f"{address}/missing.mp4")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_reading_leaves_no_threads_behind(make_file: Callable[[str], Path]) -> None:
    """A process that is forked later, such as a loader worker, would wait for them for ever."""
    gc.collect()
    gc.disable()
    try:
        before = len(list(Path("/proc/self/task").iterdir()))
        with open_video(make_file("gop12.mp4")) as reader:
            frames = list(reader.read([0, 7, 20]))
        assert len(frames) == 3
        assert len(list(Path("/proc/self/task").iterdir())) == before
    finally:
        gc.enable()


def test_closed_reader(make_file: Callable[[str], Path]) -> None:
    with open_video(make_file("gop12.mp4")) as reader:
        pass
    with pytest.raises(ValueError, match="gop12.mp4 is closed"):
        list(reader.read([0]))


def test_without_pyav(make_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_container, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        open_video(make_file("gop12.mp4"))


def test_texture_tells_frames_apart() -> None:
    frames = [picture.tobytes() for picture in moving_texture(NUM_FRAMES)]
    assert len(set(frames)) == NUM_FRAMES
