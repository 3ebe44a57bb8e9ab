"""Mixtures: several sources as one dataset, in an order that the seed alone decides."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .sources import DataSource, load_source


try:
    import datasets
except ImportError as error:
    raise ImportError("Mixtures need the library `datasets`. Install it with `pip install datasets`.") from error

logger = logging.getLogger(__name__)

# Rows among which a streamed mixture is shuffled; they hold masks, so more would be large.
SHUFFLE_BUFFER = 1000


def build_mixture(
    sources: Sequence[DataSource | Mapping[str, Any]],
    *,
    streaming: bool = False,
    seed: int = 0,
    oversample: bool = False,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    num_proc: int | None = None,
) -> Any:
    """Make one dataset of several sources.

    Without weights every row comes once per epoch. With weights, the next row is drawn from a source by its weight
    until the first source is used up or, with `oversample`, until each was used up at least once.

    Args:
        sources (`Sequence[DataSource | Mapping]`): The sources, or entries of a YAML list.
        streaming (`bool`, *optional*, defaults to `False`): Whether rows are read as they are needed.
        seed (`int`, *optional*, defaults to `0`): Seed of the draws, of caps and of the shuffling of a stream.
        oversample (`bool`, *optional*, defaults to `False`): Whether rows of small sources come again.
        shuffle_buffer (`int`, *optional*, defaults to `1000`): Rows among which a stream is shuffled; 0 keeps its order.
            Datasets that are not streamed are shuffled by the trainer.
        num_proc (`int`, *optional*): Processes that read published JSON.

    Returns:
        `Dataset` or `IterableDataset`: The mixture.

    Raises:
        ValueError: If there is no source, only some have weights, or a source is not as it should be.
        OSError: If a source cannot be found.
    """
    sources = [one if isinstance(one, DataSource) else DataSource.from_dict(one) for one in sources]
    if not sources:
        raise ValueError("`datasets` is empty. Name at least one source.")
    weights = [source.weight for source in sources]
    if None in weights and any(weight is not None for weight in weights):
        lacking = next(source.path for source in sources if source.weight is None)
        raise ValueError(f"`weight` is missing for {lacking!r}: give one to every source of the mixture, or to none.")
    parts, sizes = [], []
    for source in sources:
        part, size = _load_part(source, streaming=streaming, seed=seed, num_proc=num_proc)
        logger.info("%s: %s rows", source.label, "unknown number of" if size is None else size)
        parts.append(part)
        sizes.append(size)
    mixture = _combine(parts, sizes, weights, streaming=streaming, seed=seed, oversample=oversample)
    if streaming and shuffle_buffer:
        mixture = mixture.shuffle(seed=seed, buffer_size=shuffle_buffer)
    return mixture


def _load_part(source: DataSource, *, streaming: bool, seed: int, num_proc: int | None) -> tuple[Any, int | None]:
    """Load a source, cut it to its cap, and tell how many rows it has."""
    part = load_source(source, streaming=streaming, num_proc=num_proc)
    if streaming:
        return (part if source.max_rows is None else part.take(source.max_rows)), source.max_rows
    if source.max_rows is not None and source.max_rows < len(part):
        part = part.shuffle(seed=seed).select(range(source.max_rows))
    if not len(part):
        raise ValueError(f"No rows of {source.path!r} are left. Check its `split` and `filters`.")
    return part, len(part)


def _combine(
    parts: list[Any],
    sizes: list[int | None],
    weights: list[float | None],
    *,
    streaming: bool,
    seed: int,
    oversample: bool,
) -> Any:
    if len(parts) == 1:
        return parts[0]
    if weights[0] is None and not streaming:
        return datasets.concatenate_datasets(parts)
    if weights[0] is None:
        # In turn, by size where it is known, so that small sources do not run out early.
        shares = None if None in sizes else [size / sum(sizes) for size in sizes]
        strategy = "all_exhausted_without_replacement"
    else:
        shares = [weight / sum(weights) for weight in weights]
        strategy = "all_exhausted" if oversample else "first_exhausted"
    return datasets.interleave_datasets(parts, probabilities=shares, seed=seed, stopping_strategy=strategy)
