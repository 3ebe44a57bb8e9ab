"""Rows of ours from hand-written files: read part by part, what cannot be told for sure becomes null with a defect."""

from typing import Any

from transformers_videorefer.data.defects import Defect, FrameError, describe, make_defect
from transformers_videorefer.data.frames import null_frame, read_frame
from transformers_videorefer.data.paths import is_unsafe_path
from transformers_videorefer.inputs.items import MARKS, find_marks
from transformers_videorefer.video.options import check_edit_list

from .record_masks import parse_frame_number
from .records import ROLES
from .region_parts import is_absent


_PATH_KEYS = ("path", "url", "video", "image")


def read_row(value: dict[str, Any]) -> tuple[dict[str, Any] | None, list[Defect]]:
    """Bring a row that anybody may have written into the form that our datasets have.

    Args:
        value (`dict`): The row; keys may be missing, as in JSON lines, or hold structs of nulls, as in tables.

    Returns:
        The row, with every column of its kind, broken parts null or left out, or `None` where it has neither messages
        nor question nor caption; and what is wrong with it. Compressed masks are not read here.
    """
    return _RowReader(value).read()


class _RowReader:
    """Reads the columns of one row and collects defects."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value
        self.defects: list[Defect] = []
        # What parts of messages bring with them: paths by kind, and regions with the number of marks before them.
        self.own_media: dict[str, str] = {}
        self.own_regions: list[tuple[int, dict[str, Any]]] = []
        self.num_marks = 0

    def report(self, kind: str, message: str) -> None:
        self.defects.append(make_defect(kind, message))

    def read(self) -> tuple[dict[str, Any] | None, list[Defect]]:
        """Read the columns that the kind of row has."""
        row = {"id": self.row_id(), "video": self.path("video")}
        if self.value.get("messages") is not None:
            row |= {"image": self.path("image"), "messages": self.messages()}
            row |= self.own_media
            row |= {name: self.text(name, is_needed=False) for name in ("task", "source")}
        elif self.value.get("question") is not None:
            row |= {name: self.text(name) for name in ("question", "answer")}
            row |= {"options": self.options(), "type": self.text("type", is_needed=False)}
            row["frame_index"] = self.frame_index()
        elif self.value.get("caption") is not None:
            row |= {"caption": self.text("caption"), "frame_index": self.frame_index()}
        else:
            self.report("missing_field", "the row has none of `messages`, `question` and `caption`")
            return None, self.defects
        if "messages" in row and row["messages"] is None:
            return None, self.defects
        row |= {"regions": self.regions(), "edit_list": self.edit_list()}
        return row, self.defects

    def edit_list(self) -> str:
        value = self.value.get("edit_list")
        if value is None:
            return "apply"
        try:
            check_edit_list(value)
        except ValueError as error:
            self.report("wrong_type", str(error))
            return "apply"
        return value

    def row_id(self) -> str | None:
        value = self.value.get("id")
        if isinstance(value, str):
            return value
        if type(value) is int:
            return describe(value)
        if value is not None:  # rows that somebody wrote by hand need none
            self.report("wrong_type", f"`id` must be text, got {describe(value)}")
        return None

    def text(self, name: str, *, is_needed: bool = True) -> str | None:
        value = self.value.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            self.report("wrong_type", f"`{name}` must be text, got {describe(value)}")
        elif is_needed:
            self.report("missing_field", f"the row has no `{name}`")
        return None

    def path(self, name: str) -> str | None:
        path = self.text(name, is_needed=False)
        if path is not None and is_unsafe_path(path):
            self.report("unsafe_path", f"`{name}` {describe(path)} is no path inside the data folder")
            return None
        return path

    def options(self) -> list[str] | None:
        value = self.value.get("options")
        if value is None or (isinstance(value, list) and all(isinstance(option, str) for option in value)):
            return value
        self.report("wrong_type", f"`options` must be a list of texts, got {describe(value)}")
        return None

    def frame_index(self) -> int | None:
        value = self.value.get("frame_index")
        index = parse_frame_number(value)
        if index is None and value is not None:
            self.report("broken_frame_number", f"`frame_index` {describe(value)} is no frame number")
        return index

    def messages(self) -> list[dict[str, Any]] | None:
        turns = self.value["messages"]
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
            self.report("wrong_type", f"`messages` must be a list of dicts, got {describe(turns)}")
            return None
        messages = []
        for position, turn in enumerate(turns):
            role, content = turn.get("role"), turn.get("content")
            if role not in ROLES:
                self.report("unknown_speaker", f"turn {position} has the role {describe(role)}, not user or assistant")
                role = None
            if isinstance(content, list):
                content = self.parts(content, position)
            elif not isinstance(content, str):
                self.report("wrong_type", f"the content of turn {position} must be text, got {describe(content)}")
                content = None
            self.num_marks += (content or "").count(MARKS["region"]) if role == "user" else 0
            messages.append({"role": role, "content": content})
        return messages

    def parts(self, parts: list[Any], position: int) -> str | None:
        """Write a content of parts as text with marks; what the parts bring with them becomes part of the row."""
        pieces = []
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(kind, str) or kind not in ("text", *MARKS):
                self.report("wrong_type", f"turn {position} holds {describe(part)}, no text, video, image or region")
                return None
            given = {key: value for key, value in part.items() if value is not None and key != "type"}
            if kind == "text":
                pieces.append(str(given.get("text", "")))
                if find_marks(pieces[-1]):
                    self.report("region_mark_mismatch", f"turn {position} spells a mark in a part of text")
                    return None
                continue
            if kind == "region" and given.keys() & {"frames", "masks"}:
                self.own_regions.append((self.num_marks + "".join(pieces).count(MARKS["region"]), given))
            is_shown = kind == "region" or self.own_medium(kind, given)
            pieces.append(MARKS[kind] if is_shown else "")
        return "".join(pieces)

    def own_medium(self, kind: str, given: dict[str, Any]) -> bool:
        """Note the path that a part brings; of several videos or images of a row only the first is looked at."""
        path = next((given[key] for key in _PATH_KEYS if isinstance(given.get(key), str)), None)
        if path is None:
            return True
        if is_unsafe_path(path):
            self.report("unsafe_path", f"the {kind} {describe(path)} is no path inside the data folder")
            return True
        known = self.own_media.get(kind) or self.value.get(kind)
        if known is None:
            self.own_media[kind] = path
        return known is None

    def regions(self) -> list[dict[str, Any]]:
        value = self.value.get("regions")
        if value is None:
            value = []
        if isinstance(value, list):
            value = list(value)
            for position, region in self.own_regions:
                value.insert(position, _with_frames(region))
        if not isinstance(value, list):
            self.report("wrong_type", f"`regions` must be a list, got {describe(value)}")
            return []
        return [self.region(region, position) for position, region in enumerate(value)]

    def region(self, value: Any, position: int) -> dict[str, Any]:
        region: dict[str, Any] = {"object_id": str(position), "media": 0, "frames": []}
        frames = value.get("frames") if isinstance(value, dict) else None
        if not isinstance(frames, list):
            self.report("wrong_type", f"object {position} must be a dict with a list of `frames`")
            return region
        region["media"] = value.get("media")
        if value.get("object_id") is not None:
            region["object_id"] = str(value["object_id"])
        seen: set[int] = set()
        for frame in frames:
            index = parse_frame_number(frame.get("frame_index")) if isinstance(frame, dict) else None
            where = f"object {position}, frame {index}"
            if index is None:
                self.report("broken_frame_number", f"object {position}: a frame has no valid `frame_index`")
                continue
            if index in seen:
                self.report("duplicate_frame", f"object {position}: frame {index} is listed twice")
            seen.add(index)
            region["frames"].append(self.frame(index, frame, where))
        return region

    def frame(self, index: int, frame: dict[str, Any], where: str) -> dict[str, Any]:
        """Read one frame, null where it is broken."""
        given = {name: frame.get(name) for name in ("rle", "box", "size")}
        rle, box, size = (None if is_absent(value) else value for value in given.values())
        if rle is None and box is None:
            self.report("null_segmentation", f"{where}: there is neither `rle` nor `box`")
        try:
            if isinstance(rle, list):
                raise FrameError("broken_rle", f"{where}: `rle` must be a run-length dict, got {describe(rle)}.")
            return read_frame(index, mask=rle, box=box, size=size, where=where, check=False)
        except FrameError as error:
            self.defects.append(error.defect)
            return null_frame(index)


def _with_frames(region: dict[str, Any]) -> dict[str, Any]:
    """Write the form `masks` with `frame_indices` of a region as `frames`."""
    masks = region.get("masks")
    if not isinstance(masks, list) or "frames" in region:
        return region
    indices = region.get("frame_indices", range(len(masks)))
    if not isinstance(indices, (list, range)) or len(indices) != len(masks):
        return region
    frames = [
        {"frame_index": index, "rle": mask, "size": region.get("size")}
        for index, mask in zip(indices, masks, strict=True)
    ]
    return {**region, "frames": frames}
