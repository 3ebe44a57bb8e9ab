import datasets
import pytest

from transformers_videorefer.data.defects import DefectReport
from transformers_videorefer.data.importers.writing import write_import


def rows(count: int):
    for number in range(count):
        frames = [{"frame_index": number, "rle": None, "box": [0, 1, 2, 3], "size": None}]
        yield {
            "id": str(number),
            "video": f"{number % 3}.mp4",
            "image": None,
            "messages": [
                {"role": "user", "content": "<video>\n<region>?"},
                {"role": "assistant", "content": "A" * 99},
            ],
            "regions": [{"object_id": "0", "media": 0, "frames": frames}],
            "edit_list": "apply",
            "task": None,
            "source": "x",
        }


def test_files_are_numbered_once_all_are_whole(tmp_path):
    counts = write_import(rows(50), tmp_path / 'a "set"', source="x", report=DefectReport(), shard_bytes=3000)
    assert (counts.num_rows, counts.num_frames, len(counts.videos), counts.num_unanswered) == (50, 50, 3, 0)
    names = sorted(path.name for path in (tmp_path / 'a "set"' / "data").iterdir())
    assert len(names) > 1
    assert names[-1] == f"train-{len(names) - 1:05d}-of-{len(names):05d}.parquet"
    loaded = datasets.load_dataset(str(tmp_path / 'a "set"'), split="train")
    assert list(loaded) == list(rows(50))


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    def failing():
        yield from rows(20)
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        write_import(failing(), tmp_path / "out", source="x", report=DefectReport())
    assert list(tmp_path.iterdir()) == []
