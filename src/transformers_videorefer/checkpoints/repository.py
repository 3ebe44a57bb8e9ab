"""What a repository holds beside weights and settings: code and card; and how it is pushed to the Hub."""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers_videorefer.checkpoints.flattening import flatten_code


# Keywords of `save_pretrained(push_to_hub=True, ...)` that concern the upload.
PUSH_ARGUMENTS = ("repo_id", "private", "token", "commit_message", "commit_description", "revision", "create_pr")
CARD = """---
library_name: transformers
pipeline_tag: video-text-to-text
{base_model}tags:
- videorefer
- video
- region-understanding
---

# VideoRefer

A VideoRefer model: it answers questions about any region of a video or an image, given as a mask, a box, a polygon or
a scribble on one or several frames ([paper](https://arxiv.org/abs/2501.00599)).
{base}
## Use

The code travels with the weights; beside `transformers` it needs `av` to open video files.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

repository = "..."  # the Hub id of this repository, or the folder it was downloaded to
model = AutoModelForImageTextToText.from_pretrained(repository, dtype="auto", trust_remote_code=True)
processor = AutoProcessor.from_pretrained(repository, trust_remote_code=True)
messages = [{{"role": "user", "content": [
    {{"type": "video", "path": "dog.mp4"}},
    {{"type": "text", "text": "What is "}},
    {{"type": "region", "frames": [{{"frame_index": 0, "box": [300, 0, 800, 430]}}]}},
    {{"type": "text", "text": " doing?"}}]}}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
).to(model.device)
output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(processor.batch_decode(output[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)[0])
```
"""


def write_code(folder: str | os.PathLike, auto_map: Mapping[str, str]) -> None:
    """Write the code files that load a saved repository into a folder.

    Args:
        folder (`str` or `os.PathLike`): Where to.
        auto_map (`Mapping[str, str]`): Auto class -> module and class that the code starts at.
    """
    flatten_code(sorted({entry.split(".")[0] for entry in auto_map.values()}), folder)


def write_card(folder: str | os.PathLike, source: str | os.PathLike | None = None) -> None:
    """Write a model card, unless there is one.

    Args:
        folder (`str` or `os.PathLike`): Where to.
        source (`str` or `os.PathLike`, *optional*): What the model was loaded from; named if it is a Hub id.
    """
    card = Path(folder) / "README.md"
    if card.exists():
        return
    hub_id = hub_id_or_none(source)
    card.write_text(
        CARD.format(
            base_model=f"base_model: {hub_id}\n" if hub_id else "",
            base=f"\nMade from [{hub_id}](https://huggingface.co/{hub_id}).\n" if hub_id else "",
        ),
        encoding="utf-8",
    )


def hub_id_or_none(source: str | os.PathLike | None) -> str | None:
    """Return `source` if it is the Hub id of a model and no path of this machine."""
    if source is None or os.path.exists(source) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)):
        return None
    return str(source)


def edit_json(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file of settings in place."""
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def file_times(folder: str | os.PathLike) -> dict[str, int]:
    """Return when each file of a folder was last changed, in nanoseconds."""
    return {file.name: file.stat().st_mtime_ns for file in Path(folder).iterdir() if file.is_file()}


def changed_files(folder: str | os.PathLike, times: dict[str, int]) -> list[str]:
    """Return the names of the files of a folder that changed since `file_times` gave `times`."""
    return [name for name, time in file_times(folder).items() if times.get(name) != time]


def give_usual_modes(files: Iterable[Path]) -> None:
    """Give weight files the permissions of files that are opened for writing.

    safetensors makes them readable by their owner alone, whatever the other files of the folder are.

    Args:
        files (`Iterable[Path]`): Files that were just written; only `.safetensors` files are changed.
    """
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    for file in files:
        if file.suffix == ".safetensors":
            file.chmod(0o666 & ~umask)


def push_files(
    folder: str | os.PathLike,
    files: list[str],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    **commit_kwargs: Any,
) -> Any:
    """Upload files of a folder to the Hub.

    Args:
        folder (`str` or `os.PathLike`): Where the files lie.
        files (`list[str]`): Their names. A `README.md` never replaces one that the repository has.
        repo_id (`str`): Repository; created if there is none.
        private (`bool`, *optional*): Whether a new repository is private; it is unless this is `False`.
        token (`str` or `bool`, *optional*): Token of the Hub.
        commit_kwargs: `commit_message`, `commit_description`, `revision` and `create_pr` of the upload.

    Returns:
        `CommitInfo`: What the Hub says about the commit.
    """
    from transformers.utils.hub import hf_api

    api = hf_api()
    repo_id = api.create_repo(repo_id, private=private is not False, token=token, exist_ok=True).repo_id
    if "README.md" in files and api.file_exists(repo_id, "README.md", token=token):
        files = [name for name in files if name != "README.md"]
    revision = commit_kwargs.get("revision")
    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, token=token, exist_ok=True)
    return api.upload_folder(folder_path=folder, repo_id=repo_id, allow_patterns=files, token=token, **commit_kwargs)


class PushingMixin:
    """`save_pretrained(push_to_hub=True)` and `push_to_hub`, private unless told otherwise."""

    def _push_changes(self, folder: str | os.PathLike, times: dict[str, int], **kwargs: Any) -> Any:
        changed = changed_files(folder, times)
        repo_id = kwargs.pop("repo_id", Path(folder).resolve().name)
        kwargs.setdefault("commit_message", f"Upload {type(self).__name__}")
        return push_files(folder, changed, repo_id, **kwargs)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **kwargs: Any) -> Any:
        """Upload to the Hub what `save_pretrained` writes.

        Args:
            repo_id (`str`): Repository; created if there is none.
            private (`bool`, *optional*): Whether a new repository is private; it is unless this is `False`.
            kwargs: `commit_message`, `commit_description`, `token`, `revision` and `create_pr` of the upload, and
                arguments of `save_pretrained`.

        Returns:
            `CommitInfo`: What the Hub says about the commit.
        """
        names = ("commit_message", "commit_description", "token", "revision", "create_pr")
        push_kwargs = {name: kwargs.pop(name) for name in names if kwargs.get(name) is not None}
        kwargs.pop("tags", None)  # the card has its own
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **kwargs)
            return self._push_changes(folder, {}, repo_id=repo_id, private=private, **push_kwargs)


__all__ = [
    "PushingMixin",
    "changed_files",
    "edit_json",
    "file_times",
    "give_usual_modes",
    "push_files",
    "write_card",
    "write_code",
]
