"""Small annotation files in the published form, with videos, for the tests of checks, audits and pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from transformers_videorefer.data import encode_rle


# The videos of tests/video_files.py have this size.
HEIGHT, WIDTH = 48, 64


def box_mask(top: int = 10, bottom: int = 30, left: int = 20, right: int = 50) -> dict[str, Any]:
    """A rectangle as a run-length mask."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return encode_rle(mask)


def make_record(number: int = 0, objects: list[dict[int, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    """A record of VideoRefer-700K without any defect; `fields` replace or add to its own."""
    if objects is None:
        objects = [{0: box_mask(), 20: box_mask(left=30)}]
    return {
        "id": number,
        "video": "videos/a.mp4",
        "conversations": [
            {"from": "human", "value": "<video>\nWhat is <region> doing?"},
            {"from": "gpt", "value": "It moves."},
        ],
        "annotation": [{str(index): {"segmentation": mask} for index, mask in frames.items()} for frames in objects],
        "height": HEIGHT,
        "width": WIDTH,
        **fields,
    }


def make_row(number: int = 0, frames: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    """A row of ours without any defect."""
    if frames is None:
        frames = [{"frame_index": 0, "rle": box_mask(), "box": None, "size": None}]
    return {
        "id": str(number),
        "video": "videos/a.mp4",
        "image": None,
        "messages": [
            {"role": "user", "content": "<video>\nWhat is <region> doing?"},
            {"role": "assistant", "content": "It moves."},
        ],
        "regions": [{"object_id": "0", "media": 0, "frames": frames}],
        "edit_list": "apply",
        "task": "qa",
        "source": "test",
        **fields,
    }


def write_json(path: Path, records: list[Any]) -> Path:
    """Write one JSON array, or JSON lines where the name ends like that."""
    lines = [json.dumps(record) for record in records]
    text = "".join(f"{line}\n" for line in lines) if path.suffix == ".jsonl" else f"[{', '.join(lines)}]"
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet_folder(folder: Path, rows: list[dict[str, Any]], configs: tuple[str, ...] = ("qa",)) -> Path:
    """Write a dataset in Parquet files with a card that names its configs."""
    import datasets

    from transformers_videorefer.data.tables.features import conversation_features

    card = ["---", "configs:"]
    for config in configs:
        (folder / config).mkdir(parents=True)
        dataset = datasets.Dataset.from_list(rows, features=conversation_features())
        dataset.to_parquet(folder / config / "train-00000-of-00001.parquet", batch_size=2)
        card += [
            f"- config_name: {config}",
            "  data_files:",
            "  - split: train",
            f"    path: {config}/train-*.parquet",
        ]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder
