"""Clips of the toy world as real mp4 files, with exact masks, descriptions and questions, as dataset rows.

Everything follows from a seed: `make_clip(seed)` gives the same frames, masks and questions with one version of NumPy. The
seeds of the splits are far apart, so that no clip is in two of them.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from transformers_videorefer.inputs.items import MARKS
from transformers_videorefer.regions.rle import encode_rle

from .questions import DESCRIPTION, LETTERS, Question, questions_about
from .world import Scene, render, sample_scene


try:
    import av
except ImportError:  # needed to encode only
    av = None

FPS = 8
SOURCE = "synthetic_shapes"
# First seed of each split.
SPLIT_SEEDS = {"train": 0, "validation": 10_000_000, "test": 20_000_000}
BENCH_TYPES = {
    "basic": "Basic Questions",
    "sequential": "Sequential Questions",
    "relationship": "Relationship Questions",
    "reasoning": "Reasoning Questions",
    "future": "Future Predictions",
}
_ENCODER_OPTIONS = {"crf": "20", "preset": "veryfast", "g": "12", "threads": "1"}


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip with everything that is known about it.

    Args:
        scene ([`Scene`]): What it shows.
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): uint8 RGB before encoding.
        masks (`np.ndarray` of shape `(num_objects, num_frames, height, width)`): bool, the visible pixels.
        questions (`tuple[Question, ...]`): Questions, multiple-choice questions and descriptions.
    """

    scene: Scene
    frames: np.ndarray
    masks: np.ndarray
    questions: tuple[Question, ...]

    @property
    def name(self) -> str:
        """`str`: Name of its video file."""
        return clip_name(self.scene.seed)


def clip_name(seed: int) -> str:
    """Return the name of the video file of a clip."""
    return f"{seed:08d}.mp4"


def make_clip(seed: int) -> Clip:
    """Make one clip.

    Args:
        seed (`int`): Seed, at least 0.

    Returns:
        [`Clip`].
    """
    scene = sample_scene(seed)
    frames, masks = render(scene)
    return Clip(scene=scene, frames=frames, masks=masks, questions=tuple(questions_about(scene)))


def iterate_clips(split: str, num_clips: int) -> Iterator[Clip]:
    """Make the clips of a split one after the other.

    Args:
        split (`str`): "train", "validation" or "test".
        num_clips (`int`): How many.

    Yields:
        [`Clip`].

    Raises:
        ValueError: If the split is unknown.
    """
    if split not in SPLIT_SEEDS:
        raise ValueError(f"`split` must be one of {', '.join(SPLIT_SEEDS)}, got {split!r}.")
    for seed in range(SPLIT_SEEDS[split], SPLIT_SEEDS[split] + num_clips):
        yield make_clip(seed)


def encode_video(frames: np.ndarray) -> bytes:
    """Encode frames as H.264 in an mp4 file.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): uint8 RGB; height and width are even.

    Returns:
        `bytes`: The file.

    Raises:
        ImportError: If PyAV is missing.
    """
    if av is None:
        raise ImportError("PyAV is needed to write video files. Install it with `pip install av`.")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options=_ENCODER_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_clip(clip: Clip, folder: Path) -> Path:
    """Write the video file of a clip.

    Args:
        clip ([`Clip`]): The clip.
        folder (`Path`): Folder, made if there is none.

    Returns:
        `Path`: The file, `folder / clip.name`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / clip.name
    unfinished = path.with_suffix(".part")  # an interrupted run must not leave half a file under the final name
    unfinished.write_bytes(encode_video(clip.frames))
    unfinished.replace(path)
    return path


def object_region(clip: Clip, index: int) -> dict[str, Any]:
    """Make the region of one object: its mask in every frame in which it is visible.

    Args:
        clip ([`Clip`]): The clip.
        index (`int`): Position of the object in the scene.

    Returns:
        `dict`: A region as rows of all our datasets hold it.
    """
    frames = [
        {"frame_index": frame, "rle": encode_rle(mask), "box": None, "size": None}
        for frame, mask in enumerate(clip.masks[index])
        if mask.any()
    ]
    return {"object_id": str(index), "media": 0, "frames": frames}


def conversation_rows(clip: Clip) -> list[dict[str, Any]]:
    """Make one training row for each question of a clip, in the form of VideoRefer-700K.

    Args:
        clip ([`Clip`]): The clip.

    Returns:
        `list[dict]`: Rows with `id`, `video`, `image`, `messages`, `regions`, `edit_list`, `task` and `source`.
    """
    regions = [object_region(clip, index) for index in range(len(clip.masks))]
    return [
        {
            "id": f"{clip.scene.seed:08d}-{number:03d}",
            "video": clip.name,
            "image": None,
            "messages": [
                {"role": "user", "content": f"{MARKS['video']}\n{question.prompt}"},
                {"role": "assistant", "content": question.reply},
            ],
            "regions": [regions[index] for index in question.objects],
            "edit_list": "apply",
            "task": f"{question.kind}_choice" if question.options else question.kind,
            "source": SOURCE,
        }
        for number, question in enumerate(clip.questions)
    ]


def bench_q_rows(clip: Clip) -> list[dict[str, Any]]:
    """Make one row for each multiple-choice question of a clip, in the form of VideoRefer-Bench-Q.

    Args:
        clip ([`Clip`]): The clip.

    Returns:
        `list[dict]`: Rows with `id`, `video`, `question`, `options`, `answer`, `type`, `frame_index`, `regions` and
        `edit_list`.
    """
    rows = []
    for number, question in enumerate(clip.questions):
        if not question.options:
            continue
        options = [f"({letter}) {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
        regions = [object_region(clip, index) for index in question.objects]
        rows.append(
            {
                "id": f"{clip.scene.seed:08d}-{number:03d}",
                "video": clip.name,
                "question": question.text,
                "options": options,
                "answer": options[question.options.index(question.answer)],
                "type": BENCH_TYPES[question.kind],
                "frame_index": regions[0]["frames"][0]["frame_index"],
                "regions": regions,
                "edit_list": "apply",
            }
        )
    return rows


def bench_d_rows(clip: Clip) -> list[dict[str, Any]]:
    """Make one row for each object of a clip, in the form of VideoRefer-Bench-D.

    Args:
        clip ([`Clip`]): The clip.

    Returns:
        `list[dict]`: Rows with `id`, `video`, `caption`, `frame_index`, `regions` and `edit_list`.
    """
    rows = []
    for question in clip.questions:
        if question.kind != DESCRIPTION:
            continue
        region = object_region(clip, question.objects[0])
        rows.append(
            {
                "id": f"{clip.scene.seed:08d}-{question.objects[0]}",
                "video": clip.name,
                "caption": question.answer,
                "frame_index": region["frames"][0]["frame_index"],
                "regions": [region],
                "edit_list": "apply",
            }
        )
    return rows
