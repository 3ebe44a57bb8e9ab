"""Intervals and tests against numbers worked out by hand."""

import itertools

import numpy as np
import pytest

from transformers_videorefer.evaluation.statistics import (
    bootstrap_interval,
    bootstrap_means,
    paired_bootstrap,
    sign_test,
)


def test_means_of_draws_follow_the_binomial_law() -> None:
    """Of four answers, three right: a draw of four has k right with chance C(4, k) 0.75^k 0.25^(4-k)."""
    means = bootstrap_means(np.array([1, 1, 1, 0]), num_resamples=100_000)
    shares = [(means == number / 4).mean() for number in range(5)]
    assert np.allclose(shares, [0.0039, 0.0469, 0.2109, 0.4219, 0.3164], atol=0.005)


def test_interval_of_a_small_set() -> None:
    """P(no right) = 0.004 and P(at most one right) = 0.051, so the 2.5 % point is 0.25; P(all right) = 0.32."""
    assert bootstrap_interval(np.array([1, 1, 1, 0])) == (0.25, 1.0)


def test_interval_of_a_large_set_is_that_of_the_normal_law() -> None:
    values = np.repeat([1.0, 0.0], [719, 281])
    half = 1.96 * np.sqrt(0.719 * 0.281 / 1000)
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(0.719 - half, abs=0.0015)
    assert high == pytest.approx(0.719 + half, abs=0.0015)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_whole_groups_are_drawn() -> None:
    """Two videos, of which one has three right and the other one wrong answer: means are 0, 3/4 or 1."""
    means = bootstrap_means(np.array([1, 0, 1, 1]), ["a", "b", "a", "a"], num_resamples=40_000)
    shares = {mean: (means == mean).mean() for mean in np.unique(means)}
    assert sorted(shares) == [0, 0.75, 1]
    assert np.allclose([shares[0], shares[0.75], shares[1]], [0.25, 0.5, 0.25], atol=0.01)


def test_groups_of_one_are_samples() -> None:
    values = np.array([0.0, 1.0, 0.5])
    assert np.array_equal(bootstrap_means(values), bootstrap_means(values, ["x", "y", "z"]))


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="`values` is empty"):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match="`groups` has 1 entries for 2 `values`"):
        bootstrap_means(np.array([1, 2]), ["a"])


def test_exact_mcnemar() -> None:
    """Eight samples differ, one against seven: 2 (1 + 8) / 2^8."""
    first = np.array([1] * 1 + [0] * 7 + [1] * 5)
    second = np.array([0] * 1 + [1] * 7 + [1] * 5)
    expected = {"num_first_better": 1, "num_second_better": 7, "num_equal": 5, "p_value": 18 / 256}
    assert sign_test(first, second) == expected


def test_sign_test_of_graded_scores_and_of_equal_ones() -> None:
    assert sign_test(np.array([1, 2, 3.5]), np.array([2, 3, 5]))["p_value"] == 0.25
    assert sign_test(np.array([1, 2]), np.array([1, 2]))["p_value"] == 1.0
    assert sign_test(np.array([1, 0]), np.array([0, 1]))["p_value"] == 1.0


def test_sign_test_of_thousands_of_samples() -> None:
    """3,000 differing samples, 1,400 against 1,600: the normal law with continuity correction gives about 0.00028."""
    first = np.repeat([1, 0], [1400, 1600])
    assert sign_test(first, 1 - first)["p_value"] == pytest.approx(0.00028, rel=0.05)


def test_paired_bootstrap_of_a_small_set() -> None:
    """Differences 1, 0, 0: every third draw of three has none of the first, (2/3)^3 = 0.296, and none is below 0."""
    found = paired_bootstrap(np.array([0, 1, 0]), np.array([1, 1, 0]), num_resamples=50_000)
    assert found["difference"] == pytest.approx(1 / 3)
    assert found["interval"] == pytest.approx([0.0, 1.0])
    assert found["p_value"] == pytest.approx(2 * (2 / 3) ** 3, abs=0.01)


def test_paired_bootstrap_knows_a_clear_difference() -> None:
    first, second = np.zeros(100), np.ones(100)
    found = paired_bootstrap(first, second)
    assert found["interval"] == [1.0, 1.0]
    assert found["p_value"] == pytest.approx(2 / 10_001)
    assert paired_bootstrap(first, first)["p_value"] == 1.0
    with pytest.raises(ValueError, match="`first` has 1 scores and `second` 2"):
        paired_bootstrap(np.zeros(1), np.zeros(2))


def test_chances_of_all_draws_of_three_are_met() -> None:
    """All 27 draws of three values, each equally likely."""
    values = np.array([0.0, 0.3, 1.0])
    exact = np.array([np.mean(draw) for draw in itertools.product(values, repeat=3)])
    means = bootstrap_means(values, num_resamples=60_000)
    for point in (0.2, 0.45, 0.7):
        assert (means <= point).mean() == pytest.approx((exact <= point).mean(), abs=0.01)
