from pathlib import Path

import pytest
from import_helpers import picture_folder
from video_files import hide_first_frames, truncate, write_video

from transformers_videorefer.data.defects import RecordError
from transformers_videorefer.data.importers.videos import VideoFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("a", "b"):
        (tmp_path / "videos" / folder).mkdir(parents=True)
    write_video(tmp_path / "videos" / "a" / "clip.mp4", 6)
    return tmp_path / "videos"


def test_videos_are_found_by_path_stem_and_last_part(root):
    videos = VideoFolder(root)
    for names in (["a/clip.mp4"], ["a/clip"], ["a\\clip.mp4"], ["elsewhere/clip.mp4"], ["clip"], ["no", "clip.mp4"]):
        info = videos.find(names)
        assert (info.name, info.num_frames, info.size) == ("a/clip.mp4", 6, (48, 64))
    assert info.frame_times.tolist() == pytest.approx([n / 25 for n in range(6)])


def test_folders_of_pictures_list_their_frames_by_number(root):
    picture_folder(root / "b" / "frames", ["10.jpg", "9.jpg"])
    info = VideoFolder(root).find(["frames"])
    assert (info.name, info.file_names, info.size, info.frame_times) == (
        "b/frames",
        ("9.jpg", "10.jpg"),
        (8, 10),
        None,
    )


def test_frames_that_an_edit_list_hides_have_no_number(root):
    hide_first_frames(root / "a" / "clip.mp4", root / "b" / "cut.mp4", 2)
    videos = VideoFolder(root)
    assert videos.find(["cut.mp4"]).num_frames == 4
    assert videos.find(["cut.mp4"], edit_list="ignore").num_frames == 6


def test_the_only_video(root):
    assert VideoFolder(root).only_video() == ["a/clip.mp4"]
    write_video(root / "b" / "other.mp4", 2)
    assert VideoFolder(root).only_video() == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gone.mp4"], "no video 'gone.mp4' below 'videos'"),
        ([], "the export names none"),
        (["../videos/a/clip.mp4"], "no path below the folder"),
        (["twin.mp4"], "2 videos are called 'twin.mp4': 'a/twin.mp4', 'b/twin.mp4'"),
        (["cut.mp4"], "'b/cut.mp4' cannot be read"),
    ],
)
def test_videos_that_cannot_be_used(root, names, message):
    for folder in ("a", "b"):
        (root / folder / "twin.mp4").write_bytes(b"x")
    truncate(root / "a" / "clip.mp4", root / "b" / "cut.mp4", 0.5)
    with pytest.raises(RecordError, match=message) as caught:
        VideoFolder(root).find(names)
    assert str(root) not in str(caught.value)


def test_there_must_be_a_folder(tmp_path):
    with pytest.raises(NotADirectoryError, match="`videos`.*is no folder"):
        VideoFolder(tmp_path / "none")
