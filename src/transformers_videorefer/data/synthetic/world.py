"""The clip world: coloured shapes that move, grow, shrink or change color, and their exact pictures and masks.

All lengths are pixels of the frame; pixel i covers [i, i + 1), so its centre is at i + 0.5.
"""

from dataclasses import dataclass

import numpy as np


FRAME_SIZE = 128
NUM_FRAMES = 24
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "orange": (240, 130, 30),
    "purple": (150, 60, 200),
    "cyan": (60, 205, 215),
    "white": (235, 235, 235),
}
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
# How often an object does what. Two-phase movement is rare: it is by far the hardest to see.
MOTION_WEIGHTS = {"move": 5.0, "turn": 0.8, "still": 1.0, "grow": 1.0, "shrink": 1.0, "recolor": 1.4}

SMALL_RADIUS, LARGE_RADIUS = (12.0, 15.0), (21.0, 26.0)
SLOW_DISTANCE, FAST_DISTANCE = (26.0, 36.0), (58.0, 76.0)
TURN_DISTANCE = (32.0, 42.0)  # of each phase
MARGIN = 1.25  # the shapes reach at most this many radii from their centre
COLOR_JITTER = 10
FAR_APART, OVERLAPPING = 1.05, 0.6  # least distance of two centres, in sums of their radii
OVERLAP_SHARE = 0.25
# Second objects that move like the first, at another speed, so that the two can be compared.
RACE_SHARE = 0.4
MAX_TRIES = 60


@dataclass(frozen=True)
class ShapeObject:
    """One object of a clip.

    Args:
        shape (`str`): One of `SHAPES`.
        color (`str`): Name of its color in the first frame.
        end_color (`str`): Name of its color in the last frame.
        motion (`str`): "move", "turn" (one direction, then another), "still", "grow", "shrink" or "recolor".
        directions (`tuple[str, ...]`): Names of the directions of its phases; empty unless it moves.
        points (`tuple[tuple[float, float], ...]`): x and y of its centre at the start, half-way and at the end.
        radii (`tuple[float, float]`): Its radius in pixels at the start and at the end.
        paints (`tuple[tuple[int, int, int], ...]`): RGB at the start and at the end.
    """

    shape: str
    color: str
    end_color: str
    motion: str
    directions: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    radii: tuple[float, float]
    paints: tuple[tuple[int, int, int], tuple[int, int, int]]

    @property
    def size(self) -> str | None:
        """`str` or `None`: "small" or "large"; `None` for objects that grow or shrink."""
        if self.radii[0] != self.radii[1]:
            return None
        return "small" if self.radii[0] <= SMALL_RADIUS[1] else "large"

    @property
    def speed(self) -> float:
        """`float`: Length of its way from start to end in pixels."""
        points = np.array(self.points)
        return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())

    def centers(self, num_frames: int = NUM_FRAMES) -> np.ndarray:
        """Return the centre in each frame, of shape `(num_frames, 2)`: x and y in pixels."""
        times = np.linspace(0, 2, num_frames)
        points = np.array(self.points)
        return np.stack([np.interp(times, (0, 1, 2), points[:, axis]) for axis in (0, 1)], axis=1)

    def radius_per_frame(self, num_frames: int = NUM_FRAMES) -> np.ndarray:
        """Return the radius in each frame, of shape `(num_frames,)`, in pixels."""
        return np.linspace(self.radii[0], self.radii[1], num_frames)

    def paint_per_frame(self, num_frames: int = NUM_FRAMES) -> np.ndarray:
        """Return the color in each frame, uint8 RGB of shape `(num_frames, 3)`; it changes half-way within a few."""
        share = np.clip((np.linspace(0, 1, num_frames) - 0.4) / 0.2, 0, 1)[:, None]
        first, last = np.array(self.paints, dtype=np.float64)
        return np.round(first + (last - first) * share).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """A clip as a description; `render` makes its pictures.

    Args:
        seed (`int`): Seed it was sampled with; also seeds its background.
        objects (`tuple[ShapeObject, ...]`): Its objects, from the farthest to the nearest.
    """

    seed: int
    objects: tuple[ShapeObject, ...]


def sample_scene(seed: int) -> Scene:
    """Sample a scene of two or three objects.

    Args:
        seed (`int`): Seed, at least 0. Equal seeds give equal scenes.

    Returns:
        [`Scene`].

    Raises:
        RuntimeError: If no arrangement was found, which would need hundreds of unlucky draws.
    """
    rng = np.random.default_rng([seed, 0])
    for _ in range(MAX_TRIES):
        objects = _try_objects(rng)
        if objects is not None:
            return Scene(seed=seed, objects=objects)
    raise RuntimeError(f"No arrangement of objects found for `seed` {seed}. Use another seed.")


def _try_objects(rng: np.random.Generator) -> tuple[ShapeObject, ...] | None:
    """Place objects one after the other; `None` where one finds no room."""
    num_objects = int(rng.choice([2, 3], p=[0.4, 0.6]))
    names = rng.permutation(list(COLORS)).tolist()
    nearest = OVERLAPPING if rng.random() < OVERLAP_SHARE else FAR_APART
    is_race = rng.random() < RACE_SHARE
    objects: list[ShapeObject] = []
    for index in range(num_objects):
        rival = objects[0] if index == 1 and is_race and objects[0].motion == "move" else None
        for _ in range(MAX_TRIES):
            candidate = _sample_object(rng, color=names[index], end_color=names[index + 3], rival=rival)
            if all(_stay_apart(candidate, other, nearest) for other in objects):
                objects.append(candidate)
                break
        else:
            return None
    return tuple(objects)


def _stay_apart(one: ShapeObject, other: ShapeObject, nearest: float) -> bool:
    distance = np.linalg.norm(one.centers() - other.centers(), axis=1)
    return bool((distance >= nearest * (one.radius_per_frame() + other.radius_per_frame())).all())


def _sample_object(rng: np.random.Generator, *, color: str, end_color: str, rival: ShapeObject | None) -> ShapeObject:
    """Sample one object that stays inside the frame; with `rival` one that moves like it at another speed."""
    motion = "move" if rival else str(rng.choice(list(MOTION_WEIGHTS), p=_normalised(MOTION_WEIGHTS)))
    small, large = rng.uniform(*SMALL_RADIUS), rng.uniform(*LARGE_RADIUS)
    radius = float(rng.choice([small, large]))
    radii = {"grow": (small, large), "shrink": (large, small)}.get(motion, (radius, radius))
    directions, steps = _sample_steps(rng, motion, rival)
    offsets = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    room = MARGIN * max(radii)
    low, high = room - offsets.min(axis=0), FRAME_SIZE - room - offsets.max(axis=0)
    # A long way of a large object may not fit: it is shortened to what does.
    if (high < low).any():
        offsets = offsets * float((FRAME_SIZE - 2 * room) / np.ptp(offsets, axis=0).max())
        low, high = room - offsets.min(axis=0), FRAME_SIZE - room - offsets.max(axis=0)
    points = rng.uniform(low, np.maximum(low, high)) + offsets
    end_color = end_color if motion == "recolor" else color
    paint = _jitter(rng, color)
    return ShapeObject(
        shape=str(rng.choice(SHAPES)),
        color=color,
        end_color=end_color,
        motion=motion,
        directions=directions,
        points=tuple((float(x), float(y)) for x, y in points),
        radii=(float(radii[0]), float(radii[1])),
        paints=(paint, _jitter(rng, end_color) if motion == "recolor" else paint),
    )


def _sample_steps(
    rng: np.random.Generator, motion: str, rival: ShapeObject | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Sample the directions of an object and its steps in the two halves of the clip, of shape `(2, 2)`."""
    if motion == "turn":
        first = str(rng.choice(list(DIRECTIONS)))
        across = ("up", "down") if first in ("left", "right") else ("left", "right")
        directions = (first, str(rng.choice(across)))
        steps = np.array([DIRECTIONS[name] for name in directions]) * rng.uniform(*TURN_DISTANCE, size=(2, 1))
        return directions, steps
    if motion != "move":
        return (), np.zeros((2, 2))
    ranges = [SLOW_DISTANCE, FAST_DISTANCE]
    if rival is not None:
        ranges = ranges[:1] if rival.speed > SLOW_DISTANCE[1] else ranges[1:]
    distance = rng.uniform(*ranges[rng.integers(len(ranges))])
    direction = rival.directions[0] if rival is not None else str(rng.choice(list(DIRECTIONS)))
    return (direction,), np.array([DIRECTIONS[direction]] * 2) * distance / 2


def _normalised(weights: dict[str, float]) -> np.ndarray:
    values = np.array(list(weights.values()))
    return values / values.sum()


def _jitter(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    shifted = np.clip(np.array(COLORS[color]) + rng.integers(-COLOR_JITTER, COLOR_JITTER + 1, size=3), 0, 255)
    return tuple(int(value) for value in shifted)


def shape_mask(shape: str, center: tuple[float, float], radius: float) -> np.ndarray:
    """Rasterise one shape: a pixel belongs to it when its centre lies inside or on the border.

    Args:
        shape (`str`): One of `SHAPES`.
        center (`tuple[float, float]`): x and y in pixels.
        radius (`float`): Radius in pixels.

    Returns:
        `np.ndarray` of shape `(FRAME_SIZE, FRAME_SIZE)` and dtype bool.

    Raises:
        ValueError: If the shape is unknown.
    """
    positions = np.arange(FRAME_SIZE) + 0.5
    x, y = (positions - center[0])[None, :] / radius, (positions - center[1])[:, None] / radius
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return (np.abs(x) <= 0.88) & (np.abs(y) <= 0.88)
    if shape == "triangle":  # apex above, base below
        return (y <= 0.75) & (np.abs(x) <= 1.1 * (y + 1.2) / 1.95)
    if shape == "cross":
        return ((np.abs(x) <= 0.38) & (np.abs(y) <= 1.05)) | ((np.abs(y) <= 0.38) & (np.abs(x) <= 1.05))
    raise ValueError(f"`shape` must be one of {', '.join(SHAPES)}, got {shape!r}.")


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Paint a scene.

    Args:
        scene ([`Scene`]): The scene.

    Returns:
        Two arrays: uint8 RGB frames of shape `(NUM_FRAMES, FRAME_SIZE, FRAME_SIZE, 3)`, and bool masks of the visible
        pixels of shape `(num_objects, NUM_FRAMES, FRAME_SIZE, FRAME_SIZE)`. Later objects cover earlier ones.
    """
    frames = np.repeat(_background(scene.seed)[None], NUM_FRAMES, axis=0)
    masks = np.zeros((len(scene.objects), NUM_FRAMES, FRAME_SIZE, FRAME_SIZE), dtype=bool)
    for index, one in enumerate(scene.objects):
        paints, centers, radii = one.paint_per_frame(), one.centers(), one.radius_per_frame()
        for frame in range(NUM_FRAMES):
            inside = shape_mask(one.shape, tuple(centers[frame]), radii[frame])
            masks[:index, frame] &= ~inside
            masks[index, frame] = inside
            frames[frame][inside] = paints[frame]
    return frames, masks


def _background(seed: int) -> np.ndarray:
    """Paint a dark gradient with fine grain, uint8 of shape `(FRAME_SIZE, FRAME_SIZE, 3)`."""
    rng = np.random.default_rng([seed, 1])
    position = np.linspace(-1, 1, FRAME_SIZE)
    slope_x, slope_y = rng.uniform(-14, 14, size=2)
    shade = slope_x * position[None, :] + slope_y * position[:, None]
    color = rng.uniform(30, 60, size=3)
    grain = rng.normal(0, 4, size=(FRAME_SIZE, FRAME_SIZE))
    return np.clip(color + (shade + grain)[..., None], 0, 255).astype(np.uint8)
