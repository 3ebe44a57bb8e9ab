"""What the export does with bad rows, under each policy."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from published_samples import FILES, decode, records_700k, records_hc_stvg, segmentations
from script_loading import load_script

from transformers_videorefer.data.sources.published import PUBLISHED_SETS


export = load_script("export_to_parquet")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def run(name, source, output, *options):
    export.main([name, "--source", str(source), "--output", str(output), *options])


def export_small_shards(source, output, shard_bytes=1500, **options):
    return export.export_set(
        PUBLISHED_SETS["videorefer-700k"], output, "---\nlicense: other\n---\n# A\n", source=source,
        configs=["qa"], shard_bytes=shard_bytes, show_progress=False, **options,
    )  # fmt: skip


def bad_records():
    broken = records_700k("qa")[:4]
    broken[1]["annotation"][0]["36"]["segmentation"]["counts"][1] += 1
    broken[2]["video"] = "../../outside.mp4"
    return broken


def test_skipped_rows_are_listed_in_full(tmp_path, monkeypatch, capsys):
    (tmp_path / FILES["qa"]).write_text(json.dumps(bad_records()))
    run("videorefer-700k", tmp_path, tmp_path / "out", "--configs", "qa", "--bad-rows", "skip", "--quiet")
    assert "qa/train: 2 rows, 2 skipped" in capsys.readouterr().out
    skipped = [json.loads(line) for line in (tmp_path / "out/reports/qa.skipped.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in skipped] == ["1", "2"]
    text = (tmp_path / FILES["qa"]).read_text()
    assert [json.JSONDecoder().raw_decode(text, entry["position"])[0]["id"] for entry in skipped] == [1, 2]
    assert [entry["reasons"][0]["kind"] for entry in skipped] == ["broken_rle", "unsafe_path"]
    report = json.loads((tmp_path / "out/reports/qa.json").read_text())
    assert (report["num_rows"], report["num_skipped"], report["skipped"]) == (4, 2, "qa.skipped.jsonl")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("out", "qa", split="train")["id"][:] == ["0", "three"]
    assert "2 left out" in (tmp_path / "out/README.md").read_text()


def test_skipped_rows_are_counted_for_each_split(tmp_path, capsys):
    for split in ("train", "val"):
        entries = records_hc_stvg(split)
        if split == "val":
            next(iter(entries.values()))["st_frame"] = 0
        (tmp_path / f"{split}.json").write_text(json.dumps(entries))
    run("hc-stvg", tmp_path, tmp_path / "out", "--bad-rows", "skip", "--quiet")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        "default/train: 2 rows, 0 skipped",
        "default/validation: 1 rows, 1 skipped",
    ]


@pytest.mark.parametrize("shard_bytes", [100_000, 1500, 400])
def test_repeated_ids_are_found_over_the_borders_of_shards(tmp_path, shard_bytes):
    records = records_700k("qa")
    records[5]["id"] = records[9]["id"] = 2
    records[7]["id"] = "three"
    (tmp_path / FILES["qa"]).write_text(json.dumps(records))
    report = export_small_shards(tmp_path, tmp_path / "out", shard_bytes=shard_bytes)["qa"]["report"]
    assert report["counts"]["duplicate_id"] == 3
    assert report["examples"]["duplicate_id"] == [
        "train, row 5: `id` '2' stands there before",
        "train, row 7: `id` 'three' stands there before",
        "train, row 9: `id` '2' stands there before",
    ]
    assert json.loads((tmp_path / "out/reports/qa.json").read_text()) == report
    assert "duplicate_id 3" in (tmp_path / "out/README.md").read_text()


def test_kept_rows_lose_their_broken_parts_only(tmp_path, monkeypatch):
    (tmp_path / FILES["qa"]).write_text(json.dumps(bad_records()))
    run("videorefer-700k", tmp_path, tmp_path / "out", "--configs", "qa", "--bad-rows", "keep", "--quiet")
    monkeypatch.chdir(tmp_path)
    rows = load_dataset("out", "qa", split="train")
    assert [frame["rle"] is None for frame in rows[1]["regions"][0]["frames"]] == [True, False, False]
    assert rows[2]["video"] is None
    assert not (tmp_path / "out/reports/qa.skipped.jsonl").exists()


def test_bad_rows_stop_the_command_with_file_and_reason(tmp_path):
    (tmp_path / FILES["qa"]).write_text(json.dumps(bad_records()))
    with pytest.raises(SystemExit, match=rf"{FILES['qa']}, byte \d+, id '1'"):
        run("videorefer-700k", tmp_path, tmp_path / "out", "--configs", "qa", "--quiet")


def test_shards_with_no_row_left_do_not_disturb(tmp_path, monkeypatch, caplog):
    (tmp_path / FILES["qa"]).write_text(json.dumps(bad_records()))
    states = export_small_shards(tmp_path, tmp_path / "out", bad_rows="skip", shard_bytes=400)
    assert 0 in {pq.ParquetFile(path).metadata.num_rows for path in tmp_path.glob("out/qa/*.parquet")}
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("out", "qa", split="train")) == 2 == states["qa"]["splits"]["train"]["num_rows"]
    assert not caplog.records
    (tmp_path / FILES["qa"]).write_text(json.dumps(bad_records()[1:3]))
    export_small_shards(tmp_path, tmp_path / "out", bad_rows="skip")
    assert "every record was left out" in caplog.text
    assert list(load_dataset("out", "qa", split="train", streaming=True)) == []


def test_sizes_of_polygons_come_from_the_videos(tmp_path, monkeypatch, reference):
    record = records_700k("qa")[2]
    del record["height"], record["width"]
    record["video"] = "clip.mp4"  # 64 x 96 pixels
    (tmp_path / FILES["qa"]).write_text(json.dumps([record]))
    with pytest.raises(SystemExit, match="polygons need the `height` and `width`"):
        run("videorefer-700k", tmp_path, tmp_path / "out", "--configs", "qa", "--quiet")
    videos = ["--videos", str(reference / "media")]
    run("videorefer-700k", tmp_path, tmp_path / "out", "--configs", "qa", "--quiet", *videos)
    monkeypatch.chdir(tmp_path)
    frames = load_dataset("out", "qa", split="train")[0]["regions"][0]["frames"]
    for frame, (_, source) in zip(frames, segmentations(record)[0], strict=True):
        assert frame["rle"]["size"] == [64, 96]
        np.testing.assert_array_equal(decode(frame["rle"]), decode(source, 64, 96))
