"""Loads the scripts of `dataset_scripts/`, which is no package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


SCRIPTS = Path(__file__).parents[2] / "dataset_scripts"


def load_script(name: str) -> ModuleType:
    """Import a builder or command by its name; later calls give the same module, so that builders can be pickled."""
    if name not in sys.modules:
        path = SCRIPTS / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path if path.exists() else SCRIPTS / name / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
