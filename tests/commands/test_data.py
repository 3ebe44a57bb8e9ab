"""`videorefer data`: check, audit and show."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from annotation_files import HEIGHT, WIDTH, box_mask, make_record, make_row, write_json, write_parquet_folder
from PIL import Image
from stderr_lines import without_slow_steps
from video_files import hide_first_frames, truncate, write_video

from transformers_videorefer import __version__
from transformers_videorefer.cli import main
from transformers_videorefer.data import DEFECT_KINDS
from transformers_videorefer.preview.drawing import PALETTE


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `videos` holds a whole video, one with an edit list, and one that was cut off."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    whole = write_video(tmp_path / "videos" / "a.mp4", 40, b_frames=0)
    hide_first_frames(whole, tmp_path / "videos" / "hidden.mp4", 5)
    truncate(whole, tmp_path / "videos" / "cut.mp4", 0.6)
    return tmp_path


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = main(["data", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, without_slow_steps(captured.err)


def test_check_of_a_sound_file(root: Path, capsys):
    write_json(root / "qa.json", [make_record(0), make_record(1)])
    code, out, err = run(capsys, "check", "qa.json", "--videos", ".")
    assert (code, err) == (0, "")
    assert out == "2 rows, 0 of them unusable, 0 defects; 1 video or image, 0 of them missing or broken\n"


@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl", "set"])
def test_check_counts_defects(root: Path, capsys, name: str):
    rows = [
        make_row(0),
        make_row(0, video="videos/cut.mp4"),
        make_row(2, frames=[{"frame_index": 99, "rle": box_mask()}]),
    ]
    if name == "set":
        write_parquet_folder(root / name, rows)
    else:
        write_json(root / name, rows)
    code, out, _ = run(capsys, "check", name, "--videos", ".", "--report", "new/defects.json")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "3 rows, 2 of them unusable, 3 defects; 2 videos and images, 1 of them missing or broken"
    assert f"         1  truncated_video: {DEFECT_KINDS['truncated_video']}" in lines
    file = "train-00000-of-00001.parquet" if name == "set" else name
    assert f"            {file}, row 2, id '2': object 0, frame 99: the video has 40 frames" in lines
    report = json.loads((root / "new" / "defects.json").read_text())
    assert report["version"] == __version__
    assert report["settings"] == {"file": name, "videos": "."}
    assert report["num_rows"] == 3
    assert report["counts"] == {"duplicate_id": 1, "truncated_video": 1, "frame_outside_video": 1}
    assert len(report["examples"]["truncated_video"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "no.json"], "There is no file or folder no.json. Check the path."),
        (["check", "videos/a.mp4"], "expected a JSON array or JSON lines"),
        (["check", "broken.json"], "broken.json, byte"),
        (["check", "qa.json", "--videos", "nowhere"], "`--videos nowhere`: there is no such folder"),
        (
            ["check", "qa.json", "--report", "x.csv"],
            "`--report x.csv`: the file is written as json. Use a name that ends",
        ),
        (["check", "qa.json", "--report", "qa.json"], "`--report qa.json`: this is the file that is read"),
        (["check", "qa.json", "--report", "folder.json"], "`--report folder.json`: this is a folder"),
        (["check", "none.json"], "none.json holds no rows. Check that it is the right file, and whole."),
        (["check", "blank.json"], "blank.json holds no rows"),
        (["audit", "none.json", "--videos", "."], "none.json holds no rows"),
        (
            ["audit", "qa.json", "--videos", ".", "--output", "m.csv"],
            "`--output m.csv`: the file is written as parquet",
        ),
        (["audit", "qa.json"], "the following arguments are required: --videos"),
        (["audit", "qa.json", "--videos", ".", "--num-proc", "0"], "`--num-proc 0`: pass 1 or more"),
        (["audit", "no.json", "--videos", "."], "There is no file or folder no.json"),
        (["show", "qa.json"], "the following arguments are required: --output"),
        (["show", "qa.json", "--output", "x.txt"], "`--output x.txt`: this is no picture format"),
        (["show", "qa.json", "--output", "x.png", "--index", "7"], "Row 7 does not exist: qa.json has 1 row."),
        (["show", "qa.json", "--output", "x.png", "--frames", "0"], "`--frames 0`: pass a number from 1 to 36"),
        (["show", "qa.json", "--output", "x.png", "--videos", "videos"], "There is no video videos/videos/a.mp4"),
        (["show", "set", "--output", "x.png", "--config", "zz"], "There is no config 'zz': set has qa, other"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_is_one_line_with_exit_code_2(root: Path, capsys, arguments: list[str], message: str):
    write_json(root / "qa.json", [make_record()])
    (root / "broken.json").write_text('[{"id": 1')
    (root / "none.json").write_text("[]")
    (root / "folder.json").mkdir()
    (root / "blank.json").write_text("")
    write_parquet_folder(root / "set", [make_row()], ("qa", "other"))
    capsys.readouterr()
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("videorefer: error: ")
    assert message in line
    assert not (root / "x.png").exists()


def test_audit_writes_a_manifest(root: Path, capsys):
    records = [
        make_record(0),
        make_record(1, video="videos/hidden.mp4", objects=[{39: box_mask()}]),
        make_record(2, video="videos/cut.mp4"),
        make_record(3, video="videos/no.mp4"),
        make_record(4, video="../a.mp4"),
        make_row(5, video="videos/./hidden.mp4", frames=[{"frame_index": 39, "rle": box_mask()}]),
    ]
    write_json(root / "qa.json", records)
    code, out, _ = run(capsys, "audit", "qa.json", "--videos", ".", "--output", "manifest.parquet")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "6 videos, 4 with a problem, 2 with an edit list"
    assert (
        "  videos/hidden.mp4: edit list: 35 frames applied, 40 ignored, highest annotated frame 39; the annotation fits "
        '"ignore" only, its rows say "ignore".'
    ) in lines
    assert "         1  wrong_edit_list: the annotation fits the other count of frames" in lines
    manifest = datasets.Dataset.from_parquet("manifest.parquet", cache_dir=str(root / "cache"))
    assert manifest["video"][:] == [record["video"] for record in records]
    assert manifest["status"][:] == ["ok", "ok", "truncated", "missing", "unsafe_path", "ok"]
    assert manifest["annotation_fits"][:] == ["both", "ignore", None, None, None, "ignore"]
    assert manifest["has_edit_list"][:] == [False, True, None, None, None, True]
    assert manifest["num_frames_applied"][:] == [40, 35, None, None, None, 35]
    assert manifest["num_frames_ignored"][:] == [40, 40, None, None, None, 40]
    assert (manifest["fps"][0], manifest["width"][0], manifest["height"][0]) == (25.0, WIDTH, HEIGHT)
    assert [len(one) if one else 0 for one in manifest["sha256"]] == [64, 64, 64, 0, 0, 64]


def test_audit_without_problems(root: Path, capsys):
    write_json(root / "qa.json", [make_record(number) for number in range(3)])
    assert run(capsys, "audit", "qa.json", "--videos", ".") == (
        0,
        "1 video, 0 with a problem, 0 with an edit list\n",
        "",
    )


def has_color(picture: np.ndarray, number: int) -> bool:
    return bool((picture == PALETTE[number]).all(axis=2).sum() > 50)


@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl", "set"])
def test_show_draws_the_row_that_is_asked_for(root: Path, capsys, name: str):
    two = make_row(
        1,
        frames=[{"frame_index": index, "rle": box_mask(), "box": None, "size": None} for index in range(32)],
    )
    two["messages"][0]["content"] = "<video>\nIs <region> left of <region>?"
    other = {"frame_index": 3, "rle": None, "box": [40.0, 30.0, 60.0, 44.0], "size": None}
    two["regions"].append({"object_id": "cat", "media": 0, "frames": [other]})
    rows = [make_row(0), two]
    if name == "set":
        write_parquet_folder(root / name, rows)
    else:
        write_json(root / name, rows)
    for index, has_two in ((0, False), (1, True)):
        code, out, _ = run(capsys, "show", name, "--index", str(index), "--output", "row.png", "--videos", ".")
        assert code == 0
        assert out.startswith(f"row.png: row {index}: id {index}, ")
        picture = np.asarray(Image.open("row.png"))
        assert has_color(picture, 0)
        assert has_color(picture, 1) == has_two
    # Three columns of 420 for eight frames.
    assert picture.shape[1] == 20 + 3 * 432 - 12 + 40 + 480 + 20


@pytest.mark.parametrize(
    "record",
    [
        make_record(video="videos/hidden.mp4", objects=[{39: box_mask(), 2: box_mask()}]),
        make_record(objects=[{0: box_mask(), 99: box_mask(), 5: None, 7: {"size": [HEIGHT, WIDTH], "counts": "abc"}}]),
        make_record(objects=[{0: box_mask()}, {0: box_mask()}]),
        {"id": 1, "video": "videos/a.mp4", "caption": "A dog.", "frame_idx": "0", "annotation": [{"0": {"segmentation": box_mask()}}]},
        {"id": 1, "video": "videos/a.mp4", "Question": "Who is <region>?", "options": ["(A) x", "(B) y"], "Answer": "(A) x", "type": "Basic Questions", "frame_idx": "0", "annotation": [{"0": {"segmentation": box_mask()}}]},
    ],
    ids=["hidden frames", "broken parts", "mismatch", "bench-d", "bench-q"],
)  # fmt: skip
def test_show_draws_every_kind_of_row_as_far_as_it_can(root: Path, capsys, record: dict):
    write_json(root / "file.json", [record])
    assert run(capsys, "show", "file.json", "--output", "row.png")[0] == 0
    assert has_color(np.asarray(Image.open("row.png")), 0)


def test_show_of_rows_without_video(root: Path, capsys):
    text = make_row(0, video=None, regions=[], messages=[{"role": "user", "content": "Hi"}])
    Image.new("RGB", (WIDTH, HEIGHT)).save("a.png")
    frame = {"frame_index": 0, "rle": box_mask()}
    messages = [{"role": "user", "content": "<image>\n<region>?"}]
    write_json(root / "a.json", [text, make_row(1, [frame], video=None, image="a.png", messages=messages)])
    assert run(capsys, "show", "a.json", "--output", "row.png")[0] == 0
    assert not has_color(np.asarray(Image.open("row.png")), 0)
    assert run(capsys, "show", "a.json", "--index", "1", "--output", "row.png")[0] == 0
    assert has_color(np.asarray(Image.open("row.png")), 0)


def test_show_refuses_what_cannot_be_drawn(root: Path, capsys):
    (root / "a.jsonl").write_text('{"id": 1\n' + json.dumps(make_record(video="videos/cut.mp4")) + "\n")
    assert "row 0 is too broken to be drawn" in run(capsys, "show", "a.jsonl", "--output", "x.png")[2]
    assert "cut.mp4 is truncated" in run(capsys, "show", "a.jsonl", "--index", "1", "--output", "x.png")[2]


def test_rows_of_a_set_are_named_as_show_counts_them(root: Path, capsys):
    """Ids differ within a config only; a row has one number over all files of its split."""
    broken = make_row(2, frames=[{"frame_index": 99, "rle": box_mask()}])
    write_parquet_folder(root / "set", [make_row(0)], ("qa", "other"))
    datasets.Dataset.from_list([make_row(1), broken]).to_parquet(root / "set" / "qa" / "train-00001-of-00002.parquet")
    code, out, _ = run(capsys, "check", "set", "--videos", ".")
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("4 rows, 1 of them unusable, 1 defect;")
    assert lines[2].strip() == (
        "qa/train-00001-of-00002.parquet, row 2, id '2': object 0, frame 99: the video has 40 frames"
    )
    arguments = ("--config", "qa", "--index", "2", "--output", "row.png", "--videos", ".")
    assert run(capsys, "show", "set", *arguments)[1].startswith("row.png: row 2: id 2, ")


def test_audit_makes_the_folder_of_its_manifest(root: Path, capsys):
    write_json(root / "qa.json", [make_record()])
    assert run(capsys, "audit", "qa.json", "--videos", ".", "--output", "new/m.parquet")[0] == 0
    assert (root / "new" / "m.parquet").is_file()
