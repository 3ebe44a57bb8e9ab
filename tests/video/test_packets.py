"""The index of a file, from made-up packets (real files: test_container.py)."""

from typing import Any

import pytest

from transformers_videorefer.video.packets import PacketInfo, index_packets, inspect_key_frame


AVC_HEADER = b"\x01\x64\x00\x0a\xff\xe1SETTINGS"
IDR, SLICE, SEI, SETTINGS = b"\x65slice", b"\x41slice", 6, b"\x67"
# Recovery points (kind 6): recovery_frame_cnt and exact_match_flag are the first bits of the payload.
RECOVERS_AT_ONCE, RECOVERS_LATER, RECOVERS_ABOUT = b"\x06\x06\x01\xc0", b"\x06\x06\x01\x60", b"\x06\x06\x01\x80"


class FakePacket(bytes):
    """A coded packet without side data."""

    def has_sidedata(self, kind: str) -> bool:
        return False


def packet(time: int | None, **changes: Any) -> PacketInfo:
    fields = {"duration": 1, "size": 10, "is_start": False, "is_hidden": False, "is_shown": True, "is_cut": False}
    return PacketInfo(time=time, **{**fields, **changes})


def with_lengths(*units: bytes) -> FakePacket:
    return FakePacket(b"".join(len(unit).to_bytes(4, "big") + unit for unit in units))


def with_start_codes(*units: bytes) -> FakePacket:
    return FakePacket(b"".join(b"\0\0\0\1" + unit for unit in units))


def test_frames_are_numbered_by_time() -> None:
    packets = [packet(0, is_start=True), packet(3), packet(1), packet(2), packet(4, is_start=True), packet(5)]
    index = index_packets(packets, is_reordered=True)
    assert index.frame_times.tolist() == [0, 1, 2, 3, 4, 5]
    assert index.frame_packets.tolist() == [0, 2, 3, 1, 4, 5]
    assert [index.start_for(frame) for frame in range(6)] == [0, 0, 0, 0, 4, 4]


def test_frames_shown_before_their_key_frame_start_earlier() -> None:
    packets = [packet(0, is_start=True), packet(1), packet(4, is_start=True), packet(2), packet(3), packet(5)]
    index = index_packets(packets, is_reordered=True)
    assert [index.start_for(frame) for frame in range(6)] == [0, 0, 0, 0, 2, 2]


def test_hidden_packets_have_no_number() -> None:
    packets = [packet(-2, is_start=True, is_hidden=True, is_shown=False), packet(-1, is_shown=False), packet(0)]
    index = index_packets(packets)
    assert (index.frame_times.tolist(), index.frame_packets.tolist()) == ([0], [2])


@pytest.mark.parametrize(
    "packets",
    [
        [packet(0, is_start=True), packet(None)],
        [packet(0, is_start=True), packet(0)],
        [packet(0), packet(1)],
        [packet(1, is_start=True), packet(0)],
        [packet(0, is_start=True), packet(1, size=0)],
    ],
    ids=["no time", "equal times", "no start", "before the start", "empty"],
)
def test_unusual_packets_are_not_trusted(packets: list[PacketInfo]) -> None:
    assert index_packets(packets) is None


def test_rising_times_of_reordered_frames_are_not_trusted() -> None:
    packets = [packet(0, is_start=True), packet(1), packet(2)]
    assert index_packets(packets, is_reordered=True) is None
    assert index_packets(packets).frame_times.tolist() == [0, 1, 2]


def test_decoded_times_decide() -> None:
    packets = [packet(0), packet(1), packet(2, is_start=True), packet(3)]
    index = index_packets(packets, decoded_times=[2, 3])
    assert index.frame_packets.tolist() == [2, 3]
    assert index.start_for(0) == 2
    assert index_packets(packets, decoded_times=[3, 2]) is None
    assert index_packets(packets, decoded_times=[2, None]) is None
    assert index_packets(packets, decoded_times=[2, 7]) is None


def test_start_that_contradicts_the_order_is_no_start() -> None:
    packets = [packet(0, is_start=True), packet(5), packet(3, is_start=True), packet(4)]
    assert index_packets(packets).starts.tolist() == [0]


def test_changing_settings_allow_one_start_only() -> None:
    plain, other = packet(1, is_start=True), packet(1, is_start=True, new_settings=(b"other",))
    assert index_packets([packet(0, is_start=True), plain]).starts.tolist() == [0, 1]
    assert index_packets([packet(0, is_start=True), other]).starts.tolist() == [0]
    same = packet(0, is_start=True, new_settings=(b"other",))
    assert index_packets([same, other]).starts.tolist() == [0, 1]


@pytest.mark.parametrize("pack", [with_lengths, with_start_codes])
@pytest.mark.parametrize(
    ("units", "is_start"),
    [
        ((IDR,), True),
        ((b"\x09\xf0", IDR), True),
        ((SLICE,), False),
        ((RECOVERS_AT_ONCE, SLICE), True),
        ((b"\x06\x05\x02ab" + RECOVERS_AT_ONCE[1:], SLICE), True),
        ((b"\x06\x05\xff\x01" + b"a" * 256 + RECOVERS_AT_ONCE[1:], SLICE), True),
        ((RECOVERS_LATER, SLICE), False),
        ((RECOVERS_ABOUT, SLICE), False),
        ((b"\x06\x05\xff", SLICE), False),
        ((b"\x09\xf0",), False),
    ],
)
def test_h264_starts(pack: Any, units: tuple[bytes, ...], is_start: bool) -> None:
    extradata = AVC_HEADER if pack is with_lengths else b""
    assert inspect_key_frame(pack(*units), "h264", extradata) == (is_start, ())


def test_h264_settings() -> None:
    own, other = SETTINGS + b"own", SETTINGS + b"other"
    assert inspect_key_frame(with_lengths(own, IDR), "h264", AVC_HEADER + own) == (True, ())
    assert inspect_key_frame(with_lengths(other, IDR), "h264", AVC_HEADER + own) == (True, (other,))


@pytest.mark.parametrize(("kind", "is_start"), [(19, True), (20, True), (21, True), (1, False), (9, False)])
def test_hevc_starts(kind: int, is_start: bool) -> None:
    unit = bytes([kind << 1, 1]) + b"slice"
    assert inspect_key_frame(with_start_codes(b"\x46\x01\x50", unit), "hevc", b"") == (is_start, ())


@pytest.mark.parametrize(("codec", "is_start"), [("vp9", True), ("libdav1d", True), ("wmv3", False)])
def test_other_codecs(codec: str, is_start: bool) -> None:
    assert inspect_key_frame(FakePacket(b"anything"), codec, b"") == (is_start, ())
