"""The files of a scored run, and two runs compared."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .benchmarking import read_run
from .journal import read_lines, to_text, write_whole
from .plotting import save_plot
from .provenance import describe_code, describe_versions
from .report import BENCH_TITLES, format_results, format_table, heading, is_share
from .scoring import Scores, mend_text
from .statistics import FEW_GROUPS, paired_bootstrap, sign_test


RESULTS_FILE, TABLE_FILE, PLOT_FILE, SCORES_FILE = "results.json", "results.md", "results.png", "scores.jsonl"
_COMPARED = ("id", "form", "type", "question", "reference")


def write_results(
    folder: Path,
    scores: Scores,
    *,
    hardware: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write what a run scored: `results.json`, `results.md`, `results.png`, and `scores.jsonl` with a line per sample.

    Args:
        folder (`Path`): Folder of the finished run.
        scores ([`Scores`]): Its scores; without any values the run counts as not scored yet, and earlier scores are
            removed.
        hardware (`Mapping[str, Any]`, *optional*): What the run was made on; by default what an earlier call wrote,
            together with code and versions of then.

    Returns:
        `dict[str, Any]`: Content of `results.json`.

    Raises:
        OSError: If the folder holds no finished run, or cannot be written.
    """
    settings, lines = read_run(folder)
    if hardware is None:
        origin = _read_results(folder)
        origin = {name: origin[name] for name in ("code", "versions", "hardware", "date")}
    else:
        origin = {
            "code": describe_code(),
            "versions": describe_versions(),
            "hardware": dict(hardware),
            "date": datetime.now(UTC).date().isoformat(),
        }
    failures = [
        {"index": line["index"], "id": line["id"], "error": line["error"]}
        for line in lines
        if line.get("error") is not None
    ]
    results = {**settings, **origin, "scores": scores.values, "details": scores.details, "failures": failures}
    text = mend_text(json.dumps(results, indent=2, ensure_ascii=False))
    results = json.loads(text)
    if not scores.values:  # what is left of earlier scores would pass for scores of these results
        for name in (SCORES_FILE, PLOT_FILE):
            (folder / name).unlink(missing_ok=True)
    write_whole(folder / RESULTS_FILE, text + "\n")
    write_whole(folder / TABLE_FILE, format_results(results))
    if scores.values:
        per_sample = [
            {"index": line["index"], "id": line["id"], "scores": of_sample}
            for line, of_sample in zip(lines, scores.samples, strict=True)
        ]
        write_whole(folder / SCORES_FILE, "".join(map(to_text, per_sample)))
        save_plot(results, folder / PLOT_FILE)
    return results


def _read_results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {RESULTS_FILE}. Start its `videorefer eval` again to finish the run."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """Compare two scored runs on the same samples.

    Args:
        first (`Path`): Folder of one run.
        second (`Path`): Folder of the other.

    Returns:
        `dict[str, Any]`: `bench`, `models` and, for each score of the samples, both means, the paired bootstrap
        (`difference`, `interval`, `p_value`) and the `sign_test` (exact McNemar test for accuracies).

    Raises:
        ValueError: If the runs differ in benchmark or samples, or one of them is not scored.
        OSError: If one of the folders holds no finished run.
    """
    results = [_read_results(folder) for folder in (first, second)]
    runs = [read_run(folder)[1] for folder in (first, second)]
    _check_same_samples((first, second), results, runs)
    samples = []
    for folder, of_run in zip((first, second), results, strict=True):
        lines = read_lines(folder / SCORES_FILE)
        if not lines or not of_run["scores"]:
            raise ValueError(f"{folder} is not scored. Score it with `videorefer eval score {folder} ...` first.")
        samples.append([lines[line["index"]]["scores"] for line in runs[0]])
    comparison = {}
    common = _common_scores(runs[0], samples)
    for name in sorted(common, key=list(results[0]["scores"]).index):
        numbers = common[name]
        of = "accuracy" if name not in samples[0][numbers[0]] else name
        pair = [np.array([side[number][of] for number in numbers]) for side in samples]
        groups = [runs[0][number].get("video") for number in numbers]
        comparison[name] = {
            "num_samples": len(numbers),
            "num_videos": len(set(groups)),
            "values": [float(values.mean()) for values in pair],
            **paired_bootstrap(*pair, groups),
            "sign_test": sign_test(*pair),
        }
    models = [
        {"name": one["model"]["name"], "folder": folder.resolve().name, "settings": one["settings"]}
        for folder, one in zip((first, second), results, strict=True)
    ]
    return {"bench": results[0]["bench"], "models": models, "scores": comparison}


def _check_same_samples(
    folders: Sequence[Path], results: Sequence[Mapping[str, Any]], runs: Sequence[Sequence[Mapping[str, Any]]]
) -> None:
    if results[0]["bench"] != results[1]["bench"]:
        raise ValueError(
            f"{folders[0]} is a run of {results[0]['bench']}, {folders[1]} one of {results[1]['bench']}. Compare runs of "
            "one benchmark."
        )
    if len(runs[0]) != len(runs[1]):
        raise ValueError(
            f"{folders[0]} has {len(runs[0])} samples, {folders[1]} has {len(runs[1])}. Compare runs on the same data."
        )
    for one, other in zip(*runs, strict=True):
        different = [name for name in _COMPARED if one.get(name) != other.get(name)]
        if different:
            raise ValueError(
                f"Sample {one['index']} has another {different[0]} in {folders[0]} ({one.get(different[0])!r:.60}) than in "
                f"{folders[1]} ({other.get(different[0])!r:.60}). Compare runs on the same data."
            )


def _common_scores(
    lines: Sequence[Mapping[str, Any]], samples: Sequence[Sequence[Mapping[str, float]]]
) -> dict[str, list[int]]:
    """List the scores that both runs have, with the samples that have them; accuracies by type too."""
    numbers: dict[str, list[int]] = {}
    for number, (one, other) in enumerate(zip(*samples, strict=True)):
        for name in one:
            if name in other:
                numbers.setdefault(name, []).append(number)
    of_types: dict[str, list[int]] = {}
    for number in numbers.get("accuracy", ()):
        of_types.setdefault(lines[number]["type"], []).append(number)
    return {**of_types, **numbers}


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """Write a comparison as Markdown.

    Args:
        comparison (`Mapping[str, Any]`): What [`compare_runs`] returned.

    Returns:
        `str`: A table with a row for each score.
    """
    first, second = comparison["models"]
    rows = []
    for name, entry in comparison["scores"].items():
        factor, digits = (100, 1) if is_share(name) else (1, 2)
        low, high = (factor * end for end in entry["interval"])
        sign = entry["sign_test"]
        rows.append(
            [
                heading(name),
                str(entry["num_samples"]),
                *(f"{factor * value:.{digits}f}" for value in entry["values"]),
                f"{factor * entry['difference']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]",
                f"{entry['p_value']:.4f}",
                f"{sign['num_first_better']} : {sign['num_second_better']}",
                f"{sign['p_value']:.4f}",
            ]
        )
    titles = ["score", "n", "A", "B", "B - A", "p (paired bootstrap)", "samples better in A : B", "p (sign test)"]
    differing = [
        f"{name}: A {first['settings'].get(name)}, B {second['settings'].get(name)}"
        for name in sorted(first["settings"].keys() | second["settings"].keys())
        if first["settings"].get(name) != second["settings"].get(name)
    ]
    lines = [
        f"# {BENCH_TITLES[comparison['bench']]}: A = {first['name']} ({first['folder']}), "
        f"B = {second['name']} ({second['folder']})",
        "",
        *format_table(titles, rows),
        "",
        "Both tests are two-sided. Brackets: 95 % intervals of the paired bootstrap over videos (10,000 draws, seed 0). The "
        "sign test counts samples one by one; for accuracies it is the exact McNemar test.",
    ]
    fewest = min((entry["num_videos"] for entry in comparison["scores"].values()), default=FEW_GROUPS)
    if fewest < FEW_GROUPS:
        lines[-1] += (
            f" Where videos are few, here as few as {fewest}, the bootstrap is too sure: its intervals are too narrow and "
            "its p-values too small."
        )
    if differing:
        lines += ["", "Settings that differ: " + "; ".join(differing) + "."]
    return "\n".join(lines) + "\n"
