import copy
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_strings import sum_of_runs
from conftest import load_json
from pycocotools import mask as coco_mask

from transformers_videorefer.data.defects import DefectReport, RecordError
from transformers_videorefer.data.json_files.json_stream import split_file
from transformers_videorefer.data.rows.records import from_published, record_defects
from transformers_videorefer.data.sources import reading
from transformers_videorefer.data.sources.reading import iterate_row_batches, iterate_rows
from transformers_videorefer.regions.rle import encode_rle


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FILES = {"conversations": "train", "bench_d": "bench_d", "bench_q": "bench_q"}


def write(path: Path, records: Any) -> Path:
    path.write_text(json.dumps(records))
    return path


def conversation(number: int, counts: str = "8444") -> dict[str, Any]:
    """Make a record whose only mask has the given counts; "8444" are the runs 8, 4, 4 and 8 of 4 x 6 pixels."""
    turns = [{"from": "human", "value": "<video>\nWhat is <region>?"}, {"from": "gpt", "value": "It."}]
    mask = {"segmentation": {"size": [4, 6], "counts": counts}}
    return {"id": number, "video": f"{number}.mp4", "conversations": turns, "annotation": [{"5": mask}]}


@pytest.mark.parametrize("kind", FILES)
def test_files_give_the_rows_of_their_records(tmp_path: Path, kind: str) -> None:
    records = [
        record
        for record in load_json(f"annotations/{FILES[kind]}.json")
        if not any(d.is_fatal for d in record_defects(record))
    ]
    options = {"task": "qa", "source": "s"}
    rows = list(iterate_rows(write(tmp_path / "a.json", records), kind=kind, **options))
    assert rows == [from_published(record, **options) for record in records]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    assert list(iterate_rows(packed, kind=kind, **options)) == rows


def test_raise_names_everything_one_needs(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.json", [conversation(0), conversation(1, "844"), conversation(2)])
    rows = iterate_rows(path, kind="conversations")
    assert next(rows)["id"] == "0"
    offset = path.read_text().index('{"id": 1')
    expected = rf"bad.json, byte {offset}, id '1': object 0, frame 5: `rle` counts cover .* pass bad_rows=\"skip\""
    with pytest.raises(RecordError, match=expected):
        next(rows)


def test_skip_lists_and_keep_keeps(tmp_path: Path) -> None:
    text_only = {**conversation(3), "conversations": [{"from": "human", "value": "<video>\nHello"}]}
    records = [conversation(0), conversation(1, "844"), "junk", text_only, {"id": 4}, conversation(0)]
    path = write(tmp_path / "bad.json", records)
    offsets = [path.read_text().index(json.dumps(record)) for record in records]
    report = DefectReport()
    rows = list(iterate_rows(path, kind="conversations", bad_rows="skip", report=report))
    assert [row["id"] for row in rows] == ["0", "0"]
    assert (report.num_rows, report.num_skipped) == (6, 4)
    assert [(entry["file"], entry["position"], entry["id"]) for entry in report.skipped] == [
        ("bad.json", offset, row_id) for offset, row_id in zip(offsets[1:5], ["1", None, "3", None], strict=True)
    ]
    assert [[reason["kind"] for reason in entry["reasons"]] for entry in report.skipped] == [
        ["broken_rle", "region_without_mask"],
        ["wrong_type"],
        ["region_mark_mismatch"],
        ["missing_field"],
    ]
    assert report.counts["duplicate_id"] == 1

    report = DefectReport()
    rows = list(iterate_rows(path, kind="conversations", bad_rows="keep", report=report))
    assert [row["id"] for row in rows] == ["0", "1", "3", "0"]
    assert rows[1]["regions"][0]["frames"][0]["rle"] is None
    assert (report.num_rows, report.num_skipped) == (6, 2)  # nothing could be kept of these


def test_a_broken_line_is_one_skipped_row(tmp_path: Path) -> None:
    lines = [json.dumps(conversation(0)), '{"id": 1, "conv', json.dumps(conversation(2))]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    report = DefectReport(tmp_path / "skipped.jsonl")
    rows = list(iterate_rows(tmp_path / "a.jsonl", kind="conversations", bad_rows="skip", report=report))
    assert [row["id"] for row in rows] == ["0", "2"]
    assert [(entry["position"], entry["reasons"][0]["kind"]) for entry in report.skipped] == [
        (len(lines[0]) + 1, "broken_json")
    ]


@pytest.mark.parametrize("policy", ["raise", "skip", "keep"])
def test_an_array_that_ends_early_is_an_error_under_every_policy(tmp_path: Path, policy: str) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps([conversation(0), conversation(1)])[:-40])
    with pytest.raises(RecordError, match=r"cut.json, byte \d+: the record at byte \d+ is no JSON"):
        list(iterate_rows(path, kind="conversations", bad_rows=policy))


def test_unknown_options_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`kind` must be one of conversations, bench_d, bench_q, hc_stvg, got 'x'"):
        iterate_row_batches(tmp_path / "a.json", kind="x")
    with pytest.raises(ValueError, match="`bad_rows` must be one of"):
        iterate_row_batches(tmp_path / "a.json", kind="bench_d", bad_rows="drop")
    with pytest.raises(ValueError, match="`edit_list` is '"):
        iterate_row_batches(tmp_path / "a.json", kind="bench_d", edit_list="hide")


def test_batches_and_shards_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.json", [conversation(number) for number in range(50)])
    rows = list(iterate_rows(path, kind="conversations"))
    monkeypatch.setattr(reading, "BATCH_ROWS", 7)
    batches = list(iterate_row_batches(path, kind="conversations"))
    assert [len(batch) for batch in batches] == [7] * 7 + [1]
    assert [row for batch in batches for row in batch] == rows
    shards = [list(iterate_rows(path, kind="conversations", shard=shard)) for shard in split_file(path, 4)]
    assert [row for shard in shards for row in shard] == rows
    assert all(shards)


def test_sizes_are_asked_for_polygons_without_one_only(tmp_path: Path) -> None:
    polygon = [{"5": {"segmentation": [[2.0, 0.0, 3.0, 0.0, 3.0, 4.0, 2.0, 4.0]]}}]
    records = [
        conversation(0),
        {**conversation(1), "annotation": polygon},
        {**conversation(2), "annotation": polygon, "height": 4, "width": 6},
        {**conversation(3), "annotation": polygon, "video": "../x.mp4"},
        {**conversation(4), "annotation": polygon, "video": "missing.mp4"},
    ]
    asked = []

    def video_size(path: str) -> tuple[int, int]:
        asked.append(path)
        if path == "missing.mp4":
            raise FileNotFoundError(path)
        return 4, 6

    report = DefectReport()
    path = write(tmp_path / "a.json", records)
    rows = list(iterate_rows(path, kind="conversations", bad_rows="skip", report=report, video_size=video_size))
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["regions"] == rows[2]["regions"]
    assert asked == ["1.mp4", "missing.mp4"]
    assert report.counts["polygon_without_size"] == 2


def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers_videorefer.data.json_files.json_window.PIECE_BYTES", 1 << 16)
    monkeypatch.setattr(reading, "BATCH_CHARACTERS", 1 << 16)
    record = {**conversation(0), "note": "x" * 2000}
    path = write(tmp_path / "a.json", [record] * 4000)
    assert path.stat().st_size > 8e6
    tracemalloc.start()
    num_rows = sum(1 for _ in iterate_rows(path, kind="conversations"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_rows == 4000
    assert peak < 3e6


# --- damaged records ---------------------------------------------------------------------------------------------

JUNK = [None, True, -(10**9), 1e9 + 0.5, float("nan"), float("inf"), 10**30, 2**31, "", "x", "\ud800", [], {}]
JUNK += [[[[]]], {"a": {"b": []}}, [None], "8440", {"0": {"0": 1}}, ["x"] * 40]
JUNK_KEYS = ["frame3", "-1", "1e3", "", "99999999999", "2147483648", "3.0", " 3", "\ud800"]
PATHS = [
    "../../x",
    "/etc/passwd",
    "a/../../b",
    "C:\\x",
    "file:///etc/passwd",
    "http://h/x",
    "~/x",
    "x\0y",
    "..",
    "\\\\h\\x",
]
NUM_DAMAGED = 5000


def sound_records() -> list[dict[str, Any]]:
    """Make records of every kind: the recorded ones, and some with all kinds of masks."""
    records = []
    for name in FILES.values():
        records += load_json(f"annotations/{name}.json")
    rng = np.random.default_rng(0)
    for number in range(12):
        objects = []
        for _ in range(2):
            frames = {}
            for frame in rng.permutation(40)[:4].tolist():
                mask = np.zeros((24, 32), dtype=bool)
                top, left = rng.integers(0, 12, size=2)
                mask[top : top + rng.integers(3, 12), left : left + rng.integers(3, 18)] = True
                frames[str(frame)] = {"segmentation": encode_rle(mask ^ (rng.random(mask.shape) < 0.02))}
            objects.append(frames)
        first = next(iter(objects[1]))
        objects[1][first]["segmentation"] = [[3.5, 2.0, 20.0, 4.0, 11.0, 19.5]]
        record = {**conversation(number), "height": 24, "width": 32, "annotation": objects}
        record["conversations"][0]["value"] = "<video>\nHow do <region> and <region> relate?"
        if number % 2:
            del record["annotation"]
            record["masks"] = [{frame: one["segmentation"] for frame, one in frames.items()} for frames in objects]
        records.append(record)
    return records


def source_bits(record: dict[str, Any]) -> dict[tuple[int, int], np.ndarray]:
    """Decode every mask of a sound record with the COCO tools, by object and frame."""
    bits = {}
    for position, frames in enumerate(record.get("annotation") or record.get("masks") or []):
        for frame, value in frames.items():
            value = value["segmentation"] if "segmentation" in value else value
            if isinstance(value, list):
                value = coco_mask.merge(coco_mask.frPyObjects(value, record["height"], record["width"]))
            elif isinstance(value["counts"], list):
                value = coco_mask.frPyObjects(value, *value["size"])
            bits[position, int(frame)] = coco_mask.decode(value)
    return bits


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the ways to all values inside a value; long lists of numbers are represented by a few."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, child in list(children)[:12]:
        found += [(*path, key), *places(child, (*path, key))]
    return found


def damage(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Damage a copy of a record in one to three places; a damaged part never becomes another sound one."""
    record = json.loads(json.dumps(record))
    for _ in range(rng.integers(1, 4)):
        ways = places(record)
        if not ways:
            break
        *way, key = ways[rng.integers(len(ways))]
        parent = record
        for step in way:
            parent = parent[step]
        kind = rng.integers(0, 6)
        value = parent[key]
        if key == "counts" and isinstance(value, str) and value:
            place = int(rng.integers(0, len(value)))
            ending = ["", value[place + 1 :], chr(rng.integers(33, 127)) + value[place + 1 :], "oooooooo"][kind % 4]
            # A text that happens to be the whole mask of other runs is no damage that anybody could see.
            whole = sum_of_runs(value)
            parent[key] = value[:place] + ending if sum_of_runs(value[:place] + ending) != whole else value[:-1] + "o"
        elif key in ("video", "image") and kind < 4:
            parent[key] = PATHS[rng.integers(len(PATHS))]
        elif kind == 0 and isinstance(parent, dict):
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[JUNK_KEYS[rng.integers(len(JUNK_KEYS))]] = parent.pop(key)
        else:
            parent[key] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    return record


def kind_of(record: dict[str, Any]) -> str:
    fields = {"conversations": "conversations", "Question": "bench_q", "caption": "bench_d"}
    return next(kind for field, kind in fields.items() if field in record)


@pytest.fixture(scope="module")
def damaged() -> dict[str, tuple[list[Any], list[dict[tuple[int, int], np.ndarray]]]]:
    """Make 5,000 damaged records by kind, with the bits of the masks of their sources."""
    rng = np.random.default_rng(1)
    sources = [(record, source_bits(record)) for record in sound_records()]
    made: dict[str, tuple[list[Any], list[Any]]] = {kind: ([], []) for kind in FILES}
    for number in range(NUM_DAMAGED):
        record, bits = sources[number % len(sources)]
        of_kind = made[kind_of(record)]
        of_kind[0].append(damage(record, rng))
        of_kind[1].append(bits)
    return made


def assert_sound_masks(row: dict[str, Any], bits: dict[tuple[int, int], np.ndarray]) -> int:
    num_masks = 0
    for position, region in enumerate(row["regions"]):
        for frame in region["frames"]:
            if frame["rle"] is not None:
                found = coco_mask.decode(frame["rle"])
                assert np.array_equal(found, bits[position, frame["frame_index"]])
                num_masks += 1
    return num_masks


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("layout", ["array", "lines"])
def test_damaged_records_are_kept_or_skipped_but_never_wrong(
    tmp_path: Path, damaged: dict[str, Any], kind: str, layout: str
) -> None:
    records, bits = damaged[kind]
    texts = [json.dumps(record) for record in records]
    path = tmp_path / "damaged.json"
    path.write_text("[" + ",\n".join(texts) + "]" if layout == "array" else "\n".join(texts))
    gap = 2 if layout == "array" else 1
    offsets = (np.cumsum([0, *(len(text) + gap for text in texts[:-1])]) + gap - 1).tolist()
    number_at = {offset: number for number, offset in enumerate(offsets)}

    report = DefectReport()
    rows = list(iterate_rows(path, kind=kind, bad_rows="keep", report=report))
    gone = [number_at[entry["position"]] for entry in report.skipped]
    kept = sorted(set(range(len(records))) - set(gone))
    assert report.num_rows == len(records)
    assert len(rows) == len(kept)
    assert sum(assert_sound_masks(row, bits[number]) for row, number in zip(rows, kept, strict=True)) > len(rows)
    assert not any(row[name] in PATHS for row in rows for name in ("video", "image") if row.get(name) is not None)

    report = DefectReport(tmp_path / "skipped.jsonl")
    rows = list(iterate_rows(path, kind=kind, bad_rows="skip", report=report))
    gone = [number_at[entry["position"]] for entry in report.iterate_skipped()]
    assert all(entry["reasons"] for entry in report.iterate_skipped())
    assert len(gone) == len(set(gone)) == report.num_skipped
    assert len(rows) + len(gone) == len(records)
    sound = sorted(set(range(len(records))) - set(gone))
    for row, number in zip(rows, sound, strict=True):
        assert_sound_masks(row, bits[number])
    assert len(records) * 0.3 < len(gone) < len(records)

    with pytest.raises(RecordError) as caught:
        list(iterate_rows(path, kind=kind))
    assert f"byte {offsets[min(gone)]}" in str(caught.value)


def test_damaged_records_raise_only_record_errors(damaged: dict[str, Any]) -> None:
    num_refused = 0
    for kind in FILES:
        for record, bits in zip(*damaged[kind], strict=True):
            try:
                row = from_published(record)
            except RecordError as error:
                assert error.defects
                num_refused += 1
            else:
                assert_sound_masks(row, bits)
    assert NUM_DAMAGED * 0.3 < num_refused < NUM_DAMAGED


def test_kept_rows_fit_the_columns(tmp_path: Path, damaged: dict[str, Any]) -> None:
    datasets = pytest.importorskip("datasets")
    from transformers_videorefer.data.tables import features

    columns = {
        "conversations": features.conversation_features(),
        "bench_d": features.bench_d_features(),
        "bench_q": features.bench_q_features(),
    }
    for kind, of_kind in columns.items():
        path = write(tmp_path / f"{kind}.json", damaged[kind][0][:150])
        rows = list(iterate_rows(path, kind=kind, bad_rows="keep"))
        stored = datasets.Dataset.from_list(rows, features=of_kind)
        assert stored["regions"][:] == [row["regions"] for row in rows]
        assert stored["id"][:] == [row["id"] for row in rows]
