"""Every defect of every row: what a record shows by itself, its masks decoded in full, and how it fits its video."""

from typing import Any

from transformers_videorefer.data.defects import Defect, DefectReport, describe, make_defect
from transformers_videorefer.data.paths import resolve_media
from transformers_videorefer.data.rows.hc_stvg import salvage_hc_stvg
from transformers_videorefer.data.rows.record_masks import drop_broken_masks
from transformers_videorefer.data.rows.records import merge_defects, salvage
from transformers_videorefer.data.rows.row_form import read_row
from transformers_videorefer.data.sources.row_source import BROKEN, ENTRY, ROW, SourceItem
from transformers_videorefer.data.wording import count_of
from transformers_videorefer.regions.errors import located
from transformers_videorefer.regions.grid import ASPECT_TOLERANCE, MAX_PIXELS_OUTSIDE
from transformers_videorefer.regions.rle import decode_rle

from .probing import MediaFacts, probe_image, probe_video


# Larger masks than any video has are not decoded: a few characters could ask for gigabytes.
MAX_DECODED_PIXELS = 1 << 27
_KIND_OF_STATUS = {"missing": "missing_video", "unreadable": "unreadable_video", "truncated": "truncated_video"}


def item_to_row(
    item: SourceItem, *, video_size: tuple[int, int] | None = None
) -> tuple[dict[str, Any] | None, list[Defect]]:
    """Turn what a source holds into a row, as far as it can be told for sure.

    Args:
        item ([`SourceItem`]): A row, a published record, or a line that is no JSON.
        video_size (`tuple[int, int]`, *optional*): Height and width in pixels, for polygons of records without them.

    Returns:
        The row, in which broken parts are null, or `None` where nothing can be kept; and everything that is wrong as
        far as it shows without decoding masks or opening the video.
    """
    if item.kind == BROKEN:
        return None, [make_defect("broken_json", item.value)]
    if item.kind == ENTRY:
        row, defects = salvage_hc_stvg(*item.value)
    elif item.kind == ROW:
        row, defects = read_row(item.value)
    else:
        row, defects = salvage(item.value, video_size=video_size, check_masks=False)
    if row is None:
        return None, defects
    defects = merge_defects(defects + drop_broken_masks(row), row)
    if any(defect.kind == "unsafe_path" for defect in defects):
        # The path was taken out of the row; that the medium is missing now is no defect of its own.
        defects = [defect for defect in defects if defect.kind not in ("media_mark_mismatch", "region_without_media")]
    return row, defects


class RowChecker:
    """Checks rows one after the other and counts their defects.

    Memory grows by about 100 bytes for each row with an id and by about 500 for each different video.

    Args:
        data_root (`str`, *optional*): Folder that paths of videos are relative to. Without it no video is opened.

    Attributes:
        report ([`DefectReport`]): Counts and examples.
        num_unusable (`int`): Rows with a defect that matters: the processor would refuse them.
    """

    def __init__(self, data_root: str | None = None) -> None:
        self.report = DefectReport()
        self.num_unusable = 0
        self._data_root = data_root
        self._seen_ids: dict[str, set[int]] = {}
        self._media: dict[tuple[str, str], MediaFacts] = {}

    @property
    def num_media(self) -> int:
        """`int`: Different videos and images opened so far."""
        return len(self._media)

    @property
    def num_bad_media(self) -> int:
        """`int`: Those of them that are missing or broken."""
        return sum(facts.status != "ok" for facts in self._media.values())

    def check(self, item: SourceItem) -> list[Defect]:
        """Check one row.

        Args:
            item ([`SourceItem`]): The row or record.

        Returns:
            `list[Defect]`: What is wrong with it; it is counted in `report` already.
        """
        row, defects = item_to_row(item)
        where = item.where
        if row is not None:
            facts = self._look_up(row)
            if facts is not None and facts.height and any(one.kind == "polygon_without_size" for one in defects):
                row, defects = item_to_row(item, video_size=(facts.height, facts.width))
            if row["id"] is not None:
                where += f", id {describe(row['id'])}"
                defects += self._note_id(row["id"], item.config)
            defects += decode_masks(row)
            if facts is not None:
                defects += media_defects(row, facts)
        self.report.num_rows += 1
        self.report.add(defects, where=where)
        self.num_unusable += row is None or any(defect.is_fatal for defect in defects)
        return defects

    def _note_id(self, row_id: str, config: str) -> list[Defect]:
        """Remember an id of a config; the eight bytes of its hash are enough for that."""
        number, seen = hash(row_id), self._seen_ids.setdefault(config, set())
        if number in seen:
            return [make_defect("duplicate_id", f"`id` {describe(row_id)} stands there before")]
        seen.add(number)
        return []

    def _look_up(self, row: dict[str, Any]) -> MediaFacts | None:
        """Open the video or image of a row, the first time that it is named."""
        video, image = row.get("video"), row.get("image")
        if self._data_root is None or not (video or image):
            return None
        key = (video or image, row["edit_list"] if video else "image")
        if key not in self._media:
            path = resolve_media(key[0], self._data_root)
            facts = probe_video(path, edit_list=key[1]) if video else probe_image(path)
            self._media[key] = facts
        return self._media[key]

    def to_dict(self) -> dict[str, Any]:
        """Return what was found as it is written to a JSON file.

        Returns:
            `dict`: `num_rows`, `num_unusable_rows`, `num_videos`, `num_bad_videos`, `num_defects`, `counts` and
            `examples` by kind.
        """
        return {
            "num_rows": self.report.num_rows,
            "num_unusable_rows": self.num_unusable,
            "num_videos": self.num_media,
            "num_bad_videos": self.num_bad_media,
            "num_defects": sum(self.report.counts.values()),
            "counts": self.report.counts,
            "examples": self.report.examples,
        }


def decode_masks(row: dict[str, Any]) -> list[Defect]:
    """Decode every mask of a row.

    Args:
        row (`dict`): A row whose run lengths are sound.

    Returns:
        `list[Defect]`: Masks that have no pixel, or are too large for any video.
    """
    defects = []
    for position, region in enumerate(row["regions"]):
        for frame in region["frames"]:
            rle = frame["rle"]
            if rle is None:
                continue
            where = f"object {position}, frame {frame['frame_index']}"
            height, width = rle["size"]
            if height * width > MAX_DECODED_PIXELS:
                message = f"{where}: a mask of {height} x {width} pixels is too large to be decoded"
                defects.append(make_defect("broken_size", message))
                continue
            with located(origin=where):
                mask = decode_rle(rle)
            # Masks are stored by columns: read that way, the first pixel of the object is found much sooner.
            if not mask.T.any():
                defects.append(make_defect("empty_mask", f"{where}: the mask has no pixel"))
    return defects


def media_defects(row: dict[str, Any], facts: MediaFacts) -> list[Defect]:
    """Compare a row with its video or image.

    Args:
        row (`dict`): The row.
        facts ([`MediaFacts`]): What was found out about the video, with frames counted as the row says.

    Returns:
        `list[Defect]`: What does not fit; of a video that cannot be read only that.
    """
    if facts.status != "ok":
        name = describe(row.get("video") or row.get("image"))
        reason = f"there is nothing at {name}" if facts.status == "missing" else f"{name}: {facts.message}"
        return [make_defect(_KIND_OF_STATUS[facts.status], reason)]
    defects = []
    if facts.num_hidden_frames:
        hidden = count_of(facts.num_hidden_frames, "frame")
        message = f'the edit list hides {hidden}, and the row says edit_list "apply"'
        defects.append(make_defect("edit_list", message))
    hint = f' (and {facts.num_hidden_frames} more with edit_list "ignore")' if facts.num_hidden_frames else ""
    single = row.get("frame_index")
    if single is not None and single >= facts.num_frames:
        message = f"`frame_index` is {single}, but the video has {count_of(facts.num_frames, 'frame')}{hint}"
        defects.append(make_defect("frame_outside_video", message))
    for position, region in enumerate(row["regions"]):
        for frame in region["frames"]:
            where = f"object {position}, frame {frame['frame_index']}"
            # Of an image, the row shows by itself that it has one frame only.
            if row.get("video") and frame["frame_index"] >= facts.num_frames:
                message = f"{where}: the video has {count_of(facts.num_frames, 'frame')}{hint}"
                defects.append(make_defect("frame_outside_video", message))
            defects += _size_defects(frame, facts, where)
    return defects


def _size_defects(frame: dict[str, Any], facts: MediaFacts, where: str) -> list[Defect]:
    """Compare the mask or box of one frame with the size of the video."""
    size, rle, box = frame.get("size"), frame["rle"], frame.get("box")
    own = tuple(size or (rle or {}).get("size") or (facts.height, facts.width))
    if own != (facts.height, facts.width) and not (size and (own == (1, 1) or _shows_same_picture(own, facts))):
        message = f"{where}: the size is {own[0]} x {own[1]} pixels, that of the video {facts.height} x {facts.width}"
        return [Defect("mask_size_differs", message, is_fatal=True)]
    if box is None:
        return []
    scale_x, scale_y = facts.width / own[1], facts.height / own[0]
    x0, y0, x1, y1 = box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y
    overshoot = max(-x0, -y0, x1 - facts.width, y1 - facts.height)
    if overshoot > MAX_PIXELS_OUTSIDE:
        return [make_defect("broken_box", f"{where}: the box reaches {overshoot:.1f} pixels outside the video")]
    return []


def _shows_same_picture(size: tuple[int, ...], facts: MediaFacts) -> bool:
    """Whether a stated size has the aspect ratio of the video, so that the processor scales the mask."""
    ratio = (size[1] / size[0]) / (facts.width / facts.height)
    return max(ratio, 1 / ratio) <= 1 + ASPECT_TOLERANCE
