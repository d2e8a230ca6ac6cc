import numpy as np
import pytest

from refquant import codebook, fitted, kmeans, quantile, quantize
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.groups import TENSOR, group


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng([8, 128]).standard_normal((8, 128), dtype=np.float32)


@pytest.mark.parametrize("name, fit", [("quantile3", quantile.table), ("kmeans3", kmeans.lloyd)])
def test_one_table_serves_all_groups_divided_by_their_largest(x, name, fit):
    q = quantize(x, f"{name}-g64")
    rows = x.reshape(-1, 64)
    scale = np.abs(rows).max(axis=1)
    u = rows / scale[:, None]
    np.testing.assert_array_equal(q.scale.ravel(), scale)
    np.testing.assert_array_equal(q.extras["levels"], fit(u, 8))
    np.testing.assert_array_equal(q.codes, codebook.nearest(u, q.extras["levels"]).reshape(x.shape))
    np.testing.assert_array_equal(
        q.dequantize().reshape(-1, 64), q.extras["levels"][q.codes.reshape(-1, 64)] * scale[:, None]
    )
    assert q.nbytes == x.size * 3 // 8 + 16 * 4 + 8 * 4


def test_every_channel_may_have_a_table_of_its_own_in_the_units_of_x(x):
    q = quantize(x, "kmeans3-channel-own-raw")
    assert q.scale is None
    for row, table, codes in zip(x, q.extras["levels"], q.codes, strict=True):
        np.testing.assert_array_equal(table, kmeans.lloyd(row, 8))
        np.testing.assert_array_equal(codes, codebook.nearest(row, table))
    np.testing.assert_array_equal(q.dequantize(), np.take_along_axis(q.extras["levels"], q.codes.astype(int), 1))
    assert q.bits_per_weight == 3 + 8 * 32 / 128


def test_weights_move_the_levels_to_what_matters(x):
    w = np.where(np.abs(x) > 1, 50.0, 1.0)
    plain, weighted = quantize(x, "kmeans2"), quantize(x, "kmeans2", weights=w)
    error = {q: (w * np.square(q.dequantize() - x)).sum() for q in (plain, weighted)}
    assert error[weighted] < 0.9 * error[plain]
    own = quantize(x, "kmeans2-channel-own", weights=w)
    np.testing.assert_array_equal(own.extras["levels"][3], kmeans.lloyd(x[3] / np.abs(x[3]).max(), 4, w[3]))


def test_a_table_that_is_given_is_used_as_it_is(x):
    levels = [-1.0, -0.25, 0.0, 0.5, 1.0]
    q = quantize(x, "codebook4-g64", levels=levels)
    rule = codebook.Rule(tuple(levels))
    codes, scale = codebook.encode(x, rule, group(64))
    np.testing.assert_array_equal(q.codes, codes)
    np.testing.assert_array_equal(q.scale, scale)
    np.testing.assert_array_equal(q.dequantize(), codebook.decode(codes, scale, rule, group(64)))


def test_tables_may_be_given_for_each_group(x):
    levels = np.sort(np.random.default_rng(2).standard_normal((8, 4)), axis=1)
    q = quantize(x, "codebook2-channel-own-raw", levels=levels)
    np.testing.assert_array_equal(q.codes[5], codebook.nearest(x[5], levels[5].astype(np.float32)))


def test_a_group_of_zeros_decodes_to_the_level_nearest_zero():
    x = np.zeros((2, 64), np.float32)
    x[1] = np.linspace(-1, 1, 64)
    for name in ("quantile4-g64", "kmeans4-g64"):
        assert not quantize(x, name).dequantize()[0].any()


def test_decoding_checks_the_table():
    rule = fitted.Rule(2, "kmeans", scaled=False)
    codes = np.array([0, 3], np.uint8)
    with pytest.raises(RangeError, match=r"codes\.max\(\) = 3, expected codes below 3"):
        fitted.decode(codes, None, {"levels": np.float32([1, 2, 3])}, rule, TENSOR)
    with pytest.raises(ShapeError, match=r"levels\.shape = \(1, 4\), expected \(k,\)"):
        fitted.decode(codes, None, {"levels": np.ones((1, 4), np.float32)}, rule, TENSOR)


@pytest.mark.parametrize(
    "scheme, options, error, message",
    [
        ("codebook4", {}, SchemeError, "expected them with a codebook scheme"),
        ("kmeans4", {"levels": [0, 1]}, SchemeError, "expected them with a codebook scheme and only there"),
        ("quantile4", {"weights": np.ones((2, 8))}, SchemeError, "expected them with kmeans only"),
        ("kmeans4", {"weights": np.ones(8)}, ShapeError, r"weights\.shape = \(8,\)"),
        ("codebook1", {"levels": [0, 1, 2]}, ShapeError, "k = 2 to 2"),
        ("codebook4", {"levels": [0.0]}, ShapeError, "k = 2 to 16"),
        ("codebook4", {"levels": [1.0, 0.0]}, RangeError, "not in ascending order"),
        ("codebook4-channel-own", {"levels": [0.0, 1.0]}, ShapeError, r"expected \(groups, k\)"),
        ("nf4", {"levels": [0, 1]}, SchemeError, "option levels"),
    ],
)
def test_refusals(scheme, options, error, message):
    with pytest.raises(error, match=message):
        quantize(np.ones((2, 8), np.float32), scheme, **options)


def test_rules_that_make_no_sense_are_refused():
    with pytest.raises(SchemeError, match="bits, fit = 9"):
        fitted.Rule(9, "kmeans")
