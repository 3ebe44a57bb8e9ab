import math

import pytest

from transformers_videorefer.data.importers.loose_json import as_list, as_mapping, load_json


def test_lists_and_objects_pass_and_all_else_becomes_empty():
    assert (as_list([1]), as_list({"a": 1}), as_list(None)) == ([1], [], [])
    assert (as_mapping({"a": 1}), as_mapping([1]), as_mapping("a")) == ({"a": 1}, {}, {})


def test_whole_numbers_that_python_refuses_are_infinite(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"a": 12, "b": 1' + "0" * 5000 + "}", encoding="utf-8")
    content = load_json(path)
    assert content["a"] == 12
    assert math.isinf(content["b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": 1,\n}', "a.json, line 2, column 1"), (b"\xff\xfe\x00", "no JSON text"), (b"[" * 10**5, "no JSON")],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_json(path)
