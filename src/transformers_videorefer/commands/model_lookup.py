"""Whether the checkpoint that `--model` names is there, found out before anything of it is loaded."""

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

from .progress import report


LOOKUP_TIMEOUT_SECONDS = 10


def locate_model(model_id: str) -> dict[str, Any]:
    """Look `config.json` of a checkpoint up once; the libraries would try again and again for minutes.

    Args:
        model_id (`str`): Hub id or folder.

    Returns:
        `dict[str, Any]`: Keywords for `from_pretrained`: `local_files_only` where the Hub gives no answer but the
        checkpoint is in its cache.

    Raises:
        OSError: If the checkpoint is not there, or cannot be reached.
    """
    if Path(model_id).is_dir():
        if Path(model_id, "adapter_config.json").is_file():
            raise OSError(
                f"`--model {model_id}`: this folder holds a LoRA adapter. Merge it into its base first, with "
                "`transformers_videorefer.training.merge_and_export`, and pass the folder that it writes."
            )
        if not Path(model_id, "config.json").is_file():
            raise OSError(f"`--model {model_id}`: this folder has no config.json. Pass the folder of a checkpoint.")
        return {}
    is_cached = find_file(model_id, "config.json", local_files_only=True) is not None
    if is_offline_mode():
        if not is_cached:
            raise OSError(
                f"`--model {model_id}`: it is not in the cache of the Hub, and HF_HUB_OFFLINE forbids to download it. "
                "Download it first, or pass a folder."
            )
        return {}
    try:
        get_hf_file_metadata(hf_hub_url(model_id, "config.json"), timeout=LOOKUP_TIMEOUT_SECONDS)
    except (HTTPError, OSError, EntryNotFoundError) as error:
        problem = _explain(error)
        if problem is not None:
            raise OSError(f"`--model {model_id}`: {problem}") from error
        if not is_cached:
            raise OSError(
                f"`--model {model_id}`: there is no such folder, and the Hub cannot be reached ({error}). Check the "
                "connection, or pass a folder."
            ) from error
        report(f"The Hub cannot be reached; {model_id} is taken from its cache.")
        return {"local_files_only": True}
    return {}


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
