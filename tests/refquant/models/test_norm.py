import math

import numpy as np
import pytest

from refquant.models.norm import rms_norm, silu


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_get_unit_root_mean_square_times_the_weight(dtype):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(0, 3, (4, 5, 64)).astype(dtype), rng.normal(1, 0.1, 64).astype(dtype)
    got = rms_norm(x, weight, 1e-5)
    rows = x.reshape(20, 64).tolist()
    ref = [[v / math.sqrt(sum(u * u for u in row) / 64 + 1e-5) for v in row] for row in rows]
    assert got.dtype == dtype and got.shape == x.shape
    np.testing.assert_allclose(got.reshape(20, 64), np.array(ref) * weight, rtol=1e-5 if dtype == np.float32 else 1e-13)


def test_eps_keeps_a_row_of_zeros_zero():
    np.testing.assert_array_equal(rms_norm(np.zeros((2, 8), np.float32), np.ones(8, np.float32), 1e-6), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silu_has_its_limits_without_a_warning(dtype):
    x = np.array([-1e30, -1000, -1, 0, 1, 1000, 1e30], dtype)
    got = silu(x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, [0, 0, -1 / (1 + math.e), 0, 1 / (1 + 1 / math.e), 1000, 1e30], rtol=1e-6, atol=0)
