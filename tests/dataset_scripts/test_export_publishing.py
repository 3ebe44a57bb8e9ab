"""An export into a folder: only into its own, and never visible in part, whenever it is killed."""

import json
import os
import shutil

import pytest
from datasets import load_dataset
from datasets.exceptions import DatasetsError
from published_samples import FILES, records_700k, write_published
from script_loading import load_script

from transformers_videorefer.data.sources.published import PUBLISHED_SETS


export = load_script("export_to_parquet")
CARD = "---\nlicense: other\n---\n# A\n"


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def export_folder(source, output, name="videorefer-700k", configs=("qa",), **options):
    return export.export_set(
        PUBLISHED_SETS[name], output, CARD, source=source, configs=configs, show_progress=False, **options
    )


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_records(source, numbers):
    source.mkdir(exist_ok=True)
    records = records_700k("qa")
    (source / FILES["qa"]).write_text(json.dumps([records[number] for number in numbers]))
    return [str(records[number]["id"]) for number in numbers]


def read_ids(folder, **options):
    """Return the ids that a reader finds, or None where it gets an error."""
    try:
        return [row["id"] for row in load_dataset(str(folder), split="train", **options)]
    except (OSError, ValueError, DatasetsError):
        return None


def kill_at(monkeypatch, number):
    """Let the process end in the place of a rename or removal, counted from 0; return what counts them."""
    calls = []
    steps = {(os, "replace"): os.replace, (shutil, "rmtree"): shutil.rmtree}

    def stops(step):
        def run(*arguments, **options):
            if len(calls) == number:
                raise Killed
            calls.append(arguments)
            return step(*arguments, **options)

        return run

    for (module, name), step in steps.items():
        monkeypatch.setattr(module, name, stops(step))
    return calls


@pytest.mark.parametrize("is_new", [True, False])
def test_readers_never_find_a_part_whenever_the_export_is_killed(tmp_path, monkeypatch, is_new):
    source = tmp_path / "source"
    num_kills = 0
    while True:
        output = tmp_path / f"out{num_kills}"
        allowed = [None]
        if not is_new:
            allowed.append(write_records(source, [9, 8, 7, 6, 5, 0]))
            export_folder(source, output, shard_bytes=2500)
        allowed.append(write_records(source, range(9)))
        with monkeypatch.context() as patch:
            kill_at(patch, num_kills)
            try:
                export_folder(source, output, shard_bytes=2500)
                was_killed = False
            except Killed:
                was_killed = True
        for options in ({}, {"streaming": True}):
            assert read_ids(output, **options) in allowed, (num_kills, options)
        if not was_killed:
            break
        num_kills += 1
        export_folder(source, output, shard_bytes=2500)
        assert read_ids(output) == allowed[-1]
        assert sorted(path.name for path in (output / ".export").iterdir()) == ["lock", "qa.json", "set.json"]
    assert len(list(output.glob("qa/*.parquet"))) > 1
    assert num_kills > 8


def test_a_killed_export_leaves_the_older_one_to_another_start(tmp_path, monkeypatch):
    """Between the two renames there is nothing to read; the next start puts the older files back before it fails."""
    source, output = tmp_path / "source", tmp_path / "out"
    old = write_records(source, [3, 1])
    export_folder(source, output)
    write_records(source, [0, 1, 2])
    replace = os.replace

    def stops(begin, end):
        if str(end) == str(output / "qa"):
            raise Killed
        replace(begin, end)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stops)
        with pytest.raises(Killed):
            export_folder(source, output)
    assert not (output / "qa").exists()
    (source / FILES["qa"]).write_text('[{"id": 1, "conversations": 7}]')
    with pytest.raises(ValueError, match="bad_rows"):
        export_folder(source, output)
    assert read_ids(output) == old


def test_folders_that_no_export_wrote_stay_as_they_are(tmp_path):
    source, output = write_published(tmp_path / "source"), tmp_path / "out"
    (output / "data").mkdir(parents=True)
    (output / "README.md").write_text("Mine.")
    (output / "data" / "test-00000-of-00009.parquet").write_text("mine")
    before = files_of(output)
    with pytest.raises(
        SystemExit, match=r"holds README\.md, data, which no export of videorefer-bench-d wrote.*--output"
    ):
        export.main(["videorefer-bench-d", "--source", str(source), "--output", str(output), "--quiet"])
    assert files_of(output) == before
    assert sorted(path.name for path in output.iterdir()) == ["README.md", "data"]


def test_exports_of_two_sets_do_not_share_a_folder(tmp_path):
    source, output = write_published(tmp_path / "source"), tmp_path / "out"
    export_folder(source, output, "videorefer-bench-q", None)
    before = files_of(output)
    with pytest.raises(ValueError, match="holds an export of videorefer-bench-q, which one of videorefer-bench-d"):
        export_folder(source, output, "videorefer-bench-d", None)
    assert files_of(output) == before
    export_folder(source, output, "videorefer-bench-q", None)


def test_own_files_in_the_folder_of_a_configuration_are_kept(tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    write_records(source, [0, 1, 2])
    export_folder(source, output, shard_bytes=900)
    (output / "qa" / "notes.txt").write_text("mine")
    new = write_records(source, [3])
    export_folder(source, output)
    assert sorted(path.name for path in (output / "qa").iterdir()) == ["notes.txt", "train-00000-of-00001.parquet"]
    assert (output / "qa" / "notes.txt").read_text() == "mine"
    assert read_ids(output) == new


def test_finished_configurations_can_be_read_though_a_later_one_is_broken(tmp_path):
    source, output = write_published(tmp_path / "source"), tmp_path / "out"
    (source / FILES["qa"]).write_text('[{"id": 1, "conversations": 7}]')
    with pytest.raises(ValueError, match="bad_rows"):
        export_folder(source, output, configs=("short_caption", "qa"))
    assert len(load_dataset(str(output), "short_caption", split="train")) == 10
