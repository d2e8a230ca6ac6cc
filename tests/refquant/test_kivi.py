import numpy as np
import pytest

from refquant import kivi
from refquant.kivi import KIVI

H = np.float16


def plain(x: np.ndarray, bits: int) -> np.ndarray:
    """KIVI's formula on one group, number by number in float16."""
    lo, hi = min(x), max(x)
    steps = H(2**bits - 1)
    scale = H(H(hi - lo) / steps)
    if scale == 0:
        return np.full(len(x), lo)
    q = [H(np.rint(min(max(H(H(v - lo) / scale), H(0)), steps))) for v in x]
    return np.array([H(H(c * scale) + lo) for c in q])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_groups_equal_the_formula_in_float16(bits):
    rng = np.random.default_rng(bits)
    x = (rng.standard_normal((20, 32)) * np.exp2(rng.integers(-14, 8, (20, 1)))).astype(H)
    x[3] = 1.5
    x[4] = np.arange(32) / 2  # ties
    x[5, 1:] = 0
    got = kivi.decode(kivi.encode(x, bits))
    assert got.dtype == H
    np.testing.assert_array_equal(got, np.stack([plain(row, bits) for row in x]))


def test_a_constant_group_is_exact_where_the_authors_code_divides_zero_by_zero():
    x = np.full((1, 32), 0.7, H)
    groups = kivi.encode(x, 2)
    assert not groups.codes.any()
    np.testing.assert_array_equal(kivi.decode(groups), x)
    with np.errstate(invalid="ignore"):
        assert np.isnan((x - groups.lo) / groups.scale).all()


def test_keys_go_by_channel_and_values_by_token_and_the_newest_stay():
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((2, 150, 1, 32)).astype(np.float32)
    cache = KIVI(2, group=32, residual=64)
    cache.append(k, v)
    keys, values = cache.keys(), cache.values()
    np.testing.assert_array_equal(keys[128:], k[128:].astype(H))
    np.testing.assert_array_equal(values[86:], v[86:].astype(H))
    assert (keys[:128] != k[:128].astype(H)).mean() > 0.9
    np.testing.assert_array_equal(keys[32:64, 0, 5], plain(k[32:64, 0, 5].astype(H), 2))  # 32 tokens of a channel
    np.testing.assert_array_equal(values[85, 0], plain(v[85, 0].astype(H), 2))  # 32 channels of a token


def test_bytes_count_codes_scales_and_the_window():
    cache = KIVI(2, group=32, residual=64)
    cache.append(*np.ones((2, 150, 2, 64), np.float32))
    per_token = 2 * 64
    quantized = (128 + 86) * per_token
    assert cache.nbytes == quantized * 2 // 8 + quantized // 32 * 4 + (22 + 64) * per_token * 2
