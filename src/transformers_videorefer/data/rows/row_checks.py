"""Defects of rows: what the processor would refuse, as far as it shows without opening the video."""

from typing import Any

from transformers_videorefer.data.defects import Defect, make_defect
from transformers_videorefer.data.wording import count_of
from transformers_videorefer.inputs.items import MARKS


QUESTION_TYPES = (
    "Basic Questions",
    "Sequential Questions",
    "Relationship Questions",
    "Reasoning Questions",
    "Future Predictions",
)
_MEDIA_MARKS = [(name, mark) for name, mark in MARKS.items() if name != "region"]


def row_defects(row: dict[str, Any]) -> list[Defect]:
    """Find what is wrong with a row as far as it shows without its video.

    Args:
        row (`dict`): A row of any of our sets.

    Returns:
        `list[Defect]`: Fatal ones are what the processor would refuse; broken counts are not looked for.
    """
    defects: list[Defect] = []
    regions = row.get("regions") or []
    if row.get("messages") is not None:
        num_marks = _check_messages(row, regions, defects)
    elif row.get("question") is not None:
        num_marks = row["question"].count(MARKS["region"])
        if not row.get("answer", "x"):
            defects.append(make_defect("empty_answer", "the answer is empty"))
    elif "question" in row:
        num_marks = None
    else:
        num_marks = 1  # a description is of one object
        if not row.get("caption", "x"):
            defects.append(make_defect("empty_answer", "the caption is empty"))
    if num_marks is not None and num_marks != len(regions):
        mark = f"{MARKS['region']} mark"
        message = f"{count_of(num_marks, mark)} but {count_of(len(regions), 'object')}"
        defects.append(make_defect("region_mark_mismatch", message))
    for position, region in enumerate(regions):
        _check_region(region, position, row, defects)
    return defects


def _check_messages(row: dict[str, Any], regions: list[Any], defects: list[Defect]) -> int:
    """Check the turns of a conversation and return the number of region marks."""
    messages = row["messages"]
    if messages and messages[0]["role"] == "assistant":
        messages = messages[1:]  # it is dropped, as in the published training
    num_marks, num_media_marks = 0, {"video": 0, "image": 0}
    for position, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str):
            continue
        in_turn = content.count(MARKS["region"])
        if message["role"] == "assistant":
            if in_turn:
                defects.append(make_defect("mark_in_answer", f"answer {position} holds a <region> mark"))
            if not content.strip():
                defects.append(make_defect("empty_answer", f"answer {position} is empty"))
        else:
            num_marks += in_turn
            for name, mark in _MEDIA_MARKS:
                num_media_marks[name] += content.count(mark)
    for name, mark in _MEDIA_MARKS:
        num_expected = int(row.get(name) is not None)
        if num_media_marks[name] != num_expected:
            message = (
                f"{count_of(num_media_marks[name], f'{mark} mark')}, but the record has {count_of(num_expected, name)}"
            )
            defects.append(make_defect("media_mark_mismatch", message))
    if regions and row.get("video") is None and row.get("image") is None:
        defects.append(
            make_defect("region_without_media", f"{count_of(len(regions), 'object')}, but no video and no image")
        )
    return num_marks


def _check_region(region: dict[str, Any], position: int, row: dict[str, Any], defects: list[Defect]) -> None:
    """Check the frames of one region."""
    frames = region["frames"] or []
    empty = [frame["frame_index"] for frame in frames if frame["rle"] is None and frame.get("box") is None]
    if len(empty) == len(frames):
        defects.append(make_defect("region_without_mask", f"object {position} has no mask in any frame"))
    defects.extend(
        make_defect("null_segmentation", f"object {position}, frame {index}: the segmentation is null")
        for index in empty
    )
    if row.get("image") is not None and row.get("video") is None:
        for frame in frames:
            if frame["frame_index"] != 0:
                message = f"object {position}: an image has no frame {frame['frame_index']}, only 0"
                defects.append(make_defect("frame_outside_video", message))
    single = row.get("frame_index")
    if single is not None and frames and single not in {frame["frame_index"] for frame in frames}:
        message = f"object {position} has no mask in frame {single}, the one of the single-frame mode"
        defects.append(make_defect("frame_without_mask", message))
