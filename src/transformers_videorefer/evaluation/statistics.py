"""Intervals and paired tests for scores of samples, with NumPy alone; seeded, so that the same scores give the same numbers."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


NUM_RESAMPLES = 10_000
LEVEL = 0.95
# Below this many groups percentile intervals are clearly too narrow: of two groups alike they have no width at all.
FEW_GROUPS = 20
# Draws are made in blocks of about this many numbers, so that memory does not grow with the benchmark.
_BLOCK = 2_000_000


def bootstrap_means(
    values: np.ndarray, groups: Sequence[Hashable] | None = None, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Draw samples again, with replacement, and average each draw.

    Args:
        values (`np.ndarray` of shape `(num_samples,)`): Scores.
        groups (`Sequence[Hashable]`, *optional*): What samples belong to. Whole groups are drawn then, because
            questions about one video are not independent; by default each sample is a group.
        num_resamples (`int`, *optional*, defaults to 10000): How many draws.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        `np.ndarray` of shape `(num_resamples,)`: The means.

    Raises:
        ValueError: If there are no samples, or `groups` has another length.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("`values` is empty. Pass the score of at least one sample.")
    numbers = range(len(values)) if groups is None else groups
    if len(numbers) != len(values):
        raise ValueError(f"`groups` has {len(numbers)} entries for {len(values)} `values`. Pass one for each.")
    places: dict[Hashable, int] = {}
    of_sample = np.array([places.setdefault(number, len(places)) for number in numbers])
    sums, counts = np.bincount(of_sample, weights=values), np.bincount(of_sample)
    rng = np.random.default_rng(seed)
    means = []
    per_block = max(1, _BLOCK // len(places))
    for start in range(0, num_resamples, per_block):
        # (draws, groups)
        drawn = rng.integers(len(places), size=(min(per_block, num_resamples - start), len(places)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def bootstrap_interval(
    values: np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate how far the mean would move with other samples of the same kind (percentile bootstrap).

    Args:
        values (`np.ndarray` of shape `(num_samples,)`): Scores.
        groups (`Sequence[Hashable]`, *optional*): As in [`bootstrap_means`].
        level (`float`, *optional*, defaults to 0.95): Share of the draws inside the interval.
        num_resamples (`int`, *optional*, defaults to 10000): How many draws.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        `tuple[float, float]`: Lower and upper end.

    Raises:
        ValueError: As in [`bootstrap_means`].
    """
    means = bootstrap_means(values, groups, num_resamples=num_resamples, seed=seed)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_test(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Test whether one of two models is better, sample by sample; with scores 0 and 1 this is the exact McNemar test.

    Args:
        first (`np.ndarray` of shape `(num_samples,)`): Scores of one model.
        second (`np.ndarray` of shape `(num_samples,)`): Scores of the other on the same samples.

    Returns:
        `dict`: `num_first_better`, `num_second_better`, `num_equal`, and `p_value`: the two-sided chance of counts as
        unequal as these if each differing sample went either way like a coin.
    """
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    num_first, num_second = int((difference < 0).sum()), int((difference > 0).sum())
    return {
        "num_first_better": num_first,
        "num_second_better": num_second,
        "num_equal": len(difference) - num_first - num_second,
        "p_value": _coin_p_value(num_first, num_second),
    }


def _coin_p_value(heads: int, tails: int) -> float:
    """Return the two-sided exact binomial probability for a fair coin, in whole numbers up to the last division."""
    num_tosses = heads + tails
    tail = sum(math.comb(num_tosses, count) for count in range(min(heads, tails) + 1))
    # Integer division of two exact numbers: floats overflow beyond a thousand tosses.
    return min(1.0, 2 * tail / 2**num_tosses)


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Estimate the difference of two models on the same samples, which are drawn for both together.

    Args:
        first (`np.ndarray` of shape `(num_samples,)`): Scores of one model.
        second (`np.ndarray` of shape `(num_samples,)`): Scores of the other.
        groups (`Sequence[Hashable]`, *optional*): As in [`bootstrap_means`].
        num_resamples (`int`, *optional*, defaults to 10000): How many draws.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        `dict`: `difference` (second - first), its 95 % `interval`, and `p_value`: twice the share of draws in which the
        difference has the other sign or is zero, at most 1.

    Raises:
        ValueError: If there are no samples, or the two differ in number.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"`first` has {len(first)} scores and `second` {len(second)}. Pass those of the same samples."
        )
    means = bootstrap_means(second - first, groups, num_resamples=num_resamples, seed=seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The observed samples count as one more draw, so that no finite number of draws gives a probability of zero.
    num_against = min(int((means <= 0).sum()), int((means >= 0).sum())) + 1
    return {
        "difference": float((second - first).mean()),
        "interval": [float(low), float(high)],
        "p_value": min(1.0, 2 * num_against / (num_resamples + 1)),
    }
