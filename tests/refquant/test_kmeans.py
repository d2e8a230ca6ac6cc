from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeded

from refquant import kmeans, quantile
from refquant.errors import NonFiniteError, RangeError, ShapeError


def loss(x, w, levels):
    return float((w * np.square(x.astype(np.float64)[:, None] - levels.astype(np.float64)).min(axis=1)).sum())


def least_loss(x, w, k):
    """Over all cuts of the sorted values into k intervals, by trying each."""
    order = np.argsort(x)
    x, w = x[order].astype(np.float64), w[order]
    best = np.inf
    for cuts in combinations(range(1, len(x)), k - 1):
        edges = [0, *cuts, len(x)]
        total = 0.0
        for a, b in pairwise(edges):
            mass = w[a:b].sum()
            mean = (w[a:b] * x[a:b]).sum() / mass if mass else x[a]
            total += (w[a:b] * (x[a:b] - mean) ** 2).sum()
        best = min(best, total)
    return best


@seeded
@given(
    x=st.lists(st.integers(-20, 20), min_size=5, max_size=8),
    w=st.lists(st.sampled_from([0, 1, 2, 5]), min_size=8, max_size=8),
    k=st.integers(2, 3),
)
def test_optimal_levels_lose_as_little_as_the_best_of_all_partitions(x, w, k):
    x, w = np.array(x, np.float32) / 4, np.array(w[: len(x)], np.float64)
    w[0] = 1
    levels = kmeans.optimal(x, k, w)
    assert levels.dtype == np.float32
    assert (np.diff(levels) > 0).all()
    assert loss(x, w, levels) <= least_loss(x, w, k) + 1e-4


@pytest.mark.parametrize("weighted", [False, True])
def test_lloyd_ends_where_every_level_is_the_mean_of_its_interval(weighted):
    rng = np.random.default_rng(3)
    x = rng.standard_normal(20_000).astype(np.float32)
    w = rng.random(x.size) if weighted else None
    levels = kmeans.lloyd(x, 8, w, iterations=2000)
    nearest = np.abs(x[:, None] - levels).argmin(axis=1)
    weight = np.ones(x.size) if w is None else w
    means = np.bincount(nearest, weight * x) / np.bincount(nearest, weight)
    np.testing.assert_allclose(levels, means, atol=2e-5)


def test_lloyd_is_near_the_optimum_and_below_equal_mass():
    x = np.random.default_rng(4).standard_normal(1500).astype(np.float32)
    ones = np.ones(x.size)
    best = loss(x, ones, kmeans.optimal(x, 16))
    assert best <= loss(x, ones, kmeans.lloyd(x, 16)) <= 1.1 * best
    assert loss(x, ones, kmeans.lloyd(x, 16)) < 0.8 * loss(x, ones, quantile.table(x, 16))


def test_lloyd_finds_the_levels_of_lloyd_and_max_for_gaussians():
    x = np.random.default_rng(5).standard_normal(1 << 20).astype(np.float32)
    ref = [-1.510, -0.4528, 0.4528, 1.510]  # Max 1960, table I, N = 4
    np.testing.assert_allclose(kmeans.lloyd(x, 4), ref, atol=0.01)


def test_weights_pull_levels_and_a_weight_is_worth_a_repetition():
    x = np.float32([0, 1, 2, 3, 10, 11])
    w = np.array([1, 1, 1, 1, 5, 1])
    np.testing.assert_array_equal(kmeans.optimal(x, 2, w), kmeans.optimal(np.repeat(x, w), 2))
    np.testing.assert_array_equal(kmeans.lloyd(x, 2, w), kmeans.lloyd(x, 2, w * 7.0))


def test_fewer_values_than_levels_are_kept_exactly():
    levels = kmeans.optimal(np.float32([3, 1, 3]), 4)
    assert {1.0, 3.0} <= set(levels.tolist())
    assert (np.diff(levels) > 0).all()
    for k in (2, 16):
        assert (np.diff(kmeans.lloyd(np.zeros(5, np.float32), k)) > 0).all()


@pytest.mark.parametrize("function", [kmeans.lloyd, kmeans.optimal])
def test_arguments_are_not_changed_and_the_result_repeats(function):
    x = np.random.default_rng(6).standard_normal(200).astype(np.float32)
    w = np.ones(200)
    kept = x.copy(), w.copy()
    np.testing.assert_array_equal(function(x, 4, w), function(x, 4, w))
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(w, kept[1])


@pytest.mark.parametrize(
    "x, k, w, error, message",
    [
        (np.zeros(4), 1, None, RangeError, "k = 1, expected 2 to 256"),
        (np.zeros(4), 257, None, RangeError, "k = 257"),
        (np.array([0, np.nan]), 2, None, NonFiniteError, "nan"),
        (np.zeros(4), 2, np.ones(3), ShapeError, r"weights.shape = \(3,\), expected that of x, \(4,\)"),
        (np.zeros(4), 2, -np.ones(4), RangeError, "expected >= 0"),
        (np.zeros(4), 2, np.zeros(4), RangeError, "one > 0"),
        (np.zeros(2), 2, np.array([1, np.inf]), NonFiniteError, "weights"),
    ],
)
@pytest.mark.parametrize("function", [kmeans.lloyd, kmeans.optimal])
def test_refusals(function, x, k, w, error, message):
    with pytest.raises(error, match=message):
        function(x, k, w)


def test_optimal_refuses_what_would_take_too_much_memory():
    with pytest.raises(RangeError, match="4097 distinct values, expected at most 4096"):
        kmeans.optimal(np.arange(4097, dtype=np.float32), 2)
