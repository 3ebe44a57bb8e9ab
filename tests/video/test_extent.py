"""What files say about their own length."""

import io

import pytest

from transformers_videorefer.video.packets import measure_file


def box(kind: bytes, length: int) -> bytes:
    return length.to_bytes(4, "big") + kind + bytes(length - 8)


EBML = b"\x1a\x45\xdf\xa3\x84abcd"
SEGMENT = b"\x18\x53\x80\x67"
CASES = {
    "boxes": (box(b"ftyp", 16) + box(b"moov", 24), 40),
    "cut box": ((box(b"ftyp", 16) + box(b"mdat", 100))[:60], 116),
    "large box": (box(b"ftyp", 16) + b"\0\0\0\1mdat" + (5000).to_bytes(8, "big") + bytes(50), 5016),
    "box to the end": (box(b"ftyp", 16) + b"\0\0\0\0mdat" + bytes(50), 74),
    "trailing bytes": (box(b"ftyp", 16) + b"\0\0", 18),
    "matroska": (EBML + SEGMENT + b"\x8a" + bytes(10), 24),
    "cut matroska": (EBML + SEGMENT + b"\x01" + (1000).to_bytes(7, "big") + bytes(10), 9 + 4 + 8 + 1000),
    "live matroska": (EBML + SEGMENT + b"\x01" + b"\xff" * 7 + bytes(10), 0),
    "broken matroska": (EBML + b"nothing of the kind", 0),
    "avi": (b"RIFF" + (92).to_bytes(4, "little") + b"AVI " + bytes(20), 100),
    "unknown": (b"G" + bytes(187), 0),
    "empty": (b"", 0),
}


@pytest.mark.parametrize("name", CASES)
def test_announced_size(name: str) -> None:
    content, announced = CASES[name]
    extent = measure_file(io.BytesIO(content))
    assert (extent.size, extent.announced) == (len(content), announced)
    assert extent.head == content[:4096]
