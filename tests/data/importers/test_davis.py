import json
from pathlib import Path

import numpy as np
import pytest
from import_helpers import frames_of, masks_of, picture_folder, pixels, run_import
from PIL import Image
from video_files import write_video

from transformers_videorefer.data.defects import RecordError


def label_picture(path: Path, values: np.ndarray, *, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values.astype(np.uint8), mode="L")
    if mode == "P":
        picture = Image.frombytes("P", picture.size, values.astype(np.uint8).tobytes())
        picture.putpalette([level for level in range(256) for _ in range(3)])  # so that 255 stays 255
    picture.save(path)


def values(*boxes: tuple[int, slice, slice]) -> np.ndarray:
    picture = np.zeros((8, 10), dtype=np.uint8)
    for value, rows, columns in boxes:
        picture[rows, columns] = value
    return picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three frames 00000, 00005 and 00010, of which the first and the last one are annotated."""
    root = tmp_path / "DAVIS"
    picture_folder(root / "JPEGImages" / "480p" / "bear", ["00000.jpg", "00005.jpg", "00010.jpg"])
    folder = root / "Annotations" / "480p" / "bear"
    void = (255, slice(7, 8), slice(0, 10))
    label_picture(folder / "00000.png", values((1, slice(0, 2), slice(0, 3)), (2, slice(4, 6), slice(5, 9)), void))
    label_picture(folder / "00010.png", values((2, slice(5, 7), slice(5, 9)), void))
    return root


@pytest.mark.parametrize("videos", [".", "JPEGImages", "JPEGImages/480p"])
def test_objects_of_palette_pictures(root, videos):
    rows, report = run_import("davis", root, root / videos)
    assert [row["id"] for row in rows] == ["480p/bear-1", "480p/bear-2"]
    assert {(root / videos / row["video"]).resolve() for row in rows} == {root / "JPEGImages" / "480p" / "bear"}
    masks = masks_of(rows[0])
    assert list(masks) == [0]
    np.testing.assert_array_equal(masks[0], pixels(8, 10, slice(0, 2), slice(0, 3)))
    masks = masks_of(rows[1])
    assert list(masks) == [0, 2]  # the picture 00010 is frame 2 of the folder
    np.testing.assert_array_equal(masks[2], pixels(8, 10, slice(5, 7), slice(5, 9)))
    assert rows[0]["messages"][1:] == []
    assert report.counts == {}


def test_labels_lie_beside_the_annotations(root):
    (root / "davis_semantics.json").write_text(json.dumps({"bear": {"1": "cub", "2": "bear"}}))
    rows, _ = run_import("davis", root, root, question="Is the {label} <region> alone?")
    assert [row["messages"][1]["content"] for row in rows] == ["cub", "bear"]
    assert rows[0]["messages"][0]["content"] == "<video>\nIs the cub <region> alone?"
    (root / "davis_semantics.json").unlink()
    meta = {"videos": {"bear": {"objects": {"2": {"category": "bear", "frames": ["00000"]}}}}}
    (root / "meta.json").write_text(json.dumps(meta))
    rows, _ = run_import("davis", root / "Annotations", root)
    assert [row["messages"][1:] for row in rows] == [[], [{"role": "assistant", "content": "bear"}]]


def test_white_on_black_without_a_palette_is_one_object(tmp_path):
    label_picture(tmp_path / "Annotations" / "cow" / "0.png", values((255, slice(1, 3), slice(2, 4))), mode="L")
    picture_folder(tmp_path / "JPEGImages" / "cow", ["0.jpg"])
    (row,), _ = run_import("davis", tmp_path, tmp_path)
    assert row["id"] == "cow-1"
    np.testing.assert_array_equal(masks_of(row)[0], pixels(8, 10, slice(1, 3), slice(2, 4)))


def test_a_video_file_needs_a_label_picture_for_every_frame(tmp_path):
    for number in range(2):
        label_picture(tmp_path / "Annotations" / "cow" / f"{number:05d}.png", values((3, slice(1, 3), slice(2, 4))))
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "cow.mp4", 2, height=16, width=20)
    (row,), _ = run_import("davis", tmp_path, tmp_path / "videos")
    assert (row["id"], row["video"], frames_of(row)) == ("cow-3", "cow.mp4", [0, 1])
    assert row["regions"][0]["frames"][0]["size"] == [8, 10]  # half the size of the video: the processor scales it
    write_video(tmp_path / "videos" / "cow.mp4", 3, height=16, width=20)
    with pytest.raises(RecordError, match="2 label pictures for 3 frames"):
        run_import("davis", tmp_path, tmp_path / "videos")


def test_label_pictures_are_no_frames(root, tmp_path):
    with pytest.raises(RecordError, match="only label pictures were found for 'bear'"):
        run_import("davis", root / "Annotations" / "480p", root / "Annotations" / "480p")


def test_broken_pictures_are_named_or_skipped(root):
    picture_folder(root / "JPEGImages" / "480p" / "ant", ["00000.jpg"])
    broken = root / "Annotations" / "480p" / "ant" / "00000.png"
    broken.parent.mkdir()
    broken.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(RecordError, match="DAVIS, 480p/ant: the label pictures cannot be read"):
        run_import("davis", root, root)
    rows, report = run_import("davis", root, root, bad_rows="skip")
    assert (len(rows), report.num_skipped) == (2, 1)
    Image.new("RGB", (4, 4)).save(broken)
    with pytest.raises(RecordError, match="mode RGB"):
        run_import("davis", root, root)


def test_no_annotations(tmp_path):
    with pytest.raises(ValueError, match="holds no .png picture"):
        run_import("davis", tmp_path, tmp_path)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(NotADirectoryError, match="is no folder"):
        run_import("davis", tmp_path / "file.txt", tmp_path)
