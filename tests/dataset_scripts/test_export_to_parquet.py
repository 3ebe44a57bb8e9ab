"""Published files -> Parquet -> `load_dataset`, against the builder, streaming, and the source itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from datasets.info import DatasetInfosDict
from filelock import FileLock
from huggingface_hub import DatasetCard
from published_samples import (
    FILES,
    QUESTION_TYPES,
    decode,
    records_700k,
    records_bench_d,
    records_bench_q,
    records_hc_stvg,
    segmentations,
    write_published,
)
from script_loading import SCRIPTS, load_script

from transformers_videorefer.data import to_published
from transformers_videorefer.data.defects import RecordError
from transformers_videorefer.data.exporting import shards as shards_module
from transformers_videorefer.data.sources.published import PUBLISHED_SETS
from transformers_videorefer.data.tables.features import conversation_features


export = load_script("export_to_parquet")
BUILDERS = {
    "videorefer-700k": ("videorefer_700k", "VideoRefer700K"),
    "videorefer-bench-d": ("videorefer_bench_d", "VideoReferBenchD"),
    "videorefer-bench-q": ("videorefer_bench_q", "VideoReferBenchQ"),
    "hc-stvg": ("hc_stvg", "HCSTVG"),
}
CASES = [
    ("videorefer-700k", "short_caption", "train"),
    ("videorefer-700k", "detailed_caption", "train"),
    ("videorefer-700k", "qa", "train"),
    ("videorefer-bench-d", "default", "test"),
    ("videorefer-bench-q", "default", "test"),
    ("hc-stvg", "default", "train"),
    ("hc-stvg", "default", "validation"),
    ("hc-stvg", "default", "test"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def exported(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name in BUILDERS:
        run(name, published, folder / name, "--quiet")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def run(name, source, output, *options):
    export.main([name, "--source", str(source), "--output", str(output), *options])


def parquet_files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


@pytest.mark.parametrize(("name", "config", "split"), CASES)
def test_load_dataset_gives_the_rows_of_the_builder_and_of_streaming(
    name, config, split, published, exported, monkeypatch, tmp_path
):
    monkeypatch.chdir(exported)
    loaded = load_dataset(name, config)[split]
    builder_class = getattr(load_script(BUILDERS[name][0]), BUILDERS[name][1])
    builder = builder_class(config_name=config, source=str(published), cache_dir=str(tmp_path / "builder"))
    streamed = list(builder.as_streaming_dataset(split))
    builder.download_and_prepare()
    built = builder.as_dataset(split)
    assert len(loaded) > 0
    assert loaded.features == built.features
    assert list(loaded) == list(built) == streamed
    assert list(load_dataset(name, config, split=split, streaming=True)) == streamed
    assert {row["edit_list"] for row in loaded} == {"ignore"}


def test_the_exact_call_for_700k(exported, monkeypatch):
    monkeypatch.chdir(exported)
    dataset = load_dataset("videorefer-700k", "qa")
    assert list(dataset) == ["train"]
    assert dataset["train"].features == conversation_features()
    row = dataset["train"][4]
    assert row["messages"][0]["role"] == "user"
    assert row["video"] == "frames/b"
    assert row["image"] is None
    assert (row["task"], row["source"], row["id"]) == ("qa", "videorefer-700k", "4")
    assert [[frame["frame_index"] for frame in region["frames"]] for region in row["regions"]] == [[7, 3], [9]]


def test_it_loads_where_our_code_and_torchcodec_are_missing(exported, tmp_path):
    code = (
        "import sys; sys.modules['transformers_videorefer'] = sys.modules['torchcodec'] = None\n"
        "from datasets import load_dataset\n"
        "rows = load_dataset('videorefer-700k', 'qa')['train']\n"
        "stream = load_dataset('videorefer-700k', 'qa', split='train', streaming=True)\n"
        "assert list(rows) == list(stream)\n"
        "print(len(rows), rows[0]['messages'][1]['content'])\n"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=exported, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "10 A dog. Ünïcode, “quotes” and a \\ backslash."


@pytest.mark.parametrize("config", FILES)
def test_masks_text_and_order_are_those_of_the_source(config, exported, monkeypatch):
    monkeypatch.chdir(exported)
    rows = load_dataset("videorefer-700k", config, split="train")
    check_against_source(rows, records_700k(config))
    for row, record in zip(rows, records_700k(config), strict=True):
        texts = [(turn["role"], turn["content"]) for turn in row["messages"]]
        roles = {"human": "user", "gpt": "assistant"}
        assert texts == [(roles[turn["from"]], turn["value"]) for turn in record["conversations"]]
        assert (row["video"], row["image"]) == (record.get("video"), record.get("image"))


def check_against_source(rows, records):
    """Compare masks bit by bit, frames in their order, and the way back to the published form."""
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        expected = segmentations(record)
        assert [len(region["frames"]) for region in row["regions"]] == [len(thing) for thing in expected]
        back = to_published(row)
        for region, thing, written in zip(row["regions"], expected, segmentations(back), strict=True):
            assert [frame["frame_index"] for frame in region["frames"]] == [frame for frame, _ in thing]
            assert [frame for frame, _ in written] == [frame for frame, _ in thing]
            for frame, (_, source), (_, again) in zip(region["frames"], thing, written, strict=True):
                pixels = decode(source)
                if pixels is None:
                    assert frame["rle"] is None
                    assert again is None
                else:
                    assert pixels.any()
                    np.testing.assert_array_equal(decode(frame["rle"]), pixels)
                    np.testing.assert_array_equal(decode(again), pixels)
        for key in ("id", "video", "image", "conversations", "caption", "Question", "type", "options", "Answer"):
            assert back.get(key) == record.get(key), key
        assert int(back.get("frame_idx") or 0) == int(record.get("frame_idx") or 0)


def test_benches_are_those_of_the_source(exported, monkeypatch):
    monkeypatch.chdir(exported)
    check_against_source(load_dataset("videorefer-bench-d", split="test"), records_bench_d())
    questions = load_dataset("videorefer-bench-q", split="test")
    check_against_source(questions, records_bench_q())
    assert questions.features["type"].names == list(QUESTION_TYPES)
    assert [row["type"] for row in questions] == [0, 1, 2, 3, 4, 0, 1]


def test_hc_stvg_boxes_are_those_of_the_source(exported, monkeypatch):
    monkeypatch.chdir(exported)
    for split, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = load_dataset("hc-stvg", split=split)
        for row, (name, entry) in zip(rows, records_hc_stvg(file).items(), strict=True):
            assert row["video"] == name
            assert row["caption"] == entry.get("caption", entry.get("English"))
            boxes = [frame["box"] for frame in row["regions"][0]["frames"]]
            assert boxes == [[x, y, x + width, y + height] for x, y, width, height in entry["bbox"]]
            assert [frame["frame_index"] for frame in row["regions"][0]["frames"]] == [30, 31, 32]


@pytest.mark.parametrize("name", BUILDERS)
def test_cards_name_files_features_and_sizes(name, exported):
    for path in (exported / name / "README.md", SCRIPTS / BUILDERS[name][0] / "README.md"):
        card = DatasetCard.load(path)
        assert DatasetCard(str(card)).data.to_dict() == card.data.to_dict()
        assert card.data.license in ("apache-2.0", "unknown")
        configs = PUBLISHED_SETS[name].configs
        assert [config["config_name"] for config in card.data.configs] == [config.name for config in configs]
        infos = DatasetInfosDict.from_dataset_card_data(card.data)
        builder_class = getattr(load_script(BUILDERS[name][0]), BUILDERS[name][1])
        for config in configs:
            assert (
                infos[config.name].features == builder_class._info(fake_builder(builder_class, config.name)).features
            )
    about = card_of(exported / name).data.dataset_info
    infos = about if isinstance(about, list) else [about]
    sizes = {
        (info.get("config_name", "default"), split["name"]): split["num_examples"]
        for info in infos
        for split in info["splits"]
    }
    assert set(sizes) == {(config, split) for set_name, config, split in CASES if set_name == name}
    assert min(sizes.values()) >= 2


def card_of(folder):
    return DatasetCard.load(folder / "README.md")


def fake_builder(builder_class, config):
    """A builder without files, of which only the columns are asked."""
    builder = object.__new__(builder_class)
    builder.config = next(entry for entry in builder_class.BUILDER_CONFIGS if entry.name == config)
    return builder


def test_nothing_written_names_a_folder_of_this_machine(exported, published):
    private = [str(exported), str(published), str(Path.home()), str(SCRIPTS.parent)]
    for path in exported.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [name for name in private if name.encode() in content], path


def test_processes_and_repetition_change_nothing(published, tmp_path):
    options = ["--configs", "qa", "--quiet"]
    module = export.export_set
    for folder, num_proc in (("one", 1), ("two", 2)):
        module(
            PUBLISHED_SETS["videorefer-700k"], tmp_path / folder, "---\nlicense: other\n---\n# A\n", source=published,
            configs=["qa"], num_proc=num_proc, shard_bytes=1500, show_progress=False,
        )  # fmt: skip
    files = parquet_files(tmp_path / "one")
    assert len(files) > 2
    assert files == parquet_files(tmp_path / "two")
    run("videorefer-700k", published, tmp_path / "again", *options)
    before = stamps(tmp_path / "again")
    run("videorefer-700k", published, tmp_path / "again", *options)
    assert stamps(tmp_path / "again") == before


def export_small_shards(source, output, shard_bytes=1500, **options):
    return export.export_set(
        PUBLISHED_SETS["videorefer-700k"], output, "---\nlicense: other\n---\n# A\n", source=source,
        configs=["qa"], shard_bytes=shard_bytes, show_progress=False, **options,
    )  # fmt: skip


def test_an_interrupted_export_goes_on_where_it_stopped(published, tmp_path, monkeypatch):
    whole = write_shards = shards_module.write_parquet
    made = []

    def stops(path, *arguments, **options):
        if len(made) == 2:
            (path.parent / f".{path.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        made.append(path.name)
        return write_shards(path, *arguments, **options)

    monkeypatch.setattr(shards_module, "write_parquet", stops)
    with pytest.raises(KeyboardInterrupt):
        export_small_shards(published, tmp_path / "out")
    assert not (tmp_path / "out" / "qa").exists()
    assert not (tmp_path / "out" / "README.md").exists()
    done_before = stamps(tmp_path / "out")
    assert len(done_before) == 2

    def counts(path, *arguments, **options):
        made.append(path.name)
        return whole(path, *arguments, **options)

    monkeypatch.setattr(shards_module, "write_parquet", counts)
    export_small_shards(published, tmp_path / "out")
    files = sorted(path.name for path in tmp_path.glob("out/qa/*"))
    assert sorted(made) == files
    assert len(set(made)) == len(made) > 2
    assert {name: stamp for name, stamp in stamps(tmp_path / "out").items() if name in done_before} == done_before
    assert not [path for path in tmp_path.glob("out/**/*") if path.name.endswith(".part")]
    assert not (tmp_path / "out" / ".export" / "qa").exists()
    monkeypatch.chdir(tmp_path)
    check_against_source(load_dataset("out", "qa", split="train"), records_700k("qa"))


def test_changed_source_or_settings_are_exported_again(published, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    path = source / FILES["qa"]
    path.write_text(json.dumps(records_700k("qa")))
    export_small_shards(source, tmp_path / "out")
    before = stamps(tmp_path / "out")
    path.write_text(json.dumps(records_700k("qa")[:3]))
    export_small_shards(source, tmp_path / "out")
    after = stamps(tmp_path / "out")
    assert not set(before.items()) & set(after.items())
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("out", "qa", split="train")) == 3
    export_small_shards(source, tmp_path / "out", bad_rows="skip")
    assert not set(after.items()) & set(stamps(tmp_path / "out").items())


def test_a_broken_new_source_leaves_the_old_export_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / FILES["qa"]
    path.write_text(json.dumps(records_700k("qa")))
    export_small_shards(tmp_path, tmp_path / "out")
    before = parquet_files(tmp_path / "out" / "qa")
    path.write_text(json.dumps([*records_700k("qa"), {"id": 1, "video": "../../etc/passwd", "conversations": []}]))
    with pytest.raises(RecordError, match='bad_rows="skip"'):
        export_small_shards(tmp_path, tmp_path / "out")
    assert parquet_files(tmp_path / "out" / "qa") == before


def test_missing_files_are_named(published, tmp_path):
    (tmp_path / FILES["qa"]).write_text("[]")
    with pytest.raises(SystemExit, match=r"videorefer-short-caption-500k\.json.*Put the published file there"):
        run("videorefer-700k", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match="has no configuration 'qb'. Choose from: short_caption"):
        run("videorefer-700k", published, tmp_path / "out", "--configs", "qb")
    with pytest.raises(SystemExit, match="no published set 'videorefer'"):
        run("videorefer", published, tmp_path / "out")


def test_configurations_may_be_exported_one_after_the_other(published, tmp_path, monkeypatch):
    run("videorefer_700k", published, tmp_path / "out", "--configs", "qa", "--quiet")
    run("VideoRefer-700K", published, tmp_path / "out", "--configs", "short_caption", "--quiet")
    assert [config["config_name"] for config in card_of(tmp_path / "out").data.configs] == ["short_caption", "qa"]
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("out", "short_caption", split="train")) == len(load_dataset("out", "qa", split="train"))


def test_row_groups_are_small(published, tmp_path):
    export.export_set(
        PUBLISHED_SETS["videorefer-bench-d"], tmp_path / "out", "---\nlicense: other\n---\n# A\n", source=published,
        row_group_bytes=1, show_progress=False,
    )  # fmt: skip
    (path,) = (tmp_path / "out").rglob("*.parquet")
    assert pq.ParquetFile(path).metadata.num_row_groups == 4
    assert b"huggingface" in pq.read_schema(path).metadata


def test_two_exports_do_not_write_to_one_folder(published, tmp_path):
    (tmp_path / "out" / ".export").mkdir(parents=True)
    with FileLock(tmp_path / "out" / ".export" / "lock"), pytest.raises(SystemExit, match="Another export writes to"):
        run("videorefer-bench-d", published, tmp_path / "out", "--quiet")
    run("videorefer-bench-d", published, tmp_path / "out", "--quiet")


@pytest.mark.parametrize(("flag", "value"), [("--shard-megabytes", "0"), ("--num-proc", "-1"), ("--num-proc", "two")])
def test_wrong_numbers_are_named_by_their_flag(published, tmp_path, capsys, flag, value):
    with pytest.raises(SystemExit):
        run("videorefer-bench-d", published, tmp_path / "out", flag, value)
    assert f"argument {flag}: {value!r} is no whole number from 1 on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_access_is_checked_before_the_export(published, tmp_path, monkeypatch):
    def refuses(repo_id, public):
        raise ConnectionError(f"no way to {repo_id}, {public}")

    monkeypatch.setattr(export, "check_access", refuses)
    with pytest.raises(SystemExit, match="^error: no way to org/name, False$"):
        run("videorefer-bench-d", published, tmp_path / "out", "--push-to-hub", "org/name", "--quiet")
    assert not (tmp_path / "out").exists()


def test_files_of_the_hub_are_fetched(published, tmp_path, monkeypatch):
    asked = []

    def download(repo_id, name, **options):
        asked.append((repo_id, name, options["repo_type"], options["revision"]))
        return str(published / name)

    monkeypatch.setattr("transformers_videorefer.data.sources.published.hf_hub_download", download)
    export.main(["videorefer-bench-q", "--output", str(tmp_path / "out"), "--quiet"])
    assert asked == [("DAMO-NLP-SG/VideoRefer-Bench", "VideoRefer-Bench-Q.json", "dataset", None)]
    with pytest.raises(SystemExit, match=r"hc-stvg has no repository.*\(--source\)"):
        export.main(["hc-stvg", "--output", str(tmp_path / "other")])
