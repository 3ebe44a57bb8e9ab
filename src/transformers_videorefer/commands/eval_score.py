"""`videorefer eval score`: scores of predictions that are there already."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from transformers_videorefer.evaluation.benchmarking import read_run, sole_run
from transformers_videorefer.evaluation.report import format_results
from transformers_videorefer.evaluation.results import write_results
from transformers_videorefer.evaluation.scoring import CAPTION_METRICS, JudgeError, score_run

from .progress import quiet_libraries, report


DESCRIPTION = """\
Scores the predictions of a finished run, again or for the first time (after --no-judge):
  videorefer eval score runs/bench-d --judge-model gpt-4o-2024-08-06
  videorefer eval score runs/bench-d --judge-base-url http://localhost:8000/v1 --judge-model NAME
Replies of a judge are kept in DIR/judge_cache, so nothing is asked twice. The key is read from OPENAI_API_KEY."""
JUDGE_CACHE = "judge_cache"
EXIT_NOT_JUDGED = 1
HINT = "Descriptions are scored by a judge. Pass --judge-model (and --judge-base-url for another than the hosted endpoint)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags.

    Args:
        parser (`argparse.ArgumentParser`): Parser of the command.
    """
    parser.add_argument("folder", metavar="DIR", type=Path, help="--output folder of a finished run")
    add_scoring_arguments(parser)


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that say how predictions are scored.

    Args:
        parser (`argparse.ArgumentParser`): Parser of a command.
    """
    judge = parser.add_argument_group("judge of descriptions")
    judge.add_argument("--judge-model", metavar="ID", help="dated id of the judging model")
    judge.add_argument(
        "--judge-base-url", metavar="URL", help="OpenAI-compatible endpoint (default: the hosted one of OpenAI)"
    )
    judge.add_argument(
        "--judge-cache",
        metavar="DIR",
        help=f"where replies are kept (default: {JUDGE_CACHE} in the folder of the run)",
    )
    judge.add_argument("--judge-concurrency", type=int, metavar="N", help="requests at a time (default: 8)")
    judge.add_argument(
        "--judge-prices",
        type=float,
        nargs=2,
        metavar=("READ", "WRITTEN"),
        help="price of a million tokens, for the cost",
    )
    judge.add_argument(
        "--judge-max-cost", type=float, metavar="COST", help="ask nothing if the estimate is above this"
    )
    captions = parser.add_argument_group("captions of HC-STVG")
    captions.add_argument(
        "--caption-metrics",
        nargs="+",
        choices=CAPTION_METRICS,
        default=list(CAPTION_METRICS),
        metavar="METRIC",
        help=f"some of {', '.join(CAPTION_METRICS)} (default: all)",
    )
    captions.add_argument(
        "--caption-tokenizer",
        choices=("ptb", "regex", "none"),
        default="ptb",
        help="ptb is the standard one and needs Java; others give numbers that are not comparable",
    )


def judge_options(arguments: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """Turn flags into keywords of the metric.

    Args:
        arguments (`argparse.Namespace`): Flags.
        folder (`Path`): Folder of the run.

    Returns:
        `dict[str, Any]`: The keywords, None where no judge is named.

    Raises:
        ValueError: If flags of a judge are given without one.
    """
    options = {
        "base_url": arguments.judge_base_url,
        "concurrency": arguments.judge_concurrency,
        "prices": arguments.judge_prices,
        "max_cost": arguments.judge_max_cost,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if arguments.judge_model is None:
        if options:
            raise ValueError(f"Flags of a judge are given without --judge-model. {HINT}.")
        return None
    cache = arguments.judge_cache or str(folder / JUDGE_CACHE)
    return {"model": arguments.judge_model, "cache_dir": cache, **options}


@contextmanager
def quiet_metrics(debug: bool) -> Iterator[None]:
    """Keep warnings of the metric modules off stderr: tables and `results.json` tell the same.

    Args:
        debug (`bool`): Leave everything as it is.
    """
    logger = logging.getLogger("evaluate_modules")
    level = logger.level
    if not debug:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def report_not_judged(error: JudgeError, folder: Path) -> int:
    """Tell in one line that a judge failed, and what to do with the answers.

    Args:
        error ([`JudgeError`]): What happened.
        folder (`Path`): Folder of the run.

    Returns:
        `int`: Exit code of the command.
    """
    reason = " ".join(str(error).split())
    report(
        f"videorefer: error: {reason} The answers are kept in {folder}; score them with `videorefer eval score {folder} "
        "--judge-model ...`."
    )
    return EXIT_NOT_JUDGED


def run(arguments: argparse.Namespace, stream: TextIO) -> int | None:
    """Score a run.

    Args:
        arguments (`argparse.Namespace`): Flags of `videorefer eval score`.
        stream (`TextIO`): Where the table is written.

    Returns:
        `int`: Exit code 1 where the judge scored nothing; the files of the run stay as they are.

    Raises:
        ValueError: If no judge is named for descriptions that need one, or another process writes into the folder.
        OSError: If the folder holds no finished run.
    """
    quiet_libraries(arguments.debug)
    folder = arguments.folder
    settings, lines = read_run(folder)
    judge = judge_options(arguments, folder)
    if settings["bench"] == "bench-d" and judge is None:
        raise ValueError(f"{HINT}.")
    try:
        with sole_run(folder), quiet_metrics(arguments.debug):
            scores = score_run(
                settings["bench"],
                lines,
                judge=judge,
                caption_metrics=arguments.caption_metrics,
                tokenizer=arguments.caption_tokenizer,
            )
            results = write_results(folder, scores)
    except JudgeError as error:
        if arguments.debug:
            raise
        return report_not_judged(error, folder)
    stream.write(format_results(results))
    report(f"Written to {folder}: results.json, results.md, results.png and scores.jsonl.")
    return None
