"""Pictures of marked regions: outlined objects on the frames they were marked on, with question and answer below."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from transformers.image_utils import load_image

from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.form import parse_region
from transformers_videorefer.regions.grid import decode_mask
from transformers_videorefer.regions.selection import select_frames
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.sampling import uniform_indices

from .text import BACKGROUND, FAINT_INK, INK, Color, TextBlock, ink_on, load_font


# Told apart on photographs and by people with colour blindness, as far as eight colours can be.
PALETTE: tuple[Color, ...] = (
    (255, 94, 58),
    (36, 160, 237),
    (255, 196, 0),
    (42, 190, 120),
    (214, 76, 200),
    (120, 225, 240),
    (150, 110, 255),
    (190, 220, 60),
)
MAX_PANELS = 4

_HALO: Color = (16, 16, 16)
_FILL_OPACITY = 0.12
_HALO_OPACITY = 0.6
# Width of one frame in the preview, by the number of frames beside each other: small clips are enlarged to it.
_PANEL_WIDTHS = {1: 800, 2: 640, 3: 480, 4: 420}


@dataclass(frozen=True, eq=False)
class MarkedFrame:
    """A frame and the regions that are marked on it.

    Attributes:
        frame (`np.ndarray` of shape `(height, width, 3)`): uint8 RGB.
        masks (`Mapping[str, np.ndarray]`): Mask of shape `(height, width)` and dtype bool by the name of its region.
        frame_index (`int`, *optional*): Number of the frame in its video; `None` for a still image.
        time_seconds (`float`, *optional*): Presentation time of the frame in seconds, where it is known.
    """

    frame: np.ndarray
    masks: Mapping[str, np.ndarray]
    frame_index: int | None = None
    time_seconds: float | None = None


def region_colors(names: Sequence[str]) -> dict[str, Color]:
    """Give every region a colour of its own; they repeat after eight.

    Args:
        names (`Sequence[str]`): Names of the regions.

    Returns:
        `dict[str, tuple[int, int, int]]`: RGB colour by name.
    """
    return {name: PALETTE[position % len(PALETTE)] for position, name in enumerate(dict.fromkeys(names))}


def draw_regions(
    frame: np.ndarray,
    masks: Mapping[str, np.ndarray],
    *,
    colors: Mapping[str, Color] | None = None,
    width: int | None = None,
    outlines_only: bool = False,
) -> Image.Image:
    """Outline regions on a frame and label them with their names.

    Args:
        frame (`np.ndarray` of shape `(height, width, 3)`): uint8 RGB.
        masks (`Mapping[str, np.ndarray]`): Mask of shape `(height, width)` and dtype bool by the name of its region;
            empty ones are left out.
        colors (`Mapping[str, tuple[int, int, int]]`, *optional*): RGB colour by name; `region_colors` by default.
        width (`int`, *optional*): Width of the picture in pixels; that of the frame by default.
        outlines_only (`bool`, *optional*, defaults to `False`): Leave out labels and tint, which hide and change what
            a model is asked about.

    Returns:
        `PIL.Image.Image`: RGB picture, `width` wide, with the aspect ratio of the frame.

    Raises:
        ValueError: If `frame` is no RGB picture or a mask has another height or width.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(
            f"`frame` has shape {frame.shape} and dtype {frame.dtype}. Pass a uint8 picture (height, width, 3)."
        )
    for name, mask in masks.items():
        if mask.shape != frame.shape[:2]:
            raise ValueError(
                f"`masks` of {name!r} has shape {mask.shape}, but the frame is {frame.shape[:2]}. Pass one mask of the "
                "frame's height and width for each region."
            )
    frame_height, frame_width = frame.shape[:2]
    width = frame_width if width is None else width
    size = (width, max(1, round(frame_height * width / frame_width)))
    colors = region_colors(list(masks)) if colors is None else colors
    picture = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
    visible = {name: _resize_mask(mask, size) for name, mask in masks.items() if mask.any()}
    # Large regions first, so that the outline of a small one inside a large one stays on top.
    for name in sorted(visible, key=lambda name: -int(masks[name].sum())):
        _outline(picture, visible[name], colors[name], is_tinted=not outlines_only)
    taken: list[tuple[int, int, int, int]] = []
    for name, mask in {} if outlines_only else visible.items():
        _draw_label(picture, name, mask.getbbox(), colors[name], taken)
    return picture


def draw_preview(
    marked_frames: Sequence[MarkedFrame],
    *,
    exchanges: Sequence[tuple[str, str]] = (),
    colors: Mapping[str, Color] | None = None,
) -> Image.Image:
    """Draw marked frames side by side, with frame numbers, and questions and answers below.

    Args:
        marked_frames (`Sequence[MarkedFrame]`): One to four frames, drawn from left to right.
        exchanges (`Sequence[tuple[str, str]]`, *optional*): Questions and answers, printed below the frames.
        colors (`Mapping[str, tuple[int, int, int]]`, *optional*): RGB colour by name of a region; by default those of
            `region_colors`, in the order in which the names appear.

    Returns:
        `PIL.Image.Image`: RGB picture.

    Raises:
        ValueError: If there is no frame, or more than four.
    """
    if not 1 <= len(marked_frames) <= MAX_PANELS:
        raise ValueError(f"`marked_frames` has {len(marked_frames)} frames. Pass 1 to {MAX_PANELS}.")
    if colors is None:
        colors = region_colors([name for marked in marked_frames for name in marked.masks])
    panel_width = _PANEL_WIDTHS[len(marked_frames)]
    panels = [draw_regions(marked.frame, marked.masks, colors=colors, width=panel_width) for marked in marked_frames]
    margin, gap = 20, 12
    width = 2 * margin + panel_width * len(panels) + gap * (len(panels) - 1)
    text = TextBlock(width - 2 * margin)
    for question, answer in exchanges:
        text.add(question, size=17, color=FAINT_INK)
        text.add(answer, size=21, color=INK)

    captions = [caption_of(marked) for marked in marked_frames]
    caption_height = 26 if any(captions) else 0
    panels_height = max(panel.height for panel in panels)
    height = margin + panels_height + caption_height + (text.height + 14 if text.height else 0) + margin
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for position, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = margin + position * (panel_width + gap)
        canvas.paste(panel, (left, margin))
        draw.text((left, margin + panels_height + 7), caption, font=load_font(15), fill=FAINT_INK)
    text.draw(draw, margin, margin + panels_height + caption_height + 14)
    return canvas


def choose_frames(frames_of_region: Sequence[Iterable[int]], max_frames: int = MAX_PANELS) -> list[int]:
    """Choose few frames that show as many regions as possible and lie spread over the video.

    Args:
        frames_of_region (`Sequence[Iterable[int]]`): Frame numbers on which each region is marked.
        max_frames (`int`, *optional*, defaults to `4`): Most frames to choose.

    Returns:
        `list[int]`: Frame numbers, rising.
    """
    candidates = sorted(set(itertools.chain.from_iterable(frames_of_region)))
    if len(candidates) <= max_frames:
        return candidates
    chosen: list[int] = []
    missing = [set(frames) for frames in frames_of_region]
    while missing and len(chosen) < max_frames:
        best = max(candidates, key=lambda index: sum(index in frames for frames in missing))
        chosen.append(best)
        missing = [frames for frames in missing if best not in frames]
    while len(chosen) < max_frames:
        chosen.append(max(candidates, key=lambda index: min(abs(index - other) for other in chosen)))
    return sorted(chosen)


def read_marked_frames(
    source: Any,
    regions: Mapping[str, Mapping[str, Any]],
    *,
    frame_indices: Mapping[str, Sequence[int]] | None = None,
    is_image: bool = False,
    max_frames: int = MAX_PANELS,
    **video_options: Any,
) -> list[MarkedFrame]:
    """Read a few frames of a video, or an image, on which regions are marked, with their masks.

    Args:
        source (`Any`): Video of any kind that `open_video` takes, or path or address of an image.
        regions (`Mapping[str, Mapping]`): Regions in the form the processor takes, by name. Without regions the frames
            are spread over the video.
        frame_indices (`Mapping[str, Sequence[int]]`, *optional*): Frames to choose from, by name of a region; all
            its frames by default.
        is_image (`bool`, *optional*, defaults to `False`): Whether `source` is an image.
        max_frames (`int`, *optional*, defaults to `4`): Most frames to read.
        video_options: `fps` and `edit_list` of `open_video`.

    Returns:
        `list[MarkedFrame]`: By rising frame number.

    Raises:
        ValueError: If a region is malformed or does not fit the video.
        OSError: If a file cannot be read.
    """
    with open_video([load_image(source)] if is_image else source, **video_options) as reader:
        entries = {}
        for name, region in regions.items():
            with located(origin=name):
                selected = select_frames(
                    parse_region(region),
                    num_frames=reader.num_frames,
                    frame_times=lambda: reader.frame_times,
                    max_frames=None,
                    empty_masks="drop",
                    is_image=is_image,
                )
            entries[name] = dict(selected)
        candidates = entries if frame_indices is None else frame_indices
        chosen = choose_frames(list(candidates.values()), max_frames)
        if not chosen:
            chosen = sorted(set(uniform_indices(reader.num_frames, max_frames)))
        times = reader.frame_times if reader.fps and not is_image else None
        marked = []
        for index, frame in reader.read(chosen):
            masks = {}
            for name, frames in entries.items():
                if index in frames:
                    with located(origin=name, frame=index):
                        masks[name] = decode_mask(frames[index], height=frame.shape[0], width=frame.shape[1])
            seconds = None if times is None else float(times[index])
            marked.append(MarkedFrame(frame, masks, frame_index=None if is_image else index, time_seconds=seconds))
        return marked


def caption_of(marked: MarkedFrame) -> str:
    """Word the line below a frame.

    Args:
        marked ([`MarkedFrame`]): The frame.

    Returns:
        `str`: Its number and time, as far as they are known.
    """
    if marked.frame_index is None:
        return ""
    time = "" if marked.time_seconds is None else f"  ({marked.time_seconds:.2f} s)"
    return f"frame {marked.frame_index}{time}"


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Bring a mask to the (width, height) of the drawing; a region that is too small for it becomes one pixel."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    # Filtering before the threshold rounds off the staircase of an enlarged mask.
    resized = picture.resize(size, Image.Resampling.BILINEAR).point(lambda value: 255 * (value >= 128))
    if resized.getbbox() is None:
        resized = picture.resize(size, Image.Resampling.BOX).point(lambda value: 255 * (value > 0))
    return resized


def _outline(picture: Image.Image, mask: Image.Image, color: Color, *, is_tinted: bool) -> None:
    """Draw the border of a region, coloured, with a thin dark rim that shows on bright ground, and tint its inside."""
    stroke = 2 * max(2, round(max(picture.size) / 300)) + 1  # odd, as the filters want it
    if is_tinted:
        picture.paste(color, mask=mask.point(lambda value: round(value * _FILL_OPACITY)))
    # The filters are slow, so they see the surroundings of the region only. They repeat the pixels at the edge of a
    # picture, so a region that is cut by it would have no border there; a rim of background gives it one.
    left, top, right, bottom = mask.getbbox()
    rim_width = 2 * stroke
    padded = Image.new("L", (right - left + 2 * rim_width, bottom - top + 2 * rim_width))
    padded.paste(mask.crop((left, top, right, bottom)), (rim_width, rim_width))
    outer = padded.filter(ImageFilter.MaxFilter(stroke))
    inner = padded.filter(ImageFilter.MinFilter(stroke))
    smooth = ImageFilter.GaussianBlur(0.7)
    rim = ImageChops.subtract(outer.filter(ImageFilter.MaxFilter(3)), inner.filter(ImageFilter.MinFilter(3)))
    place = (left - rim_width, top - rim_width, right + rim_width, bottom + rim_width)
    picture.paste(_HALO, place, rim.filter(smooth).point(lambda value: round(value * _HALO_OPACITY)))
    picture.paste(color, place, ImageChops.subtract(outer, inner).filter(smooth))


def _draw_label(
    picture: Image.Image,
    name: str,
    bounds: tuple[int, int, int, int],
    color: Color,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Write the name of a region above its upper left corner, inside the picture and beside labels already there."""
    draw = ImageDraw.Draw(picture)
    size = max(13, round(picture.width / 42))
    font = load_font(size)
    padding = max(4, round(size / 3))
    while name and draw.textlength(name, font=font) > picture.width - 4 * padding:
        name = name[:-2] + "…" if len(name) > 2 else ""
    width = round(draw.textlength(name, font=font)) + 2 * padding
    height = size + padding
    left = min(max(0, bounds[0]), max(0, picture.width - width))
    top = min(max(0, bounds[1] - height), max(0, picture.height - height))
    box = (left, top, left + width, top + height)
    while any(_overlap(box, other) for other in taken) and box[3] + height <= picture.height:
        box = (box[0], box[1] + height, box[2], box[3] + height)
    taken.append(box)
    draw.rounded_rectangle(box, radius=padding, fill=color, outline=_HALO)
    draw.text((box[0] + padding, (box[1] + box[3]) / 2), name, font=font, fill=ink_on(color), anchor="lm")


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
