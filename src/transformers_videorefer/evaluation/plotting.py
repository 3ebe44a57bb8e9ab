"""A plot of results as a picture: bars with intervals, published numbers as marks beside them. Drawn by Pillow alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .published_results import PUBLISHED_ROWS, PublishedRow
from .report import heading, is_share


# Pixels of a picture that is printed 8 cm high at 300 dpi.
_HEIGHT, _BAR_WIDTH, _GAP = 960, 120, 96
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_BOTTOM = 170, 120, 260
_FONT_SIZE = 28
_INK, _GRID, _BAR = (30, 30, 30), (215, 215, 215), (76, 114, 176)
# Told apart by color-blind readers too, and by shape in print.
_MARK_COLORS = ((213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (100, 100, 100))
_MARK_RADIUS = 11
_MARK_COLUMNS = 3  # side by side, so that models of about the same score can be told apart
_PERCENT_STEP = 20


def save_plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw the scores of a run.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.
        path (`Path`): Picture to write; its ending names the format.

    Raises:
        ValueError: If there are no scores.
    """
    if not results["scores"]:
        raise ValueError("There are no scores to draw. Score the run first.")
    _Plot(results).draw().save(path, dpi=(300, 300))


class _Plot:
    """Places everything on one canvas."""

    def __init__(self, results: Mapping[str, Any]):
        self._results = results
        names = list(results["scores"])
        self._names = [name for name in names if is_share(name)] or names  # one axis has one unit
        self._published = [row for row in PUBLISHED_ROWS[results["bench"]] if set(row.scores) & set(self._names)]
        self._font = ImageFont.load_default(_FONT_SIZE)
        self._scale = 100 if is_share(self._names[0]) else 1
        self._top = self._highest()
        width = max((self._font.getlength(_name_of(row)) for row in self._published), default=-80)
        legend = int(width) + 120
        self._right = _MARGIN_LEFT + len(self._names) * (_BAR_WIDTH + _GAP) + _GAP
        self._canvas = Image.new("RGB", (self._right + legend, _HEIGHT), "white")
        self._draw = ImageDraw.Draw(self._canvas)

    def _highest(self) -> float:
        """Choose the end of the axis: 5 for judges, otherwise the next multiple of 20 %."""
        if self._scale == 1:
            return 5.0
        scores = [self._results["scores"][name] for name in self._names]
        ends = [100 * (entry["interval"] or [entry["value"]])[-1] for entry in scores]
        ends += [value for row in self._published for name, value in row.scores.items() if name in self._names]
        return max(_PERCENT_STEP, -(-max(ends) // _PERCENT_STEP) * _PERCENT_STEP)

    def _y(self, value: float) -> float:
        height = _HEIGHT - _MARGIN_TOP - _MARGIN_BOTTOM
        return _HEIGHT - _MARGIN_BOTTOM - height * value / self._top

    def draw(self) -> Image.Image:
        """Draw axis, bars, marks and legend."""
        title = f"{self._results['bench']}: {self._results['model']['name']}, {self._results['settings']['mode']}"
        self._draw.text((_MARGIN_LEFT, 30), title, _INK, self._font)
        step = 1 if self._scale == 1 else _PERCENT_STEP
        for value in range(0, int(self._top) + 1, step):
            self._draw.line((_MARGIN_LEFT, self._y(value), self._right, self._y(value)), _GRID, 2)
            self._draw.text((_MARGIN_LEFT - 15, self._y(value)), f"{value:g}", _INK, self._font, anchor="rm")
        unit = "percent" if self._scale == 100 else "score"
        self._draw.text((_MARGIN_LEFT, _MARGIN_TOP - 15), unit, _INK, self._font, anchor="ls")
        for position, name in enumerate(self._names):
            self._draw_bar(_MARGIN_LEFT + _GAP + position * (_BAR_WIDTH + _GAP), name)
        self._draw.line((_MARGIN_LEFT, self._y(0), self._right, self._y(0)), _INK, 3)
        self._draw_legend()
        return self._canvas

    def _draw_bar(self, left: int, name: str) -> None:
        entry = self._results["scores"][name]
        value, middle = self._scale * entry["value"], left + _BAR_WIDTH / 2
        self._draw.rectangle((left, self._y(value), left + _BAR_WIDTH, self._y(0)), _BAR)
        if entry["interval"] is not None:
            low, high = (self._y(self._scale * end) for end in entry["interval"])
            self._draw.line((middle, low, middle, high), _INK, 4)
            for end in (low, high):
                self._draw.line((middle - 16, end, middle + 16, end), _INK, 4)
        marks = sorted((row.scores[name], number) for number, row in enumerate(self._published) if name in row.scores)
        for place, (score, number) in enumerate(marks):
            column = place % _MARK_COLUMNS
            self._draw_mark(left + _BAR_WIDTH + 16 + column * (2 * _MARK_RADIUS + 4), self._y(score), number)
        self._draw.text(
            (middle, self._y(0) + 12), f"{value:.{1 if self._scale == 100 else 2}f}", _INK, self._font, anchor="ma"
        )
        width = int(self._font.getlength(heading(name))) + 8
        label = Image.new("L", (width, _FONT_SIZE + 12))
        ImageDraw.Draw(label).text((width - 4, 4), heading(name), 255, self._font, anchor="ra")
        label = label.rotate(35, expand=True)
        self._canvas.paste(_INK, (int(middle - label.width + 30), int(self._y(0)) + 45), label)

    def _draw_mark(self, x: float, y: float, number: int) -> None:
        """Draw a mark whose color and shape tell a published row."""
        sides = 3 + number // len(_MARK_COLORS) + number % 3
        self._draw.regular_polygon((x, y, _MARK_RADIUS), sides, fill=_MARK_COLORS[number % len(_MARK_COLORS)])

    def _draw_legend(self) -> None:
        left, top = self._right + 40, _MARGIN_TOP
        if not self._published:
            return
        self._draw.text((left, top), "published by others:", _INK, self._font)
        for number, row in enumerate(self._published):
            y = top + 60 + 44 * number
            self._draw_mark(left + 12, y + 14, number)
            self._draw.text((left + 36, y), _name_of(row), _INK, self._font)


def _name_of(row: PublishedRow) -> str:
    return f"{row.model}, {row.mode}" if row.mode else row.model
