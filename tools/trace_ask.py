"""List the modules and functions of the package that one question and one training run of a step enter.

    python tools/trace_ask.py              # counts per module
    python tools/trace_ask.py --functions  # every function

Fewer modules and functions on the way mean less to read for whoever follows a call through the house.
"""

import argparse
import contextlib
import io
import json
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import transformers_videorefer
from transformers_videorefer import cli


PACKAGE = Path(transformers_videorefer.__file__).parent
EXAMPLES = Path(__file__).parents[1] / "examples"
CLIP = EXAMPLES / "media" / "shapes.mp4"


def trace(run: Callable[[], Any]) -> set[tuple[str, str]]:
    """Run something and record what it enters of the package.

    Args:
        run (`Callable[[], Any]`): What to run, in this thread.

    Returns:
        `set[tuple[str, str]]`: Modules (as paths below the package) and qualified names of functions.
    """
    entered: set[tuple[str, str]] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(PACKAGE)) and not frame.f_code.co_name.startswith("<"):
            entered.add((Path(file).relative_to(PACKAGE).as_posix(), frame.f_code.co_qualname))

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return entered


def ask() -> None:
    """Ask the miniature one question."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(["ask", str(CLIP), "What is <region> doing?", "--box", "18,132,82,198@0", "--model", "tiny"])
    if code:
        raise SystemExit(f"`videorefer ask` ended with exit code {code}")


def train(folder: Path) -> None:
    """Train the miniature for one step on two clips, through the example script."""
    datasets = [{"path": "synthetic-shapes", "data_root": str(folder / "shapes"), "num_clips": 2}]
    settings = {
        "config": str(EXAMPLES / "configs" / "stage3.yaml"),
        "model_name_or_path": "tiny",
        "output_dir": str(folder / "run"),
        "datasets": json.dumps(datasets),
        "use_cpu": "true",
        "bf16": "false",
        "dtype": "float32",
        "global_batch_size": "2",
        "per_device_train_batch_size": "2",
        "max_steps": "1",
        "dataloader_num_workers": "0",
    }
    sys.argv = ["sft.py", *(part for name, value in settings.items() for part in (f"--{name}", value))]
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(str(EXAMPLES / "sft.py"), run_name="__main__")


def report(name: str, entered: set[tuple[str, str]], *, shows_functions: bool) -> None:
    """Print the modules that were entered, with the number of functions of each or all their names."""
    modules = sorted({module for module, _ in entered})
    print(f"{name}: {len(entered)} functions in {len(modules)} modules")
    for module in modules:
        functions = sorted(function for place, function in entered if place == module)
        print(f"  {module:56} {len(functions):4}")
        if shows_functions:
            print("".join(f"    {function}\n" for function in functions), end="")


def main() -> None:
    """Trace both and print what they enter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", action="store_true", help="name every function")
    arguments = parser.parse_args()
    report("one `ask`", trace(ask), shows_functions=arguments.functions)
    with tempfile.TemporaryDirectory() as folder:
        entered = trace(lambda: train(Path(folder)))
    report("a training run of one step", entered, shows_functions=arguments.functions)


if __name__ == "__main__":
    main()
