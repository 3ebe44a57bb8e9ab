"""Annotations of other tools as rows of our schema: COCO for video, CVAT, Label Studio, DAVIS, and rows as JSON lines."""

from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from transformers_videorefer.data.defects import DefectReport

from .coco_video import read_coco_video
from .common import DEFAULT_QUESTION, Candidate, ImportOptions, import_rows
from .cvat_video import read_cvat_video
from .davis import read_davis
from .jsonl import read_jsonl
from .label_studio import read_label_studio
from .videos import VideoFolder


FORMATS: dict[str, Callable[[Path, VideoFolder, ImportOptions], Iterator[Candidate]]] = {
    "coco-video": read_coco_video,
    "cvat-video": read_cvat_video,
    "label-studio": read_label_studio,
    "davis": read_davis,
    "jsonl": read_jsonl,
}


def import_annotations(
    source_format: str,
    path: str | PathLike,
    videos: str | PathLike,
    *,
    options: ImportOptions | None = None,
    report: DefectReport | None = None,
) -> Iterator[dict[str, Any]]:
    """Read the annotations of another tool as rows, one object each.

    Args:
        source_format (`str`): One of `FORMATS`.
        path (`str` or `os.PathLike`): The exported file; for `"davis"` a folder.
        videos (`str` or `os.PathLike`): Folder of the videos; rows name them relative to it.
        options ([`ImportOptions`], *optional*): Question, answer, stride and the policy on bad rows.
        report ([`DefectReport`], *optional*): Where defects and skipped rows are counted and listed.

    Yields:
        `dict`: Rows of the conversation schema. A row without an answer ends with the turn of the user.

    Raises:
        RecordError: If a row is broken and the policy is `"raise"`.
        ValueError: If the format is unknown or the file is broken.
        OSError: If the file or the folder of videos does not exist.
    """
    if source_format not in FORMATS:
        raise ValueError(f"There is no format {source_format!r}. Pass one of {', '.join(FORMATS)}.")
    options = ImportOptions() if options is None else options
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}. Check the path.")
    candidates = FORMATS[source_format](path, VideoFolder(videos), options)
    yield from import_rows(candidates, bad_rows=options.bad_rows, report=report)


__all__ = ["DEFAULT_QUESTION", "FORMATS", "ImportOptions", "import_annotations"]
