"""The benchmarks as samples of a run: rows that can be asked, and those that count although nothing can be asked."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers_videorefer.data.defects import Defect
from transformers_videorefer.data.rows.hc_stvg import salvage_hc_stvg
from transformers_videorefer.data.rows.record_masks import has_polygons
from transformers_videorefer.data.rows.records import salvage
from transformers_videorefer.data.sources.row_source import BROKEN, ENTRY, ROW, RowSource, SourceItem, open_source
from transformers_videorefer.data.synthetic.clips import (
    SPLIT_SEEDS,
    Clip,
    bench_d_rows,
    bench_q_rows,
    conversation_rows,
    make_clip,
    write_clip,
)

from .answering import Row


BENCHES = ("bench-d", "bench-q", "hc-stvg", "synthetic")
QUESTION, DESCRIPTION, OPEN_QUESTION = "question", "description", "open question"
SURPLUS_REGIONS = ("error", "ignore")
UNKNOWN_TYPE = "unknown"
SYNTHETIC_SPLIT = "test"
_RECORD_KINDS = {"bench-d": "bench_d", "bench-q": "bench_q", "hc-stvg": "bench_d"}
# Names that the published files have in the folder that they come in.
_PUBLISHED_FILES = {"bench-d": "VideoRefer-Bench-D.json", "bench-q": "VideoRefer-Bench-Q.json"}
_BENCH_SPLIT = "test"
_MARK = "<region>"
_MAX_REASONS = 3

VideoSize = Callable[[str], tuple[int, int] | None]


@dataclass(frozen=True)
class Sample:
    """One sample of a benchmark.

    Attributes:
        row (`dict`): The row; of a sample that cannot be read only what a result line needs.
        error (`str`, *optional*): Why nothing can be asked about it.
    """

    row: dict[str, Any]
    error: str | None = None


class BenchSamples(Sequence[Row]):
    """The samples of a benchmark, in the order of its file. A sample that cannot be read raises when it is looked up.

    Args:
        bench (`str`): Name of the benchmark.
        name (`str`): What the samples were read from.
        samples (`Sequence[Sample]`): The samples.
    """

    def __init__(self, bench: str, name: str, samples: Sequence[Sample]):
        self.bench = bench
        self.name = name
        self._samples = list(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Row:
        sample = self._samples[index]
        if sample.error is not None:
            raise ValueError(sample.error)
        return sample.row

    def groups(self) -> list[str]:
        """List what samples have in common.

        Returns:
            `list[str]`: For each sample its video; samples of one video are answered together, and are not
            independent of each other in statistics.
        """
        return [str(sample.row.get("video")) for sample in self._samples]

    def describe(self, index: int) -> dict[str, Any]:
        """Write what a result line holds beside the answer.

        Args:
            index (`int`): Number of the sample.

        Returns:
            `dict[str, Any]`: `index`, `id`, `video`, `form` ("question", "description" or "open question"), `type` and
            `question` of a question, and `reference`, what the answer is compared with.
        """
        row = self._samples[index].row
        line = {"index": index, "id": row.get("id"), "video": row.get("video")}
        if "question" in row:
            kind = row.get("type") or UNKNOWN_TYPE
            line |= {"form": QUESTION, "type": kind, "question": row["question"], "reference": row.get("answer")}
        elif "messages" in row and "answer" in row:
            question = row["messages"][0]["content"]
            line |= {"form": OPEN_QUESTION, "type": row.get("task"), "question": question, "reference": row["answer"]}
        else:
            line |= {"form": DESCRIPTION, "reference": row.get("caption")}
        return line

    def fingerprint(self) -> str:
        """Sum up the content, so that a run is not continued on other data.

        Returns:
            `str`: A checksum of all samples.
        """
        digest = hashlib.blake2b(digest_size=16)
        for sample in self._samples:
            digest.update(json.dumps([sample.row, sample.error], sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def limited(self, limit: int | None) -> "BenchSamples":
        """Keep the first samples.

        Args:
            limit (`int`, *optional*): How many; all by default.

        Returns:
            [`BenchSamples`].
        """
        return self if limit is None else BenchSamples(self.bench, self.name, self._samples[:limit])

    def counting(self, edit_list: str | None) -> "BenchSamples":
        """Count the frames of all videos one way, whatever the rows say.

        Args:
            edit_list (`str`, *optional*): "apply" or "ignore"; None leaves it to each row.

        Returns:
            [`BenchSamples`].
        """
        if edit_list is None:
            return self
        samples = [replace(sample, row={**sample.row, "edit_list": edit_list}) for sample in self._samples]
        return BenchSamples(self.bench, self.name, samples)


def load_bench(
    bench: str,
    source: str,
    *,
    surplus_regions: str = "error",
    config: str | None = None,
    split: str | None = None,
    video_size: VideoSize | None = None,
) -> BenchSamples:
    """Read a benchmark.

    A sample that cannot be read stays in the list with its error, so that the number of samples never changes.

    Args:
        bench (`str`): "bench-d", "bench-q" or "hc-stvg".
        source (`str`): The published file, the folder that it lies in, JSON lines of rows, a Parquet file or folder,
            or the Hub id of a dataset in Parquet files.
        surplus_regions (`str`, *optional*, defaults to `"error"`): What becomes of a sample with more objects than
            `<region>` marks: it counts as an error, or "ignore" leaves the last objects out, as the released scripts do.
        config (`str`, *optional*): Config of a dataset in Parquet files; may be left out where there is one.
        split (`str`, *optional*): Its split; "test" by default, or the only one.
        video_size (`Callable`, *optional*): Returns height and width of a video; asked for records with polygons and
            no size.

    Returns:
        [`BenchSamples`].

    Raises:
        ValueError: If the source holds no samples of this benchmark, or an argument is unknown.
        OSError: If the source does not exist or cannot be read.
    """
    if bench not in _RECORD_KINDS:
        raise ValueError(f"`bench` must be one of {', '.join(_RECORD_KINDS)}, got {bench!r}.")
    if surplus_regions not in SURPLUS_REGIONS:
        raise ValueError(f'`surplus_regions` must be "error" or "ignore", got {surplus_regions!r}.')
    rows = _open(bench, source, config, split)
    samples = [_read(bench, item, surplus_regions, video_size) for item in rows]
    if not any(_is_of(bench, sample.row) for sample in samples):
        wanted = "questions with `Question` and `Answer`" if bench == "bench-q" else "records with a `caption`"
        raise ValueError(
            f"{source} holds no samples of {bench}: {len(samples)} records were read, but none of them is one of its "
            f"{wanted}. Pass the file or dataset of this benchmark."
        )
    return BenchSamples(bench, Path(source).name if Path(source).exists() else source, samples)


def make_synthetic_bench(
    num_clips: int, folder: Path, *, write: bool = True, open_questions: bool = False
) -> BenchSamples:
    """Make the synthetic benchmark: clips of the toy world, each with its questions and descriptions.

    Args:
        num_clips (`int`): How many clips of the test split.
        folder (`Path`): Where their video files lie; those that are not there are made.
        write (`bool`, *optional*, defaults to `True`): Make video files. Of several processes only one should.
        open_questions (`bool`, *optional*, defaults to `False`): Add the questions without options and the
            descriptions in words of VideoRefer-700K, which have one right answer each.

    Returns:
        [`BenchSamples`]: All questions in the form of VideoRefer-Bench-Q, all descriptions in the form of
        VideoRefer-Bench-D, then the open questions as conversations without an answer.

    Raises:
        ValueError: If there is no clip.
    """
    if num_clips < 1:
        raise ValueError(f"`num_clips` is {num_clips}. Pass at least 1.")
    questions: list[dict[str, Any]] = []
    descriptions: list[dict[str, Any]] = []
    conversations: list[dict[str, Any]] = []
    for seed in range(SPLIT_SEEDS[SYNTHETIC_SPLIT], SPLIT_SEEDS[SYNTHETIC_SPLIT] + num_clips):
        clip = make_clip(seed)
        if write and not (folder / clip.name).exists():
            write_clip(clip, folder)
        questions += bench_q_rows(clip)
        descriptions += bench_d_rows(clip)
        if open_questions:
            conversations += _open_rows(clip)
    name = f"synthetic shapes, {num_clips} {SYNTHETIC_SPLIT} clips" + (
        ", open questions too" if open_questions else ""
    )
    return BenchSamples("synthetic", name, [Sample(row) for row in [*questions, *descriptions, *conversations]])


def _open_rows(clip: Clip) -> list[dict[str, Any]]:
    """Take the answers of open questions out of their conversations."""
    rows = []
    for question, row in zip(clip.questions, conversation_rows(clip), strict=True):
        if not question.options:
            asked, answered = row["messages"]
            rows.append({**row, "messages": [asked], "answer": answered["content"]})
    return rows


def _open(bench: str, source: str, config: str | None, split: str | None) -> RowSource:
    """Open a source; a dataset's test split goes before the others."""
    published = _PUBLISHED_FILES.get(bench)
    if published is not None and os.path.isdir(source) and Path(source, published).is_file():
        return open_source(str(Path(source, published)))
    if split is not None or os.path.isfile(source):
        return open_source(source, config=config, split=split)
    try:
        return open_source(source, config=config, split=_BENCH_SPLIT)
    except ValueError:
        return open_source(source, config=config)


def _read(bench: str, item: SourceItem, surplus_regions: str, video_size: VideoSize | None) -> Sample:
    """Make a sample of whatever stands at one place of a source."""
    if item.kind == BROKEN:
        return Sample({}, f"{item.where}: the line is no JSON ({item.value})")
    if item.kind == ROW:
        row, defects = dict(item.value), []
    elif item.kind == ENTRY:
        row, defects = salvage_hc_stvg(*item.value)
    else:
        size = _ask_size(item.value, video_size)
        row, defects = salvage(item.value, kind=_RECORD_KINDS[bench], video_size=size)
        row = _with_own_type(row, item.value)
    fatal = [defect for defect in defects if defect.is_fatal and defect.kind != "unknown_question_type"]
    if row is None or fatal:
        return Sample(row or {}, f"{item.where}: {_reasons(fatal)}")
    try:
        return Sample(_fit_regions(row, surplus_regions))
    except ValueError as error:
        return Sample(row, f"{item.where}: {error}")


def _ask_size(record: Any, video_size: VideoSize | None) -> tuple[int, int] | None:
    """Ask for the size of a record's video only where its polygons need it: the video has to be opened."""
    if video_size is None or not isinstance(record, Mapping) or not isinstance(record.get("video"), str):
        return None
    is_known = record.get("height") is not None and record.get("width") is not None
    return None if is_known or not has_polygons(record) else video_size(record["video"])


def _with_own_type(row: dict[str, Any] | None, record: Any) -> dict[str, Any] | None:
    """Keep a type of question that is none of the published five; benchmarks of others have their own."""
    if row is not None and row.get("type") is None and isinstance(record.get("type"), str):
        return {**row, "type": record["type"]}
    return row


def _reasons(defects: Sequence[Defect]) -> str:
    shown = "; ".join(defect.message for defect in defects[:_MAX_REASONS])
    return shown + (f"; and {len(defects) - _MAX_REASONS} more" if len(defects) > _MAX_REASONS else "")


def _fit_regions(row: dict[str, Any], policy: str) -> dict[str, Any]:
    """Settle what becomes of objects that no mark speaks of."""
    question = row.get("question")
    num_marks = question.count(_MARK) if isinstance(question, str) else 1  # a description is of one object
    regions = row.get("regions") or []
    if len(regions) <= num_marks:
        return row
    if policy == "error":
        raise ValueError(
            f"it has {len(regions)} objects but {num_marks} `{_MARK}` marks. Mend the record, or leave surplus objects "
            'out as the released scripts do (surplus_regions="ignore", part of the preset "published").'
        )
    return {**row, "regions": list(regions[:num_marks])}


def _is_of(bench: str, row: Row) -> bool:
    return isinstance(row.get("question" if bench == "bench-q" else "caption"), str)
