"""Loads the metric modules of this repository the way their users do, into a cache of the tests' own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import ModuleType

import pytest


FOLDER = Path(__file__).parents[2] / "eval_metrics"
NAMES = ("videorefer_bench_q", "videorefer_bench_d", "region_captioning")


@contextmanager
def own_cache() -> Iterator[None]:
    """Let the library keep its files in a folder that ends with the run.

    Copied modules are shared. Each loaded metric gets its own folder for samples, because a metric waits a second for
    the files of another one that was stopped by an error.
    """
    config = pytest.importorskip("evaluate").config
    folder = _cache_folder().name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "HF_MODULES_CACHE", str(Path(folder) / "modules"))
        patch.setattr(config, "HF_METRICS_CACHE", mkdtemp(dir=folder))
        yield


def load_metric(name: str, **options):
    """Load a module with `evaluate.load`."""
    with own_cache():
        import evaluate

        return evaluate.load(str(FOLDER / name), **options)


@cache
def _cache_folder() -> TemporaryDirectory:
    return TemporaryDirectory()


def sibling(metric, name: str) -> ModuleType:
    """Return a module that was loaded beside a metric: `videorefer_bench_d` itself or one of its helpers."""
    return sys.modules[f"{type(metric).__module__.rpartition('.')[0]}.{name}"]
