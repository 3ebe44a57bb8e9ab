"""The builders of the published sets: shards, workers, policies, and files that change under them."""

import json
import logging
import pickle

import pytest
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from published_samples import FILES, records_700k, write_published
from script_loading import load_script

from transformers_videorefer.data.defects import RecordError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published"))


def builder(source, cache, config="qa", **options):
    return load_script("videorefer_700k").VideoRefer700K(
        config_name=config, source=str(source), cache_dir=str(cache), **options
    )


def prepared(made, **options):
    made.download_and_prepare(**options)
    return made.as_dataset("train")


def test_shards_and_workers_change_nothing(published, tmp_path):
    plain = prepared(builder(published, tmp_path / "one"))
    sharded = builder(published, tmp_path / "two", num_shards=4)
    stream = sharded.as_streaming_dataset("train")
    assert stream.num_shards == 4
    assert list(stream) == list(plain)
    assert list(prepared(sharded, num_proc=2)) == list(plain)
    assert [row["id"] for row in plain] == [str(record["id"]) for record in records_700k("qa")]
    parts = [[row["id"] for row in stream.shard(2, place)] for place in range(2)]
    assert sorted(sum(parts, [])) == sorted(plain["id"][:])
    assert all(parts)


def test_changed_files_are_noticed(tmp_path):
    path = tmp_path / FILES["qa"]
    path.write_text(json.dumps(records_700k("qa")))
    assert len(prepared(builder(tmp_path, tmp_path / "cache"))) == 10
    path.write_text(json.dumps(records_700k("qa")[:4]))
    assert len(prepared(builder(tmp_path, tmp_path / "cache"))) == 4


def test_policies(tmp_path, caplog):
    records = records_700k("qa")[:3]
    records[1]["annotation"][0]["36"]["segmentation"] = {"size": [48, 80], "counts": "broken"}
    (tmp_path / FILES["qa"]).write_text(json.dumps(records))
    with pytest.raises(DatasetGenerationError) as caught:
        prepared(builder(tmp_path, tmp_path / "cache"))
    assert isinstance(caught.value.__cause__, RecordError)
    with caplog.at_level(logging.WARNING):
        made = builder(tmp_path, tmp_path / "cache", bad_rows="skip", report=str(tmp_path / "report"))
        assert prepared(made)["id"][:] == ["0", "2"]
    assert "1 skipped" in caplog.text
    assert f"listed in {tmp_path / 'report'}" in caplog.text
    (listed,) = (tmp_path / "report").iterdir()
    assert [json.loads(line)["id"] for line in listed.read_text().splitlines()] == ["1"]
    kept = prepared(builder(tmp_path, tmp_path / "cache", bad_rows="keep"))
    assert [frame["rle"] is None for frame in kept[1]["regions"][0]["frames"]] == [True, False, False]


def test_skipped_rows_are_listed_where_no_report_is_asked_for(tmp_path, caplog):
    records = records_700k("qa")[:4]
    records[1]["video"] = records[3]["video"] = "../outside.mp4"
    path = tmp_path / FILES["qa"]
    path.write_text(json.dumps(records))
    made = builder(tmp_path, tmp_path / "cache", bad_rows="skip", num_shards=2)
    assert prepared(made, num_proc=2)["id"][:] == ["0", "2"]
    lists = sorted((tmp_path / "cache").rglob("*.skipped.jsonl"))
    assert len(lists) == 2
    listed = [json.loads(line) for file in lists for line in file.read_text().splitlines()]
    assert [(entry["id"], entry["reasons"][0]["kind"]) for entry in listed] == [
        ("1", "unsafe_path"),
        ("three", "unsafe_path"),
    ]
    lists[0].unlink()
    with caplog.at_level(logging.WARNING):
        assert len(list(made.as_streaming_dataset("train"))) == 2
    assert lists[0].exists()
    assert f"listed in {lists[0]}" in caplog.text


def test_offline_the_revision_names_the_cache_and_the_download_says_what_is_missing(tmp_path, monkeypatch):
    # The error of a refused connection, whichever HTTP library this version of the Hub has.
    refused = type("ConnectError", (HfHubHTTPError.__bases__[0],), {})

    def fails(*arguments, **options):
        raise refused("Name or service not known")

    def finds_nothing(*arguments, **options):
        raise LocalEntryNotFoundError("not in the cache")

    module = "transformers_videorefer.data.sources.published"
    monkeypatch.setattr(f"{module}.HfApi.dataset_info", fails)
    monkeypatch.setattr(f"{module}.hf_hub_download", finds_nothing)
    made = load_script("videorefer_700k").VideoRefer700K(config_name="qa", cache_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not in the cache"):
        made.download_and_prepare()


def test_wrong_options_and_missing_files_are_named(published, tmp_path):
    with pytest.raises(ValueError, match="`bad_rows` must be one of"):
        builder(published, tmp_path, bad_rows="ignore")
    with pytest.raises(ValueError, match="`num_shards` is 0"):
        builder(published, tmp_path, num_shards=0)
    with pytest.raises(FileNotFoundError, match=r"videorefer-qa-75k\.json"):
        builder(tmp_path, tmp_path)
    (tmp_path / "val.json").write_text("{}")
    (tmp_path / "val_v2.json").write_text("{}")
    with pytest.raises(ValueError, match=r"2 files for the split 'validation': val\.json, val_v2\.json"):
        load_script("hc_stvg").HCSTVG(source=str(tmp_path), cache_dir=str(tmp_path / "cache"))


def test_a_builder_can_be_pickled(published, tmp_path):
    again = pickle.loads(pickle.dumps(builder(published, tmp_path)))
    assert len(list(again.as_streaming_dataset("train"))) == 10


def test_without_a_folder_files_are_fetched_and_the_commit_names_the_cache(published, tmp_path, monkeypatch):
    module = "transformers_videorefer.data.sources.published"
    monkeypatch.setattr(f"{module}.hf_hub_download", lambda repo_id, name, **options: str(published / name))
    made = []
    for commit in ("a" * 40, "b" * 40):
        info = type("Info", (), {"sha": commit})
        monkeypatch.setattr(f"{module}.HfApi.dataset_info", lambda self, name, info=info, **options: info)
        made.append(load_script("videorefer_bench_q").VideoReferBenchQ(cache_dir=str(tmp_path)))
    assert made[0].cache_dir != made[1].cache_dir
    assert len(list(made[0].as_streaming_dataset("test"))) == 7
