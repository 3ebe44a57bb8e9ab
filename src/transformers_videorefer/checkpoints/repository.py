"""What a repository holds beside weights and settings: code, exported by reach, and card; and how it is pushed to the Hub."""

import ast
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


PACKAGE = "transformers_videorefer"
# This module travels too. What came with a saved repository is flat already, and is passed on as it is.
_IS_COPY = __name__.split(".")[0] != PACKAGE
_ROOT = Path(__file__).parent if _IS_COPY else Path(__file__).parents[1]
# Keywords of `save_pretrained(push_to_hub=True, ...)` that concern the upload.
COMMIT_ARGUMENTS = ("token", "commit_message", "commit_description", "revision", "create_pr")
PUSH_ARGUMENTS = ("repo_id", "private", *COMMIT_ARGUMENTS)
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
    """Write the code files that load a saved repository into a folder, starting at the modules of its `auto_map`."""
    flatten_code(sorted({entry.split(".")[0] for entry in auto_map.values()}), folder)


def flatten_code(modules: Iterable[str], folder: str | os.PathLike) -> None:
    """Write the modules that a saved repository starts at, and all that they import of ours, into one folder.

    `from transformers_videorefer.regions.rle import x` leads on to `regions/rle.py`. It is written as `regions_rle.py`,
    and the statement as `from .regions_rle import x`; nothing else of a file changes. Files of `models/<family>/` keep
    their names. Code that came with a saved repository is copied as it is.

    Args:
        modules (`Iterable[str]`): Names of modules of a model family, such as `"modeling_videorefer"`.
        folder (`str` or `os.PathLike`): Where to. Other files there stay.

    Raises:
        FileNotFoundError: If a module does not exist. Nothing is written then.
        ValueError: If a file imports the package in a form that cannot be followed. Nothing is written then.
    """
    ahead = [file for module in modules for file in _find_module(module)]
    texts: dict[Path, bytes] = {}
    while ahead:
        file = ahead.pop()
        if file not in texts:
            texts[file], reached = _flatten(file)
            ahead += reached
    for file, text in texts.items():
        target = Path(folder, _flat_name(file))
        if not (target.exists() and target.samefile(file)):
            target.write_bytes(text)


def _find_module(module: str) -> list[Path]:
    """Find a module of a model family by its name."""
    if _IS_COPY:
        # A process that only loaded the processor has no copy of the model's code, and its save needs none.
        return [file for file in [_ROOT / f"{module}.py"] if file.exists()]
    files = list(_ROOT.glob(f"models/*/{module}.py"))
    if len(files) != 1:
        raise FileNotFoundError(f"{len(files)} files of `{PACKAGE}/models` are named `{module}.py`; one is needed.")
    return files


def _flat_name(file: Path) -> str:
    """Name a file where all files lie in one folder."""
    parts = file.relative_to(_ROOT).parts
    return parts[-1] if parts[0] == "models" else "_".join(parts)


def _flatten(file: Path) -> tuple[bytes, list[Path]]:
    """Make the imports of our modules relative, and list the files they lead to."""
    source = file.read_bytes()
    lines, reached = source.decode().split("\n"), []
    for node, target in _imports_of_ours(ast.parse(source), file):
        if not target.is_file():
            raise FileNotFoundError(f"`{ast.unparse(node)}` of {file.name} leads to no file. Name a module.")
        reached.append(target)
        if not node.level:
            line, head = lines[node.lineno - 1], f"from {node.module} import"
            if head not in line:
                raise ValueError(f"`{ast.unparse(node)}` of {file.name} must start on one line, to be rewritten.")
            lines[node.lineno - 1] = line.replace(head, f"from .{Path(_flat_name(target)).stem} import", 1)
    return "\n".join(lines).encode(), reached


def _imports_of_ours(tree: ast.AST, file: Path) -> Iterator[tuple[ast.ImportFrom, Path]]:
    """Yield the imports of our modules, inside of functions too, and where each leads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        level = getattr(node, "level", 0)
        if not level and all(name.split(".")[0] != PACKAGE for name in names):
            continue
        if isinstance(node, ast.Import) or level != int(_IS_COPY) or not names[0]:
            raise ValueError(
                f"`{ast.unparse(node)}` of {file.name} cannot be exported. Write `from {PACKAGE}.folder.module import "
                "name`."
            )
        yield node, _ROOT.joinpath(*names[0].removeprefix(f"{PACKAGE}.").split(".")).with_suffix(".py")


def write_card(folder: str | os.PathLike, source: str | os.PathLike | None = None) -> None:
    """Write a model card, unless there is one; it names what the model was loaded from if that is a Hub id."""
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
    """Give weight files, which safetensors makes readable by their owner alone, the permissions of other new files."""
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
    """Upload files of a folder to the Hub, to a repository that is made, private unless told otherwise, if there is none.

    A `README.md` never replaces one that the repository has.
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
        push_kwargs = {name: kwargs.pop(name) for name in COMMIT_ARGUMENTS if kwargs.get(name) is not None}
        kwargs.pop("tags", None)  # the card has its own
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **kwargs)
            return self._push_changes(folder, {}, repo_id=repo_id, private=private, **push_kwargs)


__all__ = [
    "PUSH_ARGUMENTS",
    "PushingMixin",
    "changed_files",
    "edit_json",
    "file_times",
    "flatten_code",
    "give_usual_modes",
    "hub_id_or_none",
    "push_files",
    "write_card",
    "write_code",
]
