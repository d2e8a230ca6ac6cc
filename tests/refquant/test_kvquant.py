import numpy as np
import pytest

from refquant import codebook, kmeans, kvquant
from refquant.errors import NonFiniteError, RangeError, ShapeError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(12)
    k = rng.standard_t(4, (600, 2, 32)).astype(np.float32) * np.exp2(rng.integers(-3, 4, (1, 2, 32))).astype(np.float32)
    v = rng.standard_t(4, (600, 2, 32)).astype(np.float32)
    return k, v


def test_bounds_are_quantiles_of_each_channel_and_levels_those_of_k_means_between_them(data):
    k, _ = data
    table = kvquant.fit_keys(k, 3, outliers=0.02)
    lower, upper = np.quantile(k.astype(np.float64), [0.01, 0.99], axis=0).astype(np.float32)
    np.testing.assert_array_equal(table.lower, lower)
    np.testing.assert_array_equal(table.upper, upper)
    mid, reach = (upper + lower) / 2, (upper - lower) / 2
    u = (k - mid) / reach
    np.testing.assert_array_equal(table.levels, kmeans.lloyd(u[np.abs(u) <= 1], 8))
    assert 0.9 > np.abs(table.levels).max() > 0.5


def test_outliers_and_the_first_token_are_exact_in_float16(data):
    k, v = data
    cache = kvquant.KVQuant(kvquant.fit_keys(k, 3), kvquant.fit_values(v, 3))
    cache.append(k, v)
    keys, values = cache.keys(), cache.values()
    np.testing.assert_array_equal(keys[0], k[0].astype(np.float16))
    np.testing.assert_array_equal(values[0], v[0].astype(np.float16))
    table = kvquant.fit_keys(k, 3)
    outside = (k < table.lower) | (k > table.upper)
    np.testing.assert_array_equal(keys[outside], k[outside].astype(np.float16))
    assert outside.mean() == pytest.approx(0.01, abs=0.003)


def test_what_lies_inside_takes_the_nearest_level_of_its_channel(data):
    k, v = data
    table = kvquant.fit_keys(k, 4)
    cache = kvquant.KVQuant(table, kvquant.fit_values(v, 4), first=0)
    cache.append(k, v)
    mid, reach = (table.upper + table.lower) / np.float32(2), (table.upper - table.lower) / np.float32(2)
    u = (k - mid) / reach
    ref = table.levels[codebook.nearest(u, table.levels)] * reach + mid
    inside = np.abs(u) <= 1
    np.testing.assert_array_equal(cache.keys()[inside], ref[inside])


def test_values_are_bounded_by_quantiles_of_their_own_token(data):
    _, v = data
    table = kvquant.fit_values(v, 3, outliers=0.1)
    assert table.lower is None
    k_table = kvquant.fit_keys(v, 3)
    cache = kvquant.KVQuant(k_table, table, first=0)
    cache.append(v, v)
    error = np.abs(cache.values() - v)
    lower, upper = np.quantile(v, [0.05, 0.95], axis=-1, keepdims=True)
    outside = (v < lower * 1.01) | (v > upper * 1.01)
    assert error[outside & (np.abs(v) > 0.1)].max() < 1e-2  # half an ulp of float16
    assert (error <= (upper - lower) / 2).all()


def test_outliers_are_worth_their_bytes(data):
    k, v = data
    error = {}
    for share in (0.0, 0.01):
        cache = kvquant.KVQuant(kvquant.fit_keys(k, 3, outliers=share), kvquant.fit_values(v, 3, outliers=share))
        cache.append(k, v)
        error[share] = np.square((cache.keys() - k) / k.std(axis=0)).mean(), cache.nbytes
    assert error[0.01][0] < error[0.0][0] / 2
    assert error[0.01][1] < 1.4 * error[0.0][1]


def test_fisher_weights_move_the_levels(data):
    k, _ = data
    w = np.where(np.abs(k) > np.abs(k).mean(), 100.0, 1.0)
    plain, weighted = kvquant.fit_keys(k, 2), kvquant.fit_keys(k, 2, weights=w)
    assert np.abs(weighted.levels).min() > np.abs(plain.levels).min()


def test_q_norm_restores_mean_and_deviation(data):
    k, _ = data
    for q_norm in (False, True):
        table = kvquant.fit_keys(k, 2, q_norm=q_norm)
        mid, reach = (table.upper + table.lower) / 2, (table.upper - table.lower) / 2
        u = ((k - mid) / reach)[np.abs((k - mid) / reach) <= 1]
        plain = kvquant.fit_keys(k, 2).levels
        back = table.levels[codebook.nearest(u, plain)]  # the codes of the table before it was moved
        matches = abs(back.std() / u.std() - 1) < 1e-3 and abs(back.mean() - u.mean()) < 1e-3
        assert matches == q_norm


def test_a_constant_channel_is_exact():
    k = np.full((50, 1, 4), 0.75, np.float32)
    k[:, 0, 1:] = np.random.default_rng(0).standard_normal((50, 3))
    table = kvquant.fit_keys(k, 2)
    cache = kvquant.KVQuant(table, kvquant.fit_values(k, 2), first=0)
    cache.append(k, k)
    np.testing.assert_array_equal(cache.keys()[:, 0, 0], k[:, 0, 0])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: kvquant.fit_keys(np.ones((2, 3)), 2),
            ShapeError,
            r"shape = \(2, 3\), expected \(tokens, heads, dim\)",
        ),
        (lambda: kvquant.fit_keys(np.ones((2, 1, 3)), 9), RangeError, "bits = 9"),
        (lambda: kvquant.fit_values(np.ones((2, 1, 3)), 2, outliers=1.0), RangeError, "outliers = 1.0"),
        (lambda: kvquant.fit_values(np.full((2, 1, 3), np.inf), 2), NonFiniteError, "inf"),
        (lambda: kvquant.fit_values(np.ones((2, 1, 3)), 2, weights=np.ones(3)), ShapeError, "weights alike"),
    ],
)
def test_refusals_of_the_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_refusals_of_the_cache(data):
    keys, values = kvquant.fit_keys(data[0], 2), kvquant.fit_values(data[1], 2)
    with pytest.raises(ShapeError, match="expected a table of fit_keys"):
        kvquant.KVQuant(values, values)
    with pytest.raises(ShapeError, match="of the table"):
        kvquant.KVQuant(keys, values).append(np.ones((1, 1, 32)), np.ones((1, 1, 32)))
