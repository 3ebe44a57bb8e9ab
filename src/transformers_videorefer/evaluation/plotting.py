"""A plot of results as a picture: bars with intervals, published numbers as marks beside them. Drawn by Pillow alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .published_results import PUBLISHED_ROWS, PublishedRow
from .report import BENCH_TITLES, heading, is_share


# Pixels of a picture that is printed 8 cm high at 300 dpi.
_HEIGHT, _BAR_WIDTH, _GAP = 960, 120, 96
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_RIGHT = 130, 190, 40
_TITLE_SIZE, _FONT_SIZE, _NOTE_SIZE = 38, 28, 24
_LINE, _NOTE_LINE = 36, 32
_INK, _SOFT, _GRID = (30, 30, 30), (90, 90, 90), (215, 215, 215)
_BAR, _PALE_BAR = (76, 114, 176), (176, 194, 222)
# Told apart by color-blind readers too, and by shape in print.
_MARK_COLORS = ((213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (100, 100, 100))
_MARK_RADIUS = 11
_MARK_STEP = 2 * _MARK_RADIUS + 6  # from middle to middle of marks that do not touch
_PERCENT_STEP = 20
# The 95 % interval of a share of 0.5 reaches about 18 points to each side with so many independent samples.
_FEW_SAMPLES = 30
_NOTE_OF_STRICT = (
    '"all" and the types: letters read as the released scorer does; "strict letters": the answer must name exactly one'
)


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


def place_marks(heights: Sequence[float], step: float) -> list[int]:
    """Put marks into columns such that no two of a column touch.

    Args:
        heights (`Sequence[float]`): Where the middle of each mark lies, in pixels.
        step (`float`): Least distance of two in a column.

    Returns:
        `list[int]`: The column of each mark, the first that has room; columns are counted from 0.
    """
    columns: list[list[float]] = []
    chosen = []
    for height in heights:
        free = (n for n, taken in enumerate(columns) if all(abs(height - other) >= step for other in taken))
        column = next(free, len(columns))
        if column == len(columns):
            columns.append([])
        columns[column].append(height)
        chosen.append(column)
    return chosen


class _Plot:
    """Places everything on one canvas."""

    def __init__(self, results: Mapping[str, Any]):
        self._results = results
        names = list(results["scores"])
        self._names = [name for name in names if is_share(name)] or names  # one axis has one unit
        self._published = [row for row in PUBLISHED_ROWS[results["bench"]] if set(row.scores) & set(self._names)]
        self._title_font, self._font, self._note_font = map(
            ImageFont.load_default, (_TITLE_SIZE, _FONT_SIZE, _NOTE_SIZE)
        )
        self._scale = 100 if is_share(self._names[0]) else 1
        self._top = self._highest()
        self._notes = self._write_notes()
        self._labels = {name: self._write_label(name) for name in self._names}
        num_lines = max(map(len, self._labels.values())) + 1  # the value stands above the label
        self._margin_bottom = num_lines * _LINE + 40 + len(self._notes) * _NOTE_LINE + 20
        self._marks = {name: self._place(name) for name in self._names}
        self._lefts, self._right = self._spread_bars()
        legend = max((self._font.getlength(_name_of(row)) for row in self._published), default=-80)
        width = max(
            self._right + int(legend) + 120,
            *(_MARGIN_LEFT + int(font.getlength(text)) + _MARGIN_RIGHT for text, font in self._texts()),
        )
        self._canvas = Image.new("RGB", (width, _HEIGHT), "white")
        self._draw = ImageDraw.Draw(self._canvas)

    def _highest(self) -> float:
        """Choose the end of the axis: 5 for judges, otherwise the next multiple of 20 %."""
        if self._scale == 1:
            return 5.0
        scores = [self._results["scores"][name] for name in self._names]
        ends = [100 * (entry["interval"] or [entry["value"]])[-1] for entry in scores]
        ends += [value for row in self._published for name, value in row.scores.items() if name in self._names]
        return max(_PERCENT_STEP, -(-max(ends) // _PERCENT_STEP) * _PERCENT_STEP)

    def _write_notes(self) -> list[str]:
        """Explain what the picture alone does not."""
        scores = [self._results["scores"][name] for name in self._names]
        notes = []
        if any(entry["interval"] is not None for entry in scores):
            notes.append("lines: 95 % intervals, bootstrap over videos; n: number of samples")
        if any(entry["num_samples"] < _FEW_SAMPLES for entry in scores):
            notes.append(f"pale: fewer than {_FEW_SAMPLES} samples, a rough number")
        if "accuracy_strict" in self._names:
            notes.append(_NOTE_OF_STRICT)
        return notes

    def _write_label(self, name: str) -> list[str]:
        """Break the name of a score into lines about as wide as its bar, and add the number of samples."""
        lines: list[str] = []
        for word in heading(name).split():
            joined = f"{lines[-1]} {word}" if lines else word
            if lines and self._font.getlength(joined) <= _BAR_WIDTH + _GAP / 2:
                lines[-1] = joined
            else:
                lines.append(word)
        return [*lines, f"n = {self._results['scores'][name]['num_samples']}"]

    def _place(self, name: str) -> list[tuple[int, int]]:
        """Choose column and row (number in the legend) of each published mark beside a bar."""
        marks = sorted((row.scores[name], number) for number, row in enumerate(self._published) if name in row.scores)
        columns = place_marks([self._y(score) for score, _ in marks], _MARK_STEP)
        return [(column, number) for column, (_, number) in zip(columns, marks, strict=True)]

    def _spread_bars(self) -> tuple[list[int], int]:
        """Return the left edge of each bar, and the end of the axis; marks and long labels push bars apart."""
        lefts, left = [], _MARGIN_LEFT + _GAP // 2
        for name in self._names:
            widest = max(map(self._font.getlength, self._labels[name]))
            overhang = max(0, int(widest - _BAR_WIDTH) // 2)
            num_columns = max((column + 1 for column, _ in self._marks[name]), default=0)
            lefts.append(left + overhang)
            left += overhang + _BAR_WIDTH + max(overhang, num_columns * _MARK_STEP) + _GAP // 2
        return lefts, left

    def _texts(self) -> list[tuple[str, Any]]:
        """List the lines above and below the plot."""
        settings = self._results["settings"]
        model = self._results["model"]["name"].rsplit("/", 1)[-1]
        below = f"{settings['mode']}-frame mode"
        if settings.get("method") == "outlines":
            below += ", objects outlined on the frames"
        if settings.get("control"):
            below += f", {settings['control']} control"
        title = f"{BENCH_TITLES[self._results['bench']]}: {model}"
        return [(title, self._title_font), (below, self._font), *((note, self._note_font) for note in self._notes)]

    def _y(self, value: float) -> float:
        height = _HEIGHT - _MARGIN_TOP - self._margin_bottom
        return _HEIGHT - self._margin_bottom - height * value / self._top

    def draw(self) -> Image.Image:
        """Draw axis, bars, marks, legend and notes."""
        title, below, *notes = self._texts()
        self._draw.text((_MARGIN_LEFT, 30), title[0], _INK, title[1])
        self._draw.text((_MARGIN_LEFT, 86), below[0], _SOFT, below[1])
        step = 1 if self._scale == 1 else _PERCENT_STEP
        for value in range(0, int(self._top) + 1, step):
            self._draw.line((_MARGIN_LEFT, self._y(value), self._right, self._y(value)), _GRID, 2)
            self._draw.text((_MARGIN_LEFT - 15, self._y(value)), f"{value:g}", _INK, self._font, anchor="rm")
        unit = "percent" if self._scale == 100 else "score of the judge, 0 to 5"
        self._draw.text((_MARGIN_LEFT, _MARGIN_TOP - 15), unit, _SOFT, self._note_font, anchor="ls")
        for left, name in zip(self._lefts, self._names, strict=True):
            self._draw_bar(left, name)
        self._draw.line((_MARGIN_LEFT, self._y(0), self._right, self._y(0)), _INK, 3)
        self._draw_legend()
        for number, (note, font) in enumerate(reversed(notes)):
            self._draw.text((_MARGIN_LEFT, _HEIGHT - 25 - _NOTE_LINE * number), note, _SOFT, font, anchor="ls")
        return self._canvas

    def _draw_bar(self, left: int, name: str) -> None:
        entry = self._results["scores"][name]
        value, middle = self._scale * entry["value"], left + _BAR_WIDTH / 2
        color = _BAR if entry["num_samples"] >= _FEW_SAMPLES else _PALE_BAR
        self._draw.rectangle((left, self._y(value), left + _BAR_WIDTH, self._y(0)), color)
        if entry["interval"] is not None:
            low, high = (self._y(self._scale * end) for end in entry["interval"])
            self._draw.line((middle, low, middle, high), _INK, 4)
            for end in (low, high):
                self._draw.line((middle - 16, end, middle + 16, end), _INK, 4)
        for column, number in self._marks[name]:
            x = left + _BAR_WIDTH + 16 + column * _MARK_STEP
            self._draw_mark(x, self._y(self._published[number].scores[name]), number)
        digits = 1 if self._scale == 100 else 2
        for number, line in enumerate([f"{value:.{digits}f}", *self._labels[name]]):
            is_count = number == len(self._labels[name])
            font, ink = (self._note_font, _SOFT) if is_count else (self._font, _INK)
            self._draw.text((middle, self._y(0) + 14 + number * _LINE), line, ink, font, anchor="ma")

    def _draw_mark(self, x: float, y: float, number: int) -> None:
        """Draw a mark whose color and shape tell a published row; when colors come again, marks are hollow."""
        color = _MARK_COLORS[number % len(_MARK_COLORS)]
        fill = color if number < len(_MARK_COLORS) else "white"
        self._draw.regular_polygon((x, y, _MARK_RADIUS), 3 + number % 3, fill=fill, outline=color, width=4)

    def _draw_legend(self) -> None:
        left, top = self._right + 40, _MARGIN_TOP
        if not self._published:
            return
        self._draw.text((left, top), "published by others:", _SOFT, self._font, anchor="lm")
        for number, row in enumerate(self._published):
            y = top + 50 + 44 * number
            self._draw_mark(left + 12, y, number)
            self._draw.text((left + 36, y), _name_of(row), _INK, self._font, anchor="lm")


def _name_of(row: PublishedRow) -> str:
    return f"{row.model}, {row.mode}" if row.mode else row.model
