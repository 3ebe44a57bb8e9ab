"""`videorefer eval`: benchmarks, their scores, and comparisons of runs."""

import argparse
from typing import Any

from transformers_videorefer.evaluation.benches import BENCHES

from . import eval_bench, eval_compare, eval_score, eval_similarity
from .command_table import CommandTable, add_table


_BENCH_HELP = {
    "bench-d": "describe objects (VideoRefer-Bench-D)",
    "bench-q": "answer multiple-choice questions about objects (VideoRefer-Bench-Q)",
    "hc-stvg": "caption people in tubes of boxes (HC-STVG)",
    "synthetic": "questions and descriptions of a toy world, made on the spot",
}
# The commands beside the benchmarks.
COMMANDS: CommandTable = {
    "score": (eval_score, "score the predictions of a finished run"),
    "compare": (eval_compare, "compare two scored runs on the same samples"),
    "similarity": (eval_similarity, "draw how alike an object's tokens are over time"),
}


def add_eval_parser(commands: Any, *, parents: list[argparse.ArgumentParser]) -> None:
    """Declare `videorefer eval` and its commands.

    Args:
        commands (`argparse._SubParsersAction`): Where commands are added.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    parser = commands.add_parser(
        "eval", allow_abbrev=False, help="run benchmarks, score and compare", description=__doc__
    )
    add_eval_commands(parser, parents=parents)


def add_eval_commands(parser: argparse.ArgumentParser, *, parents: list[argparse.ArgumentParser]) -> None:
    """Declare the benchmarks and what belongs to them.

    Args:
        parser (`argparse.ArgumentParser`): Parser that gets the commands.
        parents (`list[argparse.ArgumentParser]`): Parsers of the flags that all commands share.
    """
    benches = {bench: (eval_bench, _BENCH_HELP[bench]) for bench in BENCHES}
    add_table(parser, {**benches, **COMMANDS}, dest="eval_command", parents=parents)
