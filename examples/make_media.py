"""Make the small clip of this folder, with a mask and a masklet of one of its shapes.

The clip (320x240, 48 frames, 12 fps, H.264) shows a violet disc that moves to the right along the ground, a yellow
square that climbs, and a green triangle that stays. Run from anywhere; it overwrites `media/`:

    python examples/make_media.py
"""

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw


HEIGHT, WIDTH = 240, 320
NUM_FRAMES, FPS = 48, 12
MASK_FRAME = 12
MASKLET_STEP = 4
SUPERSAMPLING = 4
DISC_COLOR, SQUARE_COLOR, TRIANGLE_COLOR = (125, 65, 175), (235, 190, 50), (60, 165, 85)


def make_background() -> np.ndarray:
    """Paint a wall and a floor with a soft texture.

    Returns:
        `np.ndarray` of shape `(240, 320, 3)`: uint8 RGB.
    """
    generator = np.random.default_rng(0)
    texture = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    for cells, strength in ((6, 14), (16, 9), (48, 6)):
        noise = generator.standard_normal((cells * HEIGHT // WIDTH, cells)).astype(np.float32)
        texture += strength * np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    colors = np.empty((HEIGHT, WIDTH, 3), dtype=np.float32)
    colors[:170], colors[170:] = (196, 188, 172), (142, 116, 92)
    return np.clip(colors + texture[..., None], 0, 255).astype(np.uint8)


def disc_box(index: int) -> tuple[float, float, float, float]:
    """Return the box of the disc in a frame.

    Args:
        index (`int`): Frame number.

    Returns:
        `tuple[float, float, float, float]`: x0, y0, x1, y1 in pixels.
    """
    x, y = 50 + 4.5 * index, 165.0
    return x - 30, y - 30, x + 30, y + 30


def draw_frame(background: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one frame with smooth edges.

    Args:
        background (`np.ndarray` of shape `(240, 320, 3)`): uint8 RGB.
        index (`int`): Frame number.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: uint8 RGB frame, and the mask of the disc, of shape `(240, 320)` and dtype
        bool.
    """
    square_top = 140 - 2.2 * index
    shapes = (
        ("polygon", [(250, 200), (300, 200), (275, 150)], TRIANGLE_COLOR),
        ("rectangle", [(140, square_top), (185, square_top + 45)], SQUARE_COLOR),
        ("ellipse", [disc_box(index)[:2], disc_box(index)[2:]], DISC_COLOR),
    )
    picture = Image.fromarray(background)
    for kind, points, color in shapes:
        coverage = Image.new("L", (WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING))
        fine_points = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        getattr(ImageDraw.Draw(coverage), kind)(fine_points, fill=255)
        coverage = coverage.reduce(SUPERSAMPLING)
        picture.paste(color, mask=coverage)
    return np.asarray(picture), np.asarray(coverage) >= 128  # the disc is drawn last, so nothing covers it


def write_video(frames: list[np.ndarray], path: Path) -> None:
    """Encode frames as H.264.

    Args:
        frames (`list[np.ndarray]`): uint8 RGB frames of shape `(240, 320, 3)`.
        path (`Path`): The mp4 file to write.
    """
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        # One thread, so that the bytes do not depend on the machine.
        stream = container.add_stream(
            "libx264", rate=Fraction(FPS), options={"crf": "27", "preset": "veryslow", "g": "24", "threads": "1"}
        )
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Write `shapes.mp4`, `disc_00012.png` and `disc.npz`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "media", help="folder to write")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    background = make_background()
    frames, masks = zip(*(draw_frame(background, index) for index in range(NUM_FRAMES)), strict=True)
    write_video(list(frames), output / "shapes.mp4")
    Image.fromarray(masks[MASK_FRAME].astype(np.uint8) * 255).save(
        output / f"disc_{MASK_FRAME:05d}.png", optimize=True
    )
    frame_indices = np.arange(0, NUM_FRAMES, MASKLET_STEP)
    np.savez_compressed(output / "disc.npz", masks=np.stack(masks)[frame_indices], frame_indices=frame_indices)


if __name__ == "__main__":
    main()
