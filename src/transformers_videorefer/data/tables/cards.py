"""Dataset cards: the YAML head from which `load_dataset` knows configurations, files and columns, and what was written."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


try:
    import datasets
except ImportError as error:
    raise ImportError("Dataset cards need the library `datasets`. Install it with `pip install datasets`.") from error

from huggingface_hub import DatasetCard, DatasetCardData


COPY_HEADING = "## This copy"
# Bounds of the sizes that the Hub knows, each with its name.
_BOUNDS = {
    10**3: "1K",
    10**4: "10K",
    10**5: "100K",
    10**6: "1M",
    10**7: "10M",
    10**8: "100M",
    10**9: "1B",
    10**10: "10B",
    10**11: "100B",
    10**12: "1T",
}


@dataclass
class CardConfig:
    """What a card says about one configuration.

    Args:
        name (`str`): Name that `load_dataset` takes.
        features (`datasets.Features`): Columns.
        splits (`dict[str, str]`): Split -> pattern of its files, relative to the card.
        num_rows (`dict[str, int]`, *optional*): Split -> rows. Without it the card names no sizes.
        num_bytes (`dict[str, int]`, *optional*): Split -> bytes in memory.
        download_size (`int`, *optional*): Bytes of its files.
    """

    name: str
    features: "datasets.Features"
    splits: dict[str, str]
    num_rows: dict[str, int] = field(default_factory=dict)
    num_bytes: dict[str, int] = field(default_factory=dict)
    download_size: int | None = None


def config_metadata(configs: Sequence[CardConfig]) -> dict[str, Any]:
    """Return the entries `configs` and `dataset_info` of a card's head.

    Args:
        configs (`Sequence[CardConfig]`): Configurations in the order the card lists them.

    Returns:
        `dict[str, Any]`: Both entries, plain values only.
    """
    infos = DatasetCardData()
    datasets.info.DatasetInfosDict({config.name: _info(config) for config in configs}).to_dataset_card_data(infos)
    files = [
        {
            "config_name": config.name,
            "data_files": [{"split": split, "path": path} for split, path in config.splits.items()],
        }
        for config in configs
    ]
    return {"configs": files, "dataset_info": infos.to_dict().get("dataset_info", [])}


def _info(config: CardConfig) -> "datasets.DatasetInfo":
    info = datasets.DatasetInfo(features=config.features, config_name=config.name)
    if config.num_rows:
        info.splits = datasets.SplitDict.from_split_dict(
            [
                {"name": split, "num_bytes": config.num_bytes.get(split, 0), "num_examples": num_rows}
                for split, num_rows in config.num_rows.items()
            ]
        )
        info.dataset_size = sum(config.num_bytes.values())
        info.download_size = config.download_size
    return info


def size_category(num_rows: int) -> str:
    """Return what the Hub calls a dataset of a number of rows.

    Args:
        num_rows (`int`): Rows of all configurations and splits.

    Returns:
        `str`: For example `"1K<n<10K"`.
    """
    names = ["", *_BOUNDS.values(), ""]
    place = bisect_right(list(_BOUNDS), num_rows)
    return "<".join(part for part in (names[place], "n", names[place + 1]) if part) if place < len(_BOUNDS) else "n>1T"


def write_card(
    path: str | os.PathLike, card: str | DatasetCard, configs: Sequence[CardConfig], *, about_this_copy: str = ""
) -> None:
    """Write a card for files that lie beside it.

    Args:
        path (`str` or `os.PathLike`): The card, a `README.md`.
        card (`str` or `DatasetCard`): Text of the card to start from; its head keeps licence, tags and the like, while
            `configs` and `dataset_info` are replaced, and `size_categories` where the rows are counted.
        configs (`Sequence[CardConfig]`): What lies beside the card.
        about_this_copy (`str`, *optional*): Text of a closing section.
    """
    if isinstance(card, str):
        card = DatasetCard(card)
    for key in ("configs", "dataset_info"):
        card.data.pop(key, None)
    for key, value in config_metadata(configs).items():
        card.data[key] = value
    if configs and all(config.num_rows for config in configs):
        num_rows = sum(sum(config.num_rows.values()) for config in configs)
        card.data["size_categories"] = [size_category(num_rows)]
    body = card.text.split(f"\n{COPY_HEADING}\n")[0].strip()
    if about_this_copy:
        body = f"{body}\n\n{COPY_HEADING}\n\n{about_this_copy.strip()}"
    text = f"---\n{card.data.to_yaml()}\n---\n\n{body}\n"
    part = Path(path).with_name(f".{Path(path).name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
