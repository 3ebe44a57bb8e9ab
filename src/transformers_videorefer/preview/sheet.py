"""One picture of one sample: a grid of frames with outlined regions, and the conversation beside it."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from .drawing import MarkedFrame, caption_of, draw_regions, region_colors
from .text import BACKGROUND, FAINT_INK, INK, Color, TextBlock, load_font


MAX_SHEET_FRAMES = 36

_MARGIN, _GAP, _CAPTION_HEIGHT = 20, 12, 26
# Longest side of one frame, by the number of columns.
_PANEL_SIDES = {1: 860, 2: 560, 3: 420}
_SMALLEST_PANEL_SIDE = 340
# Widths of the text, tried one after the other until the text is no higher than the frames.
_TEXT_WIDTHS = (480, 640, 820)
_TEXT_WIDTH_ALONE = 820
_TITLE_SIZE, _SPEAKER_SIZE, _TEXT_SIZE, _NOTE_SIZE = 22, 15, 19, 16
_WARNING_INK: Color = (176, 42, 20)


def draw_sheet(
    marked_frames: Sequence[MarkedFrame],
    *,
    title: str = "",
    details: Sequence[str] = (),
    messages: Sequence[tuple[str, str]] = (),
    warnings: Sequence[str] = (),
    colors: Mapping[str, Color] | None = None,
) -> Image.Image:
    """Draw frames in a grid, by rows, with title, conversation and notes to their right.

    Where the text holds the `region_word` of a region, its name stands on the colour of its outline. The text is
    never cut: a long one gets a wider column, then a higher picture.

    Args:
        marked_frames (`Sequence[MarkedFrame]`): At most 36 frames; none for a sample without pictures.
        title (`str`, *optional*): First line.
        details (`Sequence[str]`, *optional*): Small lines below the title.
        messages (`Sequence[tuple[str, str]]`, *optional*): Who speaks, and what is said.
        warnings (`Sequence[str]`, *optional*): What could not be drawn, in another colour.
        colors (`Mapping[str, tuple[int, int, int]]`, *optional*): RGB colour by name of a region; by default those of
            `region_colors`, in the order in which the names appear.

    Returns:
        `PIL.Image.Image`: RGB picture.

    Raises:
        ValueError: If there are too many frames.
    """
    if len(marked_frames) > MAX_SHEET_FRAMES:
        raise ValueError(f"`marked_frames` has {len(marked_frames)} frames. Pass at most {MAX_SHEET_FRAMES}.")
    if colors is None:
        colors = region_colors([name for marked in marked_frames for name in marked.masks])
    grid = _draw_grid(marked_frames, colors) if marked_frames else None
    for width in _TEXT_WIDTHS if grid else (_TEXT_WIDTH_ALONE,):
        text = TextBlock(width, colors)
        _write(text, title, details, messages, warnings)
        if grid is None or text.height <= grid.height:
            break
    left = _MARGIN if grid is None else grid.width + 3 * _MARGIN
    height = max(text.height, 0 if grid is None else grid.height) + 2 * _MARGIN
    canvas = Image.new("RGB", (left + width + _MARGIN, height), BACKGROUND)
    if grid is not None:
        canvas.paste(grid, (_MARGIN, _MARGIN))
    text.draw(ImageDraw.Draw(canvas), left, _MARGIN)
    return canvas


def _write(
    text: TextBlock,
    title: str,
    details: Sequence[str],
    messages: Sequence[tuple[str, str]],
    warnings: Sequence[str],
) -> None:
    """Put all text of a sheet into one block."""
    if title:
        text.add(title, size=_TITLE_SIZE, color=INK)
    for line in details:
        text.add(line, size=_NOTE_SIZE, color=FAINT_INK)
    for line in warnings:
        text.add(f"! {line}", size=_NOTE_SIZE, color=_WARNING_INK)
    for speaker, message in messages:
        text.add_space(14)
        text.add(speaker, size=_SPEAKER_SIZE, color=FAINT_INK)
        text.add(message, size=_TEXT_SIZE, color=INK)


def _draw_grid(marked_frames: Sequence[MarkedFrame], colors: Mapping[str, Color]) -> Image.Image:
    """Draw frames by rows, each with its number below."""
    columns = math.ceil(math.sqrt(len(marked_frames)))
    side = _PANEL_SIDES.get(columns, _SMALLEST_PANEL_SIDE)
    panels = []
    for marked in marked_frames:
        height, width = marked.frame.shape[:2]
        panel_width = max(1, round(side * min(1, width / height)))
        panels.append(draw_regions(marked.frame, marked.masks, colors=colors, width=panel_width))
    cell_width = max(panel.width for panel in panels)
    cell_height = max(panel.height for panel in panels) + _CAPTION_HEIGHT
    rows = math.ceil(len(panels) / columns)
    size = (columns * (cell_width + _GAP) - _GAP, rows * (cell_height + _GAP) - _GAP)
    grid = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for position, (panel, marked) in enumerate(zip(panels, marked_frames, strict=True)):
        left = position % columns * (cell_width + _GAP)
        top = position // columns * (cell_height + _GAP)
        grid.paste(panel, (left, top))
        draw.text((left, top + panel.height + 6), caption_of(marked), font=load_font(15), fill=FAINT_INK)
    return grid
