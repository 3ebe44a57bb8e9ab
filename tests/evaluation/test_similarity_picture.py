"""The picture of a similarity map."""

import numpy as np
import pytest

from transformers_videorefer.evaluation.similarity import SimilarityMap
from transformers_videorefer.evaluation.similarity_picture import choose_thumbnails, draw_similarity
from transformers_videorefer.preview.drawing import MarkedFrame


LOW, HIGH = (68, 1, 84), (253, 231, 37)  # ends of the scale
JOINED, KEPT_APART = (76, 114, 176), (213, 94, 0)


def make_map(num_frames: int) -> SimilarityMap:
    """Frames of two kinds, of which the second begins in the middle: similarity 1 within a kind and 0 between them."""
    kind = np.arange(num_frames) >= num_frames / 2
    similarity = (kind[:, None] == kind[None, :]).astype(np.float32)
    adjacent = np.diag(similarity, 1)
    return SimilarityMap(list(range(0, 10 * num_frames, 10)), similarity, adjacent, adjacent == 1)


def marked_frames(similarity: SimilarityMap) -> dict[int, MarkedFrame]:
    frame, mask = np.full((60, 80, 3), 128, dtype=np.uint8), np.zeros((60, 80), dtype=bool)
    mask[20:40, 30:60] = True
    return {
        position: MarkedFrame(frame, {"object": mask}, frame_index=similarity.frame_indices[position])
        for position in choose_thumbnails(similarity)
    }


def count(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((pixels == color).all(axis=-1).sum())


@pytest.mark.parametrize(("num_frames", "cell"), [(2, 180), (4, 180), (32, 45), (500, 3)])
def test_areas_of_the_colors_are_those_of_the_numbers(num_frames: int, cell: int) -> None:
    similarity = make_map(num_frames)
    pixels = np.asarray(draw_similarity(similarity, marked_frames(similarity), title="a title"))
    # Half of all pairs are alike and half are not; lines and numbers cover a part of it.
    half = (num_frames * cell) ** 2 / 2
    assert 0.9 * half < count(pixels, LOW) < 1.02 * half
    assert 0.9 * half < count(pixels, HIGH) < 1.02 * half
    # Bars of similarity 1 are 180 pixels high; the one of similarity 0 has no height.
    bar_width = max(3, 0.6 * cell)
    legend = 17 * 17
    expected = (num_frames - 2) * bar_width * 181 + legend
    assert count(pixels, JOINED) == pytest.approx(expected, rel=0.2)
    assert count(pixels, KEPT_APART) > legend  # the legend, one bar, and the frames of the unions


def test_thumbnails_are_spread_over_the_axis() -> None:
    assert choose_thumbnails(make_map(3)) == [0, 1, 2]
    # 24 columns of 60 pixels have room for 8 pictures: midpoints of 8 parts of 0 to 23.
    assert choose_thumbnails(make_map(24)) == [1, 4, 7, 10, 13, 16, 19, 22]
    assert len(choose_thumbnails(make_map(1000))) == 17


def test_everything_alike() -> None:
    ones = np.ones((3, 3), dtype=np.float32)
    similarity = SimilarityMap([0, 1, 2], ones, ones[0, 1:], np.array([True, True]))
    pixels = np.asarray(draw_similarity(similarity, marked_frames(similarity)))
    assert count(pixels, HIGH) > 0.9 * 540**2
    assert count(pixels, LOW) < 1000  # the scale alone
