"""Text on pictures: paragraphs wrapped to a width, with the names of regions on the colour of their outline."""

import re
from collections.abc import Mapping
from functools import lru_cache

from PIL import ImageDraw, ImageFont


Color = tuple[int, int, int]

BACKGROUND: Color = (255, 255, 255)
INK: Color = (24, 26, 30)
FAINT_INK: Color = (110, 114, 122)
# Distance of two lines, in heights of the letters.
_LINE_SPACING = 1.4
# Invisible characters around the name of a region, by which it is told from the same word in a text.
_NAME_START, _NAME_END = "\u2068", "\u2069"
_UNBROKEN_BLANK = "\u00a0"


@lru_cache(maxsize=8)
def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font that comes with Pillow.

    Args:
        size (`int`): Height in pixels.

    Returns:
        `ImageFont`: The font.
    """
    return ImageFont.load_default(size)


def ink_on(color: Color) -> Color:
    """Choose dark or bright letters, whichever can be read on a colour.

    Args:
        color (`tuple[int, int, int]`): RGB colour of the ground.

    Returns:
        `tuple[int, int, int]`: RGB colour of the letters.
    """
    # Brightness as the eye weighs it (Rec. 601), from 0 to 255.
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return INK if luminance > 128 else BACKGROUND


def region_word(name: str) -> str:
    """Word that stands for a region in a [`TextBlock`]: its name on the colour of the region, never divided.

    Args:
        name (`str`): Name of the region.

    Returns:
        `str`: The name between two invisible characters.
    """
    return f"{_NAME_START}{name.replace(' ', _UNBROKEN_BLANK)}{_NAME_END}"


def _visible(text: str) -> str:
    return text.replace(_NAME_START, "").replace(_NAME_END, "").replace(_UNBROKEN_BLANK, " ")


class TextBlock:
    """Paragraphs wrapped to a width.

    Args:
        width (`int`): Width in pixels.
        colors (`Mapping[str, tuple[int, int, int]]`, *optional*): Ground of the `region_word` of each name.

    Attributes:
        height (`int`): Height of all lines in pixels.
    """

    def __init__(self, width: int, colors: Mapping[str, Color] | None = None):
        self._width = width
        self._grounds = {region_word(name): color for name, color in (colors or {}).items()}
        self._lines: list[tuple[str, int, Color]] = []
        self.height = 0

    def add(self, paragraph: str, *, size: int, color: Color) -> None:
        """Append a paragraph.

        Args:
            paragraph (`str`): Text; its own line breaks are kept.
            size (`int`): Height of the letters in pixels.
            color (`tuple[int, int, int]`): RGB colour of the letters.
        """
        for line in paragraph.splitlines():
            for wrapped in self._wrap(line, size):
                self._lines.append((wrapped, size, color))
                self.height += round(size * _LINE_SPACING)

    def add_space(self, height: int) -> None:
        """Append empty space.

        Args:
            height (`int`): Height in pixels.
        """
        self._lines.append(("", round(height / _LINE_SPACING), INK))
        self.height += round(round(height / _LINE_SPACING) * _LINE_SPACING)

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draw all lines.

        Args:
            draw (`ImageDraw.ImageDraw`): Where to draw.
            left (`int`): Left edge in pixels.
            top (`int`): Upper edge in pixels.
        """
        for line, size, color in self._lines:
            self._draw_line(draw, line, left, top, size, color)
            top += round(size * _LINE_SPACING)

    def _draw_line(self, draw: ImageDraw.ImageDraw, line: str, left: float, top: int, size: int, color: Color) -> None:
        font = load_font(size) if line else None
        for piece in re.split(f"({_NAME_START}.*?{_NAME_END})", line):
            text, ground = _visible(piece), self._grounds.get(piece)
            if not text:
                continue
            width = font.getlength(text)
            if ground is not None:
                draw.rounded_rectangle((left - 1, top, left + width + 1, top + round(size * 1.25)), 4, fill=ground)
            draw.text((left, top), text, font=font, fill=color if ground is None else ink_on(ground))
            left += width

    def _wrap(self, text: str, size: int) -> list[str]:
        """Break at blanks, and inside a word only where it is wider than the block."""

        def length(text: str) -> float:
            return load_font(size).getlength(_visible(text))

        lines, line = [], ""
        # Not the blanks inside the name of a region, which are of another kind.
        for word in re.split(r"[ \t]+", text.strip(" \t")):
            if line and length(f"{line} {word}") <= self._width:
                line = f"{line} {word}"
                continue
            if line:
                lines.append(line)
            while length(word) > self._width:
                fitting = next((count for count in range(len(word), 1, -1) if length(word[:count]) <= self._width), 1)
                lines.append(word[:fitting])
                word = word[fitting:]
            line = word
        return [*lines, line]
