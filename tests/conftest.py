"""Fixtures shared by all tests: the golden reference, seeds, and a Hub cache of its own for every test."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


FIXTURES = Path(__file__).parent / "fixtures"
REFERENCE = FIXTURES / "reference"


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with the numbers recorded from the published implementation (see its README.md)."""
    return REFERENCE


def load_json(relative_path: str) -> Any:
    """Read one JSON file of the golden reference."""
    return json.loads((REFERENCE / relative_path).read_text())


def load_arrays(relative_path: str) -> dict[str, np.ndarray]:
    """Read all arrays of one `.npz` file of the golden reference."""
    with np.load(REFERENCE / relative_path) as arrays:
        return {name: arrays[name] for name in arrays.files}


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
