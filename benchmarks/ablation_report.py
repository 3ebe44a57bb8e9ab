"""The figures of the ablations as means with their spread, as a Markdown table and as a plot, beside the paper's."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation_clips import WORLDS
from ablation_training import DETAILED, GROUPS, SHORT

from transformers_videorefer.data.synthetic.questions import KINDS


try:
    from matplotlib import pyplot
except ImportError:  # needed for the plot only
    pyplot = None

QUESTIONS = "questions"  # mean of the five kinds of question
COLUMNS = (*GROUPS, QUESTIONS)
DIFFERENCE = "difference"  # of the questions, to the reference row of the table
ORDINARY, OVERLAPPING = WORLDS[:1], WORLDS[1:]


@dataclass(frozen=True)
class Row:
    """One row of a comparison.

    Args:
        label (`str`): What it says in the table.
        cell (`str`): The trained cell.
        test (`str`): Which of its tests.
        worlds (`tuple[str, ...]`): Held-out clips; of several worlds the mean.
        paper (`dict[str, float]`): The paper's row, where it has one.
    """

    label: str
    cell: str
    test: str = "own"
    worlds: tuple[str, ...] = WORLDS
    paper: dict[str, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """Rows to be compared with one of them.

    Args:
        title (`str`): What is compared.
        rows (`tuple[Row, ...]`): The rows.
        reference (`int`): Position of the row that the others are compared with.
        source (`str`): Where the paper has its rows.
        only_paper (`dict[str, dict[str, float]]`): Rows of the paper that have no counterpart here.
    """

    title: str
    rows: tuple[Row, ...]
    reference: int
    source: str
    only_paper: dict[str, dict[str, float]]


def compare_regions(title: str, worlds: tuple[str, ...]) -> Comparison:
    """Compare masks with boxes on some of the held-out clips."""
    rows = (
        Row("masks", "default", worlds=worlds),
        Row("boxes", "box", worlds=worlds),
        Row("masks in training, boxes at test", "default", "box at test", worlds=worlds),
    )
    return Comparison(title, rows, reference=0, source="no such row in Tables 5 to 7", only_paper={})


# TD, HD: temporal description and hallucination detection, D: average of VideoRefer-Bench-D (0 to 5). SQ, RQ:
# sequential and relationship questions (the text about Table 7 calls RQ reasoning questions), Q: average of
# VideoRefer-Bench-Q (percent).
COMPARISONS = {
    "regions": compare_regions("Masks or boxes, objects that overlap", OVERLAPPING),
    "regions of ordinary clips": compare_regions("Masks or boxes, ordinary clips", ORDINARY),
    "frames": Comparison(
        "Single or multi-frame",
        (
            Row(
                "multi-frame", "default", paper={"TD": 3.10, "HD": 3.04, "D": 3.46, "SQ": 70.6, "RQ": 60.5, "Q": 72.1}
            ),
            Row(
                "single frame at test only (as the paper)",
                "default",
                "single frame at test",
                paper={"TD": 3.03, "HD": 2.97, "D": 3.42, "SQ": 68.3, "RQ": 59.1, "Q": 71.9},
            ),
            Row("single frame in training and test", "single frame"),
        ),
        0,
        "Table 5",
        {},
    ),
    "merge": Comparison(
        "Temporal token merge to u tokens",
        (
            Row("u = 1", "u=1", paper={"TD": 3.08, "HD": 2.98, "SQ": 68.9, "RQ": 60.9}),
            Row("u = 4", "default", paper={"TD": 3.10, "HD": 3.04, "SQ": 70.6, "RQ": 60.5}),
            Row("u = 8", "u=8", paper={"TD": 3.18, "HD": 3.02, "SQ": 69.6, "RQ": 57.8}),
            Row("u = 16", "u=16", paper={"TD": 3.20, "HD": 2.99, "SQ": 69.3, "RQ": 58.5}),
            Row(
                "no merge (24 tokens; the paper: u = 32)",
                "no merge",
                paper={"TD": 3.17, "HD": 3.01, "SQ": 68.7, "RQ": 58.1},
            ),
        ),
        1,
        "Table 7",
        {},
    ),
    "data": Comparison(
        "Kinds of training data, same number of steps",
        (
            Row(f"{SHORT} only", SHORT, paper={"D": 2.43, "Q": 68.3, "MVBench": 58.0}),
            Row("+ questions", "+ questions", paper={"D": 2.45, "Q": 71.7, "MVBench": 58.4}),
            Row(f"+ {DETAILED}", "default", paper={"D": 3.42, "Q": 71.9, "MVBench": 59.6}),
        ),
        2,
        "Table 6",
        {"without regional data": {"MVBench": 57.9}},
    ),
}


def _columns_of(run: dict[str, Any], row: Row) -> dict[str, float]:
    """Return the figures of one run for a row, in percent."""
    found = {
        group: 100 * statistics.mean(run["scores"][row.test][world].get(group, 0.0) for world in row.worlds)
        for group in GROUPS
    }
    return {**found, QUESTIONS: statistics.mean(found[kind] for kind in KINDS)}


def _spread(values: list[float]) -> dict[str, float | None]:
    """Return mean and standard deviation; one value has no deviation."""
    deviation = round(statistics.stdev(values), 2) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 2), "deviation": deviation}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Bring the runs into the rows of the comparisons.

    Args:
        runs (`list[dict]`): Finished cells.

    Returns:
        `dict`: For each comparison its rows; each with `score` (percent, mean and standard deviation over the seeds, by
        column), `minus_reference` (the same of the difference to the reference row, taken seed by seed) and the
        paper's row.
    """
    by_cell = {(run["cell"], run["seed"]): run for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    summary = {}
    for name, comparison in COMPARISONS.items():
        reference, rows = comparison.rows[comparison.reference], []
        for row in comparison.rows:
            figures = {
                seed: _columns_of(by_cell[row.cell, seed], row) for seed in seeds if (row.cell, seed) in by_cell
            }
            paired = {
                seed: _columns_of(by_cell[reference.cell, seed], reference)
                for seed in figures
                if (reference.cell, seed) in by_cell
            }
            if not figures:
                continue
            rows.append(
                {
                    "row": row.label,
                    "seeds": list(figures),
                    "score": {column: _spread([one[column] for one in figures.values()]) for column in COLUMNS},
                    "minus_reference": {
                        column: _spread([figures[seed][column] - paired[seed][column] for seed in paired])
                        for column in COLUMNS
                        if paired
                    },
                    "paper": row.paper,
                }
            )
        summary[name] = {
            "title": comparison.title,
            "reference": reference.label,
            "rows": rows,
            "paper_source": comparison.source,
            "paper_only": comparison.only_paper,
        }
    return summary


def _say(figures: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items()) if figures else "-"


def _say_spread(figure: dict[str, float | None], sign: str = "") -> str:
    spread = "" if figure["deviation"] is None else f" ± {figure['deviation']:.1f}"
    return f"{figure['mean']:{sign}.1f}{spread}"


def markdown_tables(summary: dict[str, Any]) -> str:
    """Write the comparisons as Markdown tables.

    Args:
        summary (`dict`): What `summarise` returned.

    Returns:
        `str`: The tables, each below its title.
    """
    lines = []
    for comparison in summary.values():
        lines += [f"### {comparison['title']}", ""]
        lines.append(f"| | {' | '.join((*COLUMNS, DIFFERENCE))} | paper ({comparison['paper_source']}) |")
        lines.append("|---" * (len(COLUMNS) + 3) + "|")
        for row in comparison["rows"]:
            cells = [_say_spread(one) for one in row["score"].values()]
            difference = row["minus_reference"].get(QUESTIONS)
            is_compared = difference is not None and row["row"] != comparison["reference"]
            cells.append(_say_spread(difference, sign="+") if is_compared else "-")
            lines.append(f"| {row['row']} | {' | '.join(cells)} | {_say(row['paper'])} |")
        for label, figures in comparison["paper_only"].items():
            lines.append(f"| {label} | {' | '.join('-' * (len(COLUMNS) + 1))} | {_say(figures)} |")
        lines.append("")
    return "\n".join(lines)


def _draw_bars(
    axes: Any, groups: list[str], rows: list[tuple[str, Callable[[str], dict[str, float | None] | None]]]
) -> None:
    """Draw one group of bars for each of `groups`, with a bar for each row that has a figure."""
    width = 0.8 / len(rows)
    for position, (label, find) in enumerate(rows):
        found = {place: value for place, group in enumerate(groups) if (value := find(group))}
        axes.bar(
            [place - 0.4 + width * (position + 0.5) for place in found],
            [value["mean"] for value in found.values()],
            width,
            yerr=[value["deviation"] or 0 for value in found.values()],
            error_kw={"elinewidth": 0.8},
            label=label,
            color=f"C{position}",
        )
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="y", linewidth=0.3)


def plot(summary: dict[str, Any], path: Path) -> None:
    """Draw the comparisons, ours to the left and the paper's to the right.

    Args:
        summary (`dict`): What `summarise` returned.
        path (`Path`): Picture file to write.

    Raises:
        ImportError: If matplotlib is missing.
    """
    if pyplot is None:
        raise ImportError("matplotlib is needed to draw the plot. Install it with `pip install matplotlib`.")
    figure, axes = pyplot.subplots(
        len(summary), 2, figsize=(13, 3.4 * len(summary)), width_ratios=(2.6, 1), layout="constrained"
    )
    for (left, right), comparison in zip(axes, summary.values(), strict=True):
        ours = [(row["row"], row["score"].get) for row in comparison["rows"]]
        _draw_bars(left, list(COLUMNS), ours)
        left.set(title=f"{comparison['title']} (miniature)", ylabel="exact match, %", ylim=(0, 130))
        left.set_yticks(range(0, 101, 20))
        left.legend(fontsize=7, ncols=2, loc="upper left")
        right.set_title(f"VideoRefer-7B: {comparison['paper_source']}", fontsize=10)
        published = [row["paper"] or {} for row in comparison["rows"]]
        # The two scales of the paper do not go together: scores of Bench-D up to 5 are left to the table.
        groups = [name for name in ("SQ", "RQ", "Q", "MVBench") if any(name in row for row in published)]
        if not groups:
            right.axis("off")
            continue
        rows = [
            (label, lambda name, row=row: {"mean": row[name], "deviation": None} if name in row else None)
            for (label, _), row in zip(ours, published, strict=True)
        ]
        _draw_bars(right, groups, rows)
        right.set(ylabel="accuracy, %", ylim=(50, 75))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_report(result: dict[str, Any], output: Path) -> None:
    """Write table and plot beside the JSON file.

    Args:
        result (`dict`): Contents of the file.
        output (`Path`): The file.
    """
    summary = summarise(result["runs"])
    text = markdown_tables(summary)
    print(text)
    output.with_suffix(".md").write_text(f"# Ablations\n\n{text}")
    if pyplot is None:
        print("No plot: it needs matplotlib. Install it with `pip install matplotlib`, then give `--report`.")
        return
    plot(summary, output.with_suffix(".png"))
