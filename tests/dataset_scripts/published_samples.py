"""Made-up published files: every form of annotation that the published files hold, with the pixels that are meant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco


HEIGHT, WIDTH = 48, 80
FILES = {
    "short_caption": "videorefer-short-caption-500k.json",
    "detailed_caption": "videorefer-detailed-caption-125k.json",
    "qa": "videorefer-qa-75k.json",
}
QUESTION_TYPES = (
    "Basic Questions",
    "Sequential Questions",
    "Relationship Questions",
    "Reasoning Questions",
    "Future Predictions",
)


def ellipse(number: int) -> np.ndarray:
    """Return a mask that differs for every number."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    center_x, center_y = 20 + number * 7 % 40, 14 + number * 5 % 20
    return ((columns - center_x) / 14) ** 2 + ((rows - center_y) / 9) ** 2 < 1


def compressed(number: int) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(ellipse(number).astype(np.uint8)))
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def uncompressed(number: int) -> dict[str, Any]:
    pixels = ellipse(number).ravel(order="F")
    borders = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *borders.tolist(), len(pixels)]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *runs] if pixels[0] else runs}


def polygons(number: int) -> list[list[float]]:
    left, top = 5.0 + number % 30, 4.0 + number % 20
    return [[left, top, left + 20.5, top, left + 20.5, top + 11.25, left, top + 11.25], [1, 1, 9, 1, 5, 8]]


def decode(segmentation: Any, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray | None:
    """Return the pixels of a published segmentation as the COCO tools have them."""
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        rle = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco.frPyObjects(segmentation, *segmentation["size"])
    else:
        rle = segmentation
    return coco.decode(rle).astype(bool)


def segmentations(record: dict[str, Any]) -> list[list[tuple[int, Any]]]:
    """Return frame number and segmentation of every object of a record, in either naming."""
    if "masks" in record:
        return [[(int(frame), value) for frame, value in thing.items()] for thing in record["masks"]]
    objects = record.get("annotation") or []
    return [[(int(frame), value.get("segmentation")) for frame, value in thing.items()] for thing in objects]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def records_700k(config: str) -> list[dict[str, Any]]:
    """Return records of one configuration, in all forms."""
    seed = list(FILES).index(config) * 100
    ask = "<video>\nPlease describe the object <region> in the video."
    two = "<video>\nThere are two objects: <object0> [<region>], <object1> [<region>]. Which is larger?"
    size = {"height": HEIGHT, "width": WIDTH}

    def frames(first: int, kind=compressed, order=(36, 4, 120)) -> dict[str, Any]:
        return {str(frame): {"segmentation": kind(seed + first + frame)} for frame in order}

    plain = {"video": "videos/a.mp4", "conversations": turns(ask, "A dog. Ünïcode, “quotes” and a \\ backslash.")}
    bare = [{"7": compressed(seed + 1), "3": uncompressed(seed + 2)}, {"9": polygons(seed)}]
    with_null = {**frames(3), "50": {"segmentation": None}, "51": {}}
    return [
        {"id": 0, **plain, "annotation": [frames(0)]},
        {"id": 1, **plain, "annotation": [frames(1, uncompressed)], **size},
        {"id": 2, **plain, "annotation": [frames(2, polygons)], **size},
        {"id": "three", **plain, "annotation": [with_null]},
        {"id": 4, "video": "frames/b", "conversations": turns(two, "The first.", "Why?", "It."), "masks": bare, **size},
        {"id": 5, "image": "images/c.jpg", "conversations": turns(ask.replace("video", "image"), "A cat."),
         "annotation": [frames(5, order=(0,))]},
        {"id": 6, "video": "videos/d.mp4", "conversations": turns("<video>\nWhat happens?", "Nothing.")},
        {"id": 7, "conversations": turns("Who wrote Faust?", "Goethe.")},
        {"id": 8, "image": "images/e.jpg", "conversations": turns("<image>\nWhat is this?", "A house.")},
        {"id": 9, "video": "videos/f.mp4", "conversations": turns(two, "Both."),
         "annotation": [frames(9), frames(10, order=(5,))]},
    ]  # fmt: skip


def records_bench_d() -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "video": f"Panda-70M-part/{number}.mp4",
            "caption": f"A person number {number} walks.",
            "frame_idx": str(number * 3),
            "annotation": [{str(frame * 3): {"segmentation": compressed(number + frame)} for frame in range(32)}],
        }
        for number in range(4)
    ]


def records_bench_q() -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "video": f"DAVIS/JPEGImages/480p/{number}",
            "Question": "What is <object3><region> doing" + " with <object1><region>" * (number % 2) + "?",
            "type": QUESTION_TYPES[number % 5],
            "options": ["(A) A helmet", "(B) Gloves", "(C) Runs", "(D) Sleeps"],
            "Answer": "(C) Runs",
            "frame_idx": "6",
            "annotation": [
                {str(frame): {"segmentation": compressed(number + frame + thing)} for frame in (6, 0, 12)}
                for thing in range(1 + number % 2)
            ],
        }
        for number in range(7)
    ]


def records_hc_stvg(split: str) -> dict[str, Any]:
    """Return entries of both versions, see the authors' page."""
    shift = {"train": 0, "val": 100, "test": 200}[split]
    boxes = [[10 + step, 20, 30.5, 60] for step in range(3)]
    common = {"bbox": boxes, "st_time": 1.0, "ed_time": 1.1, "img_num": 600, "st_frame": 31}
    return {
        f"{shift + 1}_aaa.mp4": {**common, "caption": "The woman in red turns.", "width": 640, "height": 360},
        f"{shift + 2}_bbb.mp4": {**common, "English": "The man sits down.", "img_size": [360, 640]},
    }


def write_published(folder: Path) -> Path:
    """Write all published files into one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for config, name in FILES.items():
        (folder / name).write_text(json.dumps(records_700k(config)))
    (folder / "VideoRefer-Bench-D.json").write_text(json.dumps(records_bench_d(), indent=1))
    (folder / "VideoRefer-Bench-Q.json").write_text(json.dumps(records_bench_q(), ensure_ascii=False))
    for split in ("train", "val", "test"):
        (folder / f"{split}.json").write_text(json.dumps(records_hc_stvg(split)))
    return folder
