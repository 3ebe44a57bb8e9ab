import numpy as np
import pytest

from transformers_videorefer.data.synthetic.world import (
    COLORS,
    FRAME_SIZE,
    NUM_FRAMES,
    Scene,
    ShapeObject,
    render,
    sample_scene,
    shape_mask,
)


def still_object(shape: str, x: float, y: float, radius: float) -> ShapeObject:
    red = COLORS["red"]
    return ShapeObject(shape, "red", "red", "still", (), ((x, y),) * 3, (radius, radius), (red, red))


def test_a_circle_holds_the_pixels_whose_centres_lie_inside() -> None:
    center, radius = (40.25, 61.5), 13.3
    expected = np.zeros((FRAME_SIZE, FRAME_SIZE), dtype=bool)
    for row in range(FRAME_SIZE):
        for column in range(FRAME_SIZE):
            expected[row, column] = np.hypot(column + 0.5 - center[0], row + 0.5 - center[1]) <= radius
    np.testing.assert_array_equal(shape_mask("circle", center, radius), expected)


def test_a_square_holds_whole_rows_and_columns() -> None:
    # Half side 0.88 * 25 = 22: pixel centres from 42 to 86, that is pixels 42 to 85, in x; 10 more in y.
    expected = np.zeros((FRAME_SIZE, FRAME_SIZE), dtype=bool)
    expected[52:96, 42:86] = True
    np.testing.assert_array_equal(shape_mask("square", (64.0, 74.0), 25.0), expected)


def test_a_triangle_stands_on_its_base_and_a_cross_is_symmetric() -> None:
    triangle = shape_mask("triangle", (64.0, 64.0), 20.0)
    widths = triangle.sum(axis=1)
    rows = np.flatnonzero(widths)
    assert (np.diff(widths[rows]) >= 0).all() and widths[rows[-1]] > 3 * widths[rows[0]]
    # Area of the triangle: half of base 2.2 r times height 1.95 r.
    assert triangle.sum() == pytest.approx(0.5 * 2.2 * 1.95 * 20**2, rel=0.03)
    cross = shape_mask("cross", (64.0, 64.0), 20.0)
    np.testing.assert_array_equal(cross, cross.T)
    assert not cross[64 - 18, 64 - 18] and cross[64, 64 - 18]


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="`shape` must be one of circle, square, triangle, cross, got 'star'"):
        shape_mask("star", (64.0, 64.0), 10.0)


def test_masks_are_the_visible_pixels() -> None:
    below, above = still_object("circle", 50.0, 64.0, 20.0), still_object("square", 70.0, 64.0, 20.0)
    frames, masks = render(Scene(seed=0, objects=(below, above)))
    circle, square = shape_mask("circle", (50.0, 64.0), 20.0), shape_mask("square", (70.0, 64.0), 20.0)
    assert (circle & square).any()
    np.testing.assert_array_equal(masks[0], np.repeat((circle & ~square)[None], NUM_FRAMES, axis=0))
    np.testing.assert_array_equal(masks[1, 5], square)
    assert (frames[3][masks[0, 3]] == COLORS["red"]).all()
    assert frames[3][~circle & ~square].max() < 100  # the background is dark


def test_equal_seeds_give_equal_clips_and_others_do_not() -> None:
    first, second, other = (render(sample_scene(seed)) for seed in (7, 7, 8))
    for one, same in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, same)
    assert sample_scene(7) == sample_scene(7) and sample_scene(7) != sample_scene(8)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("seed", range(40))
def test_objects_stay_inside_and_visible(seed: int) -> None:
    scene = sample_scene(seed)
    assert 2 <= len(scene.objects) <= 3
    _, masks = render(scene)
    for one, visible in zip(scene.objects, masks, strict=True):
        for frame, (center, radius) in enumerate(zip(one.centers(), one.radius_per_frame(), strict=True)):
            assert (center - 1.2 * radius >= 0).all() and (center + 1.2 * radius <= FRAME_SIZE).all()
            whole = shape_mask(one.shape, tuple(center), radius)
            assert visible[frame].sum() >= 0.3 * whole.sum()


def test_overlaps_occur() -> None:
    hidden = 0
    for seed in range(60):
        scene = sample_scene(seed)
        _, masks = render(scene)
        one = scene.objects[0]
        whole = shape_mask(one.shape, tuple(one.centers()[0]), one.radii[0])
        hidden += int(masks[0, 0].sum() < whole.sum())
    assert hidden > 0


def test_an_object_moves_as_its_motion_says() -> None:
    for seed in range(80):
        for one in sample_scene(seed).objects:
            way = one.centers()[-1] - one.centers()[0]
            radii = one.radius_per_frame()
            signs = {"left": way[0] < 0, "right": way[0] > 0, "up": way[1] < 0, "down": way[1] > 0}
            assert all(signs[name] for name in one.directions)
            assert bool(one.directions) == (one.motion in ("move", "turn")) == bool(np.abs(way).max() > 0)
            assert (radii[-1] > radii[0]) == (one.motion == "grow") and (radii[-1] < radii[0]) == (
                one.motion == "shrink"
            )
            assert (one.color != one.end_color) == (one.motion == "recolor")
