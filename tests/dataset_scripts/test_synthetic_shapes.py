"""The builder of the synthetic shapes: columns, splits, files, and rows that the processor takes."""

import importlib.util
import sys
from pathlib import Path

import pytest
from conftest import PUBLISHED
from transformers import AutoProcessor

from transformers_videorefer.data import conversation_rows, make_clip


SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "synthetic_shapes" / "synthetic_shapes.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("synthetic_shapes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_shapes"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["synthetic_shapes"]


def build(script, name, folder, num_clips=2, **options):
    builder = script.SyntheticShapes(
        config_name=name, cache_dir=str(folder / "cache"), data_root=str(folder / "videos"), num_clips=num_clips
    )
    builder.download_and_prepare(**options)
    return builder.as_dataset()


def test_conversations_are_the_rows_of_the_clips(script, tmp_path):
    dataset = build(script, "conversations", tmp_path)
    assert sorted(dataset) == ["test", "train", "validation"]
    expected = [row for seed in (0, 1) for row in conversation_rows(make_clip(seed))]
    assert list(dataset["train"]) == expected
    assert {row["id"] for row in dataset["train"]}.isdisjoint(row["id"] for row in dataset["test"])
    assert all((tmp_path / "videos" / row["video"]).is_file() for split in dataset.values() for row in split)


def test_benches_have_their_published_columns(script, tmp_path):
    questions = build(script, "bench_q", tmp_path)["validation"]
    assert list(questions.features) == [
        "id", "video", "question", "options", "answer", "type", "frame_index", "regions", "edit_list",
    ]  # fmt: skip
    assert questions.features["type"].names[0] == "Basic Questions"
    assert all(row["answer"] in row["options"] for row in questions)
    descriptions = build(script, "bench_d", tmp_path)["validation"]
    assert list(descriptions.features) == ["id", "video", "caption", "frame_index", "regions", "edit_list"]
    assert all(row["caption"].endswith(".") for row in descriptions)


def test_a_row_goes_through_the_processor(script, tmp_path):
    row = build(script, "conversations", tmp_path, num_clips=1)["train"][0]
    processor = AutoProcessor.from_pretrained(PUBLISHED)
    inputs = processor.apply_chat_template(
        row["messages"],
        videos=[tmp_path / "videos" / row["video"]],
        regions=row["regions"],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert inputs["region_lengths"].tolist() == [len(row["regions"][0]["frames"])]


def test_more_clips_are_noticed(script, tmp_path):
    assert len({row["video"] for row in build(script, "bench_d", tmp_path, 2)["train"]}) == 2
    assert len({row["video"] for row in build(script, "bench_d", tmp_path, 3)["train"]}) == 3


def test_missing_videos_are_made_again_when_rows_come_from_the_cache(script, tmp_path):
    dataset = build(script, "bench_d", tmp_path)
    for file in (tmp_path / "videos").iterdir():
        file.unlink()
    build(script, "bench_d", tmp_path)
    assert all((tmp_path / "videos" / row["video"]).is_file() for row in dataset["test"])
