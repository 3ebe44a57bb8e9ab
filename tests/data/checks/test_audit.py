"""Audit of videos: what is missing, broken, or counted another way."""

import hashlib
import os
import signal
from pathlib import Path

import pytest
from annotation_files import HEIGHT, WIDTH, make_row
from video_files import hide_first_frames, truncate, write_video

from transformers_videorefer.data.checks import audit as module
from transformers_videorefer.data.checks.audit import VideoUse, audit_video, audit_videos, collect_uses


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames; 40 of which an edit list hides 5; the same without the end; no video."""
    root = tmp_path_factory.mktemp("root")
    whole = write_video(root / "a.mp4", 40, b_frames=0)
    hide_first_frames(whole, root / "hidden.mp4", 5)
    truncate(write_video(root / "front.mp4", 40, container_options={"movflags": "faststart"}), root / "cut.mp4", 0.8)
    (root / "noise.mp4").write_bytes(b"no video" * 100)
    return root


def test_uses_are_collected_by_video():
    rows = [
        make_row(0, frames=[{"frame_index": 4, "rle": {"size": [48, 64], "counts": "x"}}, {"frame_index": 2, "rle": None}]),
        make_row(1, video=None),
        make_row(2, video="b.mp4", frames=[], edit_list="ignore"),
        make_row(3, frames=[{"frame_index": 9, "rle": {"size": [5, 5], "counts": "x"}}], edit_list="ignore"),
        make_row(4, frames=[{"frame_index": 1, "rle": {"size": [7, 7], "counts": "x"}, "size": [7, 7]}]),
        {**make_row(5, video="c.mp4", frames=[]), "frame_index": 30},
    ]  # fmt: skip
    assert list(collect_uses(rows).values()) == [
        VideoUse("videos/a.mp4", "mixed", 3, 9, [(48, 64), (5, 5)]),
        VideoUse("b.mp4", "ignore", 1, None, []),
        VideoUse("c.mp4", "apply", 1, 30, []),
    ]


def test_whole_video(root: Path):
    record = audit_video(VideoUse("a.mp4", "ignore", 2, 39, [(HEIGHT, WIDTH)]), str(root))
    content = (root / "a.mp4").read_bytes()
    assert (record.status, record.message, record.problem) == ("ok", "", "")
    assert (record.num_frames_applied, record.num_frames_ignored, record.has_edit_list) == (40, 40, False)
    assert (record.fps, record.width, record.height, record.duration_seconds) == (25.0, WIDTH, HEIGHT, 1.6)
    assert (record.num_bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (record.annotation_fits, record.mask_size_fits) == ("both", True)


@pytest.mark.parametrize(
    ("edit_list", "highest", "fits", "problem"),
    [
        ("ignore", 39, "ignore", ""),
        ("apply", 39, "ignore", "wrong_edit_list"),
        ("mixed", 35, "ignore", "wrong_edit_list"),
        ("apply", 34, "both", ""),
        ("ignore", 40, "neither", "frame_outside_video"),
        ("apply", None, None, ""),
    ],
)
def test_edit_list_and_the_count_that_the_annotation_fits(
    root: Path, edit_list: str, highest: int | None, fits: str | None, problem: str
):
    record = audit_video(VideoUse("hidden.mp4", edit_list, 1, highest), str(root))
    assert (record.num_frames_applied, record.num_frames_ignored, record.has_edit_list) == (35, 40, True)
    assert (record.annotation_fits, record.problem, record.status) == (fits, problem, "ok")


def test_masks_of_another_size(root: Path):
    record = audit_video(VideoUse("a.mp4", "apply", 1, 3, [(HEIGHT, WIDTH), (WIDTH, HEIGHT)]), str(root))
    assert (record.mask_size_fits, record.problem) == (False, "mask_size_differs")


@pytest.mark.parametrize(
    ("name", "status"),
    [("no.mp4", "missing"), ("cut.mp4", "truncated"), ("noise.mp4", "unreadable"), ("../a.mp4", "unsafe_path")],
)
def test_broken_videos(root: Path, name: str, status: str):
    record = audit_video(VideoUse(name, "ignore", 1, 3), str(root))
    assert (record.status, record.problem) == (status, status)
    assert record.message
    assert str(root) not in record.message
    assert (record.sha256 is None) == (status in ("missing", "unsafe_path"))


def test_folder_of_pictures(reference: Path):
    record = audit_video(VideoUse("frames", "ignore", 1, 9), str(reference / "media"))
    files = sorted((reference / "media" / "frames").iterdir())
    assert (record.status, record.num_frames_applied, record.annotation_fits) == ("ok", 10, "both")
    assert record.num_bytes == sum(file.stat().st_size for file in files)
    listing = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    assert record.sha256 == hashlib.sha256(listing.encode()).hexdigest()


def test_several_processes_give_the_same_in_the_same_order(root: Path):
    uses = [VideoUse(name, "ignore", 1, 39) for name in ("hidden.mp4", "no.mp4", "a.mp4", "cut.mp4", "noise.mp4")]
    assert list(audit_videos(uses, str(root), num_proc=2)) == list(audit_videos(uses, str(root)))
    with pytest.raises(ValueError, match="`num_proc` is 0. Pass 1 or more."):
        list(audit_videos(uses, str(root), num_proc=0))


def _crash_on_noise(use: VideoUse, data_root: str) -> str:
    if use.video == "noise.mp4":
        os.kill(os.getpid(), signal.SIGKILL)
    return use.video


def test_video_that_ends_the_process_is_noted_and_the_others_go_on(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "audit_video", _crash_on_noise)
    uses = [
        VideoUse(name, "ignore", 1, 3) for name in ("a.mp4", "noise.mp4", *(f"{number}.mp4" for number in range(12)))
    ]
    found = list(audit_videos(uses, str(root), num_proc=2))
    assert [one if isinstance(one, str) else one.video for one in found] == [use.video for use in uses]
    assert found[1].status == "unreadable"
    assert "crashed" in found[1].message
