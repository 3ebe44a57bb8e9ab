"""Words that depend on a number."""

from transformers_videorefer.data.wording import count_of


def test_only_one_is_singular():
    assert [count_of(number, "row") for number in (0, 1, 2, 11)] == ["0 rows", "1 row", "2 rows", "11 rows"]
