"""Clips of the toy world as training tensors: what the processor would make of their mp4 files."""

import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import av
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from transformers_videorefer.data.synthetic.clips import SPLIT_SEEDS, encode_video, make_clip
from transformers_videorefer.data.synthetic.questions import Question
from transformers_videorefer.data.synthetic.world import (
    COLORS,
    DIRECTIONS,
    FRAME_SIZE,
    LARGE_RADIUS,
    NUM_FRAMES,
    SHAPES,
    Scene,
    ShapeObject,
)
from transformers_videorefer.regions.grid import grid_mask
from transformers_videorefer.video.sampling import uniform_indices


IMAGE_SIZE, PATCH_SIZE, NUM_SCENE_FRAMES = 64, 8, 8
GRID_SIZE = IMAGE_SIZE // PATCH_SIZE
MAX_OBJECTS = 3
# Every object is visible in all frames, so its frames are the scene frames.
FRAME_INDICES = uniform_indices(NUM_FRAMES, NUM_SCENE_FRAMES)
TURNS = [
    (one, other)
    for one in DIRECTIONS
    for other in DIRECTIONS
    if (one in ("left", "right")) != (other in ("left", "right"))
]
MOTIONS = [("move", (name,)) for name in DIRECTIONS] + [("turn", turn) for turn in TURNS]
MOTIONS += [(name, ()) for name in ("still", "grow", "shrink", "recolor")]
IGNORED = -100


@dataclass(frozen=True, eq=False)
class TrainingClip:
    """One clip.

    Args:
        scene ([`Scene`]): What it shows.
        questions (`tuple[Question, ...]`): What can be asked about it.
        frames (`np.ndarray` of shape `(8, 64, 64, 3)`): uint8 RGB scene frames, decoded from the mp4 file.
        masks (`np.ndarray` of shape `(2, 3, 8, 64)`): bool masks on the patch grid; first from masks, then from boxes.
    """

    scene: Scene
    questions: tuple[Question, ...]
    frames: np.ndarray
    masks: np.ndarray


def make_training_clip(seed: int) -> TrainingClip:
    """Make one clip: render, encode, decode, resize.

    Args:
        seed (`int`): Seed of the clip.

    Returns:
        [`TrainingClip`].
    """
    torch.set_num_threads(1)
    clip = make_clip(seed)
    wanted = set(FRAME_INDICES)
    with av.open(io.BytesIO(encode_video(clip.frames))) as container:
        container.streams.video[0].thread_count = 1
        pictures = [
            frame.to_image().resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
            for number, frame in enumerate(container.decode(video=0))
            if number in wanted
        ]
    masks = np.zeros((2, MAX_OBJECTS, NUM_SCENE_FRAMES, GRID_SIZE**2), dtype=bool)
    for index, of_object in enumerate(clip.masks[:, FRAME_INDICES]):
        for position, mask in enumerate(of_object):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = np.zeros_like(mask)
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            for form, filled in enumerate((mask, box)):
                masks[form, index, position] = grid_mask(filled, (GRID_SIZE, GRID_SIZE), keep_vanished=False).ravel()
    return TrainingClip(clip.scene, clip.questions, np.stack([np.asarray(picture) for picture in pictures]), masks)


def make_training_clips(split: str, num_clips: int, num_workers: int) -> list[TrainingClip]:
    """Make the clips of a split in several processes.

    Args:
        split (`str`): "train" or "validation".
        num_clips (`int`): How many.
        num_workers (`int`): Processes.

    Returns:
        `list[TrainingClip]`.
    """
    seeds = range(SPLIT_SEEDS[split], SPLIT_SEEDS[split] + num_clips)
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        clips = pool.map(make_training_clip, seeds, chunksize=16)
        return list(tqdm(clips, total=num_clips, desc=f"{split} clips", unit="clip", mininterval=5))


def to_pixels(frames: torch.Tensor) -> torch.Tensor:
    """Normalise uint8 frames of shape `(..., height, width, 3)` to `(..., 3, height, width)` in [-1, 1]."""
    return (frames.movedim(-1, -3).float() / 255 - 0.5) / 0.5


@dataclass(frozen=True, eq=False)
class ObjectTargets:
    """What the auxiliary heads have to tell about objects, arrays of shape `(num_clips, 3, 8)` and more.

    Args:
        colors (`torch.Tensor` of shape `(num_clips, 3, 8)`): Class in each frame; -100 while it changes.
        shapes (`torch.Tensor` of shape `(num_clips, 3)`): Class.
        motions (`torch.Tensor` of shape `(num_clips, 3)`): Class, a position in `MOTIONS`.
        places (`torch.Tensor` of shape `(num_clips, 3, 8, 3)`): x, y and radius, roughly between -1 and 1.
        present (`torch.Tensor` of shape `(num_clips, 3)`): Whether the clip has so many objects.
    """

    colors: torch.Tensor
    shapes: torch.Tensor
    motions: torch.Tensor
    places: torch.Tensor
    present: torch.Tensor


def object_targets(clips: list[TrainingClip]) -> ObjectTargets:
    """Collect the targets of clips.

    Args:
        clips (`list[TrainingClip]`): The clips.

    Returns:
        [`ObjectTargets`].
    """
    colors = np.full((len(clips), MAX_OBJECTS, NUM_SCENE_FRAMES), IGNORED)
    shapes, motions = np.full((2, len(clips), MAX_OBJECTS), IGNORED)
    places = np.zeros((len(clips), MAX_OBJECTS, NUM_SCENE_FRAMES, 3), dtype=np.float32)
    for row, clip in enumerate(clips):
        for index, one in enumerate(clip.scene.objects):
            colors[row, index] = _color_per_frame(one)
            shapes[row, index] = SHAPES.index(one.shape)
            motions[row, index] = MOTIONS.index((one.motion, one.directions))
            places[row, index, :, :2] = one.centers()[FRAME_INDICES] / FRAME_SIZE * 2 - 1
            places[row, index, :, 2] = one.radius_per_frame()[FRAME_INDICES] / LARGE_RADIUS[1] * 2 - 1.4
    tensors = [torch.from_numpy(array) for array in (colors, shapes, motions, places)]
    return ObjectTargets(*tensors, present=tensors[1] != IGNORED)


def _color_per_frame(one: ShapeObject) -> list[int]:
    names, times = list(COLORS), np.linspace(0, 1, NUM_FRAMES)[FRAME_INDICES]
    first, last = names.index(one.color), names.index(one.end_color)
    return [first if first == last or time < 0.42 else last if time > 0.58 else IGNORED for time in times]
