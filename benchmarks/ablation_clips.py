"""Clips of the ablations with all their frames annotated, and their features from the frozen tower, kept on disk."""

import io
import multiprocessing
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from transformers_videorefer import VideoReferForConditionalGeneration
from transformers_videorefer.data.synthetic import world as synthetic_world
from transformers_videorefer.data.synthetic.clips import encode_video
from transformers_videorefer.data.synthetic.questions import questions_about
from transformers_videorefer.data.synthetic.world import FRAME_SIZE, NUM_FRAMES, Scene, ShapeObject
from transformers_videorefer.regions.grid import grid_mask
from transformers_videorefer.regions.pixels import fill_box


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from tiny_clips import GRID_SIZE, IMAGE_SIZE, MAX_OBJECTS, TrainingClip  # noqa: E402
from tiny_tower import encode_clips  # noqa: E402


FORMS = ("mask", "box")
WORLDS = ("ordinary", "overlapping")
# First seed of (split, world); the splits of the package end long before. A clip that finds no overlap goes on to the
# scene of its seed plus 1, 2, ... times the stride, which never reaches the seeds of another set.
FIRST_SEEDS = {
    ("train", "ordinary"): 100_000_000,
    ("train", "overlapping"): 200_000_000,
    ("held-out", "ordinary"): 300_000_000,
    ("held-out", "overlapping"): 400_000_000,
}
SEED_STRIDE = 100_000
# An overlap: in so many frames an object shows less than this share of itself, and never less than the least.
MIN_COVERED_FRAMES, COVERED_SHARE, MIN_VISIBLE_SHARE = 10, 0.85, 0.35
NEAR, FAR = 0.5, 0.8  # distance of the two centres where they meet, in sums of their radii
NUM_PLACES = 12
CHUNK = 128


def visible_shares(scene: Scene, masks: np.ndarray) -> np.ndarray:
    """Return which share of each object is visible in each frame.

    Args:
        scene ([`Scene`]): The scene.
        masks (`np.ndarray` of shape `(num_objects, num_frames, height, width)`): bool masks of its visible pixels.

    Returns:
        `np.ndarray` of shape `(num_objects, num_frames)`: In [0, 1].
    """
    whole = [
        [
            synthetic_world.shape_mask(one.shape, tuple(center), radius).sum()
            for center, radius in zip(one.centers(), one.radius_per_frame(), strict=True)
        ]
        for one in scene.objects
    ]
    return masks.sum(axis=(2, 3)) / np.array(whole)


def overlapping_scene(seed: int) -> Scene:
    """Sample a scene whose first two objects partly cover each other for a good part of the clip.

    Args:
        seed (`int`): Seed of the first scene that is tried.

    Returns:
        [`Scene`]: A sampled scene whose second object was moved next to the first.
    """
    while True:
        scene = synthetic_world.sample_scene(seed)
        rng = np.random.default_rng([seed, 5])
        for _ in range(NUM_PLACES):
            moved = _move_near(scene.objects[1], scene.objects[0], rng)
            if moved is None:
                continue
            candidate = replace(scene, objects=(scene.objects[0], moved, *scene.objects[2:]))
            shares = visible_shares(candidate, synthetic_world.render(candidate)[1])
            if shares.min() >= MIN_VISIBLE_SHARE and (shares < COVERED_SHARE).any(axis=0).sum() >= MIN_COVERED_FRAMES:
                return candidate
        seed += SEED_STRIDE


def _move_near(one: ShapeObject, other: ShapeObject, rng: np.random.Generator) -> ShapeObject | None:
    """Shift an object so that it meets another in some frame; `None` where it would leave the picture."""
    frame, angle = int(rng.integers(NUM_FRAMES)), rng.uniform(0, 2 * np.pi)
    reach = one.radius_per_frame()[frame] + other.radius_per_frame()[frame]
    goal = other.centers()[frame] + rng.uniform(NEAR, FAR) * reach * np.array([np.cos(angle), np.sin(angle)])
    points = np.array(one.points) + goal - one.centers()[frame]
    room = synthetic_world.MARGIN * max(one.radii)
    if points.min() < room or points.max() > FRAME_SIZE - room:
        return None
    return replace(one, points=tuple((float(x), float(y)) for x, y in points))


def make_clip_of_all_frames(world: str, seed: int) -> TrainingClip:
    """Make one clip with masks and boxes in all of its frames, and its open questions.

    Args:
        world (`str`): "ordinary" or "overlapping".
        seed (`int`): Its seed.

    Returns:
        [`TrainingClip`]: Frames and masks of all 24 frames; the pixels are those of the encoded file.
    """
    torch.set_num_threads(1)
    scene = overlapping_scene(seed) if world == "overlapping" else synthetic_world.sample_scene(seed)
    pixels, visible = synthetic_world.render(scene)
    with av.open(io.BytesIO(encode_video(pixels))) as container:
        decoded = [frame.to_image() for frame in container.decode(video=0)]
    frames = [np.asarray(one.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)) for one in decoded]
    masks = np.zeros((len(FORMS), MAX_OBJECTS, NUM_FRAMES, GRID_SIZE**2), dtype=bool)
    for index, frame in np.ndindex(visible.shape[:2]):
        mask = visible[index, frame]
        y, x = mask.nonzero()
        box = fill_box([x.min(), y.min(), x.max() + 1, y.max() + 1], FRAME_SIZE, FRAME_SIZE)
        masks[0, index, frame] = grid_mask(mask, (GRID_SIZE, GRID_SIZE), keep_vanished=False).flatten()
        masks[1, index, frame] = grid_mask(box, (GRID_SIZE, GRID_SIZE), keep_vanished=False).flatten()
    questions = tuple(question for question in questions_about(scene) if not question.options)
    return TrainingClip(scene, questions, np.stack(frames), masks)


def _make(job: tuple[str, int]) -> TrainingClip:
    return make_clip_of_all_frames(*job)


def _clip_chunks(jobs: list[tuple[str, int]], num_workers: int) -> Iterator[list[TrainingClip]]:
    """Yield the clips of all jobs, some at a time: the pixels of all of them would not fit into memory."""
    if num_workers == 0:
        yield [_make(job) for job in jobs]
        return
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for start in tqdm(range(0, len(jobs), CHUNK), desc="clips", unit="chunk"):
            yield list(pool.map(_make, jobs[start : start + CHUNK], chunksize=8))


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Clips without their pixels, and the features of their frames.

    Args:
        clips (`list[TrainingClip]`): The clips; their `frames` are empty.
        features (`torch.Tensor` of shape `(num_clips, 24, num_patches, vision_size)`): float16 patch features.
    """

    clips: list[TrainingClip]
    features: torch.Tensor


def load_features(
    model: VideoReferForConditionalGeneration,
    split: str,
    worlds: tuple[str, ...],
    num_clips: int,
    *,
    cache: Path,
    num_workers: int,
) -> FeatureSet:
    """Read the features of a set from the cache, or make them.

    Args:
        model ([`VideoReferForConditionalGeneration`]): Whose vision tower is used.
        split (`str`): "train" or "held-out".
        worlds (`tuple[str, ...]`): Worlds of the clips, in turn.
        num_clips (`int`): Clips of each world.
        cache (`Path`): Folder of the cache. It has to be emptied by hand when the world or the tower changes.
        num_workers (`int`): Processes that make clips; 0 for this one.

    Returns:
        [`FeatureSet`]: Its features are mapped from the file, so that several processes share them.
    """
    stem = cache / f"{split}-{'-'.join(worlds)}-{num_clips}"
    array_path, clips_path = stem.with_suffix(".npy"), stem.with_suffix(".pickle")
    if not clips_path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        jobs = [(world, FIRST_SEEDS[split, world] + number) for number in range(num_clips) for world in worlds]
        config = model.config.vision_config
        shape = (len(jobs), NUM_FRAMES, GRID_SIZE**2, config.hidden_size)
        array = np.lib.format.open_memmap(array_path, mode="w+", dtype=np.float16, shape=shape)
        clips: list[TrainingClip] = []
        for chunk in _clip_chunks(jobs, num_workers):
            array[len(clips) : len(clips) + len(chunk)] = encode_clips(model, chunk).numpy()
            clips += [replace(clip, frames=clip.frames[:0]) for clip in chunk]
        array.flush()
        del array
        unfinished = clips_path.with_suffix(".part")  # written last: its presence says that both files are whole
        unfinished.write_bytes(pickle.dumps(clips))
        unfinished.replace(clips_path)
    clips = pickle.loads(clips_path.read_bytes())
    # Copy on write: torch wants arrays it may write to, the file stays as it is.
    return FeatureSet(clips, torch.from_numpy(np.load(array_path, mmap_mode="c")))
