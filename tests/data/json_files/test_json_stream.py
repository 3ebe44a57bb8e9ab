import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from transformers_videorefer.data.defects import RecordError
from transformers_videorefer.data.json_files import json_stream, json_window
from transformers_videorefer.data.json_files.json_stream import (
    BrokenRecord,
    iterate_entries,
    iterate_records,
    split_file,
)


RECORDS = [
    {"id": 1, "conversations": [{"from": "human", "value": 'He says "}, {"id": 2" and a \\ here'}]},
    {"id": "zwei äöü 字 \U0001f600", "conversations": [{"from": "gpt", "value": "x" * 300}]},
    {"id": 3.5, "conversations": [{"from": "a", "value": "b"}, {"from": "gpt", "value": "é"}], "masks": [{"1": None}]},
    {"id": None, "conversations": [], "annotation": [{"0": {}}, {"7": {"segmentation": [[1, 2.5, -3e2]]}}]},
]
LAYOUTS = {
    "plain": lambda records: json.dumps(records),
    "utf8": lambda records: json.dumps(records, ensure_ascii=False),
    "indented": lambda records: json.dumps(records, indent=3, ensure_ascii=False) + "\n\n",
    "compact": lambda records: json.dumps(records, separators=(",", ":")),
    "bom": lambda records: "\ufeff \n" + json.dumps(records),
    "lines": lambda records: "\n".join(json.dumps(record, ensure_ascii=False) for record in records),
    "lines_with_gaps": lambda records: "\r\n\r\n".join(json.dumps(record) for record in records) + "\r\n",
}


def read(path: Path, **options: Any) -> list[Any]:
    return [record for _, record in iterate_records(path, **options)]


@pytest.fixture(autouse=True, params=[16, 1 << 21], ids=["small_pieces", "large_pieces"])
def piece_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_window, "PIECE_BYTES", request.param)
    return request.param


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_layout_gives_the_records_and_their_places(tmp_path: Path, layout: str, packed: bool) -> None:
    text = LAYOUTS[layout](RECORDS).encode()
    path = tmp_path / "records.json"
    path.write_bytes(gzip.compress(text) if packed else text)
    found = list(iterate_records(path))
    assert [record for _, record in found] == RECORDS
    for offset, record in found:
        assert json.JSONDecoder().raw_decode(text[offset:].decode())[0] == record


@pytest.mark.parametrize("text", ["", " \n", "[]", "[ \n ]", "\ufeff[]"])
def test_empty_files_and_arrays_have_no_records(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.json").write_text(text)
    assert read(tmp_path / "empty.json") == []
    assert read(tmp_path / "empty.json", shard=(0, len(text.encode()))) == []


def test_numbers_at_the_end_of_a_piece_stay_whole(tmp_path: Path) -> None:
    numbers = [12345678901234567, 1.25e-7, -3, True, None, "a,]", 10**30]
    (tmp_path / "numbers.json").write_text(json.dumps(numbers * 9))
    assert read(tmp_path / "numbers.json") == numbers * 9


def test_numbers_of_thousands_of_digits_do_not_stop_the_reading(tmp_path: Path) -> None:
    digits = "9" * 5000
    (tmp_path / "array.json").write_text(f'[{{"a": {digits}}}, {{"a": 2}}]')
    (tmp_path / "lines.jsonl").write_text(f'{{"a": {digits}}}\n{{"a": 2}}')
    for name in ("array.json", "lines.jsonl"):
        assert read(tmp_path / name) == [{"a": float("inf")}, {"a": 2}]


def test_a_record_much_larger_than_a_piece_is_read_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    calls = []
    parse = json_window.raw_decode

    def counting(text: str, position: int) -> Any:
        calls.append(len(text))
        return parse(text, position)

    monkeypatch.setattr(json_window, "raw_decode", counting)
    large = {"id": 1, "text": ["y" * 50] * 20_000}
    (tmp_path / "large.json").write_text(json.dumps([large, {"id": 2}]))
    assert read(tmp_path / "large.json") == [large, {"id": 2}]
    assert len(calls) <= 24  # the text in memory doubles from 16 bytes to 1 MB
    assert sum(calls) < 4.5 * 1_080_000


@pytest.mark.parametrize(
    ("text", "offset", "reason"),
    [
        ('[{"a": 1}, {"b": 2', 18, "the file ends early"),
        ('[{"a": 1}, {"b": "2', 17, "the file ends early"),
        ('[{"a": 1}, ', 11, "Expecting value"),
        ('[{"a": 1}', 9, "expected ',', found the end"),
        ("[", 1, "the file ends early"),
        ('[{"a": 1}] [{"a": 2}]', 11, "the file goes on behind the end"),
        ('[{"a": 1}]]', 10, "the file goes on behind the end"),
        ('[{"a": 1} {"a": 2}]', 10, "expected ',', found '{'"),
        ('[{"a": 1}, {"ä": 1 "b": 2}, {"a": 3, "c": "long enough"}]', 20, "Expecting ',' delimiter"),
        ('[{"a": 1}, {"b": tru}, {"a": 3, "c": "long enough"}]', 17, "Expecting value"),
        ("hello", 0, "expected a JSON array or JSON lines, found b'h'"),
        ('{\n "a": 1\n}', 0, "the file is one JSON object"),
        ("[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_broken_files_are_named_with_the_place(tmp_path: Path, text: str, offset: int, reason: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(RecordError) as caught:
        read(tmp_path / "broken.json")
    message = str(caught.value)
    assert message.startswith(f"broken.json, byte {offset}: ")
    assert reason in message


def test_a_broken_record_does_not_draw_the_rest_of_the_file_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_window, "PIECE_BYTES", 64)
    (tmp_path / "broken.json").write_text('[{"a" 1}, ' + json.dumps(RECORDS * 500)[1:])
    longest = 0
    read_more = json_window.JsonWindow._read_more

    def watched(window: Any) -> None:
        nonlocal longest
        read_more(window)
        longest = max(longest, len(window._text))

    monkeypatch.setattr(json_window.JsonWindow, "_read_more", watched)
    with pytest.raises(RecordError, match="byte 6: .*Expecting ':' delimiter"):
        read(tmp_path / "broken.json")
    assert longest <= 128


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "array.json").write_bytes(b'[{"a": "ab\xff"}]')
    with pytest.raises(RecordError, match="array.json, byte 10: the text is no UTF-8"):
        read(tmp_path / "array.json")


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(RECORDS * 50).encode())
    (tmp_path / "cut.json.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "bad.json.gz").write_bytes(packed[:30] + b"\0\xff" * 9 + packed[48:])
    for name in ("cut.json.gz", "bad.json.gz"):
        with pytest.raises(RecordError, match=rf"{name}, byte \d+: the gzip data is damaged"):
            read(tmp_path / name)


def test_a_broken_line_is_one_bad_record(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b'{"a": ', b"[" * 100_000, b'{"a": "\xff"}', b'{"a": 2} x', b'{"a": 3}']
    (tmp_path / "lines.jsonl").write_bytes(b"\n".join(lines))
    found = list(iterate_records(tmp_path / "lines.jsonl"))
    assert [found[0], found[-1]] == [(0, {"a": 1}), (len(b"\n".join(lines)) - 8, {"a": 3})]
    assert all(isinstance(record, BrokenRecord) for _, record in found[1:5])
    assert "nested too deeply" in found[2][1].reason


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        read(tmp_path / "nowhere.json")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("looking", [False, True])
def test_shards_together_are_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, looking: bool
) -> None:
    if looking:
        monkeypatch.setattr(json_stream, "READ_TO_SPLIT_BYTES", 0)
    records = [{**RECORDS[number % 4], "number": number} for number in range(40)]
    text = LAYOUTS[layout](records).encode()
    path = tmp_path / "records.json"
    path.write_bytes(text)
    for num_shards in (1, 2, 3, 7, 39, 40, 41, 500):
        shards = split_file(path, num_shards)
        assert shards[0][0] == 0
        assert shards[-1][1] == len(text)
        assert all(one[1] == other[0] for one, other in zip(shards, shards[1:], strict=False))
        assert len(shards) == min(num_shards, len(shards))
        parts = [list(iterate_records(path, shard=shard)) for shard in shards]
        assert [record for part in parts for _, record in part] == records
        assert [offset for part in parts for offset, _ in part] == [offset for offset, _ in iterate_records(path)]
        if num_shards <= 7:
            assert len(shards) == num_shards
            assert max(map(len, parts)) <= 2 * len(records) // num_shards


def test_files_of_other_objects_are_split_by_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "READ_TO_SPLIT_BYTES", 0)
    records = [{"a": [{"b": number}, {"b": "x" * 9}]} for number in range(30)]
    (tmp_path / "other.json").write_text(json.dumps(records))
    shards = split_file(tmp_path / "other.json", 4)
    assert [record for shard in shards for record in read(tmp_path / "other.json", shard=shard)] == records
    assert len(shards) == 4


def test_a_range_that_cuts_a_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "records.json").write_text(json.dumps(RECORDS))
    with pytest.raises(RecordError, match="the range of bytes does not end between two records"):
        read(tmp_path / "records.json", shard=(0, 20))


def test_packed_and_empty_files_are_one_range_and_none(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(RECORDS).encode())
    (tmp_path / "packed.json.gz").write_bytes(packed)
    (tmp_path / "empty.json").write_text("")
    assert split_file(tmp_path / "packed.json.gz", 5) == [(0, len(packed))]
    assert read(tmp_path / "packed.json.gz", shard=(0, len(packed))) == RECORDS
    assert split_file(tmp_path / "empty.json", 5) == []
    with pytest.raises(ValueError, match="`num_shards` must be at least 1, got 0"):
        split_file(tmp_path / "empty.json", 0)


def test_entries_of_an_object_come_in_order(tmp_path: Path) -> None:
    entries = {"a.mp4": {"bbox": [[1, 2, 3, 4]]}, "ä.mkv": {"x": "}"}, "c": None}
    for text in (json.dumps(entries), json.dumps(entries, indent=2, ensure_ascii=False)):
        (tmp_path / "entries.json").write_bytes(text.encode())
        found = list(iterate_entries(tmp_path / "entries.json"))
        assert [(key, value) for _, key, value in found] == list(entries.items())
        assert all(text.encode()[offset : offset + 1] == b'"' for offset, _, _ in found)
    (tmp_path / "entries.json").write_text("{ }")
    assert list(iterate_entries(tmp_path / "entries.json")) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "byte 0: expected one JSON object"),
        ('{"a": 1', "byte 7: expected ',', found the end"),
        ('{"a" 1}', "byte 5: expected ':', found '1'"),
        ("{1: 2}", "byte 1: expected the name of a video, found 1"),
        ('{"a": 1} 2', "byte 9: the file goes on"),
    ],
)
def test_broken_objects_are_named_with_the_place(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "entries.json").write_text(text)
    with pytest.raises(RecordError, match=f"entries.json, {reason}"):
        list(iterate_entries(tmp_path / "entries.json"))
