"""What all importers share: objects in the numbers of their export become rows of the conversation schema."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers_videorefer.data.batches.prompts import SHORT_CAPTION_PROMPT
from transformers_videorefer.data.defects import (
    Defect,
    DefectReport,
    FrameError,
    RecordError,
    check_bad_rows,
    make_defect,
)
from transformers_videorefer.data.frames import null_frame, read_frame
from transformers_videorefer.data.rle_checks import broken_rles
from transformers_videorefer.data.wording import count_of
from transformers_videorefer.inputs.items import MARKS, find_marks
from transformers_videorefer.regions.grid import ASPECT_TOLERANCE
from transformers_videorefer.regions.rle import rle_is_empty

from .videos import VideoFolder, VideoInfo


DEFAULT_QUESTION = SHORT_CAPTION_PROMPT
REGION_MARK, LABEL_MARK = MARKS["region"], "{label}"


@dataclass(frozen=True)
class ImportOptions:
    """How objects become rows.

    Args:
        question (`str`, *optional*): What the user asks, with `<region>` exactly once; `{label}` stands for the label.
        answer_field (`str`, *optional*): Field of the export that holds the answer; the label by default.
        stride (`int`, *optional*, defaults to 1): Keep every N-th of an object's annotated frames, the first one
            included.
        bad_rows (`str`, *optional*, defaults to `"raise"`): `"raise"`, `"skip"` or `"keep"` rows that are broken.

    Raises:
        ValueError: If a value is not offered.
    """

    question: str = DEFAULT_QUESTION
    answer_field: str | None = None
    stride: int = 1
    bad_rows: str = "raise"

    def __post_init__(self) -> None:
        check_bad_rows(self.bad_rows)
        if self.stride < 1:
            raise ValueError(
                f"`stride` is {self.stride}. Pass 1 to keep every annotated frame, 2 for every other one."
            )
        if self.question.count(REGION_MARK) != 1:
            raise ValueError(
                f"`question` must hold {REGION_MARK} exactly once, got {self.question.count(REGION_MARK)} in "
                f"{self.question!r}. Write it where the object is meant."
            )
        others = [mark for mark in MARKS.values() if mark != REGION_MARK and mark in self.question]
        if others:
            raise ValueError(f"`question` holds {others[0]}, which every row gets by itself. Leave it out.")


@dataclass(frozen=True)
class Shape:
    """Where an object is in one frame, in the numbers of the export.

    Attributes:
        frame_index (`int`): Position of the frame in the video, from 0.
        form (`str`): `"rle"`, `"polygon"` or `"box"`.
        value (`Any`): COCO run lengths, a COCO list of flat coordinate lists, or [x0, y0, x1, y1] in pixels.
        size (`tuple[int, int]`, *optional*): [height, width] of the picture the numbers refer to, by default the
            video; (1, 1) for a box from 0 to 1.
    """

    frame_index: int
    form: str
    value: Any = field(repr=False)
    size: tuple[int, int] | None = None


@dataclass
class TrackedObject:
    """One object of an export.

    Attributes:
        row_id (`str`): Identity of its row, unique in the export.
        object_id (`str`): What the export calls it.
        video ([`VideoInfo`]): Its video.
        shapes (`Sequence[Shape]`): The frames in which it is visible.
        label (`str`, *optional*): Its class.
        texts (`Mapping[str, str]`): Texts of the export that an answer can be taken from, by field.
        defects (`list[Defect]`): What was found wrong so far.
    """

    row_id: str
    object_id: str
    video: VideoInfo
    shapes: Sequence[Shape]
    label: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A row to be: where it stands in the export, and how to make it.

    Attributes:
        where (`str`): Words that errors start with, naming file and place.
        row_id (`str`): Identity of the row.
        build (`Callable`): Returns the row (None where nothing can be kept) and its defects. It may raise
            [`RecordError`].
    """

    where: str
    row_id: str
    build: Callable[[], tuple[dict[str, Any] | None, list[Defect]]]


def import_rows(
    candidates: Iterable[Candidate], *, bad_rows: str = "raise", report: DefectReport | None = None
) -> Iterator[dict[str, Any]]:
    """Make the rows one after the other and treat bad ones as the policy says.

    Args:
        candidates (`Iterable[Candidate]`): Rows to be.
        bad_rows (`str`, *optional*, defaults to `"raise"`): `"raise"` stops at the first broken row, `"skip"` leaves
            broken rows out, `"keep"` keeps what is whole of them; the last two count and list them.
        report ([`DefectReport`], *optional*): Where defects are counted.

    Yields:
        `dict`: Rows of the conversation schema.

    Raises:
        RecordError: If a row is broken and `bad_rows="raise"`.
        ValueError: If the file itself is broken, whatever the policy.
    """
    check_bad_rows(bad_rows)
    report = DefectReport() if report is None else report
    seen: set[str] = set()
    for position, candidate in enumerate(candidates):
        try:
            row, defects = candidate.build()
        except RecordError as error:
            row, defects = None, error.defects
        if candidate.row_id in seen:
            defects = [*defects, make_defect("duplicate_id", f"the id {candidate.row_id!r} stands before.")]
        seen.add(candidate.row_id)
        fatal = [defect for defect in defects if defect.is_fatal]
        if fatal and bad_rows == "raise":
            raise RecordError(fatal, candidate.where, 'Mend the export, or pass `bad_rows="skip"` (--bad-rows skip).')
        report.num_rows += 1
        report.add(defects, where=candidate.where)
        if row is None or (fatal and bad_rows == "skip"):
            report.skip(defects, position=position, row_id=candidate.row_id, file=candidate.where)
            continue
        yield row


def object_row(
    found: TrackedObject, options: ImportOptions, *, source: str
) -> tuple[dict[str, Any] | None, list[Defect]]:
    """Make the row of one object: a question about it, the answer where there is one, and its region.

    Args:
        found ([`TrackedObject`]): The object.
        options ([`ImportOptions`]): Question, answer and stride.
        source (`str`): Name of the format.

    Returns:
        `tuple[dict | None, list[Defect]]`: The row, None where no frame can be kept, and all defects.
    """
    defects = list(found.defects)
    frames = _frames(found, options.stride, defects)
    question, answer = options.question, found.label
    if options.answer_field is not None:
        answer = found.texts.get(options.answer_field)
    if LABEL_MARK in question:
        if found.label is None:
            defects.append(make_defect("missing_field", f"the question asks for {LABEL_MARK}, but there is none."))
        question = question.replace(LABEL_MARK, found.label or "object")
    messages = [{"role": "user", "content": f"{MARKS['video']}\n{question}"}]
    answer = (answer or "").strip()
    if answer:
        messages.append({"role": "assistant", "content": answer})
    if find_marks((found.label or "") + answer):
        message = f"label or answer spell one of the marks {', '.join(MARKS.values())}. Rename it in the export."
        return None, [*defects, make_defect("mark_in_answer", message)]
    if not any(frame["rle"] or frame["box"] for frame in frames):
        if not any(defect.is_fatal for defect in defects):
            defects.append(make_defect("region_without_mask", "the object is visible in no frame."))
        return None, defects
    return {
        "id": found.row_id,
        "video": found.video.name,
        "image": None,
        "messages": messages,
        "regions": [{"object_id": found.object_id, "media": 0, "frames": frames}],
        # The tools number the frames that players show, so hidden frames have no number.
        "edit_list": "apply",
        "task": None,
        "source": source,
    }, defects


def _frames(found: TrackedObject, stride: int, defects: list[Defect]) -> list[dict[str, Any]]:
    """Convert every `stride`-th shape, in the order of time; broken ones become null and a defect."""
    frames: list[dict[str, Any]] = []
    shapes = sorted(found.shapes, key=lambda shape: shape.frame_index)
    for before, shape in zip(shapes, shapes[1:], strict=False):
        if before.frame_index == shape.frame_index:
            message = f"frame {shape.frame_index} is annotated twice. Keep one of the two in the export."
            defects.append(make_defect("duplicate_frame", message))
            return []
    num_frames = found.video.num_frames
    for shape in shapes[::stride]:
        index = shape.frame_index
        if index < 0 or (num_frames is not None and index >= num_frames):
            message = f"frame {index} lies outside the video of {count_of(num_frames, 'frame')}. Pass the one that was annotated."
            defects.append(make_defect("frame_outside_video", message))
            continue
        try:
            entry = frame_entry(shape, found.video, check=False)
        except FrameError as error:
            defects.append(error.defect)
            entry = null_frame(index)
        if entry is not None:
            frames.append(entry)
    masks = [entry for entry in frames if entry["rle"]]
    for position, reason in broken_rles([entry["rle"] for entry in masks]):
        defects.append(make_defect("broken_rle", f"frame {masks[position]['frame_index']}: {reason}"))
        masks[position]["rle"] = None
    return frames


def frame_entry(shape: Shape, video: VideoInfo, *, check: bool = True) -> dict[str, Any] | None:
    """Convert a shape into an entry of a region's `frames`: boxes stay boxes, all else becomes run lengths.

    Boxes are cut at the border of the picture, which leaves the pixels they hold unchanged.

    Args:
        shape ([`Shape`]): The shape.
        video ([`VideoInfo`]): Its video.
        check (`bool`, *optional*, defaults to `True`): Read compressed run lengths. Pass `False` to have `broken_rles`
            check many at once.

    Returns:
        `dict`, *optional*: `frame_index`, `rle`, `box` and `size`; None where no pixel is left.

    Raises:
        FrameError: If it is broken, or its picture cannot be a frame of the video; its `kind` says which.
    """
    where = f"frame {shape.frame_index}"
    size = tuple(shape.size or video.size or ())
    if not size:
        message = f"{where}: the export states no picture size and the video is missing. Pass the video."
        raise FrameError(f"broken_{shape.form}", message)
    stated = None if size == video.size else list(size)
    given = {"box" if shape.form == "box" else "mask": shape.value}
    entry = read_frame(shape.frame_index, **given, size=stated, picture=size, where=where, check=check)
    _check_same_picture(size, video, where, f"broken_{shape.form}")
    if entry["box"] is not None:
        entry["box"] = _clip_box(entry["box"], size)
        return entry if entry["box"] else None
    rle = entry["rle"]
    if rle is None:
        return None
    if tuple(rle["size"]) != size:
        message = (
            f"{where}: the mask has height {rle['size'][0]} and width {rle['size'][1]}, but the picture has {size[0]} "
            f"and {size[1]}. The size of a mask is [height, width] of its picture."
        )
        raise FrameError("broken_rle", message)
    try:
        return None if rle_is_empty(rle) else entry
    except ValueError as error:
        raise FrameError("broken_rle", f"{where}: {error}") from error


def _check_same_picture(size: tuple[int, int], video: VideoInfo, where: str, kind: str) -> None:
    """Refuse a picture of another shape than the video."""
    if video.size is None or size in ((1, 1), video.size):
        return
    ratio = (size[1] / size[0]) / (video.width / video.height)
    if max(ratio, 1 / ratio) > 1 + ASPECT_TOLERANCE:
        raise FrameError(
            kind,
            f"{where}: the export speaks of pictures of height {size[0]} and width {size[1]}, but the video has "
            f"{video.height} and {video.width}. Pass the video that was annotated.",
        )


def _clip_box(box: Sequence[float], size: tuple[int, int]) -> list[float] | None:
    """Cut a box at the border of its picture; None where nothing is left."""
    height, width = size
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[2], float(width)), min(box[3], float(height))
    return [left, top, right, bottom] if left < right and top < bottom else None


def find_video(videos: VideoFolder, names: Sequence[str], defects: list[Defect], *, keep: bool) -> VideoInfo:
    """Find a video, or go on without it where the policy is to keep what is whole.

    Args:
        videos ([`VideoFolder`]): Where to look.
        names (`Sequence[str]`): Names of the video, the most exact one first.
        defects (`list[Defect]`): Where a missing video is added.
        keep (`bool`): Go on without the video.

    Returns:
        [`VideoInfo`].

    Raises:
        RecordError: If there is no such video and `keep` is off, or its name leads out of the folder.
    """
    names = [name for name in names if name]
    try:
        return videos.find(names)
    except RecordError as error:
        if not keep or not names or any(defect.kind == "unsafe_path" for defect in error.defects):
            raise
        defects.extend(error.defects)
        return VideoInfo(names[0])


def fail(kind: str, message: str) -> RecordError:
    """Make the error for an object that cannot be used.

    Args:
        kind (`str`): One of the kinds of defects.
        message (`str`): What is wrong and what to do.

    Returns:
        [`RecordError`], to be raised.
    """
    return RecordError([Defect(kind, message, True)])


__all__ = [
    "DEFAULT_QUESTION",
    "Candidate",
    "ImportOptions",
    "Shape",
    "TrackedObject",
    "fail",
    "find_video",
    "frame_entry",
    "import_rows",
    "object_row",
]
