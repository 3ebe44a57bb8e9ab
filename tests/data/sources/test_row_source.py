"""Rows from JSON and Parquet files."""

import gzip
import json
from pathlib import Path

import pytest
from annotation_files import make_record, make_row, write_json, write_parquet_folder

from transformers_videorefer.data.sources.row_source import open_source


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_published_records_and_rows_are_told_apart(tmp_path: Path, name: str):
    question = {"id": 2, "video": "a.mp4", "Question": "Who?", "options": [], "Answer": "x", "frame_idx": "0"}
    items = list(open_source(str(write_json(tmp_path / name, [make_record(), make_row(), question, 5]))))
    assert [item.kind for item in items] == ["record", "row", "record", "record"]
    assert [item.where for item in items] == [f"{name}, row {number}" for number in range(4)]
    assert items[1].value == make_row()


def test_positions_lie_inside_the_file(tmp_path: Path):
    source = open_source(str(write_json(tmp_path / "a.json", [make_record(number) for number in range(5)])))
    positions = [item.position for item in source]
    assert source.unit == "B"
    assert positions == sorted(set(positions))
    assert positions[-1] < source.total == (tmp_path / "a.json").stat().st_size


def test_line_that_is_no_json_comes_as_such(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(make_row(0)) + "\n{oops\n" + json.dumps(make_row(1)) + "\n")
    assert [item.kind for item in open_source(str(path))] == ["row", "broken", "row"]


def test_gzip_is_unpacked(tmp_path: Path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps([make_record(3)]).encode()))
    (item,) = open_source(str(path))
    assert item.value["id"] == 3


@pytest.mark.parametrize("indent", [None, 2])
def test_object_with_an_entry_for_each_video(tmp_path: Path, indent: int | None):
    entries = {"a.mp4": {"bbox": [[1, 2, 3, 4]], "st_frame": 1}, "b.mp4": {"bbox": []}}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(entries, indent=indent))
    items = list(open_source(str(path)))
    assert [(item.kind, item.value) for item in items] == [("entry", pair) for pair in entries.items()]


def test_parquet_folder_gives_the_rows_that_were_written(tmp_path: Path):
    rows = [make_row(number) for number in range(5)]
    source = open_source(str(write_parquet_folder(tmp_path / "set", rows)))
    assert (source.total, source.unit) == (5, "row")
    assert [item.value for item in source] == rows
    assert source.read(3).value == rows[3]  # in the second row group
    single = open_source(source.files[0])
    assert [item.value["id"] for item in single] == list("01234")


def test_names_of_question_types_stand_for_their_numbers(tmp_path: Path):
    import datasets

    from transformers_videorefer.data.tables.features import bench_q_features

    row = {"id": "0", "video": "a.mp4", "question": "Who?", "options": ["(A) x"], "answer": "(A) x", "frame_index": 0}
    row |= {"type": "Reasoning Questions", "regions": [], "edit_list": "ignore"}
    path = tmp_path / "test.parquet"
    datasets.Dataset.from_list([row], features=bench_q_features()).to_parquet(path)
    (item,) = open_source(str(path))
    assert item.value == row


def test_configs_are_chosen_or_taken_together(tmp_path: Path):
    folder = str(write_parquet_folder(tmp_path / "set", [make_row()], ("qa", "short_caption")))
    assert open_source(folder, config="short_caption").total == 1
    assert open_source(folder, every=True).total == 2
    with pytest.raises(ValueError, match="The config is missing: .* has qa, short_caption. Pass one of them."):
        open_source(folder)
    with pytest.raises(ValueError, match="There is no config 'qq': .* has qa, short_caption"):
        open_source(folder, config="qq")
    with pytest.raises(ValueError, match="There is no split 'test': .* has train"):
        open_source(folder, config="qa", split="test")


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_row_that_does_not_exist(tmp_path: Path, kind: str):
    rows = [make_row(number) for number in range(3)]
    name = write_json(tmp_path / "a.jsonl", rows) if kind == "json" else write_parquet_folder(tmp_path / "set", rows)
    with pytest.raises(ValueError, match="Row 3 does not exist: .* has 3 rows, numbered 0 to 2"):
        open_source(str(name)).read(3)
    with pytest.raises(ValueError, match="Row -1 does not exist"):
        open_source(str(name)).read(-1)


def test_names_that_stand_for_nothing(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder .*no.json"):
        open_source(str(tmp_path / "no.json"))
    with pytest.raises(
        FileNotFoundError, match="There is no file or folder nobody/set-1.5, and the Hub gives no dataset"
    ):
        open_source("nobody/set-1.5")
    with pytest.raises(ValueError, match="holds no dataset in Parquet files"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "a.jsonl").write_text("{}\n")
        open_source(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="is no whole Parquet file"):
        (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
        open_source(str(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match="configs and splits are for datasets in Parquet files"):
        open_source(str(write_json(tmp_path / "b.json", [])), config="qa")


def test_the_current_folder_is_named_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_parquet_folder(tmp_path / "set", [make_row()])
    monkeypatch.chdir(folder)
    assert open_source(".").total == 1
    (tmp_path / "junk").mkdir()
    monkeypatch.chdir(tmp_path / "junk")
    with pytest.raises(ValueError, match=r"^\. holds no dataset in Parquet files\. Pass a folder"):
        open_source(".")
