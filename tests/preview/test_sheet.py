"""Grids of frames beside a conversation."""

import numpy as np
import pytest

from transformers_videorefer.preview.drawing import PALETTE, MarkedFrame
from transformers_videorefer.preview.sheet import draw_sheet
from transformers_videorefer.preview.text import TextBlock, ink_on, load_font, region_word


GRAY = 100


def marked_frames(num_frames: int, height: int = 90, width: int = 160) -> list[MarkedFrame]:
    mask = np.zeros((height, width), dtype=bool)
    mask[20:60, 30:90] = True
    frame = np.full((height, width, 3), GRAY, dtype=np.uint8)
    return [MarkedFrame(frame, {"dog": mask}, frame_index=index) for index in range(num_frames)]


@pytest.mark.parametrize(
    ("num_frames", "columns", "rows", "side"),
    [(1, 1, 1, 860), (2, 2, 1, 560), (4, 2, 2, 560), (8, 3, 3, 420), (10, 4, 3, 340)],
)
def test_frames_stand_in_a_grid_left_of_the_text(num_frames, columns, rows, side):
    sheet = draw_sheet(marked_frames(num_frames), title="row 0")
    panel_height = round(side * 90 / 160)
    # Margins of 20 left, right and around the text of 480; gaps of 12; 26 for the line below each frame.
    assert sheet.width == 20 + columns * (side + 12) - 12 + 40 + 480 + 20
    assert sheet.height == 40 + rows * (panel_height + 26 + 12) - 12
    pixels = np.asarray(sheet)
    for position in range(columns * rows):
        left, top = 20 + position % columns * (side + 12), 20 + position // columns * (panel_height + 38)
        # The lower right corner of a frame is outside of the object; behind the last frame the paper is white.
        expected = GRAY if position < num_frames else 255
        assert (pixels[top + panel_height - 8, left + side - 8] == expected).all(), position


def test_upright_frames_are_no_higher_than_lying_ones_are_wide():
    sheet = draw_sheet(marked_frames(1, height=160, width=90))
    assert sheet.height == 40 + 860 + 26


def test_long_answers_are_not_cut():
    words = " ".join(f"word{number}" for number in range(300))
    short = draw_sheet(marked_frames(2), messages=[("assistant", "yes")])
    long = draw_sheet(marked_frames(2), messages=[("assistant", words)])
    # First a wider column, 820 in place of 480, then a higher picture.
    assert long.width == short.width + 340
    assert long.height > short.height
    dark = np.asarray(long.convert("L")) < 80
    last_text_row = np.flatnonzero(dark[:, -820:].any(axis=1))[-1]
    assert long.height - 60 < last_text_row < long.height - 20


def test_sample_without_pictures_is_text_alone():
    sheet = draw_sheet([], title="row 3", messages=[("user", "Hello?"), ("assistant", "Yes.")])
    assert sheet.width == 20 + 820 + 20
    assert 100 < sheet.height < 250


def test_names_of_regions_stand_on_their_colour_and_the_same_word_in_a_text_does_not():
    colors = {"the dog": PALETTE[0], "cat": PALETTE[1]}
    plain = draw_sheet([], messages=[("user", "the dog and the cat")], colors=colors)
    named = draw_sheet(
        [], messages=[("user", f"{region_word('the dog')} and the {region_word('cat')}")], colors=colors
    )
    assert plain.size == named.size
    for color in PALETTE[:2]:
        assert not (np.asarray(plain) == color).all(axis=2).any()
        assert (np.asarray(named) == color).all(axis=2).sum() > 200


def test_too_many_frames_are_refused():
    with pytest.raises(ValueError, match="`marked_frames` has 37 frames. Pass at most 36."):
        draw_sheet(marked_frames(37))


def test_name_with_blanks_is_not_divided():
    width = round(load_font(20).getlength("see the red car")) + 2
    block = TextBlock(width, {"the red car": PALETTE[0]})
    block.add(f"please see {region_word('the red car')}", size=20, color=(0, 0, 0))
    assert [line for line, _, _ in block._lines] == ["please see", region_word("the red car")]
    assert block.height == 2 * 28  # lines are 1.4 letters high


def test_letters_can_be_read_on_every_colour():
    assert ink_on((255, 255, 0)) == (24, 26, 30)
    assert ink_on((20, 20, 120)) == (255, 255, 255)
