"""Tables of results as Markdown: one run beside published numbers, and two runs beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from .published_results import PUBLISHED_ROWS, PublishedRow
from .statistics import FEW_GROUPS


JUDGE_SCORES = ("SC", "AD", "TD", "HD", "average")
MAX_LISTED = 10
BENCH_TITLES = {
    "bench-d": "VideoRefer-Bench-D",
    "bench-q": "VideoRefer-Bench-Q",
    "hc-stvg": "HC-STVG, captions of the tubes",
    "synthetic": "Synthetic bench",
}
_HEADINGS = {
    "accuracy": "all",
    "accuracy_strict": "all, strict letters",
    "exact_match": "descriptions, exact",
    "exact_open": "open questions, exact",
    "Basic Questions": "basic",
    "Sequential Questions": "sequential",
    "Relationship Questions": "relationship",
    "Reasoning Questions": "reasoning",
    "Future Predictions": "future",
}


def is_share(name: str) -> bool:
    """Tell scores that are shown in percent from those of a judge, which are shown as they are.

    Args:
        name (`str`): Name of the score.

    Returns:
        `bool`: True for accuracies and caption metrics.
    """
    return name not in JUDGE_SCORES


def heading(name: str) -> str:
    """Return what a score is called in tables and plots.

    Args:
        name (`str`): Name of the score.

    Returns:
        `str`: Its heading.
    """
    return _HEADINGS.get(name, name)


def format_score(name: str, entry: Mapping[str, Any]) -> str:
    """Write a score with its interval.

    Args:
        name (`str`): Name of the score.
        entry (`Mapping[str, Any]`): `value` and `interval`.

    Returns:
        `str`: In percent where it is a share: "71.9 [69.1, 74.6]".
    """
    factor, digits = (100, 1) if is_share(name) else (1, 2)
    text = f"{factor * entry['value']:.{digits}f}"
    if entry["interval"] is None:
        return text
    low, high = (factor * end for end in entry["interval"])
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def format_results(results: Mapping[str, Any]) -> str:
    """Write the results of a run as a Markdown document, published rows beside them.

    Args:
        results (`Mapping[str, Any]`): Content of `results.json`.

    Returns:
        `str`: The document.
    """
    bench, scores = results["bench"], results["scores"]
    lines = [f"# {BENCH_TITLES[bench]}: {results['model']['name']}", ""]
    if scores:
        lines += _score_table(bench, results, scores)
    else:
        lines += ["Not scored yet: `videorefer eval score FOLDER --judge-model ...` has the descriptions judged.", ""]
    return "\n".join([*lines, *_notes(results), *_how_it_was_made(results)]) + "\n"


def _score_table(bench: str, results: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    """Put our row and the published ones into one table."""
    names = list(scores)
    mode = results["settings"]["mode"]
    rows = [["**this run**", mode, *(f"**{format_score(name, scores[name])}**" for name in names), "measured here"]]
    for published in PUBLISHED_ROWS[bench]:
        rows.append(
            [published.model, published.mode or "-", *_published_cells(published, names), "published by others"]
        )
    titles = ["model", "mode", *(f"{heading(name)} (n={scores[name]['num_samples']})" for name in names), "source"]
    lines = format_table(titles, rows)
    cider = " (CIDEr x 100)" if "CIDEr" in names else ""
    shares = f"Shares and caption metrics in percent{cider}. " if any(map(is_share, names)) else ""
    interval = (
        "In brackets: 95 % intervals, bootstrap over videos, 10,000 draws, seed 0. "
        if any(scores[name]["interval"] is not None for name in names)
        else ""
    )
    without = [heading(name) for name in names if scores[name]["interval"] is None]
    if without:
        interval += f"{', '.join(without)}: no mean over samples, so no interval. "
    fewest = min(entry["num_videos"] for entry in scores.values())
    if interval and fewest < FEW_GROUPS:
        interval += f"They are too narrow where videos are few, here as few as {fewest}. "
    warning = (
        "Rows published by others were not measured here; prompts, frames and judges may differ."
        if PUBLISHED_ROWS[bench]
        else ""
    )
    return [*lines, "", f"{shares}{interval}{warning}".strip(), ""]


def _published_cells(published: PublishedRow, names: Sequence[str]) -> list[str]:
    return [
        f"{published.scores[name]:.{1 if is_share(name) else 2}f}" if name in published.scores else "-"
        for name in names
    ]


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table.

    Args:
        titles (`Sequence[str]`): Headings of the columns.
        rows (`Sequence[Sequence[str]]`): Cells.

    Returns:
        `list[str]`: Its lines.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (titles, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(titles), *lines[1:]]


def _notes(results: Mapping[str, Any]) -> list[str]:
    """Tell what went wrong; each kind of failure counts against the model."""
    details = results["details"]
    lines = [_count(details["num_samples"], "sample")]
    notes = {
        "num_failed": ("", "could not be read or answered (each counts 0)"),
        "num_unanswered": ("answer", "without a letter (counted as wrong)"),
        "num_ambiguous": ("answer", "with several letters (the first counts)"),
        "num_unscored": ("description", "without a readable score (counted as 0)"),
    }
    for name, (noun, text) in notes.items():
        if name in details:
            lines[0] += f"; {_count(details[name], noun)} {text}"
    lines[0] += "."
    if details.get("num_unscored") and details["average_scored"] is not None:
        lines[0] += f" Average of the scored ones alone: {details['average_scored']:.2f}."
    if details.get("judge"):
        lines.append(f"Judge: {details['judge']}.")
    for failure in results["failures"][:MAX_LISTED]:
        lines.append(f"- sample {failure['index']} (id {failure['id']}): {failure['error']}")
    if len(results["failures"]) > MAX_LISTED:
        lines.append(f"- and {len(results['failures']) - MAX_LISTED} more, see results.json")
    return [*lines, ""]


def _count(number: int, noun: str) -> str:
    """Write a number with its noun, if there is one, in singular or plural."""
    return f"{number} {noun}{'s' if noun and number != 1 else ''}".strip()


def _how_it_was_made(results: Mapping[str, Any]) -> list[str]:
    """Tell what it takes to get the same numbers again."""
    model, code, data = results["model"], results["code"], results["data"]
    settings = ", ".join(f"{name} {value}" for name, value in results["settings"].items())
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    identity = f"revision {model['revision']}" if model["revision"] else f"fingerprint {model['fingerprint']}"
    return [
        "## How it was made",
        "",
        f"- model: {model['name']}, {identity}",
        f"- data: {data['name']}, {_count(data['num_samples'], 'sample')}, fingerprint {data['fingerprint']}",
        f"- settings: {settings}",
        f"- code: transformers-videorefer {code['version']}, commit {code['commit'] or 'unknown (no git checkout)'}",
        f"- versions: {versions}",
        f"- hardware: {results['hardware']['device']}, {results['hardware']['num_processes']} process(es)",
        f"- date: {results['date']}",
    ]
