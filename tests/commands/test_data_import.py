"""`videorefer data import`: from a file of another tool to a dataset that loads, and on to an answer."""

import argparse
import io
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard
from tiny import tiny_model, tiny_processor
from video_files import write_video

from transformers_videorefer.cli import main
from transformers_videorefer.commands import data_import
from transformers_videorefer.data.batches.chat import to_chat
from transformers_videorefer.data.tables.features import conversation_features


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A video and a COCO file with a dog, a cat without caption, and an object that lies outside the video."""
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "clip.mp4", 6)
    annotation = {"video_id": 1, "category_id": 1}
    boxes = [[10, 10, 20, 20], None, [12, 10, 20, 20], None, None, [0, 0, 64, 48]]
    annotations = [
        {**annotation, "id": 1, "bboxes": boxes, "caption": "A dog that walks to the right."},
        {**annotation, "id": 2, "category_id": 2, "bboxes": boxes},
        {**annotation, "id": 3, "bboxes": boxes[:2]},
    ]
    video = {"id": 1, "name": "clip", "height": 48, "width": 64, "length": 6}
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    content = {"videos": [video], "annotations": annotations, "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def run(folder: Path, *flags: str, output: str = "pets") -> str:
    parser = argparse.ArgumentParser()
    data_import.add_arguments(parser)
    parser.add_argument("--debug", action="store_true")
    where = ["--videos", str(folder / "videos"), "--output", str(folder / output)]
    stream = io.StringIO()
    data_import.run(parser.parse_args(["coco-video", str(folder / "train.json"), *where, *flags]), stream)
    return stream.getvalue()


def test_the_folder_loads_like_any_other_set(folder, monkeypatch):
    out = run(
        folder, "--bad-rows", "skip", "--answer-field", "caption", "--question", "Describe the {label} <region>."
    )
    assert "2 rows of 1 video, 6 marked frames, 1 row without an answer" in out
    assert "3 rows read, 1 skipped" in out
    monkeypatch.chdir(folder)
    rows = datasets.load_dataset("pets", split="train")
    assert rows.features == conversation_features()
    assert rows["id"] == ["1", "2"]
    assert rows[0]["messages"] == [
        {"role": "user", "content": "<video>\nDescribe the dog <region>."},
        {"role": "assistant", "content": "A dog that walks to the right."},
    ]
    assert len(rows[1]["messages"]) == 1
    assert rows[0]["regions"][0]["frames"][1]["box"] == [12, 10, 32, 30]
    streamed = list(datasets.load_dataset("pets", split="train", streaming=True))
    assert streamed == list(rows)
    report = json.loads((folder / "pets" / "import.json").read_text())
    assert [entry["id"] for entry in report["skipped"]] == ["3"]
    card = (folder / "pets" / "README.md").read_text()
    head = DatasetCard(card).data.to_dict()
    assert head["pretty_name"] == "pets"
    assert head["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    assert str(folder) not in card + json.dumps(report)
    assert sorted(path.name for path in folder.iterdir()) == ["pets", "train.json", "videos"]


def test_imported_rows_go_through_processor_and_model(folder, monkeypatch):
    run(folder, "--bad-rows", "skip")
    row = datasets.load_dataset(str(folder / "pets"), split="train")[0]
    processor = tiny_processor()
    inputs = processor.apply_chat_template(
        to_chat(row, data_root=folder / "videos"),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert inputs["region_lengths"].tolist() == [3]
    # 64 x 48 on 4 x 4 cells: the last box is the whole frame.
    masks = inputs["region_masks"].numpy().reshape(3, 4, 4)
    assert masks[2].all()
    assert not masks[0].all()
    outputs = tiny_model()(**inputs)
    assert np.isfinite(outputs.logits.detach().numpy()).all()


def test_broken_objects_stop_the_import_and_leave_nothing(folder):
    with pytest.raises(ValueError, match=r"train\.json, annotations\[2\]: 2 frames are annotated"):
        run(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["train.json", "videos"]


def test_an_existing_folder_is_left_alone(folder):
    (folder / "pets").mkdir()
    (folder / "pets" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="Pass a new folder"):
        run(folder, "--bad-rows", "skip")
    assert [path.name for path in (folder / "pets").iterdir()] == ["mine.txt"]


def test_unknown_answer_fields_are_told(folder):
    assert "no object has a field 'captoin'" in run(folder, "--bad-rows", "skip", "--answer-field", "captoin")


def test_wrong_flags(folder):
    with pytest.raises(ValueError, match="^`--question` must hold <region> exactly once"):
        run(folder, "--question", "What is it?")
    with pytest.raises(ValueError, match="^`--stride` is 0"):
        run(folder, "--stride", "0")
    with pytest.raises(ValueError, match="^`--videos .*nowhere`: there is no such folder"):
        run(folder, "--videos", str(folder / "nowhere"))
    with pytest.raises(ValueError, match="no row to write"):
        content = json.loads((folder / "train.json").read_text())
        (folder / "train.json").write_text(json.dumps({**content, "annotations": []}))
        run(folder)


def test_the_command_line(folder, capsys):
    flags = ["--videos", str(folder / "videos"), "--output", str(folder / "pets")]
    assert main(["data", "import", "coco-video", str(folder / "train.json"), *flags]) == 2
    error = capsys.readouterr().err
    assert "train.json, annotations[2]: 2 frames are annotated, but its video lists 6" in error
    assert "--bad-rows skip" in error
    assert main(["data", "import", "coco-video", str(folder / "train.json"), *flags, "--bad-rows", "skip"]) == 0
    assert "2 rows of 1 video," in capsys.readouterr().out


def test_the_card_of_json_lines_claims_no_question_that_was_not_asked(folder, capsys):
    region = {"frames": [{"frame_index": 1, "box": [1, 1, 9, 9]}]}
    row = {"video": "clip.mp4", "question": "What is <region>?", "answer": "A dog.", "regions": [region]}
    (folder / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    flags = ["--videos", str(folder / "videos"), "--output", str(folder / "mine")]
    assert main(["data", "import", "jsonl", str(folder / "rows.jsonl"), *flags]) == 0
    card = DatasetCard.load(folder / "mine" / "README.md").text
    assert "Questions and answers are those of the rows" in card
    assert "Please describe" not in card
    assert "the label" not in card
    assert "1 row of 1 video, 1 marked frame, 0 rows without an answer" in card
    assert datasets.load_dataset("parquet", data_dir=str(folder / "mine"), split="train")["id"] == ["0"]
