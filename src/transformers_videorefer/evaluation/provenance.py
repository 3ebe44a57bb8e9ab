"""Where a number comes from: model, code, versions and hardware, without paths or names of the machine."""

import hashlib
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers.utils import extract_commit_hash

import transformers_videorefer
from transformers_videorefer.checkpoints.components import find_file


_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "av", "accelerate", "datasets", "evaluate")
_WEIGHTS = ("*.safetensors", "*.bin")
_DESCRIPTIONS = ("config.json", "generation_config.json", "processor_config.json", "adapter_config.json")
# Read of each end of a weight file: all of 16 GB would take longer than many a benchmark.
_SAMPLED_BYTES = 1 << 20


def describe_model(source: str, revision: str | None) -> dict[str, Any]:
    """Identify a checkpoint.

    Args:
        source (`str`): Hub id or folder.
        revision (`str`, *optional*): Commit on the Hub, as [`hub_commit`] tells it.

    Returns:
        `dict[str, Any]`: `name` (Hub id, or name of the folder), `revision` (commit on the Hub) and `fingerprint` of a
        folder (settings and samples of its weights).
    """
    folder = Path(source)
    if not folder.is_dir():
        return {"name": source, "revision": revision, "fingerprint": None}
    return {"name": folder.resolve().name, "revision": revision, "fingerprint": _fingerprint(folder)}


def hub_commit(source: str, **hub_kwargs: Any) -> str | None:
    """Return the commit of the Hub that a loaded checkpoint is at.

    Args:
        source (`str`): Hub id or folder.
        hub_kwargs: Where on the Hub it was looked for, such as `revision` and `cache_dir`.

    Returns:
        `str` or `None`: The commit; `None` for folders outside of the cache of the Hub.
    """
    return extract_commit_hash(find_file(source, "config.json", **{**hub_kwargs, "local_files_only": True}), None)


def _fingerprint(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in _DESCRIPTIONS:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    for path in sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLED_BYTES))
            file.seek(max(0, size - _SAMPLED_BYTES))
            digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()


def git_commit(folder: Path) -> str | None:
    """Return the commit that a folder of a git checkout is at.

    Args:
        folder (`Path`): The folder.

    Returns:
        `str`: The commit, with "+changes" where tracked files differ from it; None outside of a checkout or without git.
    """
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(folder)]
    # Files below an untracked folder (an environment in the checkout of something else) belong to no commit.
    tracked = subprocess.run([*command, "ls-files", "."], capture_output=True, text=True, check=False)
    head = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode or tracked.returncode or not tracked.stdout:
        return None
    status = [*command, "status", "--porcelain", "--untracked-files=no", "."]
    changes = subprocess.run(status, capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def describe_code() -> dict[str, Any]:
    """Identify the code that ran.

    Returns:
        `dict[str, Any]`: `version` of this package and `commit` of its checkout.
    """
    commit = git_commit(Path(transformers_videorefer.__file__).parent)
    return {"version": transformers_videorefer.__version__, "commit": commit}


def describe_versions() -> dict[str, str]:
    """List the versions of what numbers depend on.

    Returns:
        `dict[str, str]`: Version by library; `python` too.
    """
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def describe_hardware(device: torch.device, num_processes: int) -> dict[str, Any]:
    """Name what the model ran on.

    Args:
        device (`torch.device`): Device of the model.
        num_processes (`int`): Processes of the run.

    Returns:
        `dict[str, Any]`: `device` and `num_processes`.
    """
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else f"{device.type} ({platform.machine()})"
    return {"device": name, "num_processes": num_processes}
