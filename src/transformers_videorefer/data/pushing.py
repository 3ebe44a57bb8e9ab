"""Uploading an exported folder to the Hub: private unless told otherwise."""

import os
from pathlib import Path

from huggingface_hub import HfApi


# The state of an export, temporary files and reports that only concern the source on this machine.
IGNORED = [".*", ".*/**", "**/.*", "**/.*/**"]


def push_folder(folder: str | os.PathLike, repo_id: str, *, public: bool = False) -> str:
    """Upload an exported folder to a dataset repository.

    Args:
        folder (`str` or `os.PathLike`): Folder with Parquet files and a card.
        repo_id (`str`): Repository, `"organisation/name"`; made if there is none.
        public (`bool`, *optional*, defaults to `False`): Whether a new repository is public, and whether an existing
            public one may be written to.

    Returns:
        `str`: Address of the repository.

    Raises:
        FileNotFoundError: If the folder has no card.
        ValueError: If the repository exists, is public, and `public` is not set.
    """
    folder = Path(folder)
    if not (folder / "README.md").is_file():
        raise FileNotFoundError(f"There is no README.md in {folder}. Export a set into it first.")
    api = HfApi()
    url = api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
    if not public and not api.dataset_info(repo_id).private:
        raise ValueError(
            f"The repository {repo_id} exists and is public. Pass `public` (--public) to upload to it, or choose "
            "another name."
        )
    # Files of an earlier export under other names would be loaded beside the new ones.
    stale = [f"{path.name}/*.parquet" for path in sorted(folder.iterdir()) if any(path.glob("*.parquet"))]
    api.upload_folder(
        repo_id=repo_id,
        repo_type="dataset",
        folder_path=folder,
        ignore_patterns=IGNORED,
        delete_patterns=stale,
        commit_message="Upload dataset",
    )
    return str(url)
