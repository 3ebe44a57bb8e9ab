"""Uploading an exported folder to the Hub: private unless told otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError

from transformers_videorefer.data.sources.published import HUB_ERRORS

from .publishing import REPORT_FOLDER


# The state of an export, temporary files and reports that only concern the source on this machine.
IGNORED = [".*", ".*/**", "**/.*", "**/.*/**", f"{REPORT_FOLDER}/**"]


def check_access(repo_id: str, *, public: bool = False) -> None:
    """Check that a dataset repository may be written to, before an hour is spent on what goes there.

    Args:
        repo_id (`str`): Repository, `"organisation/name"` or `"name"`; it need not exist.
        public (`bool`, *optional*, defaults to `False`): As in [`push_folder`].

    Raises:
        ConnectionError: If the Hub cannot be reached or refuses.
        ValueError: If nobody is logged in, the login may only read, the repository belongs to somebody else, or it is
            public and `public` is not set.
    """
    api = HfApi()
    with _one_line(repo_id):
        try:
            user = api.whoami()
        except LocalTokenNotFoundError as error:
            raise ValueError(
                f"Nobody is logged in who could write to {repo_id}. Run `hf auth login`, or set HF_TOKEN."
            ) from error
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise ValueError(
                f"The token of {user['name']} may only read. Log in with one that may write to {repo_id}."
            )
        owners = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
        owner = repo_id.split("/")[0] if "/" in repo_id else user["name"]
        if owner.lower() not in map(str.lower, owners):
            raise ValueError(
                f"{user['name']} cannot write to {repo_id}. Choose a repository of {' or '.join(owners)}, or log in as "
                "somebody else."
            )
        try:
            _check_private(api, repo_id, public)
        except RepositoryNotFoundError:  # it will be made
            pass


def _check_private(api: HfApi, repo_id: str, public: bool) -> None:
    if not public and not api.dataset_info(repo_id).private:
        raise ValueError(
            f"The repository {repo_id} exists and is public. Pass `public` (--public) to upload to it, or choose "
            "another name."
        )


@contextmanager
def _one_line(repo_id: str) -> Iterator[None]:
    """Turn errors of the connection, which come in several lines and types, into one sentence and an advice."""
    try:
        yield
    except HUB_ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise ConnectionError(
            f"The Hub gives no access to {repo_id}: {reason}. Check the network and the login, then give the same command "
            "again."
        ) from error


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
        ConnectionError: If the Hub cannot be reached or refuses.
        FileNotFoundError: If the folder has no card.
        ValueError: If the repository exists, is public, and `public` is not set.
    """
    folder = Path(folder)
    if not (folder / "README.md").is_file():
        raise FileNotFoundError(f"There is no README.md in {folder}. Export a set into it first.")
    # Files of an earlier export under other names would be loaded beside the new ones.
    stale = [f"{path.name}/*.parquet" for path in sorted(folder.iterdir()) if any(path.glob("*.parquet"))]
    api = HfApi()
    with _one_line(repo_id):
        url = api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
        _check_private(api, repo_id, public)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            ignore_patterns=IGNORED,
            delete_patterns=stale,
            commit_message="Upload dataset",
        )
    return str(url)
