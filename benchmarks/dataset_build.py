"""How fast a published file becomes Parquet, against loading the same file with the standard library.

    python benchmarks/dataset_build.py                     # a file of 1 GB, about 5 minutes
    python benchmarks/dataset_build.py --megabytes 50      # a small file, some seconds; writes no results

The file is made at the start, seeded: one JSON array of records like those of the detailed captions, one object with masks
on 32 frames each, every mask another one. Ours: `export_set` in one process, with every mask checked by the sum of its
runs, from the JSON file to Parquet files that are flushed to the disk. Reference: `json.load` of the same file, which
checks and writes nothing. Each runs in a process of its own, whose peak memory is measured.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


RESULTS = Path(__file__).parent / "results" / "dataset_build.json"
HEIGHT, WIDTH = 720, 1280
NUM_FRAMES = 32
FILE_NAME = "videorefer-detailed-caption-125k.json"
WORDS = "a person in dark clothes walks slowly to the left while holding something and looks at the others".split()


def make_runs(chance: np.random.Generator) -> np.ndarray:
    """Return run lengths, column by column, of a blob with rough edges and a hole: about 1.4 KB as COCO text."""
    num_columns = int(chance.integers(280, 370))
    first_column = int(chance.integers(0, WIDTH - num_columns))
    middle = HEIGHT / 2 + np.cumsum(chance.normal(0, 0.7, num_columns))
    half = np.sqrt(1 - np.linspace(-0.98, 0.98, num_columns) ** 2) * chance.uniform(120, 240)
    # Rows at which a column goes in, into the hole, out of it, and out.
    edges = middle[:, None] + half[:, None] * [-1, -0.2, 0.2, 1] + chance.normal(0, 1.5, (num_columns, 4))
    edges = np.maximum.accumulate(np.clip(edges.astype(int), 1, HEIGHT - 5) + np.arange(4), axis=1)
    is_kept = np.ones(edges.shape, dtype=bool)
    is_kept[:, 1:3] = (np.abs(np.arange(num_columns) - num_columns / 2) < 0.3 * num_columns)[:, None]
    places = (edges + (first_column + np.arange(num_columns))[:, None] * HEIGHT)[is_kept]
    return np.diff(np.concatenate([[0], places, [HEIGHT * WIDTH]]))


def write_file(path: Path, num_bytes: int) -> dict[str, Any]:
    """Write records until the file is large enough."""
    from transformers_videorefer.regions.rle import encode_runs

    chance = np.random.default_rng(0)
    num_rows = num_characters = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        while file.tell() < num_bytes:
            annotation = {}
            for frame in range(NUM_FRAMES):
                rle = encode_runs(make_runs(chance), (HEIGHT, WIDTH))
                num_characters += len(rle["counts"])
                annotation[str(frame * 9)] = {"segmentation": rle}
            caption = " ".join(chance.choice(WORDS, 120))
            question = "<video>\nPlease describe in detail the object <region> in the video."
            record = {
                "id": num_rows,
                "video": f"videos/{num_rows:08d}.mp4",
                "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": caption}],
                "annotation": [annotation],
            }
            file.write(", " * bool(num_rows) + json.dumps(record))
            num_rows += 1
        file.write("]")
    num_masks = num_rows * NUM_FRAMES
    return {
        "bytes": path.stat().st_size,
        "rows": num_rows,
        "masks": num_masks,
        "bytes_per_mask": round(num_characters / num_masks),
    }


def measure_export(folder: Path) -> dict[str, Any]:
    """Export the file in this process."""
    from transformers_videorefer.data.exporting.export import export_set
    from transformers_videorefer.data.sources.published import published_set

    start = time.perf_counter(), time.process_time()
    states = export_set(
        published_set("videorefer-700k"),
        folder / "exported",
        "---\nlicense: other\n---\n# Benchmark\n",
        source=folder,
        configs=["detailed_caption"],
        show_progress=False,
    )
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    sums = states["detailed_caption"]["splits"]["train"]
    return {
        "seconds": spent[0],
        "cpu_seconds": spent[1],
        "rows": sums["num_rows"],
        "parquet_bytes": sums["file_bytes"],
    }


def measure_json(folder: Path) -> dict[str, Any]:
    """Load the file with the standard library in this process."""
    start = time.perf_counter(), time.process_time()
    with (folder / FILE_NAME).open(encoding="utf-8") as file:
        records = json.load(file)
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    return {"seconds": spent[0], "cpu_seconds": spent[1], "rows": len(records)}


MEASURES = {"export": measure_export, "json": measure_json}


def run_alone(name: str, folder: Path) -> dict[str, Any]:
    """Measure in a fresh process on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "HF_HOME": str(folder / "hf_home")}
    command = [sys.executable, __file__, "--measure", name, str(folder)]
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def measure_and_print(name: str, folder: Path) -> None:
    """Run one measure and print it as JSON, with the peak memory of this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    result = MEASURES[name](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**result, "peak_bytes": peak}))


def describe_machine() -> dict[str, Any]:
    """What the figures depend on; no names of hosts or users."""
    import datasets
    import pyarrow

    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(models) or None,
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pyarrow": pyarrow.__version__,
        "datasets": datasets.__version__,
    }


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--megabytes", type=int, help="size of the file; no results are written unless --output is given"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--output", type=Path, help=f"JSON file for the results (default: results/{RESULTS.name})")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_and_print(arguments.measure[0], Path(arguments.measure[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = write_file(folder / FILE_NAME, (arguments.megabytes or 1050) * 1_000_000)
        print(f"{made['bytes'] / 1e6:.0f} MB, {made['rows']} rows, {made['bytes_per_mask']} bytes a mask")
        results = {}
        for measure in MEASURES:
            runs = []
            for _ in range(arguments.repeats):
                shutil.rmtree(folder / "exported", ignore_errors=True)
                runs.append(run_alone(measure, folder))
            best = min(runs, key=lambda run: run["cpu_seconds"])
            if best["rows"] != made["rows"]:
                raise RuntimeError(f"{measure} found {best['rows']} rows of {made['rows']}.")
            best["seconds"] = min(run["seconds"] for run in runs)
            best["megabytes_per_second"] = made["bytes"] / best["seconds"] / 1e6
            best["megabytes_per_cpu_second"] = made["bytes"] / best["cpu_seconds"] / 1e6
            best["peak_bytes"] = max(run["peak_bytes"] for run in runs)
            results[measure] = {
                key: round(value, 2) if isinstance(value, float) else value for key, value in best.items()
            }
            print(
                f"{measure:<8}{best['seconds']:>8.1f} s {best['cpu_seconds']:>8.1f} s CPU "
                f"{best['megabytes_per_second']:>8.0f} MB/s {best['megabytes_per_cpu_second']:>8.0f} MB per CPU second "
                f"{best['peak_bytes'] / 1e6:>8.0f} MB peak"
            )
    output = arguments.output or (None if arguments.megabytes else RESULTS)
    if output:
        report = {"machine": describe_machine(), "repeats": arguments.repeats, "file": made, "results": results}
        output.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {output}")


if __name__ == "__main__":
    main()
