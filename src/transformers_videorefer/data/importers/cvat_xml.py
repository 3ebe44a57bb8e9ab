"""Reads the XML of CVAT track by track, in bounded memory, and refuses entities, which can blow a small file up."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat


_CHUNK_BYTES = 1 << 16
_SHAPES = ("box", "polygon", "polyline", "points", "mask", "cuboid", "ellipse", "skeleton")
_TASK_TEXTS = ("id", "name", "source", "subset", "size", "start_frame", "stop_frame", "frame_filter")


@dataclass(frozen=True)
class CvatShape:
    """One element of a track, its attributes as text.

    Attributes:
        kind (`str`): `"box"`, `"polygon"`, `"mask"` and the like.
        line (`int`): Line of the file, from 1.
        attrs (`dict[str, str]`): Attributes of the XML element.
        attributes (`dict[str, str]`): What the annotator filled in, by name.
    """

    kind: str
    line: int
    attrs: dict[str, str] = field(repr=False)
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def is_key_frame(self) -> bool:
        """`bool`: The annotator set this frame; files written by hand may not say."""
        return self.attrs.get("keyframe", "1") == "1"


@dataclass(frozen=True)
class CvatTrack:
    """One object.

    Attributes:
        track_id (`str`): Its id, or the line it stands on where it has none.
        label (`str`): Its class.
        task_id (`str`): Its task, in the export of a project.
        line (`int`): Line of the file, from 1.
        shapes (`list[CvatShape]`): Its elements.
    """

    track_id: str
    label: str
    task_id: str
    line: int
    shapes: list[CvatShape] = field(default_factory=list)


@dataclass
class CvatTask:
    """What the head of the file says about a task or job.

    Attributes:
        task_id (`str`): Its id where the file holds several, otherwise empty.
        name (`str`): Name of the task.
        source (`str`): File name of the video.
        size (`tuple[int, int]`, *optional*): [height, width] of the video in pixels.
        stop_frame (`int`, *optional*): Last frame, counted in the source video.
        step (`int`): Distance of the frames that were annotated.
        frame_offset (`int`): What the file adds to every frame number of the task.
    """

    task_id: str = ""
    name: str = ""
    source: str = ""
    size: tuple[int, int] | None = None
    stop_frame: int | None = None
    step: int = 1
    frame_offset: int = 0


def read_tracks(path: Path) -> Iterator[tuple[CvatTrack, CvatTask]]:
    """Read the tracks of a file.

    Args:
        path (`Path`): The XML file.

    Yields:
        `tuple[CvatTrack, CvatTask]`: Each track with its task.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no XML, holds entities, or is another format of CVAT; the message names line and column.
    """
    handler = _Handler(path.name)
    with open(path, "rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            try:
                handler.parser.Parse(chunk, not chunk)
            except expat.ExpatError as error:
                raise ValueError(
                    f"{path.name}, line {error.lineno}, column {error.offset + 1}: no XML: "
                    f"{expat.ErrorString(error.code)}. Unpack and pass annotations.xml of an export "
                    '"CVAT for video 1.1".'
                ) from error
            except LookupError as error:
                raise ValueError(f"{path.name}, line 1: {error}. Save the file as UTF-8.") from error
            for track in handler.finished:
                yield track, handler.task_of(track)
            handler.finished.clear()
            if not chunk:
                return


class _Handler:
    """Collects what the parser meets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.finished: list[CvatTrack] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._refuse_entity
        self._open: list[str] = []
        self._text: list[str] = []
        self._attribute = ""
        self._track: CvatTrack | None = None
        self._heads: list[dict[str, str]] = []
        self._outer_head: dict[str, str] = {}
        self._tasks: dict[str, CvatTask] | None = None

    def task_of(self, track: CvatTrack) -> CvatTask:
        """Find the task of a track; the only one where the file has no more."""
        if self._tasks is None:
            self._tasks = _read_heads(self._heads, self._outer_head, self.name)
        if len(self._tasks) > 1 and track.task_id not in self._tasks:
            raise ValueError(
                f"{self.name}, line {track.line}: `task_id` {track.task_id!r} is none of the tasks "
                f"{', '.join(self._tasks)}. Export the file again."
            )
        return self._tasks.get(track.task_id) or next(iter(self._tasks.values()))

    def _refuse_entity(self, *declaration: object) -> None:
        raise ValueError(
            f"{self.name}, line {self.parser.CurrentLineNumber}: the file declares an entity, which no export of CVAT "
            "does and which can fill the memory. Remove the DOCTYPE."
        )

    def _start(self, tag: str, attrs: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        parent = self._open[-1] if self._open else None
        if parent is None and tag != "annotations":
            raise ValueError(
                f'{self.name}, line {line}: the file begins with <{tag}>, not <annotations>. Export "CVAT for video 1.1".'
            )
        if tag == "image" and parent == "annotations":
            raise ValueError(
                f'{self.name}, line {line}: the file is "CVAT for images", where objects have no tracks. '
                'Export "CVAT for video 1.1".'
            )
        if tag in ("task", "job") and parent in ("meta", "tasks"):
            self._heads.append({})
        elif tag == "track":
            self._track = CvatTrack(
                attrs.get("id", f"line{line}"), attrs.get("label", ""), attrs.get("task_id", ""), line
            )
        elif self._track is not None and tag in _SHAPES and parent == "track":
            self._track.shapes.append(CvatShape(tag, line, attrs))
        elif tag == "attribute":
            self._attribute = attrs.get("name", "")
        self._open.append(tag)
        self._text = []

    def _characters(self, text: str) -> None:
        self._text.append(text)

    def _end(self, tag: str) -> None:
        self._open.pop()
        parent = self._open[-1] if self._open else None
        text = "".join(self._text).strip()
        if tag == "track" and self._track is not None:
            self.finished.append(self._track)
            self._track = None
        elif tag == "attribute" and self._track is not None and self._track.shapes and parent in _SHAPES:
            self._track.shapes[-1].attributes[self._attribute] = text
        elif parent in ("task", "job") and tag in _TASK_TEXTS:
            self._heads[-1][tag] = text
        elif parent == "original_size" or (parent == "meta" and tag == "source"):
            # Older files have both beside the task, newer ones inside.
            inside = self._open[-2:-1] and self._open[-2] in ("task", "job")
            head = self._heads[-1] if inside else self._outer_head
            head[tag] = text
        self._text = []


def _read_heads(heads: list[dict[str, str]], outer: dict[str, str], name: str) -> dict[str, CvatTask]:
    """Turn the texts of the tasks into numbers, and work out what the file adds to their frame numbers."""
    tasks: dict[str, CvatTask] = {}
    offset, subset = 0, None
    for head in heads or [{}]:
        step = 1
        for part in head.get("frame_filter", "").replace(" ", "").split("&"):
            if part.startswith("step="):
                step = max(1, _whole(part.removeprefix("step="), "frame_filter", name))
        height, width = (_whole({**outer, **head}.get(side), side, name) for side in ("height", "width"))
        task = CvatTask(
            task_id=head.get("id", "") if len(heads) > 1 else "",
            name=head.get("name", ""),
            source=head.get("source") or outer.get("source", ""),
            size=(height, width) if height and width else None,
            step=step,
        )
        if head.get("stop_frame"):
            task.stop_frame = _whole(head["stop_frame"], "stop_frame", name)
        if head.get("subset") != subset:
            offset, subset = 0, head.get("subset")
        task.frame_offset = offset
        offset += _whole(head.get("start_frame"), "start_frame", name) + step * _whole(head.get("size"), "size", name)
        tasks[head.get("id", "")] = task
    return tasks


def _whole(text: str | None, field_name: str, name: str) -> int:
    """Read a whole number; 0 where the file does not say."""
    if not text:
        return 0
    if not text.isdecimal() or len(text) > 12:
        raise ValueError(f"{name}: `{field_name}` in the head must be a whole number, got {text[:40]!r}.")
    return int(text)


__all__ = ["CvatShape", "CvatTask", "CvatTrack", "read_tracks"]
