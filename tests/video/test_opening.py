"""Choosing the reader for a source, and telling one video from several."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import moving_texture, write_video

from transformers_videorefer.video.container import ContainerReader
from transformers_videorefer.video.opening import list_videos, open_video, source_key
from transformers_videorefer.video.pictures import (
    AnimationReader,
    ArrayReader,
    FolderReader,
    PictureListReader,
)


FRAMES = np.stack(list(moving_texture(4)))
PICTURE = Image.fromarray(FRAMES[0])


@pytest.fixture
def clip(reference: Path) -> Path:
    return reference / "media/clip.mp4"


def test_reader_for_every_kind(reference: Path, clip: Path) -> None:
    gif = reference / "media/anim.gif"
    sources = {
        ContainerReader: [clip, str(clip), clip.read_bytes(), io.BytesIO(clip.read_bytes())],
        AnimationReader: [gif, gif.read_bytes(), io.BytesIO(gif.read_bytes()), reference / "media/image.png"],
        FolderReader: [reference / "media/frames"],
        PictureListReader: [[PICTURE, FRAMES[1]], (FRAMES[0],)],
        ArrayReader: [FRAMES, torch.from_numpy(FRAMES)],
    }
    for kind, members in sources.items():
        for source in members:
            with open_video(source) as reader:
                assert type(reader) is kind
                assert next(reader.read([0]))[1].ndim == 3


def test_content_decides_and_not_the_name(clip: Path, reference: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.gif").write_bytes(clip.read_bytes())
    (tmp_path / "anim").write_bytes((reference / "media/anim.gif").read_bytes())
    assert open_video(tmp_path / "clip.gif").num_frames == 40
    assert open_video(tmp_path / "anim").num_frames == 6


def test_gif_in_a_file_object_leaves_it_open(reference: Path) -> None:
    with (reference / "media/anim.gif").open("rb") as file:
        for _ in range(2):
            with open_video(file) as reader:
                assert len(list(reader.read(range(6)))) == 6
        assert not file.closed


def test_names_in_errors(clip: Path, tmp_path: Path) -> None:
    with open_video(clip) as reader, pytest.raises(ValueError, match=rf"{clip} has 40 frames"):
        reader.read([40])
    with (
        open_video(clip.read_bytes(), name="video 3") as reader,
        pytest.raises(ValueError, match=r"video 3 \(given as \d+ bytes\) has 40 frames"),
    ):
        reader.read([40])
    with open_video(FRAMES, name="video 1") as reader, pytest.raises(ValueError, match="video 1 has 4 frames"):
        reader.read([2, -3])


def test_index_types(clip: Path) -> None:
    with open_video(clip) as reader:
        assert [index for index, _ in reader.read(np.array([5, 2, 5]))] == [2, 5]
        assert [index for index, _ in reader.read(index for index in (1, 0))] == [0, 1]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing.mp4", FileNotFoundError, "There is no video missing.mp4"),
        ("s3://bucket/clip.mp4", FileNotFoundError, "only http and https"),
        (b"", ValueError, "is empty"),
        (b"some text, certainly no video", ValueError, "is not a video"),
        (7, TypeError, "the video is a int. Pass a path"),
        (io.StringIO("text"), TypeError, "binary mode"),
        ([], ValueError, "has no frames"),
    ],
)
def test_what_cannot_be_opened(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_video(source)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "nothing.mp4").touch()
    with pytest.raises(ValueError, match="nothing.mp4 is empty"):
        open_video(tmp_path / "nothing.mp4")


def test_bad_options(clip: Path) -> None:
    with pytest.raises(ValueError, match="`edit_list` is 'keep'. Pass one of 'apply', 'ignore'"):
        open_video(clip, edit_list="keep")
    with pytest.raises(ValueError, match="`fps` is 0"):
        open_video(FRAMES, fps=0)


def test_rate_of_a_file_is_its_own(clip: Path, tmp_path: Path) -> None:
    with open_video(clip, fps=10.05) as reader:  # within 1 %
        assert reader.fps == 10
    with open_video(clip, default_fps=3) as reader:
        assert reader.fps == 10
    with pytest.raises(
        ValueError, match=r"`fps` is 3, but .* carries its own times \(10 frames per second\).*num_frames"
    ):
        open_video(clip, fps=3)
    gif = tmp_path / "timed.gif"
    pictures = [Image.fromarray(frame) for frame in FRAMES[:3]]
    pictures[0].save(gif, save_all=True, append_images=pictures[1:], duration=100)
    with pytest.raises(ValueError, match=r"`fps` is 5, but .*timed.gif carries its own times"):
        open_video(gif, fps=5)


def test_rate_of_pictures_is_the_given_one() -> None:
    with open_video(FRAMES, fps=3, default_fps=7) as reader:
        assert reader.fps == 3
    with open_video(FRAMES, default_fps=7) as reader:
        assert reader.fps == 7


def test_list_videos() -> None:
    array, other = FRAMES, FRAMES[:2]
    assert list_videos("a.mp4") == ["a.mp4"]
    assert list_videos(["a.mp4", Path("b.mkv"), "folder"]) == ["a.mp4", Path("b.mkv"), "folder"]
    assert list_videos([["a.mp4"], ["b.mp4", "c.gif"]]) == ["a.mp4", "b.mp4", "c.gif"]
    assert list_videos(["1.jpg", "2.jpg"]) == [["1.jpg", "2.jpg"]]
    assert list_videos([["1.jpg", "2.jpg"], "a.mp4"]) == [["1.jpg", "2.jpg"], "a.mp4"]
    assert list_videos([PICTURE, PICTURE]) == [[PICTURE, PICTURE]]
    for videos, expected in (
        (array, [array]),
        ([array, other], [array, other]),
        (np.stack([other, other]), [other, other]),
        ((torch.from_numpy(array), other), [array, other]),
    ):
        assert all(np.array_equal(got, want) for got, want in zip(list_videos(videos), expected, strict=True))
    (frames,) = list_videos(list(array))
    assert np.array_equal(np.stack(frames), array)
    with pytest.raises(ValueError, match="`videos` holds an empty list"):
        list_videos([])
    with pytest.raises(ValueError, match="empty list"):
        list_videos(["a.mp4", []])


def test_source_key(clip: Path) -> None:
    assert source_key(clip) == source_key(str(clip))
    assert source_key(FRAMES) == source_key(FRAMES)
    assert source_key(FRAMES) != source_key(FRAMES[:2])


def test_long_video_costs_little_memory(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", 300, gop=30)
    with open_video(path) as reader:
        sizes = [picture.nbytes for _, picture in reader.read([0, 150, 299])]
        assert sizes == [48 * 64 * 3] * 3
        # Half a group of pictures before each of the two later frames at most.
        assert reader.num_decoded_frames < 62
