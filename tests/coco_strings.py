"""COCO strings of run lengths by their definition and by the COCO tools, for tests to compare with, and masks for them."""

import numpy as np
from pycocotools import mask as coco_mask


def sum_of_runs(text: str) -> int | None:
    """Add up the runs of a COCO string in unlimited integers; None where it is none."""
    runs, value, shift = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return None if shift or not runs or min(runs) < 0 else sum(runs)


def coco_encode(mask: np.ndarray) -> dict[str, object]:
    """Encode with the COCO tools."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_masks(seed: int, num_masks: int) -> list[np.ndarray]:
    """Make masks from empty over blocks to noise, of many sizes."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(num_masks):
        height, width = rng.integers(1, 90, size=2)
        mask = rng.random((height, width)) < rng.choice([0, 0.01, 0.5, 1])
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + rng.integers(1, 60), left : left + rng.integers(1, 60)] = rng.random() < 0.7
        masks.append(mask)
    return masks
