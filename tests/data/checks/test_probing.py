"""What a video file really is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_files import hide_first_frames, truncate, write_video

from transformers_videorefer.data.checks.probing import MediaFacts, probe_image, probe_video


def test_whole_video(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 40)
    facts = probe_video(str(path), frame_indices=(-1, 20, 99))
    assert facts == MediaFacts("ok", "", 40, 0, 48, 64, 25.0, 1.6)


def test_edit_list_hides_frames(tmp_path: Path):
    path = str(hide_first_frames(write_video(tmp_path / "a.mp4", 40, b_frames=0), tmp_path / "b.mp4", 5))
    applied, ignored = probe_video(path), probe_video(path, edit_list="ignore")
    assert (applied.num_frames, applied.num_hidden_frames) == (35, 5)
    assert (ignored.num_frames, ignored.num_hidden_frames) == (40, 0)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "front.mp4"])
def test_file_without_its_end_is_truncated(tmp_path: Path, name: str):
    # With the table of contents in front, the file opens and promises all of its frames.
    options = {"movflags": "faststart"} if name == "front.mp4" else {}
    path = write_video(tmp_path / name, 40, container_options=options)
    facts = probe_video(str(truncate(path, tmp_path / f"cut_{name}", 0.7)))
    assert facts.status == "truncated"
    assert "truncated" in facts.message


def test_damaged_picture_is_found_where_it_is_decoded(tmp_path: Path):
    path = write_video(tmp_path / "a.avi", 40, codec="mjpeg", pix_fmt="yuvj420p")
    content = bytearray(path.read_bytes())
    start = content.rindex(b"\xff\xd8\xff")  # the last picture
    content[start : start + 600] = b"\x55" * 600
    path.write_bytes(content)
    facts = probe_video(str(path), frame_indices=(-1,))
    assert facts.status == "unreadable"


@pytest.mark.parametrize("content", [b"", b"this is no video at all" * 50])
def test_file_that_is_no_video(tmp_path: Path, content: bytes):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert probe_video(str(path)).status == "unreadable"


def test_missing_files(tmp_path: Path):
    assert probe_video(str(tmp_path / "no.mp4")).status == "missing"
    assert probe_image(str(tmp_path / "no.png")).status == "missing"


def test_folder_of_pictures(reference: Path, tmp_path: Path):
    facts = probe_video(str(reference / "media" / "frames"), frame_indices=(-1,))
    assert (facts.status, facts.num_frames, facts.fps) == ("ok", 10, None)
    assert probe_video(str(tmp_path)).status == "unreadable"  # no picture in it


def test_images(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(path)
    assert probe_image(str(path)) == MediaFacts("ok", num_frames=1, height=30, width=50)
    path.write_bytes(path.read_bytes()[:400])
    assert probe_image(str(path)).status == "truncated"
