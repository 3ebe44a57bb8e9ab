"""Videos stored as pictures: folders, lists, arrays and animated pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import moving_texture

from transformers_videorefer.video.pictures import (
    AnimationReader,
    ArrayReader,
    FolderReader,
    PictureListReader,
    has_picture_signature,
    is_frame,
    is_picture_file_name,
)
from transformers_videorefer.video.reader import VideoReader


FRAMES = np.stack(list(moving_texture(12)))


def assert_frames(reader: VideoReader, frames: np.ndarray) -> None:
    with reader:
        assert reader.num_frames == len(frames)
        for request in (range(len(frames)), [len(frames) - 1, 0, 0], [1]):
            given = list(reader.read(request))
            assert [index for index, _ in given] == sorted(set(request))
            for index, picture in given:
                assert picture.dtype == np.uint8
                assert np.array_equal(picture, frames[index])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose file names sort by number only, beside files that are no frames."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(folder / (f"shot {number + 1}.png" if number else "shot 01.PNG"))
    (folder / "notes.txt").write_text("no frame")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "more.png").mkdir()
    return folder


def test_folder_sorts_by_number(folder: Path) -> None:
    assert_frames(FolderReader(folder), FRAMES)


def test_folder_of_the_reference(reference: Path) -> None:
    expected = [np.asarray(Image.open(reference / f"media/frames/{number:05}.png")) for number in range(10)]
    assert_frames(FolderReader(reference / "media/frames"), np.stack(expected))


def test_folder_times_need_a_rate(folder: Path) -> None:
    with FolderReader(folder) as reader:
        assert (reader.fps, reader.duration_seconds) == (None, None)
        with pytest.raises(ValueError, match=r"frames have no time stamps. Pass `fps`"):
            _ = reader.frame_times
    with FolderReader(folder, fps=4) as reader:
        assert reader.frame_times.tolist() == [number / 4 for number in range(12)]
        assert reader.duration_seconds == 3


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"folder {tmp_path} holds no picture"):
        FolderReader(tmp_path)


def test_folder_with_a_broken_picture(folder: Path) -> None:
    content = (folder / "shot 4.png").read_bytes()
    (folder / "shot 4.png").write_bytes(content[: len(content) // 2])
    with FolderReader(folder) as reader:
        assert len(list(reader.read([0, 4]))) == 2
        with pytest.raises(OSError, match=r"frame 3 of .*shot 4.png\) cannot be read"):
            list(reader.read([3]))


def test_lists_of_every_kind(folder: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in FRAMES]
    encoded = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "png")
        encoded.append(file.getvalue())
    paths = [folder / ("shot 01.PNG" if number == 0 else f"shot {number + 1}.png") for number in range(12)]
    for frames in (
        pictures,
        list(FRAMES),
        list(torch.from_numpy(FRAMES)),
        encoded,
        paths,
        [str(path) for path in paths],
    ):
        assert_frames(PictureListReader(frames, "the list"), FRAMES)
    mixed = [pictures[0], FRAMES[1], torch.from_numpy(FRAMES[2]), *paths[3:]]
    assert_frames(PictureListReader(mixed, "the list"), FRAMES)


def test_list_of_gray_and_transparent_pictures() -> None:
    gray = FRAMES[0, :, :, 0]
    rgba = Image.fromarray(FRAMES[1]).convert("RGBA")
    frames = [gray, gray[:, :, None], Image.fromarray(gray), rgba]
    expected = [np.stack([gray] * 3, axis=-1)] * 3 + [FRAMES[1]]
    assert_frames(PictureListReader(frames, "the list"), np.stack(expected))


def test_list_with_pictures_of_several_sizes() -> None:
    with PictureListReader([FRAMES[0], FRAMES[1, :20, :30]], "the list") as reader:
        assert [picture.shape[:2] for _, picture in reader.read([0, 1])] == [FRAMES.shape[1:3], (20, 30)]


def test_pictures_are_turned_upright() -> None:
    picture = Image.fromarray(FRAMES[0])
    picture.getexif()[0x0112] = 6  # shown a quarter turn clockwise
    file = io.BytesIO()
    picture.save(file, "png", exif=picture.getexif())
    (_, shown), *_ = PictureListReader([file.getvalue()], "the list").read([0])
    assert np.array_equal(shown, np.rot90(FRAMES[0], -1))


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (FRAMES[0].astype(np.float32), TypeError, "frame 1 of the list has dtype float32. Pass uint8"),
        (FRAMES[0].transpose(1, 0, 2)[..., :2], ValueError, r"has shape \(64, 48, 2\). Pass \(height, width, 3\)"),
        (FRAMES[0, :0], ValueError, r"has shape \(0, 64, 3\)"),
        (7, TypeError, "frame 1 of the list is a int"),
        ("missing.png", FileNotFoundError, "there is no file missing.png"),
        (b"no picture", OSError, "frame 1 of the list cannot be read as a picture"),
    ],
)
def test_list_with_something_else(frame: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(PictureListReader([FRAMES[0], frame], "the list").read([0, 1]))


def test_empty_list() -> None:
    with pytest.raises(ValueError, match="the list has no frames"):
        PictureListReader([], "the list")


def test_array_and_tensor() -> None:
    assert_frames(ArrayReader(FRAMES, "the array"), FRAMES)
    assert_frames(ArrayReader(torch.from_numpy(FRAMES), "the tensor"), FRAMES)
    assert_frames(ArrayReader(FRAMES.transpose(0, 3, 1, 2), "channels first"), FRAMES)
    assert_frames(PictureListReader(list(FRAMES.transpose(0, 3, 1, 2)), "channels first"), FRAMES)
    # Where another axis is 3 long too, the channels are the last.
    narrow = np.ascontiguousarray(FRAMES[:, :3, :, :])
    assert_frames(ArrayReader(narrow, "three rows"), narrow)
    assert ArrayReader(FRAMES, "the array", fps=6).frame_times[-1] == 11 / 6


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (FRAMES / 255, TypeError, "dtype float64"),
        (FRAMES[:, :, :, :2], ValueError, r"shape \(12, 48, 64, 2\).*or \(num_frames, 3, height, width\)"),
        (FRAMES[:, :0], ValueError, r"shape \(12, 0, 64, 3\)"),
        (FRAMES[0], ValueError, r"shape \(48, 64, 3\).*single picture as an image"),
        (FRAMES[:0], ValueError, "no frames"),
    ],
)
def test_bad_array(array: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ArrayReader(array, "the array")


@pytest.fixture
def gif(tmp_path: Path) -> Path:
    """Three frames of flat colours, shown for 100, 200 and 50 milliseconds."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *others = [Image.new("RGB", (20, 10), colour) for colour in colours]
    first.save(tmp_path / "flat.gif", save_all=True, append_images=others, duration=[100, 200, 50])
    return tmp_path / "flat.gif"


def test_gif(gif: Path) -> None:
    expected = np.zeros((3, 10, 20, 3), np.uint8)
    expected[0, ..., 0] = expected[1, ..., 1] = expected[2, ..., 2] = 255
    assert_frames(AnimationReader(gif, "flat.gif"), expected)
    with AnimationReader(gif, "flat.gif", fps=1000) as reader:
        assert np.allclose(reader.frame_times, [0, 0.1, 0.3])
        assert reader.fps == pytest.approx(3 / 0.35)
        assert reader.duration_seconds == pytest.approx(0.35)


def test_gif_that_changes_parts_of_the_picture(tmp_path: Path) -> None:
    # Written as a full picture and small patches; each frame must come out as the whole of what is shown.
    frames = [np.full((16, 16, 3), 200, np.uint8)]
    for number in range(1, 4):
        frame = frames[-1].copy()
        frame[4 * number : 4 * number + 2, 3:9] = 10 * number
        frames.append(frame)
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(tmp_path / "patches.gif", save_all=True, append_images=others, duration=40, disposal=1)
    assert_frames(AnimationReader(tmp_path / "patches.gif", "patches.gif"), np.stack(frames))


def test_truncated_gif(reference: Path) -> None:
    content = (reference / "media/anim.gif").read_bytes()
    with pytest.raises(OSError, match=r"Frame 3 of cut.gif \(4 frames\) cannot be read"):
        AnimationReader(io.BytesIO(content[:-400]), "cut.gif")
    with pytest.raises(ValueError, match="cut.gif cannot be read as a picture"):
        AnimationReader(io.BytesIO(content[:8]), "cut.gif")


def test_still_picture_is_a_video_of_one_frame(reference: Path) -> None:
    with AnimationReader(reference / "media/image.png", "image.png") as reader:
        assert (reader.num_frames, reader.fps) == (1, None)
        assert next(reader.read([0]))[1].shape == (80, 100, 3)
        with pytest.raises(ValueError, match="Pass `fps`"):
            _ = reader.frame_times


def test_names_and_signatures() -> None:
    assert all(is_picture_file_name(name) for name in ("a.png", "b.JPG", Path("c/d.webp")))
    assert not any(is_picture_file_name(name) for name in ("a.gif", "b.mp4", "folder", 7, b"a.png"))
    assert has_picture_signature(b"GIF89a")
    assert has_picture_signature(b"RIFF\0\0\0\0WEBPVP8 ")
    assert not has_picture_signature(b"RIFF\0\0\0\0AVI LIST")


def test_members_of_a_list_that_are_frames() -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    assert all(
        is_frame(item) for item in (FRAMES[0], FRAMES[0, :, :, 0], torch.zeros(2, 2), "1.jpg", Path("1.png"), png)
    )
    assert is_frame(Image.fromarray(FRAMES[0]))
    assert not any(
        is_frame(item) for item in (FRAMES, "a.mp4", "a.gif", b"GIF89a", b"\0\0\0 ftypisom", None, [FRAMES[0]])
    )
