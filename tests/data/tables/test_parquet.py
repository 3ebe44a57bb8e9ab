"""Rows as Arrow tables and Parquet files: the same as the writer of `datasets` makes, and whole or absent."""

import datasets
import pyarrow.parquet as pq
import pytest

from transformers_videorefer.data.tables.features import bench_q_features, conversation_features
from transformers_videorefer.data.tables.parquet import ParquetRowWriter, rows_to_table, write_parquet


def frame(index=0, **values):
    return {"frame_index": index, "rle": None, "box": None, "size": None, **values}


def row(number=0, regions=(), **values):
    return {
        "id": str(number),
        "video": "a.mp4",
        "image": None,
        "messages": [{"role": "user", "content": f'ü "{number}" \\ \n'}, {"role": "assistant", "content": None}],
        "regions": list(regions),
        "edit_list": "ignore",
        "task": "qa",
        "source": None,
        **values,
    }


REGIONS = {
    "none": [],
    "no frames": [{"object_id": "0", "media": None, "frames": []}],
    "masks": [
        {
            "object_id": "0",
            "media": 0,
            "frames": [frame(7, rle={"size": [2, 3], "counts": "06"}), frame(3), frame(5, size=[2, 3])],
        },
        {"object_id": "1", "media": 0, "frames": [frame(2**31 - 1, rle={"size": [1, 1], "counts": "01"})]},
    ],
    "boxes": [{"object_id": None, "media": 0, "frames": [frame(0, box=[0.5, 1.0, 2.25, 4.0], size=[5, 6])]}],
}


@pytest.mark.parametrize(
    "kinds", [list(REGIONS), ["none"], ["none", "no frames"], ["masks", "masks"], ["boxes", "none"]]
)
def test_tables_are_those_of_the_writer_of_datasets(kinds):
    rows = [row(number, REGIONS[kind]) for number, kind in enumerate(kinds)]
    features = conversation_features()
    table = rows_to_table(rows, features)
    table.validate(full=True)
    expected = datasets.Dataset.from_list(rows, features=features)
    assert table.schema.equals(features.arrow_schema, check_metadata=True)
    assert datasets.Dataset(table).to_list() == expected.to_list() == rows
    assert list(datasets.Dataset(table)) == list(expected)


def test_missing_columns_and_null_lists_become_null():
    table = rows_to_table([{"id": "a"}, {"id": "b", "regions": None}], conversation_features())
    assert table["messages"].null_count == table["regions"].null_count == table["edit_list"].null_count == 2
    assert rows_to_table([], conversation_features()).num_rows == 0


def test_class_labels_may_be_names_or_numbers():
    kinds = ["Future Predictions", 0, None]
    table = rows_to_table([{"id": "a", "type": kind} for kind in kinds], bench_q_features())
    assert table["type"].to_pylist() == [4, 0, None]
    with pytest.raises(ValueError, match="column `type` does not fit|Invalid string class label"):
        rows_to_table([{"type": "Other"}], bench_q_features())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", 5),
        ("video", "\ud800"),
        ("regions", [{"object_id": "0", "media": 2**31, "frames": []}]),
        ("regions", [{"object_id": "0", "media": 0, "frames": 5}]),
        ("regions", "text"),
    ],
)
def test_values_that_do_not_fit_are_named(column, value):
    with pytest.raises(ValueError, match=f"column `{column}` does not fit its type"):
        rows_to_table([row(**{column: value})], conversation_features())


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "rows.parquet"
    rows = [row(number, REGIONS["masks"]) for number in range(5)]
    seen = []
    writer = write_parquet(path, [rows[:2], [], rows[2:]], conversation_features(), on_batch=seen.append)
    assert (writer.num_rows, seen) == (5, [2, 0, 3])
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.parquet"]
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert loaded.features == conversation_features()
    assert list(loaded) == rows


def test_nothing_is_left_after_an_error(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet(path, [[row(1)]], conversation_features())
    before = path.read_bytes()

    def batches():
        yield [row(2)]
        assert (tmp_path / ".rows.parquet.part").exists()
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_parquet(path, batches(), conversation_features())
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.parquet"]
    assert path.read_bytes() == before


def test_row_groups_are_bounded_in_bytes(tmp_path):
    rows = [row(number, REGIONS["masks"], task="x" * 1000) for number in range(64)]
    write_parquet(tmp_path / "a.parquet", [rows[:32], rows[32:]], conversation_features(), row_group_bytes=10_000)
    metadata = pq.ParquetFile(tmp_path / "a.parquet").metadata
    sizes = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert sum(sizes) == 64
    assert 5 <= max(sizes) <= 12
    write_parquet(tmp_path / "b.parquet", [rows[:32], rows[32:]], conversation_features())
    assert pq.ParquetFile(tmp_path / "b.parquet").metadata.num_row_groups == 1
    with pytest.raises(ValueError, match="`row_group_bytes` is 0"):
        ParquetRowWriter(tmp_path / "c.parquet", conversation_features(), row_group_bytes=0)
