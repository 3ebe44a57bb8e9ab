"""Picture of a similarity map: frames along the axis, similarity of neighbours, unions, and the whole matrix."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from transformers_videorefer.preview.drawing import MarkedFrame, draw_regions
from transformers_videorefer.preview.text import BACKGROUND, FAINT_INK, INK, Color, ink_on, load_font
from transformers_videorefer.video.sampling import uniform_indices

from .similarity import SimilarityMap


_MARGIN, _AXIS_WIDTH, _GAP = 40, 110, 26
_PLOT_WIDTH = 1440  # that the frames share
_WIDEST_CELL, _NARROWEST_CELL = 180, 3
_THUMBNAIL_WIDTH = 170
_BAR_HEIGHT, _UNION_HEIGHT, _CAPTION_HEIGHT, _SCALE_WIDTH = 180, 34, 30, 26
_TITLE_SIZE, _TEXT_SIZE, _NUMBER_SIZE = 30, 20, 16
_OUTLINE: Color = (255, 0, 220)
_JOINED: Color = (76, 114, 176)
_KEPT_APART: Color = (213, 94, 0)
_GRID: Color = (222, 222, 222)
_UNION_COLORS: tuple[Color, ...] = ((214, 226, 242), (176, 200, 230))
# From low to high: brightness rises with the value, so that the map can be printed in grey.
_HEAT = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=np.float64)


def choose_thumbnails(similarity: SimilarityMap) -> list[int]:
    """Choose the frames that are shown along the axis: as many as find room.

    Args:
        similarity ([`SimilarityMap`]): The map.

    Returns:
        `list[int]`: Their positions among the object's frames, rising.
    """
    num_frames = len(similarity.frame_indices)
    room = max(2, _cell_width(num_frames) * num_frames // _THUMBNAIL_WIDTH)
    return list(range(num_frames)) if num_frames <= room else uniform_indices(num_frames, room)


def draw_similarity(
    similarity: SimilarityMap, thumbnails: Mapping[int, MarkedFrame], *, title: str = ""
) -> Image.Image:
    """Draw a similarity map.

    Args:
        similarity ([`SimilarityMap`]): The map.
        thumbnails (`Mapping[int, MarkedFrame]`): Frames to show along the axis, by their position among the object's
            frames (see [`choose_thumbnails`]).
        title (`str`, *optional*): Line above the picture.

    Returns:
        `PIL.Image.Image`: RGB picture.
    """
    return _Drawing(similarity, thumbnails, title).draw()


def _cell_width(num_frames: int) -> int:
    return min(_WIDEST_CELL, max(_NARROWEST_CELL, _PLOT_WIDTH // num_frames))


def _floor(values: np.ndarray) -> float:
    """End of a scale below all values: a round number, and at least a little below 1."""
    return max(-1.0, min(0.95, math.floor(float(values.min()) * 20) / 20))


class _Drawing:
    """Draws one map from top to bottom."""

    def __init__(self, similarity: SimilarityMap, thumbnails: Mapping[int, MarkedFrame], title: str):
        self._map = similarity
        self._title = title
        self._num_frames = len(similarity.frame_indices)
        self._cell = _cell_width(self._num_frames)
        self._left = _MARGIN + _AXIS_WIDTH
        self._plot_width = self._cell * self._num_frames
        self._pictures = {
            position: draw_regions(
                marked.frame,
                marked.masks,
                colors=dict.fromkeys(marked.masks, _OUTLINE),
                width=_THUMBNAIL_WIDTH - 8,
                outlines_only=True,
            )
            for position, marked in thumbnails.items()
        }
        self._thumbnail_height = max((picture.height for picture in self._pictures.values()), default=0)
        heights = (
            *(_MARGIN, 2 * _TITLE_SIZE + _GAP, self._thumbnail_height + _CAPTION_HEIGHT + 2 * _GAP),
            *(_BAR_HEIGHT + _GAP, _UNION_HEIGHT + _GAP, self._plot_width + _CAPTION_HEIGHT, _MARGIN),
        )
        # Pictures of few frames are narrower than their title and the scale beside them.
        width = max(self._left + self._plot_width + _GAP + _SCALE_WIDTH + 90 + _MARGIN, 900)
        self._canvas = Image.new("RGB", (width, sum(heights)), BACKGROUND)
        self._draw = ImageDraw.Draw(self._canvas)

    def draw(self) -> Image.Image:
        top = self._draw_title(_MARGIN)
        top = self._draw_frames(top)
        top = self._draw_bars(top)
        top = self._draw_unions(top)
        self._draw_matrix(top)
        return self._canvas

    def _middle(self, position: float) -> float:
        """Horizontal middle of the column of a frame."""
        return self._left + (position + 0.5) * self._cell

    def _text(self, place: tuple[float, float], text: str, size: int, *, anchor: str, color: Color = INK) -> None:
        self._draw.text(place, text, color, load_font(size), anchor=anchor)

    def _draw_title(self, top: int) -> int:
        joined = int(self._map.is_joined.sum())
        adjacent = self._map.adjacent
        facts = (
            f"{self._num_frames} frames; similarity of neighbours {adjacent.min():.3f} to {adjacent.max():.3f}, mean "
            f"{adjacent.mean():.3f}; {joined} of {len(adjacent)} pairs joined, {len(self._map.unions)} tokens left"
        )
        self._text((_MARGIN, top), self._title, _TITLE_SIZE, anchor="la")
        self._text((_MARGIN, top + _TITLE_SIZE + 12), facts, _TEXT_SIZE, anchor="la", color=FAINT_INK)
        return top + 2 * _TITLE_SIZE + _GAP

    def _draw_frames(self, top: int) -> int:
        """Draw thumbnails side by side, and lines from them to their columns."""
        bottom = top + self._thumbnail_height + _CAPTION_HEIGHT
        self._text((self._left - 12, top + self._thumbnail_height / 2), "frame", _TEXT_SIZE, anchor="rm")
        count = len(self._pictures)
        for number, (position, picture) in enumerate(sorted(self._pictures.items())):
            middle = self._middle(position)
            # Columns of the chosen frames may lie closer on one side than thumbnails are wide.
            spread = self._left + (number + 0.5) * self._plot_width / count
            self._canvas.paste(
                picture, (round(spread - picture.width / 2), top + self._thumbnail_height - picture.height)
            )
            label = str(self._map.frame_indices[position])
            self._text((spread, top + self._thumbnail_height + 6), label, _NUMBER_SIZE, anchor="ma", color=FAINT_INK)
            self._draw.line((spread, bottom, middle, bottom + 2 * _GAP - 8), _GRID, 2)
        return bottom + 2 * _GAP

    def _draw_bars(self, top: int) -> int:
        """Draw the similarity of each frame and the next one, at the border of their columns."""
        adjacent = self._map.adjacent
        low = _floor(adjacent)
        bottom = top + _BAR_HEIGHT
        for value in (low, (low + 1) / 2, 1.0):
            y = bottom - (value - low) / (1 - low) * _BAR_HEIGHT
            self._draw.line((self._left, y, self._left + self._plot_width, y), _GRID, 1)
            self._text((self._left - 12, y), f"{value:.3g}", _NUMBER_SIZE, anchor="rm", color=FAINT_INK)
        half = max(1.0, 0.3 * self._cell)
        for position, (value, is_joined) in enumerate(
            zip(adjacent.tolist(), self._map.is_joined.tolist(), strict=True)
        ):
            border = self._left + (position + 1) * self._cell
            y = bottom - (value - low) / (1 - low) * _BAR_HEIGHT
            self._draw.rectangle((border - half, y, border + half, bottom), _JOINED if is_joined else _KEPT_APART)
            if self._cell >= 48:
                self._text((border, y - 4), f"{value:.3f}", _NUMBER_SIZE, anchor="mb")
        return bottom + _GAP

    def _draw_unions(self, top: int) -> int:
        """Draw which frames each token stands for after the merge."""
        self._text((self._left - 12, top + _UNION_HEIGHT / 2), "tokens", _TEXT_SIZE, anchor="rm")
        start = 0
        for number, union in enumerate(self._map.unions):
            color = _UNION_COLORS[number % len(_UNION_COLORS)]
            left, right = self._left + start * self._cell, self._left + (start + len(union)) * self._cell
            self._draw.rectangle((left, top, right - 1, top + _UNION_HEIGHT), color)
            if right - left >= 24:
                self._text(((left + right) / 2, top + _UNION_HEIGHT / 2), str(number + 1), _NUMBER_SIZE, anchor="mm")
            start += len(union)
        self._draw_legend(top)
        return top + _UNION_HEIGHT + _GAP

    def _draw_legend(self, top: int) -> None:
        left = self._left + self._plot_width + 14
        for line, (color, word) in enumerate(((_JOINED, "joined"), (_KEPT_APART, "kept apart"))):
            y = top - _GAP - _BAR_HEIGHT + 30 * line
            self._draw.rectangle((left, y, left + 16, y + 16), color)
            self._text((left + 24, y + 8), word, _NUMBER_SIZE, anchor="lm")

    def _draw_matrix(self, top: int) -> None:
        """Draw the similarity of all pairs of frames, and a frame around the block of each union."""
        low = _floor(self._map.similarity)
        heat = Image.fromarray(_to_colors((self._map.similarity - low) / (1 - low)))
        side = self._plot_width
        self._canvas.paste(heat.resize((side, side), Image.Resampling.NEAREST), (self._left, top))
        if self._cell >= 48:
            self._draw_values(top, low)
        start = 0
        for union in self._map.unions:
            near, far = start * self._cell, (start + len(union)) * self._cell - 1
            self._draw.rectangle(
                (self._left + near, top + near, self._left + far, top + far), outline=_KEPT_APART, width=3
            )
            start += len(union)
        # As many numbers as find room below each other.
        step = math.ceil((_NUMBER_SIZE + 10) / self._cell)
        for position in range(0, self._num_frames, step):
            label = str(self._map.frame_indices[position])
            y = top + (position + 0.5) * self._cell
            self._text((self._left - 12, y), label, _NUMBER_SIZE, anchor="rm", color=FAINT_INK)
        self._draw_scale(top, low)

    def _draw_values(self, top: int, low: float) -> None:
        for row, values in enumerate(self._map.similarity.tolist()):
            for column, value in enumerate(values):
                (ground,) = _to_colors(np.array([(value - low) / (1 - low)]))
                place = (self._middle(column), top + (row + 0.5) * self._cell)
                self._text(place, f"{value:.2f}", _NUMBER_SIZE, anchor="mm", color=ink_on(tuple(ground.tolist())))

    def _draw_scale(self, top: int, low: float) -> None:
        left, height = self._left + self._plot_width + _GAP, min(self._plot_width, 400)
        ramp = Image.fromarray(_to_colors(np.linspace(1, 0, height)[:, None]))
        self._canvas.paste(ramp.resize((_SCALE_WIDTH, height), Image.Resampling.NEAREST), (left, top))
        for share in (0.0, 0.5, 1.0):
            place = (left + _SCALE_WIDTH + 10, top + (1 - share) * (height - 1))
            self._text(place, f"{low + share * (1 - low):.3g}", _NUMBER_SIZE, anchor="lm", color=FAINT_INK)


def _to_colors(shares: np.ndarray) -> np.ndarray:
    """Colors of numbers from 0 to 1: an array of the same shape and uint8 RGB."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels: Sequence[np.ndarray] = [np.interp(shares, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
