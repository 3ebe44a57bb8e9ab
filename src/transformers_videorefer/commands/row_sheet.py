"""One row of a dataset as a picture: what can be drawn is drawn, and what cannot is said."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from transformers_videorefer.data.checks.probing import MediaFacts, probe_image, probe_video
from transformers_videorefer.data.paths import resolve_media
from transformers_videorefer.data.rows.region_parts import is_absent
from transformers_videorefer.data.wording import count_of
from transformers_videorefer.inputs.items import MARKS
from transformers_videorefer.preview.drawing import read_marked_frames, region_colors
from transformers_videorefer.preview.sheet import draw_sheet
from transformers_videorefer.preview.text import region_word
from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.form import parse_region
from transformers_videorefer.regions.grid import decode_mask


MAX_WARNINGS = 8
# Larger masks are not drawn: a few characters of a broken row could ask for all memory.
MAX_PIXELS = 1 << 27


def draw_row(
    row: dict[str, Any],
    *,
    title: str,
    data_root: str | None,
    num_frames: int,
    warnings: Sequence[str] = (),
) -> Image.Image:
    """Draw the frames of a row on which its regions are marked, beside its text.

    Args:
        row (`dict`): A row of any of our sets.
        title (`str`): First line.
        data_root (`str`, *optional*): Folder that the paths of rows are relative to.
        num_frames (`int`): Most frames to draw.
        warnings (`Sequence[str]`, *optional*): What is wrong with the row already.

    Returns:
        `PIL.Image.Image`: RGB picture.

    Raises:
        ValueError: If the path of the video leaves `data_root`.
        OSError: If the video or image is missing or cannot be read.
    """
    regions = row.get("regions") or []
    names = _name_regions(regions)
    details = [f"{key}: {row[key]}" for key in ("video", "image", "task", "source", "type") if row.get(key)]
    frames, warnings = [], list(warnings)
    media = row.get("video") or row.get("image")
    if media:
        is_image = not row.get("video")
        path, facts = _find_media(media, row, data_root, is_image)
        kind = (
            "image"
            if is_image
            else f"{count_of(facts.num_frames, 'frame')}, edit list: {row.get('edit_list') or 'apply'}"
        )
        details.append(f"{facts.width} x {facts.height} pixels, {kind}")
        drawable = {}
        for name, region in zip(names, regions, strict=True):
            entries, problems = _drawable_frames(region, facts, name)
            warnings += problems
            details.append(f"{region_word(name)} {_spell_frames(region)}")
            if entries:
                drawable.setdefault(name, {"frames": entries})
        options = {} if is_image else {"edit_list": row.get("edit_list") or "apply"}
        frames = read_marked_frames(path, drawable, is_image=is_image, max_frames=num_frames, **options)
    if len(warnings) > MAX_WARNINGS:
        warnings = [*warnings[:MAX_WARNINGS], f"and {len(warnings) - MAX_WARNINGS} more; `videorefer data check`"]
    return draw_sheet(
        frames,
        title=title,
        details=details,
        messages=_conversation(row, names),
        warnings=warnings,
        colors=region_colors(names),
    )


def _find_media(media: str, row: dict[str, Any], data_root: str | None, is_image: bool) -> tuple[str, MediaFacts]:
    """Find video or image of a row, and what is known about it."""
    path = resolve_media(media, "." if data_root is None else data_root)
    facts = probe_image(path) if is_image else probe_video(path, edit_list=row.get("edit_list") or "apply")
    if facts.status == "missing":
        hint = "Check the folder" if data_root else "Pass the folder that it is relative to"
        raise FileNotFoundError(f"There is no {'image' if is_image else 'video'} {path}. {hint} (`--videos`).")
    if facts.status != "ok":
        raise OSError(facts.message)
    return path, facts


def _name_regions(regions: Sequence[dict[str, Any]]) -> list[str]:
    """Name regions by their objects; an object that is marked twice in the same way keeps one name."""
    seen: dict[str, Any] = {}
    names = []
    for position, region in enumerate(regions):
        object_id = region.get("object_id")
        label = str(position) if object_id is None else str(object_id)
        label = f"region{label}" if label.isdecimal() else label
        name, copy = label, 1
        while name in seen and seen[name] != region.get("frames"):
            copy += 1
            name = f"{label}#{copy}"
        seen[name] = region.get("frames")
        names.append(name)
    return names


def _drawable_frames(region: dict[str, Any], facts: MediaFacts, name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Sort out the frames of a region that cannot be drawn, and say why; null masks mean that nothing is visible."""
    entries, problems, num_null = [], [], 0
    for frame in region.get("frames") or ():
        entry = {key: value for key, value in frame.items() if not is_absent(value)}
        if "rle" not in entry and "box" not in entry:
            num_null += 1
            continue
        where = f"{name}, frame {entry.get('frame_index', 0)}"
        try:
            with located(origin=where):
                is_visible = decode_entry(entry, facts).any()
            if is_visible:
                entries.append(entry)
            else:
                problems.append(f"{where}: the mask is empty.")
        except (ValueError, TypeError) as error:
            problems.append(" ".join(str(error).split()))
    if num_null:
        problems.append(f"{name}: {num_null} of {len(region['frames'])} masks are null.")
    return entries, problems


def decode_entry(entry: dict[str, Any], facts: MediaFacts) -> Any:
    """Decode the mask of one frame of a row, after a look at whether it fits the video.

    Args:
        entry (`dict`): `frame_index`, and `rle` or `box`.
        facts ([`MediaFacts`]): The video or image.

    Returns:
        `np.ndarray` of shape `(height, width)` and dtype bool.

    Raises:
        TypeError: If a value is of a wrong kind.
        ValueError: If the frame lies outside the video, or the mask is broken or does not fit.
    """
    index = entry.get("frame_index", 0)
    if index >= facts.num_frames:
        hidden = f" (and {facts.num_hidden_frames} that its edit list hides)" if facts.num_hidden_frames else ""
        raise ValueError(f"the video has {count_of(facts.num_frames, 'frame')}{hidden}.")
    region = parse_region({"frames": [entry]})
    size = (entry.get("rle") or {}).get("size")
    if size and size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"the mask has {size[0]} x {size[1]} pixels, too many to draw.")
    return decode_mask(region.frames[0], height=facts.height, width=facts.width)


def _spell_frames(region: dict[str, Any]) -> str:
    indices = [frame.get("frame_index") for frame in region.get("frames") or ()]
    indices = [index for index in indices if index is not None]
    if len(indices) < 2:
        return f"frame {indices[0]}" if indices else "no frame"
    return f"{len(indices)} frames, {min(indices)} to {max(indices)}"


def _conversation(row: dict[str, Any], names: Sequence[str]) -> list[tuple[str, str]]:
    """Who says what in a row, with the names of regions in the place of their marks."""
    waiting = iter(names)

    def spell(text: str) -> str:
        pieces = text.split(MARKS["region"])
        spelled = pieces[0]
        for piece in pieces[1:]:
            name = next(waiting, None)
            spelled += (MARKS["region"] if name is None else region_word(name)) + piece
        return spelled

    if row.get("messages") is not None:
        return [
            (message["role"], spell(message["content"]) if message["role"] == "user" else message["content"])
            for message in row["messages"]
        ]
    frame = row.get("frame_index")
    single = "" if frame is None else f" (single frame: {frame})"
    if row.get("question") is not None:
        options = "\n".join(row.get("options") or ())
        return [(f"question{single}", f"{spell(row['question'])}\n{options}"), ("answer", row.get("answer") or "")]
    about = " ".join(region_word(name) for name in names)
    return [(f"description of {about}{single}", row.get("caption") or "")]
