import re

import numpy as np
import pytest

from transformers_videorefer.data.synthetic.clips import Clip, make_clip
from transformers_videorefer.data.synthetic.questions import (
    DESCRIPTION,
    KINDS,
    LETTER_REQUEST,
    Question,
    questions_about,
)
from transformers_videorefer.data.synthetic.world import COLORS, FRAME_SIZE, ShapeObject, sample_scene


STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def color_inside(clip: Clip, index: int, frame: int) -> str:
    """Name the palette color nearest to the median of the painted pixels."""
    median = np.median(clip.frames[frame][clip.masks[index, frame]], axis=0)
    return min(COLORS, key=lambda name: np.abs(np.array(COLORS[name]) - median).sum())


def motion_from_path(one: ShapeObject) -> str:
    """Read the motion off the centres and radii of single frames."""
    centers, radii = one.centers(), one.radius_per_frame()
    if one.color != one.end_color:
        return f"changes from {one.color} to {one.end_color}"
    if radii[-1] != radii[0]:
        return "grows" if radii[-1] > radii[0] else "shrinks"
    names = []
    for start, end in ((0, 11), (12, 23)):
        x, y = centers[end] - centers[start]
        if np.hypot(x, y) < 1:
            return "stays still"
        names.append(max(STEP, key=lambda name: x * STEP[name][0] + y * STEP[name][1]))
    return "moves " + (names[0] if names[0] == names[1] else ", then ".join(names))


def steps_to_edge(one: ShapeObject) -> int:
    """Let an object go on, a frame at a time, until it touches the border."""
    centers = one.centers()
    place, step, steps = centers[-1], centers[-1] - centers[-2], 0
    while (place - one.radii[1] > 0).all() and (place + one.radii[1] < FRAME_SIZE).all():
        place, steps = place + step, steps + 1
    return steps


def recompute(clip: Clip, question: Question) -> str:
    """Answer a question from pixels and paths."""
    objects = [clip.scene.objects[index] for index in question.objects]
    one = objects[0]
    ordinals = ("The first.", "The second.")
    if question.topic == "shape":
        return f"It is a {one.shape}."
    if question.topic == "color":
        return f"It is {color_inside(clip, question.objects[0], 0)}."
    if question.topic == "motion":
        return f"It {motion_from_path(one)}."
    if question.topic == "next":
        last = motion_from_path(one).replace("moves", "move").split(", then ")[-1].split()[-1]
        words = {"still": "stay still", "grows": "keep growing", "shrinks": "keep shrinking"}
        return f"It will {words.get(last, f'move {last}')}."
    if question.topic in ("horizontal", "vertical"):
        axis = 1 if question.topic == "horizontal" else 0  # of (row, column)
        words = ("left", "right") if axis else ("above", "below")
        places = [np.argwhere(clip.masks[index, 12])[:, axis].mean() for index in question.objects]
        return f"It is {words[int(places[0] > places[1])]}."
    if question.topic == "larger":
        return ordinals[int(objects[0].radii[0] < objects[1].radii[0])]
    if question.topic == "faster":
        ways = [np.linalg.norm(np.diff(each.centers(), axis=0), axis=1).sum() for each in objects]
        return ordinals[int(ways[0] < ways[1])]
    if question.topic == "race":
        return ordinals[int(steps_to_edge(objects[0]) > steps_to_edge(objects[1]))]
    color = "" if one.color != one.end_color else f"{color_inside(clip, question.objects[0], 0)} "
    size = "" if one.radii[0] != one.radii[1] else ("large " if one.radii[0] > 18 else "small ")
    name = f"A {size}{color}{one.shape}"
    return f"{name}." if question.topic == "what" else f"{name} that {motion_from_path(one)}."


@pytest.mark.parametrize("seed", range(30))
def test_answers_follow_from_the_clip(seed: int) -> None:
    clip = make_clip(seed)
    for question in clip.questions:
        expected = recompute(clip, question)
        if not question.options:
            assert question.answer == expected, question
        else:  # the option is the end of the sentence that answers the open question
            assert expected.lower().endswith(f"{question.answer}."), question


def test_all_kinds_are_asked_with_one_and_two_objects_and_as_multiple_choice() -> None:
    questions = [question for seed in range(40) for question in questions_about(sample_scene(seed))]
    assert {question.kind for question in questions} == {*KINDS, DESCRIPTION}
    assert {question.kind for question in questions if question.options} == set(KINDS)
    assert {len(question.objects) for question in questions} == {1, 2}
    for question in questions:
        assert question.text.count("<region>") == len(question.objects) == len(set(question.objects))


def test_multiple_choice_reads_like_the_benchmark() -> None:
    question = Question("basic", "color", "What color is <region>?", (0,), "blue", ("red", "blue", "white", "cyan"))
    assert question.prompt == f"What color is [<region>]? (A) red (B) blue (C) white (D) cyan. {LETTER_REQUEST}"
    assert question.reply == "(B)"


def test_right_options_are_spread_over_the_letters() -> None:
    questions = [question for seed in range(200) for question in questions_about(sample_scene(seed))]
    letters = [question.reply for question in questions if len(question.options) == 4]
    for letter in "ABCD":
        assert letters.count(f"({letter})") / len(letters) == pytest.approx(0.25, abs=0.03)


def test_comparisons_are_asked_both_ways_with_opposite_answers() -> None:
    for seed in range(40):
        scene = sample_scene(seed)
        asked = {
            (question.topic, question.objects): question.answer
            for question in questions_about(scene)
            if len(question.objects) == 2 and not question.options
        }
        for (topic, objects), answer in asked.items():
            assert asked[topic, objects[::-1]] != answer


def test_close_calls_are_not_asked() -> None:
    for seed in range(60):
        scene = sample_scene(seed)
        for question in questions_about(scene):
            objects = [scene.objects[index] for index in question.objects]
            if question.topic == "faster":
                assert not 0.66 < objects[0].speed / objects[1].speed < 1.5
            if question.topic == "horizontal":
                assert (np.abs(objects[0].centers()[:, 0] - objects[1].centers()[:, 0]) >= 16).all()


def test_questions_name_no_object() -> None:
    for question in questions_about(sample_scene(1)):
        if not question.options:
            assert not re.search("|".join(COLORS), question.text)
