from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from transformers_videorefer.evaluation.plotting import place_marks, save_plot


BAR, PALE_BAR = (76, 114, 176), (176, 194, 222)


def results(bench: str = "synthetic", *, num_samples: int = 400, **scores: float) -> dict[str, Any]:
    values = {
        name: {"value": value, "interval": [value * 0.9, value * 1.1], "num_samples": num_samples}
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
        is_mark = [(np.asarray(picture) == (213, 94, 0)).all(axis=2) for picture in (without, with_legend)]
    assert not is_mark[0].any()
    columns = np.flatnonzero(is_mark[1].any(axis=0))  # of the first published row: beside the bar, and in the legend
    assert (np.diff(columns) > 1).sum() == 1


def test_shares_and_points_do_not_share_an_axis(tmp_path: Path) -> None:
    save_plot(results(accuracy=0.5, SC=3.0), tmp_path / "plot.png")
    assert len(bar_heights(tmp_path / "plot.png")) == 1


@pytest.mark.parametrize(("num_samples", "color"), [(29, PALE_BAR), (30, BAR)])
def test_bars_of_few_samples_are_pale(tmp_path: Path, num_samples: int, color: tuple[int, int, int]) -> None:
    save_plot(results(num_samples=num_samples, accuracy=0.5), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        colors = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)}
    assert colors & {BAR, PALE_BAR} == {color}


def test_texts_name_model_numbers_and_the_two_ways_of_reading_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    draw_text = ImageDraw.ImageDraw.text

    def remember(self: Any, xy: Any, text: str, *arguments: Any, **options: Any) -> None:
        texts.append(text)
        draw_text(self, xy, text, *arguments, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", remember)
    scores = results("bench-q", num_samples=12, accuracy=0.5, accuracy_strict=0.4)
    scores["model"]["name"] = "somebody/Model-7B"
    scores["settings"] |= {"method": "outlines", "control": "no-region"}
    save_plot(scores, tmp_path / "plot.png")
    assert texts[:2] == [
        "VideoRefer-Bench-Q: Model-7B",
        "multi-frame mode, objects outlined on the frames, no-region control",
    ]
    assert texts.count("n = 12") == 2
    assert {"all", "all, strict", "letters", "50.0", "40.0"} <= set(texts)
    assert any(text.startswith("pale: fewer than 30 samples") for text in texts)
    assert any('"strict letters": the answer must name exactly one' in text for text in texts)


def test_marks_do_not_touch() -> None:
    # 121 is far enough from 100, but 128 neither from 121 nor from 110.
    assert place_marks([100, 110, 121, 300, 128], step=20) == [0, 1, 0, 0, 2]
    assert place_marks([], step=20) == []


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There are no scores to draw"):
        save_plot(results(), tmp_path / "plot.png")
