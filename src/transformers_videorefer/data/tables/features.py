"""Column types of the datasets: one form of a region for every set, so that sets can be interleaved."""

from typing import Any

from transformers_videorefer.data.rows.row_checks import QUESTION_TYPES


try:
    import datasets
except ImportError as error:
    raise ImportError("Datasets need the library `datasets`. Install it with `pip install datasets`.") from error


def region_features() -> Any:
    """Return the type of the column `regions`: a list of regions, each with its frames.

    Returns:
        `datasets.List`: Per region `object_id`, `media` and `frames`; per frame `frame_index` and one of `rle`
        (compressed COCO run-length mask) and `box` ([x0, y0, x1, y1]); `size` is [height, width].
    """
    size = datasets.List(datasets.Value("int32"))
    frame = {
        "frame_index": datasets.Value("int32"),
        "rle": {"size": size, "counts": datasets.Value("string")},
        "box": datasets.List(datasets.Value("float32")),
        "size": size,
    }
    region = {
        "object_id": datasets.Value("string"),
        "media": datasets.Value("int32"),
        "frames": datasets.List(frame),
    }
    return datasets.List(region)


def conversation_features() -> "datasets.Features":
    """Return the columns of VideoRefer-700K and of every set that trains like it.

    Returns:
        `datasets.Features`: `id`, `video`, `image`, `messages`, `regions`, `edit_list`, `task` and `source`.
    """
    text = datasets.Value("string")
    return datasets.Features(
        {
            "id": text,
            "video": text,
            "image": text,
            "messages": datasets.Json(),
            "regions": region_features(),
            "edit_list": text,
            "task": text,
            "source": text,
        }
    )


def bench_d_features() -> "datasets.Features":
    """Return the columns of VideoRefer-Bench-D.

    Returns:
        `datasets.Features`: `id`, `video`, `caption`, `frame_index`, `regions` and `edit_list`.
    """
    text = datasets.Value("string")
    return datasets.Features(
        {
            "id": text,
            "video": text,
            "caption": text,
            "frame_index": datasets.Value("int32"),
            "regions": region_features(),
            "edit_list": text,
        }
    )


def bench_q_features() -> "datasets.Features":
    """Return the columns of VideoRefer-Bench-Q.

    Returns:
        `datasets.Features`: `id`, `video`, `question`, `options`, `answer`, `type`, `frame_index`, `regions` and
        `edit_list`.
    """
    text = datasets.Value("string")
    return datasets.Features(
        {
            "id": text,
            "video": text,
            "question": text,
            "options": datasets.List(text),
            "answer": text,
            "type": datasets.ClassLabel(names=list(QUESTION_TYPES)),
            "frame_index": datasets.Value("int32"),
            "regions": region_features(),
            "edit_list": text,
        }
    )
