"""Whether a checkpoint is there, found out before anything of it is loaded."""

from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
)

from transformers_videorefer.checkpoints.components import find_file


LOOKUP_TIMEOUT_SECONDS = 10


class CheckpointError(OSError):
    """A checkpoint is not there, cannot be reached, or is none that can be used.

    Args:
        name (`str`): Hub id or folder.
        problem (`str`): What is wrong and what to do, without the name.
    """

    def __init__(self, name: str, problem: str):
        super().__init__(f"`{name}`: {problem}")
        self.name = name
        self.problem = problem


def locate_model(name: str) -> dict[str, Any]:
    """Look `config.json` of a checkpoint up once; the libraries would try again and again for minutes.

    Args:
        name (`str`): Hub id or folder.

    Returns:
        `dict[str, Any]`: Keywords for `from_pretrained`: `local_files_only` where the Hub gives no answer but the
        checkpoint is in its cache.

    Raises:
        CheckpointError: If the checkpoint is not there, or cannot be reached.
    """
    if Path(name).is_dir():
        _check_folder(name)
        return {}
    is_cached = find_file(name, "config.json", local_files_only=True) is not None
    if is_offline_mode():
        if not is_cached:
            raise CheckpointError(
                name,
                "it is not in the cache of the Hub, and HF_HUB_OFFLINE forbids to download it. Download it first, or "
                "pass a folder.",
            )
        return {}
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=LOOKUP_TIMEOUT_SECONDS)
    except (HTTPError, OSError, EntryNotFoundError) as error:
        problem = _explain(error)
        if problem is None and is_cached:
            return {"local_files_only": True}
        if problem is None:
            problem = (
                f"there is no such folder, and the Hub cannot be reached ({error}). Check the connection, or pass a "
                "folder."
            )
        raise CheckpointError(name, problem) from error
    return {}


def _check_folder(name: str) -> None:
    if Path(name, "adapter_config.json").is_file():
        raise CheckpointError(
            name,
            "this folder holds a LoRA adapter. Merge it into its base first, with "
            "`transformers_videorefer.training.merge_and_export`, and pass the folder that it writes.",
        )
    if not Path(name, "config.json").is_file():
        raise CheckpointError(name, "this folder has no config.json. Pass the folder of a checkpoint.")


def _explain(error: Exception) -> str | None:
    """Say what the Hub answered, `None` if it gave no answer."""
    if isinstance(error, GatedRepoError):
        return "the Hub asks for access rights. Ask for them on its page there and log in with `hf auth login`."
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such folder, and the Hub has no such model or hides it. Check the id or log in."
    if isinstance(error, EntryNotFoundError):
        return "the Hub has this repository, but it has no config.json. Pass the id of a checkpoint."
    if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
        return f"the Hub refuses it: {error}"
    return None
