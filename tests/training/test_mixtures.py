"""Mixtures: sources of every kind as one dataset, in an order that the seed decides."""

import collections
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_processor
from training_rows import as_dataset, made_up_rows, write_clips

from transformers_videorefer.data import to_published
from transformers_videorefer.data.batches.collator import VideoReferDataCollator
from transformers_videorefer.training.mixtures import build_mixture
from transformers_videorefer.training.sources import DataSource, load_source, mixture_features


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.getbasetemp() / "clips")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets_cache"))
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)  # five seconds after every stream


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One source of each kind; what a person would have on the disk."""
    root = tmp_path_factory.mktemp("sources")
    rows = made_up_rows()
    (root / "ours").mkdir()
    as_dataset(rows[:8]).to_parquet(root / "ours" / "train.parquet")
    records = [to_published(row) for row in rows[8:]]
    (root / "published.json").write_text(json.dumps([*records, {"id": "broken", "conversations": 3}]))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    chat = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"What is {number}?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Noise."}]},
            ],
            "images": [picture],
            "extra": number,
        }
        for number in range(3)
    ]
    datasets.Dataset.from_list(chat).save_to_disk(str(root / "chat"))
    lines = [
        {"messages": [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is."}], "id": number}
        for number in range(2)
    ]
    (root / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def all_sources(folders, clips) -> list[dict]:
    return [
        {"path": str(folders / "ours"), "data_root": str(clips)},
        {"path": str(folders / "published.json"), "data_root": str(clips)},
        {"path": str(folders / "chat")},
        {"path": str(folders / "text.jsonl")},
        {"path": "synthetic-shapes", "data_root": str(clips), "num_clips": 1, "max_rows": 5},
    ]


def names_of(rows) -> list[tuple[str, str]]:
    return [(row["source"], row["id"]) for row in rows]


@pytest.mark.parametrize("streaming", [False, True])
def test_every_row_of_every_kind_comes_once(streaming, folders, clips):
    mixture = build_mixture(all_sources(folders, clips), streaming=streaming)
    rows = list(mixture)
    counts = collections.Counter(row["source"] for row in rows)
    assert counts == {"synthetic_shapes": 8 + 5, "published": 4, "chat": 3, "text.jsonl": 2}
    kept = {"published", "chat", "text.jsonl"}
    assert len({name for name in names_of(rows) if name[0] in kept}) == 9
    batch = VideoReferDataCollator(tiny_processor())(rows)  # each finds its media through its own data root
    assert len(batch["input_ids"]) == len(rows)
    assert sum(batch["sample_counts"][:, 1].tolist()) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_the_order_follows_from_the_seed(streaming, folders, clips):
    sources = [{**source, "weight": 1} for source in all_sources(folders, clips)]
    orders = [names_of(build_mixture(sources, streaming=streaming, seed=seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_published_rows_equal_rows_of_ours(folders, clips):
    source = DataSource(str(folders / "published.json"), data_root=str(clips), edit_list="apply")
    for row, expected in zip(load_source(source), made_up_rows()[8:], strict=True):
        assert row["messages"] == expected["messages"]
        assert [r["frames"] for r in row["regions"]] == [r["frames"] for r in expected["regions"]]
        assert row["edit_list"] == "apply"


def test_broken_records_may_stop_the_run(folders):
    with pytest.raises((ValueError, datasets.exceptions.DatasetGenerationError)):
        load_source(DataSource(str(folders / "published.json"), bad_rows="raise"))


def test_weights_are_shares(folders, clips):
    sources = [
        {"path": str(folders / "ours"), "weight": 3},
        {"path": str(folders / "text.jsonl"), "weight": 1},
    ]
    counts = collections.Counter(row["source"] for row in build_mixture(sources, oversample=True, seed=3))
    assert counts["synthetic_shapes"] >= 8
    assert counts["text.jsonl"] >= 2  # came again until the other was used up
    undersampled = build_mixture(sources, seed=3)
    assert len(undersampled) < sum(counts.values())


def test_caps_and_filters(folders, clips):
    source = {"path": str(folders / "ours"), "filters": {"task": ["basic"], "source": "synthetic_shapes"}}
    rows = list(build_mixture([source]))
    assert rows
    assert {row["task"] for row in rows} == {"basic"}
    capped = [names_of(build_mixture([{**source, "max_rows": 2}], seed=seed)) for seed in (0, 0, 1)]
    assert capped[0] == capped[1]
    assert [len(names) for names in capped] == [2, 2, 2]
    assert len(list(build_mixture([{**source, "max_rows": 2}], streaming=True))) == 2


def test_features_are_those_of_a_mixture(folders, clips):
    for source in all_sources(folders, clips):
        assert load_source(DataSource.from_dict(source)).features == mixture_features(), source


def test_labels_tell_no_path(folders):
    assert DataSource(str(folders / "ours"), name="qa").label == "ours/qa"
    assert DataSource("someone/videos").label == "someone/videos"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "x", "wieght": 1}, "has the unknown key `wieght`"),
        ({"name": "qa"}, "has no `path`"),
        ({"path": "x", "weight": 0}, "`weight` of 'x' is 0"),
        ({"path": "x", "max_rows": 0}, "`max_rows` of 'x' is 0"),
        ({"path": "synthetic-shapes"}, "needs `data_root`"),
        ({"path": "synthetic-shapes", "data_root": "x", "num_clips": 0}, "`num_clips` of 'synthetic-shapes' is 0"),
        ({"path": "x.json", "split": "test"}, "'x.json' is one file, which has no `name` and no `split` but `train`"),
        ({"path": "x.jsonl.gz", "name": "qa"}, "is one file"),
        ({"path": "x", "bad_rows": "ignore"}, "bad_rows"),
    ],
)
def test_bad_entries(entry, message):
    with pytest.raises(ValueError, match=message):
        DataSource.from_dict(entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("synthetic-shapes", "An entry of `datasets` must be a mapping such as {path: ...}, got 'synthetic-shapes'"),
        ({"path": "x", "weight": "2"}, "`weight` of 'x' must be a number, got '2'"),
        ({"path": "x", "filters": "task"}, "`filters` of 'x' must map columns to values, .*got 'task'"),
    ],
)
def test_entries_of_a_wrong_kind(entry, message):
    with pytest.raises(TypeError, match=message):
        DataSource.from_dict(entry)


def test_bad_mixtures(folders, clips):
    ours = {"path": str(folders / "ours")}
    with pytest.raises(ValueError, match="`datasets` is empty"):
        build_mixture([])
    with pytest.raises(ValueError, match="`weight` is missing for .*ours"):
        build_mixture([ours, {**ours, "weight": 1}])
    with pytest.raises(ValueError, match="names no column: 'colour'"):
        build_mixture([{**ours, "filters": {"colour": "red"}}])
    with pytest.raises(ValueError, match="compares single values, which this column does not hold: 'regions'"):
        build_mixture([{**ours, "filters": {"regions": [1]}}])
    with pytest.raises(ValueError, match="No rows of .* are left"):
        build_mixture([{**ours, "filters": {"task": "no such"}}])
    with pytest.raises(ValueError, match="`split` of `synthetic-shapes` must be one of"):
        build_mixture([{"path": "synthetic-shapes", "data_root": str(clips), "split": "dev"}])


def test_sets_without_messages_are_refused(tmp_path):
    datasets.Dataset.from_list([{"text": "hello"}]).save_to_disk(str(tmp_path / "plain"))
    with pytest.raises(ValueError, match="have no `messages`, only text"):
        build_mixture([{"path": str(tmp_path / "plain")}])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_without_rows_is_named(streaming, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match="none.jsonl"):
        build_mixture([{"path": str(tmp_path / "none.jsonl")}], streaming=streaming)
