"""Masks in pixels against the recorded published masks, against pycocotools, and by hand."""

import io

import numpy as np
import pytest
import torch
from conftest import load_arrays, load_json
from PIL import Image

from transformers_videorefer.regions import pixels
from transformers_videorefer.regions.pixels import (
    draw_scribble,
    fill_box,
    fill_polygons,
    read_mask,
)


# pycocotools 2.0.11 has not followed a change of numpy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RECORDED = {entry["name"]: entry for entry in load_json("preprocess/ann_to_mask.json")}
RECORDED_POLYGONS = [
    name
    for name, entry in RECORDED.items()
    if entry["ok"] and isinstance(entry["ann"], list) and isinstance(entry["ann"][0], list)
]


@pytest.fixture(scope="module")
def recorded_masks() -> dict[str, np.ndarray]:
    return load_arrays("preprocess/ann_to_mask.npz")


@pytest.fixture(params=["pycocotools", "numpy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with the COCO tools and again as on a machine without them."""
    if request.param == "numpy":
        monkeypatch.setattr(pixels, "coco_mask", None)
    else:
        pytest.importorskip("pycocotools")
    return request.param


@pytest.mark.parametrize("name", RECORDED_POLYGONS)
def test_polygons_give_the_recorded_mask(name: str, recorded_masks: dict[str, np.ndarray], backend: str) -> None:
    entry = RECORDED[name]
    polygons = [np.array(part) for part in entry["ann"]]
    mask = fill_polygons(polygons, entry["h"], entry["w"])
    assert mask.dtype == bool
    assert np.array_equal(mask, recorded_masks[name].astype(bool))


def test_polygons_without_pycocotools_equal_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools")
    generator = np.random.default_rng(0)
    for _ in range(150):
        height, width = (int(side) for side in generator.integers(1, 80, 2))
        polygons = []
        for _ in range(generator.integers(1, 4)):
            points = generator.uniform(-20, 100, (generator.integers(3, 9), 2))
            points = np.round(points * 2) / 2 if generator.random() < 0.5 else points
            if generator.random() < 0.3:
                points[1] = points[0]  # an edge of length 0
            polygons.append(points.ravel())
        with_tools = fill_polygons(polygons, height, width)
        with monkeypatch.context() as patch:
            patch.setattr(pixels, "coco_mask", None)
            assert np.array_equal(fill_polygons(polygons, height, width), with_tools)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[True, False]]),
        np.array([[1, 0]], dtype=np.uint8),
        np.array([[255, 0]], dtype=np.uint8),
        np.array([[1, 0]], dtype=np.int64),
        np.array([[1.0, 0.0]]),
        torch.tensor([[True, False]]),
        torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16, requires_grad=True),
        Image.fromarray(np.array([[255, 0]], dtype=np.uint8)),
        Image.fromarray(np.array([[255, 0]], dtype=np.uint8)).convert("1"),
    ],
)
def test_two_levels_are_a_mask(values: object) -> None:
    mask = read_mask(values, label=None)
    assert mask.dtype == bool
    assert mask.tolist() == [[True, False]]


@pytest.mark.parametrize(("level", "inside"), [(0, False), (1, True), (255, True)])
def test_a_single_level_is_a_mask(level: int, inside: bool) -> None:
    assert read_mask(np.full((2, 3), level, dtype=np.uint8), label=None).tolist() == [[inside] * 3] * 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 1, 2]]), r"values 0, 1, 2\."),
        (np.array([[0, 1, 255]]), r"values 0, 1, 255\."),
        (np.array([[0, 3]]), r"values 0, 3\."),
        (np.array([[-1, 0]]), r"values -1, 0\."),
        (np.array([[0.25, 1.0]]), r"values 0.25, 1.0\."),
        (np.array([[np.nan, 1.0]]), r"values 1.0, nan\."),
        (np.arange(20)[None], r"values 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.\."),
    ],
)
def test_other_values_need_a_label(values: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=f'^`mask` must hold .*{words}.*"label": int'):
        read_mask(values, label=None)


def test_label_names_the_object() -> None:
    assert read_mask(np.array([[0, 3, 5]]), label=3).tolist() == [[False, True, False]]
    assert read_mask(torch.tensor([[0, 3, 5]]), label=5).tolist() == [[False, False, True]]


def test_palette_pictures_need_a_label() -> None:
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    picture.putdata([0, 1])
    with pytest.raises(ValueError, match="^`mask` is a palette picture with the values 0, 1"):
        read_mask(picture, label=None)
    assert read_mask(picture, label=1).tolist() == [[False, True]]


def test_pictures_are_read_from_path_and_bytes(tmp_path) -> None:
    picture = Image.fromarray(np.array([[255, 0], [0, 0]], dtype=np.uint8))
    picture.save(tmp_path / "mask.png")
    for source in (tmp_path / "mask.png", str(tmp_path / "mask.png"), (tmp_path / "mask.png").read_bytes()):
        assert read_mask(source, label=None).tolist() == [[True, False], [False, False]]


def test_missing_picture_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="^`mask` file '.*nothing.png' does not exist"):
        read_mask(tmp_path / "nothing.png", label=None)


def test_unreadable_picture_is_named(tmp_path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (64, 64), dtype=np.uint8)).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:200])
    for name in ("text.png", "cut.png"):
        with pytest.raises(OSError, match=f"^`mask` picture .*{name}.* cannot be read"):
            read_mask(tmp_path / name, label=None)
    with pytest.raises(OSError, match="10 bytes.* cannot be read"):
        read_mask(b"no picture", label=None)


def test_pictures_with_several_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="^.*mode RGB.*single-channel"):
        read_mask(Image.new("RGB", (4, 3)), label=None)


def test_box_holds_the_pixels_whose_centre_lies_inside() -> None:
    assert np.argwhere(fill_box([1, 0, 3, 2], 3, 5)).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    # Centres at 0.5, 1.5, ...: the left and upper edge belong to the box, the right and lower one do not.
    assert np.argwhere(fill_box([0.5, 0.4, 2.5, 1.5], 3, 5)).tolist() == [[0, 0], [0, 1]]
    assert not fill_box([0.6, 0.0, 1.4, 3.0], 3, 5).any()
    assert fill_box([-1, -1, 6, 4], 3, 5).all()


def test_scribble_of_one_point_is_a_disc() -> None:
    mask = draw_scribble(np.array([[2.5, 2.5]]), 2.0, 5, 5)
    # Radius 1 around the centre of pixel (2, 2): its four neighbours lie exactly on the border and belong to it.
    assert np.argwhere(mask).tolist() == [[1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]


def test_scribble_along_a_row_has_round_ends() -> None:
    mask = draw_scribble(np.array([[3.5, 3.5], [6.5, 3.5]]), 4.0, 7, 10)
    rows = ["".join("#" if inside else "." for inside in row) for row in mask]
    assert rows == [
        "..........",
        "...####...",
        "..######..",
        ".########.",
        "..######..",
        "...####...",
        "..........",
    ]


def test_thin_scribble_keeps_the_pixels_under_its_points() -> None:
    mask = draw_scribble(np.array([[0.1, 0.1], [3.9, 2.9], [4.0, 3.0]]), 0.01, 3, 4)
    # The last point lies on the outer corner: the nearest pixel stands for it.
    assert mask[0, 0] and mask[2, 3]


def test_scribble_equals_the_distance_to_the_line() -> None:
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:40, :50] + 0.5
    for _ in range(60):
        points = generator.uniform(-1, 41, (generator.integers(1, 6), 2))
        if generator.random() < 0.3:
            points[-1] = points[0]
        radius = generator.uniform(1, 12)
        distance = np.full(y.shape, np.inf)
        for start, end in zip(points, points[1:] if len(points) > 1 else points, strict=False):
            step = end - start
            length = step @ step
            share = np.zeros_like(x) if length == 0 else ((x - start[0]) * step[0] + (y - start[1]) * step[1]) / length
            share = share.clip(0, 1)
            distance = np.minimum(distance, np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1]))
        mask = draw_scribble(points, 2 * radius, 40, 50)
        clear = np.abs(distance - radius) > 1e-6
        assert np.array_equal(mask[clear], (distance <= radius)[clear])


def test_scribble_beside_the_frame_keeps_only_the_pixel_nearest_to_its_point() -> None:
    assert np.argwhere(draw_scribble(np.array([[-0.9, -0.9]]), 0.5, 4, 4)).tolist() == [[0, 0]]
