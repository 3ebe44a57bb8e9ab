"""Questions about the clip world and their answers, of all five kinds of VideoRefer-Bench, and descriptions.

`<region>` in a question stands for one of its objects, in order. Wherever an answer would hang on a few pixels the
question is not asked.
"""

from dataclasses import dataclass

import numpy as np

from transformers_videorefer.inputs.items import MARKS

from .world import COLORS, DIRECTIONS, FRAME_SIZE, SHAPES, Scene, ShapeObject


KINDS = ("basic", "sequential", "relationship", "reasoning", "future")
DESCRIPTION = "description"
LETTERS = "ABCD"
LETTER_REQUEST = "Answer with the option's letter from the given choices directly."

# Least gap of two objects in every frame before their places are compared, in pixels.
MIN_GAP = 16.0
MIN_SIZE_RATIO = 1.3
MIN_SPEED_RATIO = 1.5
# Lengths of the clip that lie between the arrivals of two racing objects.
MIN_HEAD_START = 0.35

WORDINGS = {
    "color": ("What color is <region>?", "Which color does <region> have?"),
    "shape": ("What shape is <region>?", "Which shape does <region> have?"),
    "what": ("What is <region>?", "What object is <region>?"),
    "motion": ("What is <region> doing?", "What does <region> do?"),
    "horizontal": ("Is <region> left or right of <region>?",),
    "vertical": ("Is <region> above or below <region>?",),
    "larger": ("Which is larger, <region> or <region>?", "Which object is larger, <region> or <region>?"),
    "faster": ("Which is faster, <region> or <region>?", "Which object is faster, <region> or <region>?"),
    "race": (
        "Which reaches the {edge} edge first, <region> or <region>?",
        "Which object reaches the {edge} edge first, <region> or <region>?",
    ),
    "next": ("What will <region> do next?", "How will <region> go on?"),
    "describe": ("Describe <region>.", "Describe <region> in the video."),
}
EDGES = {"left": "left", "right": "right", "up": "top", "down": "bottom"}
ORDINALS = ("the first", "the second")
MOTION_OPTIONS = tuple(f"moves {name}" for name in DIRECTIONS) + ("stays still", "grows", "shrinks")
NEXT_OPTIONS = tuple(f"move {name}" for name in DIRECTIONS) + ("stay still", "keep growing", "keep shrinking")


@dataclass(frozen=True)
class Question:
    """A question about one or several objects of a scene.

    Args:
        kind (`str`): One of `KINDS`, or `DESCRIPTION`.
        topic (`str`): What it is about, a key of `WORDINGS`.
        text (`str`): The question, with one `<region>` for each object.
        objects (`tuple[int, ...]`): Positions of the objects in the scene, in the order of the marks.
        answer (`str`): The answer; of a multiple-choice question the option without its letter.
        options (`tuple[str, ...]`): The options of a multiple-choice question, else empty.
    """

    kind: str
    topic: str
    text: str
    objects: tuple[int, ...]
    answer: str
    options: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """`str`: What the user writes; multiple choice as VideoRefer-Bench-Q puts it."""
        if not self.options:
            return self.text
        listed = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, self.options, strict=False))
        text = self.text.replace(MARKS["region"], f"[{MARKS['region']}]")
        return f"{text} {listed}. {LETTER_REQUEST}"

    @property
    def reply(self) -> str:
        """`str`: What the model should say; the letter in brackets for multiple choice."""
        if not self.options:
            return self.answer
        return f"({LETTERS[self.options.index(self.answer)]})"


def describe_motion(one: ShapeObject) -> str:
    """Say what an object does, as the end of "It ..."."""
    if one.motion in ("move", "turn"):
        return "moves " + ", then ".join(one.directions)
    if one.motion == "recolor":
        return f"changes from {one.color} to {one.end_color}"
    return {"still": "stays still", "grow": "grows", "shrink": "shrinks"}[one.motion]


def name_object(one: ShapeObject) -> str:
    """Name an object: size, color and shape, each as far as it does not change."""
    words = ["A", one.size, one.color if one.motion != "recolor" else None, one.shape]
    return " ".join(word for word in words if word)


def questions_about(scene: Scene) -> list[Question]:
    """Ask everything that can be asked about a scene.

    Args:
        scene ([`Scene`]): The scene.

    Returns:
        `list[Question]`: Open questions, multiple-choice questions and descriptions, in a fixed order.
    """
    rng = np.random.default_rng([scene.seed, 2])
    found: list[Question] = []
    for index in range(len(scene.objects)):
        found += _about_one(scene, index, rng)
        for other in range(len(scene.objects)):
            if other != index:
                found += _about_two(scene, index, other, rng)
    return found


def _about_one(scene: Scene, index: int, rng: np.random.Generator) -> list[Question]:
    """Ask about one object."""
    one = scene.objects[index]
    article_name = name_object(one)

    def ask(kind: str, topic: str, answer: str) -> Question:
        return Question(kind, topic, _word(rng, topic), (index,), answer)

    found = [ask("basic", "shape", f"It is a {one.shape}.")]
    found.append(_choice(rng, "basic", "shape", (index,), one.shape, SHAPES))
    if one.motion != "recolor":
        found.append(ask("basic", "color", f"It is {one.color}."))
        found.append(_choice(rng, "basic", "color", (index,), one.color, tuple(COLORS)))
        if one.size:
            found.append(ask("basic", "what", f"{article_name}."))
    found.append(ask("sequential", "motion", f"It {describe_motion(one)}."))
    found.append(ask(DESCRIPTION, "describe", f"{article_name} that {describe_motion(one)}."))
    if one.motion not in ("turn", "recolor"):
        found.append(_choice(rng, "sequential", "motion", (index,), describe_motion(one), MOTION_OPTIONS))
    if one.motion != "recolor":
        change = {"still": "stay still", "grow": "keep growing", "shrink": "keep shrinking"}
        future = change.get(one.motion) or f"move {one.directions[-1]}"
        found.append(ask("future", "next", f"It will {future}."))
        found.append(_choice(rng, "future", "next", (index,), future, NEXT_OPTIONS))
    return found


def _about_two(scene: Scene, first: int, second: int, rng: np.random.Generator) -> list[Question]:
    """Ask about two objects; the first mark stands for `first`."""
    one, other = scene.objects[first], scene.objects[second]
    found = []

    def ask(kind: str, topic: str, answers: tuple[str, str], is_first: bool, **names: str) -> None:
        answer = answers[0] if is_first else answers[1]
        sentence = f"It is {answer}." if topic in ("horizontal", "vertical") else f"{answer.capitalize()}."
        found.append(Question(kind, topic, _word(rng, topic).format(**names), (first, second), sentence))
        found.append(_choice(rng, kind, topic, (first, second), answer, answers, **names))

    gaps = other.centers() - one.centers()  # (frames, 2): x and y
    for axis, topic, words in ((0, "horizontal", ("left", "right")), (1, "vertical", ("above", "below"))):
        if (gaps[:, axis] >= MIN_GAP).all() or (gaps[:, axis] <= -MIN_GAP).all():
            ask("relationship", topic, words, gaps[0, axis] > 0)
    if one.size and other.size and _ratio(one.radii[0], other.radii[0]) >= MIN_SIZE_RATIO:
        ask("relationship", "larger", ORDINALS, one.radii[0] > other.radii[0])
    if one.motion == other.motion == "move":
        if _ratio(one.speed, other.speed) >= MIN_SPEED_RATIO:
            ask("relationship", "faster", ORDINALS, one.speed > other.speed)
        if one.directions == other.directions:
            times = [_time_to_edge(either) for either in (one, other)]
            if abs(times[0] - times[1]) >= MIN_HEAD_START:
                ask("reasoning", "race", ORDINALS, times[0] < times[1], edge=EDGES[one.directions[0]])
    return found


def _word(rng: np.random.Generator, topic: str) -> str:
    wordings = WORDINGS[topic]
    return wordings[rng.integers(len(wordings))]


def _choice(
    rng: np.random.Generator,
    kind: str,
    topic: str,
    objects: tuple[int, ...],
    answer: str,
    pool: tuple[str, ...],
    **names: str,
) -> Question:
    """Make a multiple-choice question: the answer and up to three others of the pool, in random order."""
    others = rng.permutation([option for option in pool if option != answer])[: len(LETTERS) - 1].tolist()
    options = tuple(str(option) for option in rng.permutation([answer, *others]))
    return Question(kind, topic, _word(rng, topic).format(**names), objects, answer, options)


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def _time_to_edge(one: ShapeObject) -> float:
    """Return the time, in lengths of the clip, that a moving object needs from its last place to the edge ahead."""
    step_x, step_y = DIRECTIONS[one.directions[0]]
    place = one.points[-1][0 if step_x else 1]
    ahead = FRAME_SIZE - place if step_x + step_y > 0 else place
    return (ahead - one.radii[1]) / one.speed
