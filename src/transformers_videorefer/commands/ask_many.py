"""`videorefer ask --input`: many questions from a file of rows, an answer line as soon as each is ready."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers_videorefer.evaluation.answering import Row, VideoReferAnswerer
from transformers_videorefer.evaluation.journal import (
    LineWriter,
    check_settings,
    drop_unfinished_line,
    only_writer,
    read_lines,
)
from transformers_videorefer.evaluation.runner import default_num_workers, hide_folders, iterate_answers, plan_batches

from .eval_models import load_checkpoint
from .progress import progress_bar, quiet_libraries, report, report_when_slow


# Flags of a single question, with what they are when they are not given.
_SINGLE_ONLY = {
    "video": None,
    "question": None,
    "region_flags": [],
    "region_size": None,
    "start": None,
    "end": None,
    "fps": None,
    "sample": False,
    "seed": None,
    "stream": False,
    "json": False,
    "save": None,
}
_NAMES = {"video": "VIDEO", "question": "QUESTION", "region_flags": "regions (--box and so on)"}


def add_many_arguments(group: Any) -> None:
    """Declare the flags.

    Args:
        group (`argparse._ArgumentGroup`): Where they are added.
    """
    group.add_argument("--input", type=Path, metavar="FILE.jsonl", help="rows of a dataset, one in each line")
    group.add_argument("--output", type=Path, metavar="FILE.jsonl", help="where the answers go; goes on where it ends")
    group.add_argument("--videos", metavar="DIR", help="folder that paths in rows are relative to")
    group.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows at a time (default: 8)")
    group.add_argument(
        "--num-workers", type=int, metavar="N", help="readers of videos (default: as many as processors, at most 8)"
    )


class RequestFile(Sequence[Row]):
    """Rows of a file of JSON lines, read when they are looked up: files may be larger than the memory.

    Looking up a line that is no JSON object raises a ValueError.

    Args:
        path (`Path`): The file.

    Attributes:
        ids (`list`): The `id` of each row, None where it has none.
        groups (`list[str]`): The video or image of each row; rows without one form a group of their own.
    """

    def __init__(self, path: Path):
        self._path = path
        self._places: list[tuple[int, int, int]] = []
        self.ids: list[Any] = []
        self.groups: list[str] = []
        with path.open("rb") as file:
            offset = 0
            for number, text in enumerate(file, start=1):
                if text.strip():
                    self._places.append((offset, len(text), number))
                    self._note(text)
                offset += len(text)

    def _note(self, text: bytes) -> None:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        row = row if isinstance(row, dict) else {}
        self.ids.append(row.get("id"))
        self.groups.append(str(row.get("video") or row.get("image") or ""))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Row:
        offset, length, number = self._places[index]
        with self._path.open("rb") as file:  # anew each time: loader workers must not share a position
            file.seek(offset)
            text = file.read(length)
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Line {number} is no JSON: {error}. Write one row in each line.") from error
        if not isinstance(row, dict):
            raise ValueError(f"Line {number} is no JSON object. Write one row in each line.")
        return row


def answer_requests(args: argparse.Namespace) -> None:
    """Answer all rows that the output has no line for yet.

    Args:
        args (`argparse.Namespace`): Flags of `videorefer ask`.

    Raises:
        ValueError: If flags contradict each other, or the output belongs to other requests or settings.
        OSError: If a file or the model cannot be read.
    """
    if args.num_workers is None:
        args.num_workers = default_num_workers(8)
    _check_flags(args)
    quiet_libraries(args.debug)
    # Loader workers are forked after the tokenizer was used; it would warn about that in every one of them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with report_when_slow(f"reading {args.input}"):
        rows = RequestFile(args.input)
    with only_writer(args.output.with_name(f"{args.output.name}.lock"), args.output):
        num_answered, num_failed, num_before = _answer_rows(args, rows)
    earlier = f", {num_before} were there before" if num_before else ""
    report(f"{args.output}: {num_answered} answered, {num_failed} failed{earlier}.")


def _answer_rows(args: argparse.Namespace, rows: RequestFile) -> tuple[int, int, int]:
    """Answer what is open; return how many rows were answered, failed, and had a line before."""
    model, processor, identity = load_checkpoint(args)
    done = _open_output(args, {"model": identity, "settings": _settings(args)}, rows)
    answerer = VideoReferAnswerer(
        model,
        processor,
        data_root=args.videos,
        num_frames=args.frames,
        num_region_tokens=args.region_tokens,
        num_region_frames=args.region_frames,
        empty_masks=args.empty_masks,
        edit_list=args.edit_list,
        max_new_tokens=args.max_new_tokens,
    )
    batches = [
        batch for batch in plan_batches(rows.groups, args.batch_size) if any(index not in done for index in batch)
    ]
    folders = () if args.videos is None else (args.videos, os.path.abspath(args.videos))
    num_answered = num_failed = 0
    with (
        LineWriter(args.output) as writer,
        progress_bar(len(rows) - len(done), task="answering", unit="row") as bar,
    ):
        for outcomes in iterate_answers(answerer, rows, batches, num_workers=args.num_workers):
            for index, outcome in outcomes:
                if index in done:
                    continue
                if outcome.error is None:
                    result = {"answer": outcome.answer}
                else:
                    result = {"error": hide_folders(outcome.error, folders)}
                writer.write({"index": index, "id": rows.ids[index], **result})
                num_answered += outcome.error is None
                num_failed += outcome.error is not None
                bar.update()
    return num_answered, num_failed, len(done)


def _check_flags(args: argparse.Namespace) -> None:
    """Find what is wrong with the flags alone."""
    if args.output is None:
        raise ValueError("--output is missing. Pass the file that the answers go to.")
    given = [name for name, absent in _SINGLE_ONLY.items() if getattr(args, name) != absent]
    if given:
        named = ", ".join(_NAMES.get(name, f"--{name.replace('_', '-')}") for name in given)
        raise ValueError(f"{named}: this goes with a single question, not with --input. Drop it.")
    for flag, value, least in (
        ("--batch-size", args.batch_size, 1),
        ("--num-workers", args.num_workers, 0),
        ("--max-new-tokens", args.max_new_tokens, 1),
    ):
        if value < least:
            raise ValueError(f"`{flag} {value}`: pass at least {least}.")
    if not args.input.is_file():
        raise ValueError(f"`--input {args.input}`: there is no such file. Check the path.")
    if args.output.exists() and args.output.samefile(args.input):
        raise ValueError(f"`--output {args.output}` is the file of the requests. Pass another one.")
    if args.videos is not None and not Path(args.videos).is_dir():
        raise ValueError(f"`--videos {args.videos}`: there is no such folder. Check the path.")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("`videorefer ask` runs in one process. Split the requests, one file for each process.")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """List what the answers depend on."""
    names = ("frames", "region_tokens", "empty_masks", "edit_list", "max_new_tokens", "dtype", "region_frames")
    return {name: getattr(args, name) for name in names}


def _open_output(
    args: argparse.Namespace, settings: Mapping[str, Any], rows: RequestFile
) -> dict[int, dict[str, Any]]:
    """Find the rows that are answered already, and refuse an output of other requests or settings."""
    beside = args.output.with_name(f"{args.output.name}.run.json")
    if not args.output.exists():
        beside.unlink(missing_ok=True)
    check_settings(beside, settings, what="--output")
    drop_unfinished_line(args.output)
    done = read_lines(args.output)
    for index, line in done.items():
        if index >= len(rows) or line.get("id") != rows.ids[index]:
            raise ValueError(
                f"{args.output} answers row {index} with the id {line.get('id')!r}, which {args.input} does not have "
                "there. Pass the requests that it was begun with (more may stand behind them), or another --output."
            )
    return done
