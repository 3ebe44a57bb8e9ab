"""Small videos and a reader of imported rows that decodes with pycocotools, not with our code."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from transformers_videorefer.data.defects import DefectReport
from transformers_videorefer.data.importers import ImportOptions, import_annotations


def picture_folder(folder: Path, names: list[str], height: int = 8, width: int = 10) -> Path:
    """Write a black picture under each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (width, height)).save(folder / name)
    return folder


def run_import(
    source_format: str, path: Path, videos: Path, **options: Any
) -> tuple[list[dict[str, Any]], DefectReport]:
    report = DefectReport()
    rows = list(import_annotations(source_format, path, videos, options=ImportOptions(**options), report=report))
    return rows, report


def frames_of(row: dict[str, Any]) -> list[int]:
    (region,) = row["regions"]
    return [frame["frame_index"] for frame in region["frames"]]


def boxes_of(row: dict[str, Any]) -> dict[int, list[float]]:
    (region,) = row["regions"]
    return {frame["frame_index"]: frame["box"] for frame in region["frames"] if frame["box"]}


def masks_of(row: dict[str, Any]) -> dict[int, np.ndarray]:
    (region,) = row["regions"]
    return {
        frame["frame_index"]: coco_mask.decode(frame["rle"]).astype(bool) for frame in region["frames"] if frame["rle"]
    }


def pixels(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    """A mask that is a rectangle of whole pixels."""
    mask = np.zeros((height, width), dtype=bool)
    mask[rows, columns] = True
    return mask
