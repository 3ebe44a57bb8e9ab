"""Fixtures shared by all tests: the golden reference, seeds, and a Hub cache of its own for every test."""

import gzip
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any


os.environ["HF_HUB_OFFLINE"] = "1"  # read by the Hub client when it is imported, so no fixture could set it

import numpy as np
import pytest
import torch
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

import transformers_videorefer  # noqa: F401 (registers the Auto classes)


# Two-layer models spend their time handing work to threads: one thread runs the suite in less than half the time.
torch.set_num_threads(1)

FIXTURES = Path(__file__).parent / "fixtures"
REFERENCE = FIXTURES / "reference"
PUBLISHED = REFERENCE / "videorefer-tiny"
# How fixtures/reference is stored, see fixtures/README.md.
FRAMES_SUFFIX = "@frames"
LOGITS_COLUMN_STEP = 16
LOGITS_LAST = 4
LM_HEAD_GRAD_STEP = 5


@pytest.fixture
def library_settings() -> Iterator[None]:
    """Undo what a command does to the logging of the libraries."""
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    hub_logging.set_verbosity(hub_verbosity)
    if progress:
        logging.enable_progress_bar()


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with the numbers recorded from the published implementation (see fixtures/README.md)."""
    return REFERENCE


def load_json(relative_path: str) -> Any:
    """Read one JSON file of the golden reference."""
    path = REFERENCE / relative_path
    if not path.exists():
        return json.loads(gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes()))
    return json.loads(path.read_text())


def load_arrays(relative_path: str) -> dict[str, np.ndarray]:
    """Read all arrays of one `.npz` file of the golden reference; frames come back as normalised pixels."""
    loaded = {}
    with np.load(REFERENCE / relative_path) as arrays:
        for name in arrays.files:
            array = arrays[name]
            if name.endswith(FRAMES_SUFFIX):
                name, array = name.removesuffix(FRAMES_SUFFIX), levels_to_pixels(_frame_bank()[array])
            loaded[name] = array
    return loaded


@cache
def _frame_bank() -> np.ndarray:
    with np.load(REFERENCE / "frames.npz") as arrays:
        return arrays["levels"]


def levels_to_pixels(levels: np.ndarray) -> np.ndarray:
    """Turn 8-bit levels into the float32 pixels between -1 and 1 that the published pipeline makes of them."""
    return (levels.astype(np.float32) * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the test its own Hub cache, keep it offline, and restore the random state it found."""
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)


@pytest.fixture(scope="session")
def published_model() -> PreTrainedModel:
    """The tiny model of the golden reference, loaded from its published layout in float32."""
    return load_published_model()


@pytest.fixture(scope="session")
def published_processor() -> ProcessorMixin:
    """The processor that belongs to it."""
    return AutoProcessor.from_pretrained(PUBLISHED)


def load_published_model() -> PreTrainedModel:
    """Load the tiny model of the golden reference anew, for tests that change it."""
    return AutoModelForImageTextToText.from_pretrained(PUBLISHED).eval()
