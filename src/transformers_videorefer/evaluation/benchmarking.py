"""One benchmark run in a folder: resumable, by one process or several."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from .answering import Answerer
from .benches import BenchSamples
from .journal import LineWriter, check_settings, drop_unfinished_line, only_writer, read_lines, to_text, write_whole
from .runner import Outcome, hide_folders, iterate_answers, plan_batches


try:
    from accelerate import PartialState
except ImportError:  # one process needs nothing of it
    PartialState = None

SETTINGS_FILE = "run.json"
PREDICTIONS_FILE = "predictions.jsonl"
_PARTS = "predictions.rank-*.jsonl"
_LOCK, _LOCKS = "rank-{:05d}.lock", "rank-*.lock"
# Ranks wait for each other at the end; the slowest may have hours of work left.
_PATIENCE = timedelta(days=7)


class Ranks:
    """The processes of a run that `accelerate launch` or `torchrun` started; one process without them.

    Args:
        cpu (`bool`, *optional*, defaults to `False`): Stay on the CPU.

    Raises:
        ImportError: If there are several processes and `accelerate` is missing.
    """

    def __init__(self, *, cpu: bool = False):
        self._state = None
        self._launcher = os.getppid()
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            if PartialState is None:
                raise ImportError("Several processes need `accelerate`. Install it with `pip install accelerate`.")
            self._state = PartialState(cpu=cpu, timeout=_PATIENCE)

    @property
    def rank(self) -> int:
        """`int`: Number of this process."""
        return 0 if self._state is None else self._state.process_index

    @property
    def num_processes(self) -> int:
        """`int`: How many there are."""
        return 1 if self._state is None else self._state.num_processes

    @property
    def device(self) -> torch.device | None:
        """`torch.device`: Where this process should run its model; None leaves the choice open."""
        return None if self._state is None else self._state.device

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def check_launcher(self) -> None:
        """Make sure that the launcher still watches over the processes.

        Raises:
            OSError: If it has ended. A launcher that is killed takes nothing with it: without this check its processes
                would go on, and the first to fail would leave the others waiting.
        """
        if self.num_processes > 1 and os.getppid() != self._launcher:
            raise ChildProcessError(
                f"The launcher of process {self.rank} has ended. What is answered so far is kept; start the command again."
            )


@contextmanager
def sole_run(folder: Path, ranks: Ranks | None = None) -> Iterator[None]:
    """Keep other runs out of a folder. It is made if there is none.

    Every process of a run has a lock of its own, because it may outlive the first one and go on to write.

    Args:
        folder (`Path`): Folder of the run.
        ranks ([`Ranks`], *optional*): The processes, all of which must come here; this one alone by default.

    Raises:
        ValueError: If another run is in the folder; the message names its process.
        OSError: If the folder cannot be made.
    """
    rank = 0 if ranks is None else ranks.rank
    own = folder / _LOCK.format(rank)
    with ExitStack() as held:
        if rank == 0:
            held.enter_context(only_writer(own, folder))
            for other in set(folder.glob(_LOCKS)) - {own}:
                with only_writer(other, folder):  # left by a process that was killed, or still held
                    pass
        if ranks is not None:
            ranks.wait()
        if rank != 0:
            held.enter_context(only_writer(own, folder))
        yield


def answer_bench(
    answerer: Answerer,
    samples: BenchSamples,
    folder: Path,
    settings: dict[str, Any],
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    ranks: Ranks | None = None,
    hide: Sequence[str | os.PathLike] = (),
    retry_errors: bool = False,
    progress: Callable[[int], AbstractContextManager[Any]] | None = None,
) -> list[dict[str, Any]] | None:
    """Answer all samples that the folder has no line of yet, and put the lines of all processes together.

    A line is in the file as soon as its sample is finished. A run that was killed goes on where it stopped, with any
    number of processes, and gives what it would have given undisturbed: samples are always answered beside the same
    others. Two runs in one folder would mix their lines: hold [`sole_run`] around this call where that can happen.

    Args:
        answerer ([`Answerer`]): What answers.
        samples ([`BenchSamples`]): The benchmark.
        folder (`Path`): Folder of the run, made if there is none.
        settings (`dict[str, Any]`): What the answers depend on; a run with others is not continued.
        batch_size (`int`, *optional*, defaults to 1): Samples answered together.
        num_workers (`int`, *optional*, defaults to 0): Loader workers of each process.
        ranks ([`Ranks`], *optional*): The processes; this one alone by default.
        hide (`Sequence[str]`, *optional*): Folders whose names are taken out of error messages.
        retry_errors (`bool`, *optional*, defaults to `False`): Answer samples again whose lines are errors.
        progress (`Callable`, *optional*): Makes a progress bar for a number of samples.

    Returns:
        `list[dict]`: All lines in the order of the benchmark; None in processes other than the first.

    Raises:
        ValueError: If the folder holds a run with other settings; the message names each difference.
        OSError: If the folder cannot be written, or the launcher of several processes has ended.
    """
    ranks = ranks or Ranks()
    if ranks.rank == 0:
        _open_folder(folder, settings)
    ranks.wait()
    done = _collect(folder)
    if retry_errors:
        done = {index: line for index, line in done.items() if line.get("error") is None}
    ranks.wait()  # nobody writes before everybody has read
    batches = plan_batches(samples.groups(), batch_size)
    unfinished = [batch for batch in batches if any(index not in done for index in batch)]
    pending = unfinished[ranks.rank :: ranks.num_processes]
    num_open = sum(index not in done for batch in pending for index in batch)
    make_bar = progress or nullcontext
    with LineWriter(folder / f"predictions.rank-{ranks.rank:05d}.jsonl") as writer, make_bar(num_open) as bar:
        for outcomes in iterate_answers(answerer, samples, pending, num_workers=num_workers):
            new = [(index, outcome) for index, outcome in outcomes if index not in done]
            for index, outcome in new:
                writer.write(samples.describe(index) | _result(outcome, hide))
            if progress is not None:
                bar.update(len(new))
            ranks.check_launcher()
    ranks.wait()
    return _merge(folder, len(samples)) if ranks.rank == 0 else None


def _open_folder(folder: Path, settings: dict[str, Any]) -> None:
    check_settings(folder / SETTINGS_FILE, settings, what="--output")
    for part in folder.glob(_PARTS):
        drop_unfinished_line(part)


def _result(outcome: Outcome, hide: Sequence[str | os.PathLike]) -> dict[str, Any]:
    """Write an outcome; where files of this machine lie is nobody's business in a table of results."""
    if outcome.error is None:
        return {"prediction": outcome.answer}
    return {"prediction": None, "error": hide_folders(outcome.error, hide)}


def _collect(folder: Path) -> dict[int, dict[str, Any]]:
    """Read all lines that there are; of a sample that was answered again the last line counts."""
    lines = read_lines(folder / PREDICTIONS_FILE)
    for part in sorted(folder.glob(_PARTS)):
        for index, line in read_lines(part).items():
            # A repeated error is no better than an answer that another process had.
            if index not in lines or lines[index].get("error") is not None:
                lines[index] = line
    return lines


def _merge(folder: Path, num_samples: int) -> list[dict[str, Any]]:
    """Write one file of all parts, in the order of the benchmark, and remove the parts."""
    lines = _collect(folder)
    missing = [index for index in range(num_samples) if index not in lines]
    if missing:
        raise OSError(
            f"{folder} lacks the lines of {len(missing)} samples, the first being {missing[0]}. All processes must see "
            "the same folder; start the command again to answer them."
        )
    ordered = [lines[index] for index in range(num_samples)]
    write_whole(folder / PREDICTIONS_FILE, "".join(map(to_text, ordered)))
    for part in folder.glob(_PARTS):
        part.unlink()
    return ordered


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a finished run.

    Args:
        folder (`Path`): Its folder.

    Returns:
        `tuple[dict, list[dict]]`: Its settings, and its lines in the order of the benchmark.

    Raises:
        OSError: If the folder holds no finished run.
    """
    settings, predictions = folder / SETTINGS_FILE, folder / PREDICTIONS_FILE
    if not settings.is_file() or not predictions.is_file():
        state = "an unfinished run; start its command again to finish it" if settings.is_file() else "no run"
        raise FileNotFoundError(f"{folder} holds {state}. Pass the --output folder of a finished `videorefer eval`.")
    lines = read_lines(predictions)
    return json.loads(settings.read_text(encoding="utf-8")), [lines[index] for index in sorted(lines)]
