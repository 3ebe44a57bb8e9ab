"""The one slot for published layouts: the package, which knows them, fills it; in code on the Hub it stays empty."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, ProcessorMixin


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What must be known to load a checkpoint in a published layout.

    Args:
        config (`PreTrainedConfig`): Its configuration, translated.
        key_mapping (`dict[str, str]`): Regular expressions from its keys to ours, applied in order.
        read_tower (`Callable[[Sequence[str]], dict[str, torch.Tensor]]`): Reads the given tensors (names as in
            `vision_tower`) from the checkpoint of the vision tower. Called only if the checkpoint has none of them.
        new_components (`tuple[str, ...]`, *optional*): Components that such a checkpoint has not got yet, so that
            they may start fresh.
    """

    config: PreTrainedConfig
    key_mapping: Mapping[str, str]
    read_tower: Callable[[Sequence[str]], dict[str, torch.Tensor]]
    new_components: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedLayouts:
    """Three views of the published layouts, each of which leaves folders in our layout alone.

    Args:
        translate_config (`Callable`): Content of a `config.json`, where it is from, `vision_tower` and keywords for the
            Hub -> the fields of our configuration, or the same content.
        describe (`Callable`): Checkpoint, configuration, `vision_tower` and keywords for the Hub ->
            [`PublishedCheckpoint`] or `None`.
        load_processor (`Callable`): Checkpoint, keywords of `from_pretrained` and, where its model was just loaded, what
            `describe` gave as `described` -> the processor or `None`.
    """

    translate_config: Callable[..., dict[str, Any]]
    describe: Callable[..., PublishedCheckpoint | None]
    load_processor: Callable[..., ProcessorMixin | None]


_OURS_ONLY = PublishedLayouts(
    translate_config=lambda config_dict, *_, **__: config_dict,
    describe=lambda *_, **__: None,
    load_processor=lambda *_, **__: None,
)
_slot = [_OURS_ONLY]


def register_layouts(layouts: PublishedLayouts) -> None:
    """Make configurations, models and processors of this process read published layouts."""
    _slot[0] = layouts


def known_layouts() -> PublishedLayouts:
    """Return what is registered; without the package something that takes every folder for one in our layout."""
    return _slot[0]


__all__ = ["PublishedCheckpoint", "PublishedLayouts", "known_layouts", "register_layouts"]
