"""Damaged exports: whatever is broken, an import ends with rows that hold, a listed skip, or one clear error."""

import copy
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_helpers import picture_folder
from PIL import Image
from pycocotools import mask as coco_mask
from test_coco_video import NAMES
from test_coco_video import content as coco_content
from test_cvat_video import HEAD, box, track
from test_label_studio import key, task
from video_files import write_video

from transformers_videorefer.data.defects import DefectReport
from transformers_videorefer.data.importers import ImportOptions, import_annotations


NUM_DAMAGED = int(os.environ.get("NUM_DAMAGED_EXPORTS", "40"))
JUNK = [
    None,
    True,
    -1,
    0,
    10**18,
    10**5000,
    1e308,
    float("nan"),
    "",
    "x",
    "../../secret",
    "/etc",
    [],
    [[]],
    {},
    [None],
    {"a": 1},
]
TEXT_JUNK = ["", "-1", "1e400", "nan", "9" * 30, "x", "../../secret", "1,2,3", "\u00b2"]
JSON_ROW = {
    "id": "a",
    "video": "clip.mp4",
    "messages": [{"role": "user", "content": "<video>\n<region>?"}, {"role": "assistant", "content": "A dog."}],
    "regions": [
        {
            "object_id": "0",
            "frames": [
                {"frame_index": 1, "box": [1, 1, 5, 5]},
                {"frame_index": 2, "polygon": [[1, 1, 9, 1, 9, 7]]},
                {"frame_index": 3, "rle": {"size": [48, 64], "counts": [100, 20, 2952]}},
                {"time_seconds": 0.16, "scribble": {"points": [[1, 2], [5, 5]], "width": 3}},
            ],
        }
    ],
}


def places(value: Any, path: tuple = ()) -> list[tuple]:
    found = [path] if path else []
    for name, part in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        found += places(part, (*path, name))
    return found


def damage(content: Any, generator: random.Random) -> Any:
    """Drop or replace one to three values anywhere in a JSON document."""
    content = copy.deepcopy(content)
    for _ in range(generator.randint(1, 3)):
        path = generator.choice(places(content) or [()])
        if not path:
            return content
        parent = content
        for name in path[:-1]:
            parent = parent[name]
        if generator.random() < 0.3:
            del parent[path[-1]]
        else:
            parent[path[-1]] = copy.deepcopy(generator.choice(JUNK))
    return content


def damage_xml(text: str, generator: random.Random) -> str:
    for _ in range(generator.randint(1, 3)):
        values = list(re.finditer(r'"([^"]*)"|>([^<>\n]+)<', text))
        found = generator.choice(values)
        group = 1 if found.group(1) is not None else 2
        text = text[: found.start(group)] + generator.choice(TEXT_JUNK) + text[found.end(group) :]
    return text


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("damaged") / "set" / "videos"
    picture_folder(root / "dog_a", NAMES)
    for name in ("street.mp4", "clip.mp4"):
        write_video(root / name, 12)
    write_video(root / "cells.mp4", 10, height=50, width=100)
    # What a junk path leads to could be opened, if anybody tried.
    write_video(root.parent.parent / "secret.mp4", 12)
    return root


def exports(source_format: str) -> Any:
    if source_format == "coco-video":
        return coco_content()
    if source_format == "label-studio":
        return [task([key(1, 10, 10, 20, 20), key(5, 10, 10, 30, 30, rotation=20, enabled=False)])]
    if source_format == "jsonl":
        return [JSON_ROW]
    polygon = '<polygon frame="1" keyframe="1" outside="0" points="4,6;12,6;12,9"/>'
    mask = '<mask frame="1" keyframe="1" outside="0" rle="1, 3, 1, 1" left="5" top="7" width="3" height="2"/>'
    boxes = box(1, "1 1 5 5") + box(5, "9 9 20 20", extra='rotation="30"') + box(7, "9 9 20 20", outside=1)
    return HEAD.replace("{frame_filter}", "step=2") + track(boxes) + track(polygon) + track(mask) + "</annotations>"


@pytest.mark.parametrize("bad_rows", ["raise", "skip", "keep"])
@pytest.mark.parametrize("source_format", ["coco-video", "cvat-video", "label-studio", "jsonl"])
def test_damaged_exports(tmp_path, videos, source_format, bad_rows):
    generator = random.Random(f"{source_format} {bad_rows}")
    whole = exports(source_format)
    path = tmp_path / "set" / "files" / "annotations.txt"
    path.parent.mkdir(parents=True)
    Image.new("L", (64, 48), 255).save(tmp_path / "secret", format="PNG")
    options = ImportOptions(bad_rows=bad_rows)
    num_rows, num_errors = 0, 0
    for _ in range(NUM_DAMAGED):
        damaged = damage_xml(whole, generator) if isinstance(whole, str) else damage(whole, generator)
        path.write_text(damaged if isinstance(damaged, str) else _dump(damaged, source_format), encoding="utf-8")
        report = DefectReport()
        try:
            rows = list(import_annotations(source_format, path, videos, options=options, report=report))
        except ValueError as error:
            # It names the file, the place in it or the row, and nothing outside.
            assert str(error).startswith(path.name)
            assert str(videos) not in str(error)
            assert str(tmp_path) not in str(error)
            num_errors += 1
            continue
        assert report.num_rows == len(rows) + report.num_skipped
        for row in rows:
            num_rows += 1
            media = [name for name in (row["video"], row["image"]) if name]
            assert media or not row["regions"]
            if bad_rows != "keep":
                assert all((videos / name).resolve().is_relative_to(videos.resolve()) for name in media)
                assert all((videos / name).exists() for name in media)
            assert not any("secret" in name for name in media)
            for frame in (frame for region in row["regions"] for frame in region["frames"]):
                if frame["rle"]:
                    assert coco_mask.decode(frame["rle"]).shape == tuple(frame["rle"]["size"])
    assert num_rows > 0
    assert num_errors < NUM_DAMAGED


def _dump(content: Any, source_format: str) -> str:
    if source_format == "jsonl":
        return "".join(f"{_dump(row, '')}\n" for row in content)
    # Python refuses to print whole numbers of thousands of digits.
    huge = 10**5000
    return json.dumps(_without(content, huge)).replace('"<huge>"', "1" + "0" * 5000)


def _without(value: Any, huge: int) -> Any:
    if isinstance(value, dict):
        return {name: _without(part, huge) for name, part in value.items()}
    if isinstance(value, list):
        return [_without(part, huge) for part in value]
    return "<huge>" if isinstance(value, int) and value == huge else value


def damage_pictures(folder: Path, generator: random.Random) -> None:
    """Cut, blank or replace one to three label pictures, or move one where no picture belongs."""
    for path in generator.choices(sorted(folder.rglob("*.png")), k=generator.randint(1, 3)):
        content = path.read_bytes() if path.exists() else b""
        choice = generator.randrange(5)
        if choice == 0:
            path.write_bytes(content[: generator.randrange(len(content) + 1)])
        elif choice == 1:
            path.write_bytes(b"junk" * 50)
        elif choice == 2:
            Image.new(generator.choice(["P", "L", "RGB", "1"]), (generator.randint(1, 9), 4), 1).save(path)
        elif choice == 3:
            path.unlink(missing_ok=True)
        else:
            path.with_name(generator.choice(["x.png", "99999.png", "-1.png"])).write_bytes(content)


@pytest.mark.parametrize("bad_rows", ["raise", "skip", "keep"])
def test_damaged_label_pictures(tmp_path, bad_rows):
    generator = random.Random(f"davis {bad_rows}")
    num_rows, num_bad = 0, 0
    for number in range(NUM_DAMAGED):
        root = tmp_path / str(number)
        picture_folder(root / "JPEGImages" / "bear", ["00000.jpg", "00001.jpg", "00002.jpg"])
        labels = np.zeros((8, 10), dtype=np.uint8)
        labels[1:4, 2:5], labels[5:7, 6:9] = 1, 2
        folder = root / "Annotations" / "bear"
        folder.mkdir(parents=True)
        for index in range(3):
            Image.fromarray(labels).save(folder / f"{index:05d}.png")
        damage_pictures(folder, generator)
        report = DefectReport()
        try:
            rows = list(
                import_annotations("davis", root, root, options=ImportOptions(bad_rows=bad_rows), report=report)
            )
        except ValueError as error:
            assert "bear" in str(error)
            assert str(tmp_path) not in str(error)
            num_bad += 1
            continue
        num_bad += report.num_skipped + bool(report.counts)
        assert report.num_rows == len(rows) + report.num_skipped
        for row in rows:
            num_rows += 1
            masks = [frame["rle"] for frame in row["regions"][0]["frames"] if frame["rle"]]
            assert all(coco_mask.decode(rle).shape == tuple(rle["size"]) for rle in masks)
            assert masks
    assert num_rows > 0
    assert num_bad > 0
