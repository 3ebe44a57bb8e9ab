"""Run lengths of many masks checked at once, against their definition."""

import numpy as np
import pytest
from coco_strings import coco_encode, random_masks, sum_of_runs
from pycocotools import mask as coco_mask

from transformers_videorefer.data import rle_checks
from transformers_videorefer.data.rle_checks import broken_rles
from transformers_videorefer.regions.rle import encode_runs


# pycocotools 2.0.11 has not followed a change of numpy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_whole_masks_pass_the_bulk_check(monkeypatch: pytest.MonkeyPatch) -> None:
    rles = [coco_encode(mask) for mask in random_masks(2, 400)]
    empty = {"size": [5000, 5000], "counts": [25_000_000]}
    rles.append({**empty, "counts": coco_mask.frPyObjects(empty, 5000, 5000)["counts"].decode()})
    assert broken_rles(rles) == []
    assert broken_rles([]) == []
    monkeypatch.setattr(rle_checks, "_CHUNK_CHARACTERS", 1000)
    assert broken_rles(rles) == []


def damage(rle: dict, rng: np.random.Generator) -> dict:
    """Damage the counts or the size of a mask in one of many ways."""
    text, size = rle["counts"], list(rle["size"])
    place = int(rng.integers(0, len(text)))
    kind = rng.integers(0, 7)
    if kind == 0:
        text = text[:place]
    elif kind == 1:
        text = text[:place] + chr(rng.integers(1, 200)) + text[place + 1 :]
    elif kind == 2:
        text = text[:place] + text[place + 1 :]
    elif kind == 3:
        text = text[:place] + chr(48 + rng.integers(0, 64)) + text[place:]
    elif kind == 4:
        size[rng.integers(0, 2)] += int(rng.integers(1, 5))
    elif kind == 5:
        text = text[:place] + "".join(chr(80 + code) for code in rng.integers(0, 32, size=8)) + text[place:]
    else:
        text = text[::-1]
    return {"size": size, "counts": text}


@pytest.mark.parametrize("chunk", [400, 1 << 17])
def test_exactly_the_broken_masks_are_found(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(rle_checks, "_CHUNK_CHARACTERS", chunk)
    rng = np.random.default_rng(3)
    whole = [coco_encode(mask) for mask in random_masks(4, 1200)]
    rles = [damage(rle, rng) if rng.random() < 0.4 else rle for rle in whole]
    expected = [
        index for index, rle in enumerate(rles) if sum_of_runs(rle["counts"]) != rle["size"][0] * rle["size"][1]
    ]
    found = broken_rles(rles)
    assert [index for index, _ in found] == expected
    assert 200 < len(expected) < 600
    assert all(reason for _, reason in found)


def test_sums_that_are_right_only_in_32_bits_are_found() -> None:
    """Runs of 2**32 + 6 pixels in all would pass for 6 where sums wrap around."""
    runs = [6, 2**31, 0, 2**31] + [0] * 20
    rle = encode_runs(runs, [2, 3])
    ((index, reason),) = broken_rles([rle])
    assert (index, "cover 4294967302 pixels" in reason) == (0, True)
    growing = "".join(["0", "0", "0"] + ["PPPP?"] * 400)  # every second run is 2**24 - ... larger than the one before
    ((index, _),) = broken_rles([{"size": [2, 3], "counts": growing}])
    assert index == 0
