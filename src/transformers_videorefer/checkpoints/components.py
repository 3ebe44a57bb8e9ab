"""Component files: the connector or the region encoder alone, in the published layout or in ours."""

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import load_state_dict
from transformers.utils import cached_file
from transformers.utils.hub import EntryNotFoundError, LocalEntryNotFoundError, is_offline_mode


# Arguments that say where on the Hub a file lies; everything else belongs to the model or the processor.
HUB_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Files that hold a whole model, in the order of preference; an index names the shards.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Component -> its name in published files; both name their file, too.
PUBLISHED_COMPONENTS = {"connector": "mm_projector", "region_encoder": "region_encoder"}
COMPONENT_FILES = {
    name: (f"{name}.safetensors", f"{published}.bin") for name, published in PUBLISHED_COMPONENTS.items()
}


def hub_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the arguments that locate files on the Hub out of the keywords of a `from_pretrained`."""
    return {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}


def find_file(source: str | os.PathLike, filename: str, **hub_kwargs: Any) -> str | None:
    """Find a file of a checkpoint, a folder or Hub id; `hub_kwargs` are those of `HUB_ARGUMENTS`.

    `None` if there is no such file or `source` can be no Hub id, and for files that are not in the cache while offline
    mode or `local_files_only` forbids to ask the Hub.

    Raises:
        OSError: If the Hub cannot be reached or refuses access, so that nobody knows whether there is such a file.
    """
    if os.path.isdir(source):
        file = os.path.join(source, hub_kwargs.get("subfolder") or "", filename)
        return file if os.path.isfile(file) else None
    if not HUB_ID.fullmatch(os.fspath(source)):
        return None
    try:
        return cached_file(source, filename, **hub_kwargs)
    except OSError as error:
        is_offline = is_offline_mode() or hub_kwargs.get("local_files_only", False)
        if _says_that_there_is_none(error, is_offline):
            return None
        reason = " ".join(str(error).split())
        raise OSError(f"`{filename}` of `{source}` cannot be looked up: {reason}") from error


def _says_that_there_is_none(error: OSError, is_offline: bool) -> bool:
    """Tell a missing file from a Hub that gave no answer."""
    cause = error.__cause__
    if isinstance(cause, LocalEntryNotFoundError):
        return is_offline  # else the library fell back to its cache because the Hub gave no answer
    if cause is None:
        # What the library raises once the Hub has said that there is no such file; errors of the system have a number.
        return type(error) is OSError and error.errno is None
    return isinstance(cause, EntryNotFoundError)


def published_key_mapping(connector_depth: int) -> dict[str, str]:
    r"""Regular expressions from the published keys of connector and region encoder to ours, applied in order.

    Every pattern is tied to the start of the key, so that a mapping never touches keys of our own layout, and has at
    most one group, which is what `from_pretrained(key_mapping=...)` can handle.
    """
    mapping = {
        # Published blocks count from 1.
        rf"^model\.mm_projector\.s{stage}\.b{block + 1}\.": f"model.connector.stage{stage}.{block}."
        for stage in (1, 2)
        for block in range(connector_depth)
    }
    mapping[r"^model\.mm_projector\.sampler\.0\."] = "model.connector.sampler."
    mapping[r"^model\.mm_projector\.readout\."] = "model.connector.mlp."
    for number in (1, 2, 3):
        mapping[rf"^(model\.connector\.\S+)\.conv{number}\.conv\."] = rf"\1.conv{number}."
        mapping[rf"^(model\.connector\.\S+)\.conv{number}\.bn\."] = rf"\1.norm{number}."
    mapping[r"^(model\.connector\.\S+)\.se\."] = r"\1.squeeze_excitation."
    mapping[r"^(model\.connector\.\S+)\.downsample\.conv\."] = r"\1.shortcut.conv."
    mapping[r"^(model\.connector\.\S+)\.downsample\.bn\."] = r"\1.shortcut.norm."
    mapping[r"^model\.region_encoder\.feat_linear\.0\."] = "model.region_encoder.linear_1."
    mapping[r"^model\.region_encoder\.feat_linear\.2\."] = "model.region_encoder.linear_2."
    return mapping


def rename_key(key: str, mapping: Mapping[str, str]) -> str:
    """Apply a key mapping to one key, as `from_pretrained(key_mapping=...)` does."""
    for pattern, replacement in mapping.items():
        key = re.sub(pattern, replacement, key, count=1)
    return key


def component_of_key(key: str) -> str | None:
    """Name the component that a key of our layout belongs to, `None` for the rest of the model."""
    root = key.removeprefix("model.").split(".", 1)[0]
    return root if root in PUBLISHED_COMPONENTS else None


def _to_our_key(key: str, mapping: Mapping[str, str]) -> str:
    """Bring a key of a component file into our layout: with or without prefixes, published names or ours."""
    # Trainers put prefixes such as `base_model.model.` or `module.` in front.
    match = re.search(r"(?:^|\.)((?:mm_projector|connector|region_encoder)\..+)$", key)
    if match is not None:
        key = match[1]
    elif key.startswith("feat_linear."):
        key = f"region_encoder.{key}"
    elif re.match(r"(s\d\.b\d+|sampler\.0|readout)\.", key):
        key = f"mm_projector.{key}"
    return rename_key(f"model.{key}", mapping).removeprefix("model.")


def _resolve_file(source: str | os.PathLike, component: str | None, **hub_kwargs: Any) -> str:
    """Find the component file of a folder or Hub id, or take a file as it is."""
    if os.path.isfile(source):
        return os.fspath(source)
    wanted = [component] if component is not None else list(COMPONENT_FILES)
    found = {name: path for name in wanted if (path := _first_file(source, COMPONENT_FILES[name], **hub_kwargs))}
    if not found:
        names = ", ".join(name for files in (COMPONENT_FILES[name] for name in wanted) for name in files)
        raise OSError(f"`{source}` holds no component file ({names}). Pass the file, its folder or its Hub id.")
    if len(found) > 1:
        raise ValueError(f"`{source}` holds {sorted(found)}. Pass `component` to choose one.")
    return next(iter(found.values()))


def _first_file(source: str | os.PathLike, names: Iterable[str], **hub_kwargs: Any) -> str | None:
    return next((path for name in names if (path := find_file(source, name, **hub_kwargs)) is not None), None)


def component_files(source: str | os.PathLike, **hub_kwargs: Any) -> list[str]:
    """List the names of the component files of a folder or Hub id."""
    names = [name for files in COMPONENT_FILES.values() for name in files]
    return [name for name in names if find_file(source, name, **hub_kwargs) is not None]


def read_component(
    path_or_id: str | os.PathLike, component: str | None, connector_depth: int, **hub_kwargs: Any
) -> tuple[str, dict[str, torch.Tensor]]:
    """Read a component file, without running any code that it may contain.

    The name of the component, if it is not given, is found out from the keys; the tensors come under our names relative
    to it (such as `linear_1.weight`).

    Raises:
        OSError: If there is no such file, or it does not hold tensors.
        ValueError: If the keys belong to no component, to several, or to another one than `component`.
    """
    if component is not None and component not in COMPONENT_FILES:
        raise ValueError(f"`component` must be one of {sorted(COMPONENT_FILES)}, got {component!r}.")
    file = _resolve_file(path_or_id, component, **hub_kwargs)
    try:
        tensors = load_state_dict(file)  # `weights_only=True` for pickles
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise OSError(f"`{path_or_id}` cannot be read as a file of tensors: {error}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise OSError(f"`{path_or_id}` is no mapping from names to tensors.")
    mapping = published_key_mapping(connector_depth)
    renamed = {_to_our_key(key, mapping): tensor for key, tensor in tensors.items()}
    owners = {component_of_key(key) for key in renamed}
    if len(owners) != 1 or None in owners:
        foreign = sorted(key for key in renamed if component_of_key(key) is None)
        raise ValueError(
            f"`{path_or_id}` must hold the keys of one component, connector (`mm_projector`) or region encoder, but "
            + (f"has others: {_listing(foreign)}." if foreign else f"has those of {sorted(map(str, owners))}.")
        )
    name = str(owners.pop())
    if component is not None and name != component:
        raise ValueError(f"`{path_or_id}` holds the {name}, not the {component} that `component` asks for.")
    return name, {key.removeprefix(f"{name}."): tensor for key, tensor in renamed.items()}


def check_tensors(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], source: Any) -> None:
    """Raise unless tensors, or anything with a `shape`, have the names and shapes of those they are meant for."""
    problems = []
    if missing := sorted(set(wanted) - set(found)):
        problems.append(f"lacks {_listing(missing)}")
    if unknown := sorted(set(found) - set(wanted)):
        problems.append(f"has unknown {_listing(unknown)}")
    wrong = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in sorted(set(wanted) & set(found))
        if tuple(found[key].shape) != tuple(wanted[key].shape)
    ]
    if wrong:
        problems.append(f"has shapes that differ: {_listing(wrong)}")
    if problems:
        raise ValueError(
            f"`{source}` does not fit {what}: it {'; it '.join(problems)}. Check that the file is complete and belongs "
            "to a model of this size."
        )


def _listing(names: list[str], most: int = 50) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def load_component(
    module: nn.Module,
    path_or_id: str | os.PathLike,
    *,
    component: str | None = None,
    connector_depth: int,
    **hub_kwargs: Any,
) -> str:
    """Load a component file into a base model, as the method of the models does; nothing is changed if it does not fit."""
    name, tensors = read_component(path_or_id, component, connector_depth, **hub_kwargs)
    target = module.get_submodule(name)
    parameters = target.state_dict(keep_vars=True)
    check_tensors(f"the {name} of this model", tensors, parameters, path_or_id)
    if any(value.is_meta for value in parameters.values()):
        raise ValueError(
            f"The {name} of this model is offloaded, so nothing can be loaded into it. Load the model without "
            "offloading, or convert the checkpoint together with the component."
        )
    target.load_state_dict(tensors)
    return name


def component_state_dict(module: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a component of the base model `module` under the names of our component files."""
    if name not in COMPONENT_FILES:
        raise ValueError(f"`name` must be one of {sorted(COMPONENT_FILES)}, got {name!r}.")
    return {f"{name}.{key}": value for key, value in module.get_submodule(name).state_dict().items()}


def component_path(folder: str | os.PathLike, name: str) -> Path:
    """Return the path of the file that `save_component` writes for a component."""
    return Path(folder) / COMPONENT_FILES[name][0]
