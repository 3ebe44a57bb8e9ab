import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REFERENCE, load_json

from transformers_videorefer.data.batches.chat import to_chat
from transformers_videorefer.data.synthetic.clips import bench_d_rows, bench_q_rows, make_clip
from transformers_videorefer.evaluation.benches import load_bench, make_synthetic_bench


BENCH_Q = REFERENCE / "annotations" / "bench_q.json"
BENCH_D = REFERENCE / "annotations" / "bench_d.json"


def write_records(folder: Path, records: list[Any]) -> str:
    path = folder / "bench.json"
    path.write_text(json.dumps(records))
    return str(path)


def test_published_questions_are_read() -> None:
    bench = load_bench("bench-q", str(BENCH_Q), surplus_regions="ignore")
    assert (len(bench), bench.name, bench.groups()) == (3, "bench_q.json", ["clip.mp4"] * 3)
    assert bench.describe(0) == {
        "index": 0,
        "id": "0",
        "video": "clip.mp4",
        "form": "question",
        "type": "Basic Questions",
        "question": "What is <region> doing?",
        "reference": "(B) no",
    }
    assert len(bench[1]["regions"]) == 2
    assert bench[0]["edit_list"] == "ignore"


def test_objects_without_a_mark_are_an_error_or_left_out() -> None:
    bench = load_bench("bench-q", str(BENCH_Q))
    with pytest.raises(ValueError, match="bench_q.json, row 2: it has 1 objects but 0 `<region>` marks"):
        bench[2]
    assert bench.describe(2)["reference"] == "(A) up"
    assert load_bench("bench-q", str(BENCH_Q), surplus_regions="ignore")[2]["regions"] == []


def test_surplus_objects_are_left_out_from_the_end(tmp_path: Path) -> None:
    record = load_json("annotations/bench_d.json")[0]
    record["annotation"] = [record["annotation"][0], {"0": {"segmentation": None}}]
    bench = load_bench("bench-d", write_records(tmp_path, [record]), surplus_regions="ignore")
    assert [len(region["frames"]) for region in bench[0]["regions"]] == [7]
    assert bench.describe(0)["reference"] == "The red square moves."


def test_records_that_cannot_be_read_stay_in_the_count(tmp_path: Path) -> None:
    good = load_json("annotations/bench_q.json")[0]
    broken_mask = json.loads(json.dumps(good))
    broken_mask["annotation"][0]["2"]["segmentation"]["counts"] = "1"
    records = [good, broken_mask, {**good, "video": "../../secret.mp4"}, "text", {**good, "Answer": None}]
    bench = load_bench("bench-q", write_records(tmp_path, records))
    assert len(bench) == 5
    assert bench[0]["id"] == "0"
    for index, reason in ((1, "object 0, frame 2"), (2, "`video`"), (3, "a record is a dict"), (4, "no `Answer`")):
        with pytest.raises(ValueError, match=reason):
            bench[index]
    assert bench.describe(1)["reference"] == "(B) no"
    assert bench.describe(3) == {
        "index": 3, "id": None, "video": None, "form": "description", "reference": None
    }  # fmt: skip


def test_types_of_other_benchmarks_are_kept(tmp_path: Path) -> None:
    record = {**load_json("annotations/bench_q.json")[0], "type": "Counting"}
    bench = load_bench("bench-q", write_records(tmp_path, [record]))
    assert bench[0]["type"] == bench.describe(0)["type"] == "Counting"


def test_rows_as_json_lines_and_a_folder_with_the_published_name(tmp_path: Path) -> None:
    rows = bench_q_rows(make_clip(20_000_000))[:2]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    bench = load_bench("bench-q", str(tmp_path / "rows.jsonl"))
    assert bench[1] == rows[1]
    with pytest.raises(ValueError, match="row 2: the line is no JSON"):
        bench[2]
    (tmp_path / "VideoRefer-Bench-D.json").write_text(BENCH_D.read_text())
    assert load_bench("bench-d", str(tmp_path)).name == tmp_path.name


def test_the_test_split_of_a_dataset_is_taken(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from transformers_videorefer.data.tables.features import bench_q_features

    for split, seed in (("train", 1), ("test", 20_000_000)):
        rows = bench_q_rows(make_clip(seed))[:1]
        table = datasets.Dataset.from_list(rows, features=bench_q_features())
        table.to_parquet(str(tmp_path / "set" / f"{split}-00000-of-00001.parquet"))
    bench = load_bench("bench-q", str(tmp_path / "set"))
    assert bench[0]["id"].startswith("20000000")
    assert bench[0]["type"] in ("Basic Questions", "Sequential Questions", "Relationship Questions")
    assert load_bench("bench-q", str(tmp_path / "set"), split="train")[0]["id"].startswith("00000001")


def test_captions_of_tubes(tmp_path: Path) -> None:
    entry = {
        "bbox": [[10, 20, 30, 40], [11, 20, 30, 40]], "st_frame": 5, "img_num": 40,
        "caption": "He walks.", "height": 100, "width": 200,
    }  # fmt: skip
    (tmp_path / "hc.json").write_text(json.dumps({"a.mp4": entry, "b.mp4": {**entry, "bbox": None}}))
    bench = load_bench("hc-stvg", str(tmp_path / "hc.json"))
    assert bench[0]["regions"][0]["frames"][0]["box"] == [10, 20, 40, 60]
    assert bench.describe(1)["reference"] == "He walks."
    with pytest.raises(ValueError, match="`bbox`"):
        bench[1]


def test_open_questions_of_the_toy_world_are_conversations_without_answers(tmp_path: Path) -> None:
    bench = make_synthetic_bench(2, tmp_path, write=False)
    more = make_synthetic_bench(2, tmp_path, write=False, open_questions=True)
    assert [more[index] for index in range(len(bench))] == list(bench)
    assert "open questions too" in more.name
    lines = [more.describe(index) for index in range(len(bench), len(more))]
    assert {line["form"] for line in lines} == {"open question"}
    assert {"basic", "sequential", "relationship", "description"} <= {line["type"] for line in lines}
    assert all(line["reference"] and line["question"].startswith("<video>") for line in lines)
    for index in range(len(bench), len(more)):
        assert [message["role"] for message in more[index]["messages"]] == ["user"]
        assert to_chat(more[index])[-1]["role"] == "user"


def test_sizes_are_asked_for_polygons_only(tmp_path: Path) -> None:
    asked = []

    def size_of(video: str) -> tuple[int, int]:
        asked.append(video)
        return 64, 96

    record = load_json("annotations/bench_q.json")[0]
    polygon = {**record, "video": "other.mp4", "annotation": [{"10": {"segmentation": [[1, 1, 9, 1, 9, 9]]}}]}
    bench = load_bench("bench-q", write_records(tmp_path, [record, polygon]), video_size=size_of)
    assert bench[1]["regions"][0]["frames"][0]["rle"]["size"] == [64, 96]
    assert asked == ["other.mp4"]


def test_the_fingerprint_knows_the_content() -> None:
    bench = load_bench("bench-d", str(BENCH_D))
    assert bench.fingerprint() == load_bench("bench-d", str(BENCH_D)).fingerprint()
    assert bench.limited(1).fingerprint() != bench.fingerprint()
    assert len(bench.limited(1)) == 1
    assert bench.limited(None) is bench


def test_frames_of_all_videos_can_be_counted_one_way() -> None:
    bench = load_bench("bench-d", str(BENCH_D))
    assert {row["edit_list"] for row in bench.counting("apply")} == {"apply"}
    assert {row["edit_list"] for row in bench} == {"ignore"}
    assert bench.counting(None) is bench


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no samples of bench-q: 2 records were read"):
        load_bench("bench-q", str(BENCH_D))
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        load_bench("bench-q", str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="`bench` must be one of bench-d, bench-q, hc-stvg"):
        load_bench("synthetic", str(BENCH_D))
    with pytest.raises(ValueError, match="`surplus_regions` must be"):
        load_bench("bench-d", str(BENCH_D), surplus_regions="drop")


def test_the_synthetic_bench_has_both_forms(tmp_path: Path) -> None:
    bench = make_synthetic_bench(2, tmp_path)
    clips = [make_clip(20_000_000), make_clip(20_000_001)]
    questions = [row for clip in clips for row in bench_q_rows(clip)]
    descriptions = [row for clip in clips for row in bench_d_rows(clip)]
    assert list(bench) == [*questions, *descriptions]
    assert sorted(path.name for path in tmp_path.iterdir()) == [clip.name for clip in clips]
    assert bench.describe(len(questions))["form"] == "description"
    assert make_synthetic_bench(2, tmp_path / "none", write=False).fingerprint() == bench.fingerprint()
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="`num_clips` is 0"):
        make_synthetic_bench(0, tmp_path)
