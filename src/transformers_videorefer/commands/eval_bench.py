"""`videorefer eval BENCH`: a model's answers to a benchmark, their scores, and the files that show them."""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TextIO

from transformers_videorefer.bundled import TINY_MODEL
from transformers_videorefer.evaluation.answering import MODES
from transformers_videorefer.evaluation.benches import (
    SURPLUS_REGIONS,
    BenchSamples,
    load_bench,
    make_synthetic_bench,
)
from transformers_videorefer.evaluation.benchmarking import PREDICTIONS_FILE, Ranks, answer_bench, sole_run
from transformers_videorefer.evaluation.provenance import describe_hardware
from transformers_videorefer.evaluation.report import format_results
from transformers_videorefer.evaluation.results import RESULTS_FILE, write_results
from transformers_videorefer.evaluation.runner import default_num_workers
from transformers_videorefer.evaluation.scoring import JudgeError, Scores, check_metrics, score_run
from transformers_videorefer.evaluation.settings import PRESETS, BenchSettings, make_settings
from transformers_videorefer.regions.selection import EMPTY_MASKS
from transformers_videorefer.video.options import EDIT_LISTS

from .ask import parse_frame_limit
from .eval_models import add_method_flags, fit_settings, load_checkpoint, make_answerer
from .eval_score import HINT, add_scoring_arguments, judge_options, quiet_metrics, report_not_judged
from .model_flags import add_loading_flags, check_device_flag
from .progress import progress_bar, quiet_libraries, report, report_when_slow


DESCRIPTION = """\
Runs a benchmark and writes predictions, scores, a table and a plot into a folder:
  videorefer eval bench-q --model DAMO-NLP-SG/VideoRefer-7B --data VideoRefer-Bench-Q.json --videos videos \\
      --preset published --mode single --output runs/bench-q
  accelerate launch --num_processes 4 examples/evaluate_bench.py bench-q ... (the same flags, on four devices)
The same command goes on with a run that was interrupted."""
SYNTHETIC = "synthetic"
CLIPS_FOLDER = "clips"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument(
        "--model", required=True, metavar="ID_OR_DIR", help=f"Hub id or folder of a checkpoint, or {TINY_MODEL}"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the run")
    _add_data_flags(parser.add_argument_group("data"))
    _add_settings_flags(parser.add_argument_group("settings, which the results name"))
    _add_machine_flags(parser.add_argument_group("machine"))
    add_scoring_arguments(parser)
    parser.add_argument("--no-judge", action="store_true", help="leave descriptions to `videorefer eval score DIR`")


def _add_data_flags(group: Any) -> None:
    group.add_argument(
        "--data",
        metavar="NAME_OR_DIR",
        help="published file or its folder, JSON lines, Parquet file or folder, or Hub id of a dataset",
    )
    group.add_argument("--config", metavar="NAME", help="config of a dataset in Parquet files")
    group.add_argument("--split", metavar="NAME", help="its split (default: test, or the only one)")
    group.add_argument("--videos", metavar="DIR", help="folder that paths of videos are relative to")
    group.add_argument("--num-clips", type=int, default=20, metavar="N", help="clips of `synthetic` (default: 20)")
    group.add_argument(
        "--open-questions", action="store_true", help="ask `synthetic` without options too, scored by exact match"
    )
    group.add_argument("--limit", type=int, metavar="N", help="only the first N samples")


def _add_settings_flags(group: Any) -> None:
    """Declare the fields of `BenchSettings`; what is not given must not replace what a preset says."""
    absent = argparse.SUPPRESS
    group.add_argument("--preset", choices=tuple(PRESETS), help="settings of the released scripts; flags go before it")
    add_method_flags(group)
    group.add_argument(
        "--mode",
        choices=MODES,
        default=absent,
        help="one frame of each region, or all annotated ones (default: multi)",
    )
    group.add_argument(
        "--num-frames", type=int, default=absent, metavar="N", help="scene frames (default: the model's, mostly 16)"
    )
    group.add_argument(
        "--num-region-tokens",
        type=int,
        default=absent,
        metavar="U",
        help="most tokens of a region (default: the model's, mostly 4)",
    )
    group.add_argument(
        "--num-region-frames",
        type=parse_frame_limit,
        default=absent,
        metavar="N|all",
        help="most frames used of a region (default: the model's, mostly 32)",
    )
    group.add_argument(
        "--empty-masks",
        choices=EMPTY_MASKS,
        default=absent,
        help="what an empty mask does (default: drop)",
    )
    group.add_argument(
        "--edit-list", choices=EDIT_LISTS, default=absent, help="how frames count (default: as each row says)"
    )
    group.add_argument(
        "--surplus-regions",
        choices=SURPLUS_REGIONS,
        default=absent,
        help="what objects without a mark do (default: error)",
    )
    group.add_argument("--max-new-tokens", type=int, default=absent, metavar="N", help="longest answer (default: 512)")
    group.add_argument(
        "--repetition-penalty", type=float, default=absent, metavar="P", help="default: the checkpoint's"
    )


def _add_machine_flags(group: Any) -> None:
    group.add_argument("--batch-size", type=int, default=8, metavar="N", help="samples at a time (default: 8)")
    group.add_argument(
        "--num-workers", type=int, metavar="N", help="readers of videos (default: as many as processors, at most 4)"
    )
    add_loading_flags(group)
    group.add_argument("--retry-errors", action="store_true", help="answer samples again that failed before")


def run(arguments: argparse.Namespace, stream: TextIO) -> int | None:
    """Run a benchmark.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer eval BENCH`.
        stream (`TextIO`): Where the table is written.

    Returns:
        `int`: Exit code 1 where the judge scored nothing; the answers stay, and earlier scores of them.

    Raises:
        ValueError: If flags contradict each other, or the folder holds a run with other settings or one that goes on.
        OSError: If the data, a folder or the model cannot be read.
        ImportError: If a library that the scores need is missing.
    """
    quiet_libraries(arguments.debug)
    # Loader workers are forked after the tokenizer was used; it would warn about that in every one of them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    given = {field.name: getattr(arguments, field.name) for field in fields(BenchSettings) if field.name in arguments}
    settings = make_settings(arguments.preset, **given)
    judge = _check_flags(arguments)
    ranks = Ranks(cpu=arguments.device == "cpu")
    check_device_flag(arguments)
    if ranks.rank == 0:
        check_metrics(arguments.eval_command, arguments.caption_metrics, arguments.caption_tokenizer)
    try:
        with sole_run(arguments.output, ranks):
            results = _run_bench(arguments, settings, given, judge, ranks)
    except JudgeError as error:
        if arguments.debug:
            raise
        return report_not_judged(error, arguments.output)
    if results is None:  # the first process goes on
        return None
    stream.write(format_results(results))
    report(f"Written to {arguments.output}: {', '.join(sorted(path.name for path in arguments.output.glob('*.*')))}")
    return None


def _run_bench(
    arguments: argparse.Namespace,
    settings: BenchSettings,
    given: Mapping[str, Any],
    judge: Mapping[str, Any] | None,
    ranks: Ranks,
) -> dict[str, Any] | None:
    """Answer, score and write; results come from the first process alone."""
    samples, videos = _load_samples(arguments, settings, ranks)
    model, processor, identity = load_checkpoint(arguments, ranks)
    settings = fit_settings(settings, given, model, processor)
    content = {
        "bench": samples.bench,
        "model": identity,
        "data": {"name": samples.name, "num_samples": len(samples), "fingerprint": samples.fingerprint()},
        "settings": {**asdict(settings), "dtype": str(model.dtype).removeprefix("torch.")},
    }
    answers_before = _finished_answers(arguments.output)
    lines = answer_bench(
        make_answerer(model, processor, videos, settings),
        samples,
        arguments.output,
        content,
        batch_size=arguments.batch_size,
        num_workers=default_num_workers(4) if arguments.num_workers is None else arguments.num_workers,
        ranks=ranks,
        hide=() if videos is None else (videos, os.path.abspath(videos)),
        retry_errors=arguments.retry_errors,
        progress=_bar_maker(ranks),
    )
    if lines is None:
        return None
    if answers_before is None or answers_before != _finished_answers(arguments.output):
        # Otherwise the run keeps saying what it was made on, and its scores until there are new ones.
        hardware = describe_hardware(model.device, ranks.num_processes)
        write_results(arguments.output, Scores(details=_counts(lines)), hardware=hardware)
    with quiet_metrics(arguments.debug):
        scores = score_run(
            samples.bench,
            lines,
            judge=judge,
            caption_metrics=arguments.caption_metrics,
            tokenizer=arguments.caption_tokenizer,
        )
    return write_results(arguments.output, scores)


def _finished_answers(folder: Path) -> bytes | None:
    """Return the answers of a run as they stand in its file, None before its results were first written."""
    path = folder / PREDICTIONS_FILE
    return path.read_bytes() if path.is_file() and (folder / RESULTS_FILE).is_file() else None


def _check_flags(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Find what is wrong with the flags alone, and name the judge."""
    is_synthetic = arguments.eval_command == SYNTHETIC
    if not is_synthetic and (arguments.data is None or arguments.videos is None):
        missing = "--data" if arguments.data is None else "--videos"
        raise ValueError(f"{missing} is missing. Only `videorefer eval {SYNTHETIC}` makes its own data.")
    if is_synthetic and arguments.data is not None:
        raise ValueError(
            f"`--data {arguments.data}`: {SYNTHETIC} makes its own data. Drop it, or choose another bench."
        )
    if arguments.open_questions and not is_synthetic:
        raise ValueError(f"--open-questions has no effect on {arguments.eval_command}. Drop it.")
    if arguments.videos is not None and not is_synthetic and not Path(arguments.videos).is_dir():
        raise ValueError(f"`--videos {arguments.videos}`: there is no such folder. Check the path.")
    if arguments.output.exists() and not arguments.output.is_dir():
        raise ValueError(f"`--output {arguments.output}`: this is a file. Name a folder.")
    for flag, value, least in (
        ("--batch-size", arguments.batch_size, 1),
        ("--num-workers", arguments.num_workers, 0),
        ("--limit", arguments.limit, 1),
        ("--num-clips", arguments.num_clips, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"`{flag} {value}`: pass at least {least}.")
    judge = judge_options(arguments, arguments.output)
    if arguments.no_judge and judge is not None:
        raise ValueError("--no-judge and --judge-model exclude each other. Drop one.")
    if arguments.eval_command == "bench-d" and judge is None and not arguments.no_judge:
        raise ValueError(f"{HINT}, or --no-judge to score later with `videorefer eval score`.")
    return judge


def _load_samples(
    arguments: argparse.Namespace, settings: BenchSettings, ranks: Ranks
) -> tuple[BenchSamples, str | None]:
    """Read or make the benchmark; of several processes only the first makes video files."""
    if arguments.eval_command == SYNTHETIC:
        folder = Path(arguments.videos or arguments.output / CLIPS_FOLDER)
        with report_when_slow(f"making {arguments.num_clips} clips"):
            samples = make_synthetic_bench(
                arguments.num_clips, folder, write=ranks.rank == 0, open_questions=arguments.open_questions
            )
        ranks.wait()
        return samples.limited(arguments.limit).counting(settings.edit_list), str(folder)
    # `datasets` comes with it, which is optional and slow to import.
    from transformers_videorefer.data.sources.published import video_sizes

    with report_when_slow(f"reading {arguments.data}"):
        samples = load_bench(
            arguments.eval_command,
            arguments.data,
            surplus_regions=settings.surplus_regions,
            config=arguments.config,
            split=arguments.split,
            video_size=video_sizes(arguments.videos),
        )
    return samples.limited(arguments.limit).counting(settings.edit_list), arguments.videos


def _bar_maker(ranks: Ranks) -> Callable[[int], Any] | None:
    """Show progress in one of the processes."""
    if ranks.rank != 0:
        return None
    return lambda total: progress_bar(total, task="answering", unit="sample")


def _counts(lines: list[dict[str, Any]]) -> dict[str, int]:
    return {"num_samples": len(lines), "num_failed": sum(line.get("error") is not None for line in lines)}
