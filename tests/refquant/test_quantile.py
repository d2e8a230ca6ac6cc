import numpy as np
import pytest

from refquant import codebook, quantile
from refquant.errors import RangeError


@pytest.mark.parametrize("k", [2, 3, 16, 256])
def test_levels_are_numpys_quantiles_of_the_middles(k):
    x = np.random.default_rng(k).standard_normal((40, 50)).astype(np.float32)
    ref = np.quantile(x.astype(np.float64), (np.arange(k) + 0.5) / k)
    got = quantile.table(x, k)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, ref, rtol=1e-6, atol=1e-7)


def test_codes_are_used_equally_on_smooth_data():
    x = np.random.default_rng(0).uniform(-1, 1, 1 << 16).astype(np.float32)
    used = np.bincount(codebook.nearest(x, quantile.table(x, 16)), minlength=16) / x.size
    np.testing.assert_allclose(used, 1 / 16, atol=2e-3)


def test_repeated_values_give_ascending_levels():
    levels = quantile.table(np.float32([1, 1, 1, 2]), 8)
    assert (np.diff(levels) > 0).all()
    np.testing.assert_allclose(levels, [1, 1, 1, 1, 1, 1.0625, 1.4375, 1.8125], rtol=1e-6)
    assert (np.diff(quantile.table(np.zeros(3), 256)) > 0).all()


@pytest.mark.parametrize("k", [0, 1, 257])
def test_a_table_has_2_to_256_levels(k):
    with pytest.raises(RangeError, match=f"k = {k}, expected 2 to 256"):
        quantile.table(np.zeros(3), k)
