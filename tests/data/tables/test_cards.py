"""Cards that `datasets` and the Hub read: files, columns and sizes in the head, the text kept."""

import pytest
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from transformers_videorefer.data.tables.cards import CardConfig, config_metadata, size_category, write_card
from transformers_videorefer.data.tables.features import bench_q_features, conversation_features


START = (
    "---\nlicense: apache-2.0\ntags:\n- a\nconfigs:\n- config_name: old\n  data_files: x\n---\n\n# Title\n\nText.\n"
)


def configs():
    return [
        CardConfig("b", conversation_features(), {"train": "b/train-*"}, {"train": 3}, {"train": 300}, 120),
        CardConfig("a", bench_q_features(), {"test": "a/test-*", "validation": "a/validation-*"}),
    ]


def test_the_head_is_what_datasets_reads(tmp_path):
    write_card(tmp_path / "README.md", START, configs(), about_this_copy="Small.")
    card = DatasetCard.load(tmp_path / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.tags == ["a"]
    assert card.data.configs == [
        {"config_name": "b", "data_files": [{"split": "train", "path": "b/train-*"}]},
        {
            "config_name": "a",
            "data_files": [{"split": "test", "path": "a/test-*"}, {"split": "validation", "path": "a/validation-*"}],
        },
    ]
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    assert infos["b"].features == conversation_features()
    assert infos["a"].features == bench_q_features()
    assert (infos["b"].splits["train"].num_examples, infos["b"].splits["train"].num_bytes) == (3, 300)
    assert (infos["b"].download_size, infos["b"].dataset_size) == (120, 300)
    assert not infos["a"].splits
    assert card.text.strip() == "# Title\n\nText.\n\n## This copy\n\nSmall."
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_card_can_be_written_again(tmp_path):
    write_card(tmp_path / "README.md", START, configs(), about_this_copy="First.")
    write_card(
        tmp_path / "README.md", DatasetCard.load(tmp_path / "README.md"), configs()[1:], about_this_copy="Second."
    )
    card = DatasetCard.load(tmp_path / "README.md")
    assert [entry["config_name"] for entry in card.data.configs] == ["a"]
    assert card.text.strip() == "# Title\n\nText.\n\n## This copy\n\nSecond."


@pytest.mark.parametrize(
    ("num_rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (75_000, "10K<n<100K"),
        (700_000, "100K<n<1M"),
        (10**6, "1M<n<10M"),
        (10**9, "1B<n<10B"),
        (10**12, "n>1T"),
    ],
)
def test_sizes_have_the_names_of_the_hub(num_rows, name):
    assert size_category(num_rows) == name


def test_the_size_is_that_of_the_rows_where_they_are_counted(tmp_path):
    start = "---\nlicense: other\nsize_categories:\n- 100K<n<1M\n---\n# A\n"
    counted = CardConfig("b", conversation_features(), {"train": "b/train-*"}, {"train": 900, "test": 143}, {}, 1)
    write_card(tmp_path / "README.md", start, [counted])
    assert DatasetCard.load(tmp_path / "README.md").data.size_categories == ["1K<n<10K"]
    write_card(tmp_path / "README.md", start, configs())
    assert DatasetCard.load(tmp_path / "README.md").data.size_categories == ["100K<n<1M"]


@pytest.mark.parametrize("count", [0, 1])
def test_heads_of_no_and_of_one_configuration(count):
    head = config_metadata(configs()[:count])
    assert len(head["configs"]) == count
