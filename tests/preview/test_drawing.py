"""Pictures of marked regions."""

from pathlib import Path

import numpy as np
import pytest
from conftest import load_arrays

from transformers_videorefer.preview.drawing import (
    PALETTE,
    MarkedFrame,
    choose_frames,
    draw_preview,
    draw_regions,
    read_marked_frames,
    region_colors,
)


GRAY = 100


@pytest.fixture
def frame() -> np.ndarray:
    return np.full((200, 300, 3), GRAY, dtype=np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((200, 300), dtype=bool)
    mask[100:160, 120:240] = True
    return mask


def test_outline_follows_the_border_and_leaves_the_rest_alone(frame, mask):
    picture = np.asarray(draw_regions(frame, {"dog": mask}))
    assert picture.shape == (200, 300, 3)
    # The border band covers two pixels on either side of the mask's edge.
    for row, column in ((130, 119), (130, 120), (130, 239), (130, 240), (100, 200), (159, 200)):
        assert np.abs(picture[row, column].astype(int) - PALETTE[0]).max() < 40, (row, column)
    tint = np.round(GRAY + 0.12 * (np.asarray(PALETTE[0]) - GRAY))
    assert np.abs(picture[130, 180] - tint).max() <= 1
    outside = picture.copy()
    outside[60:170, 110:250] = GRAY  # outline and label
    assert (outside == GRAY).all()


def test_label_is_inside_the_picture_and_labels_do_not_cover_each_other(frame):
    mask = np.zeros((200, 300), dtype=bool)
    mask[0:50, 280:300] = True  # no room above or to the right
    one = np.asarray(draw_regions(frame, {"a very long name": mask}))
    two = np.asarray(draw_regions(frame, {"a very long name": mask, "another long name": mask}))
    first, second = np.asarray(PALETTE[0]), np.asarray(PALETTE[1])
    assert (one == first).all(axis=2).sum() > 500
    kept = (two == first).all(axis=2).sum() / (one == first).all(axis=2).sum()
    assert kept > 0.8  # its outline lies below that of the other region, its label does not
    assert (two == second).all(axis=2).sum() > 500


def test_drawing_is_scaled_to_the_width(frame, mask):
    picture = np.asarray(draw_regions(frame, {"dog": mask}, width=600))
    assert picture.shape == (400, 600, 3)
    assert np.abs(picture[260, 240].astype(int) - PALETTE[0]).max() < 40
    assert draw_regions(frame, {}, width=150).size == (150, 100)


def test_object_smaller_than_a_drawn_pixel_is_still_outlined(frame):
    mask = np.zeros((200, 300), dtype=bool)
    mask[131, 171] = True
    picture = np.asarray(draw_regions(frame, {"": mask}, width=60)).astype(int)
    assert (np.abs(picture - GRAY).max(axis=2) > 60).any()


def test_empty_mask_draws_nothing(frame):
    empty = np.zeros((200, 300), dtype=bool)
    assert (np.asarray(draw_regions(frame, {"dog": empty})) == GRAY).all()


def test_mask_of_another_size_is_refused(frame):
    with pytest.raises(ValueError, match=r"`masks` of 'dog' has shape \(300, 200\), but the frame is \(200, 300\)"):
        draw_regions(frame, {"dog": np.ones((300, 200), dtype=bool)})


def test_frame_that_is_no_picture_is_refused(frame):
    with pytest.raises(ValueError, match=r"`frame` has shape \(200, 300, 3\) and dtype float64. Pass a uint8 picture"):
        draw_regions(frame / 255, {})


def test_preview_puts_frames_side_by_side_above_the_text(frame, mask):
    marked = [MarkedFrame(frame, {"dog": mask}, frame_index=index, time_seconds=index / 10) for index in (3, 7)]
    bare = draw_preview(marked)
    # Margin 20, two frames of 640, gap 12; 640 * 200 / 300 = 427 rows.
    assert bare.width == 20 + 640 + 12 + 640 + 20
    assert bare.height > 20 + 427 + 20
    pixels = np.asarray(bare)
    assert (pixels[22, 30] == GRAY).all()
    assert (pixels[22, 20 + 640 + 12 + 10] == GRAY).all()
    assert (pixels[22, 20 + 640 + 6] == 255).all()
    short = draw_preview(marked, exchanges=[("What is [dog] doing?", "It sleeps.")])
    long = draw_preview(marked, exchanges=[("What is [dog] doing?", "It sleeps. " * 60)])
    assert bare.height < short.height < long.height
    assert (np.asarray(short)[: bare.height - 25] == pixels[:-25]).all()


def test_preview_breaks_words_that_are_too_long(frame):
    one_line = draw_preview([MarkedFrame(frame, {})], exchanges=[("", "x")])
    three_lines = draw_preview(
        [MarkedFrame(frame, {})], exchanges=[("", "x" * 200)]
    )  # about 11 pixels a letter in 800 pixels
    line_height = round(21 * 1.4)
    assert three_lines.height == one_line.height + 2 * line_height


def test_regions_keep_their_colour_in_all_frames(frame, mask):
    first, second = MarkedFrame(frame, {"dog": mask}, 0), MarkedFrame(frame, {"cat": mask}, 1)
    pixels = np.asarray(draw_preview([first, second]))
    left, right = pixels[:, : 20 + 640], pixels[:, 20 + 640 :]
    for half, present, absent in ((left, 0, 1), (right, 1, 0)):
        assert (half == PALETTE[present]).all(axis=2).any()
        assert not (half == PALETTE[absent]).all(axis=2).any()


@pytest.mark.parametrize("num_frames", [0, 5])
def test_preview_takes_one_to_four_frames(frame, num_frames):
    with pytest.raises(ValueError, match=f"`marked_frames` has {num_frames} frames. Pass 1 to 4."):
        draw_preview([MarkedFrame(frame, {})] * num_frames)


def test_colours_repeat_after_the_palette():
    colors = region_colors([str(position) for position in range(9)])
    assert len(set(colors.values())) == len(PALETTE) == 8
    assert colors["8"] == colors["0"]


@pytest.mark.parametrize(
    ("frames_of_region", "expected"),
    [
        ([], []),
        ([[7]], [7]),
        ([[9, 3], [3, 5]], [3, 5, 9]),
        # Frame 50 shows both; then the farthest from what is there: 0, 100, and 25 (before 75, which is as far).
        ([range(0, 101, 25), [50]], [0, 25, 50, 100]),
        # Every region first: 0, 90 and 95; then the farthest from these.
        ([range(0, 11), [90], [95]], [0, 10, 90, 95]),
        # More regions than frames: the first four.
        ([[1], [2], [3], [4], [5]], [1, 2, 3, 4]),
    ],
)
def test_chosen_frames_show_all_regions_and_are_spread(frames_of_region, expected):
    assert choose_frames(frames_of_region) == expected


def test_reading_gives_frames_with_the_masks_marked_on_them(reference: Path):
    regions = {
        "a": {"frames": [{"frame_index": 3, "box": [10, 20, 30, 40]}, {"frame_index": 20, "box": [0, 0, 5, 5]}]},
        "b": {"frames": [{"time_seconds": 2.0, "box": [50, 20, 96, 64]}]},
    }
    marked = read_marked_frames(reference / "media" / "clip.mp4", regions)
    assert [one.frame_index for one in marked] == [3, 20]
    assert [one.time_seconds for one in marked] == pytest.approx([0.3, 2.0])  # 10 frames per second
    assert [sorted(one.masks) for one in marked] == [["a"], ["a", "b"]]
    expected = np.zeros((64, 96), dtype=bool)
    expected[20:40, 10:30] = True
    np.testing.assert_array_equal(marked[0].masks["a"], expected)
    np.testing.assert_array_equal(marked[1].frame, load_arrays("preprocess/decoded_frames.npz")["clip"][20])


def test_frames_to_choose_from_can_be_given(reference: Path):
    region = {"frames": [{"frame_index": index, "box": [1, 1, 9, 9]} for index in range(40)]}
    marked = read_marked_frames(reference / "media" / "clip.mp4", {"a": region}, frame_indices={"a": [4, 8]})
    assert [one.frame_index for one in marked] == [4, 8]


def test_video_without_regions_shows_frames_spread_over_it(reference: Path):
    marked = read_marked_frames(reference / "media" / "clip.mp4", {})
    assert [one.frame_index for one in marked] == [5, 15, 24, 34]  # midpoints of four parts of 0 to 39
    assert all(not one.masks for one in marked)


def test_image_has_neither_frame_number_nor_time(reference: Path):
    (marked,) = read_marked_frames(
        str(reference / "media" / "image.png"), {"a": {"frames": [{"box": [10, 20, 30, 40]}]}}, is_image=True
    )
    assert (marked.frame_index, marked.time_seconds) == (None, None)
    assert marked.masks["a"].sum() == 400
    assert draw_preview([marked]).width == 840


def test_region_outside_the_video_is_refused(reference: Path):
    with pytest.raises(ValueError, match="a, frame 99: .*outside"):
        read_marked_frames(
            reference / "media" / "clip.mp4", {"a": {"frames": [{"frame_index": 99, "box": [0, 0, 5, 5]}]}}
        )


def test_outlines_only_leave_the_inside_and_the_surroundings_as_they_are() -> None:
    frame = np.full((200, 300, 3), 90, dtype=np.uint8)
    mask = np.zeros((200, 300), dtype=bool)
    mask[80:140, 100:200] = True
    drawn = np.asarray(draw_regions(frame, {"dog": mask}, colors={"dog": (255, 0, 0)}, outlines_only=True))
    changed = (drawn != 90).any(axis=-1)
    assert changed[80, 150] and changed[110, 100]  # the border
    assert not changed[88:132, 108:192].any()  # no tint
    assert not changed[:72].any() and not changed[148:].any()  # no label
