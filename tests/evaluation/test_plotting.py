from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transformers_videorefer.evaluation.plotting import save_plot


BAR = (76, 114, 176)


def results(bench: str = "synthetic", **scores: float) -> dict[str, Any]:
    values = {
        name: {"value": value, "interval": [value * 0.9, value * 1.1], "num_samples": 4}
        for name, value in scores.items()
    }
    return {"bench": bench, "model": {"name": "m"}, "settings": {"mode": "multi"}, "scores": values}


def bar_heights(path: Path) -> list[int]:
    """Measure each bar beside its middle, where the line of the interval runs."""
    with Image.open(path) as picture:
        is_bar = (np.asarray(picture) == BAR).all(axis=2)
    columns = np.flatnonzero(is_bar.any(axis=0))
    starts = columns[np.diff(columns, prepend=-10) > 1]
    return [int(is_bar[:, start + 5].sum()) for start in starts]


def test_bars_are_as_high_as_the_scores(tmp_path: Path) -> None:
    save_plot(results(accuracy=0.4, exact_match=0.8), tmp_path / "plot.png")
    low, high = bar_heights(tmp_path / "plot.png")
    assert high / low == pytest.approx(2, rel=0.02)


def test_judge_scores_use_the_whole_axis(tmp_path: Path) -> None:
    save_plot(results("bench-d", SC=2.5, average=5.0), tmp_path / "plot.png")
    half, whole = bar_heights(tmp_path / "plot.png")
    assert whole / half == pytest.approx(2, rel=0.02)


def test_published_numbers_stand_in_a_legend(tmp_path: Path) -> None:
    save_plot(results(accuracy=0.5), tmp_path / "without.png")
    save_plot(results("bench-q", accuracy=0.5), tmp_path / "with.png")
    with Image.open(tmp_path / "without.png") as without, Image.open(tmp_path / "with.png") as with_legend:
        assert with_legend.width > without.width + 300
        colors = {tuple(color) for color in np.asarray(with_legend).reshape(-1, 3)}
    assert (213, 94, 0) in colors  # the mark of the first published row


def test_shares_and_points_do_not_share_an_axis(tmp_path: Path) -> None:
    save_plot(results(accuracy=0.5, SC=3.0), tmp_path / "plot.png")
    assert len(bar_heights(tmp_path / "plot.png")) == 1


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There are no scores to draw"):
        save_plot(results(), tmp_path / "plot.png")
