from dataclasses import replace

import numpy as np
import pytest

from refquant.errors import RangeError
from refquant.models import KVCache, ModelConfig, RopeScaling

CONFIG = ModelConfig(
    arch="llama", n_layer=2, n_embd=16, n_ff=16, n_head=4, n_head_kv=2, head_dim=4, head_dim_v=6, n_vocab=8,
    n_ctx_train=64, rms_eps=1e-5, rope_dim=4, rope_base=10000.0, rope_style="norm", rope_scaling=RopeScaling(),
    attn_scale=0.5, tied_output=True,
)  # fmt: skip


def some(rng, tokens):
    return rng.normal(size=(tokens, 2, 4)).astype(np.float32), rng.normal(size=(tokens, 2, 6)).astype(np.float32)


def test_a_layer_returns_all_keys_and_values_so_far():
    rng = np.random.default_rng(0)
    cache = KVCache(CONFIG, np.float32, np.float32)
    (k1, v1), (k2, v2) = some(rng, 3), some(rng, 2)
    cache.extend(0, k1, v1)
    cache.advance(3)
    keys, values = cache.extend(0, k2, v2)
    np.testing.assert_array_equal(keys, np.concatenate([k1, k2]))
    np.testing.assert_array_equal(values, np.concatenate([v1, v2]))


def test_a_step_that_did_not_advance_is_overwritten():
    rng = np.random.default_rng(1)
    cache = KVCache(CONFIG, np.float32, np.float32)
    cache.extend(1, *some(rng, 5))
    k, v = some(rng, 2)
    np.testing.assert_array_equal(cache.extend(1, k, v)[0], k)
    assert cache.position == 0


def test_half_precision_rounds_once_to_nearest_even():
    cache = KVCache(CONFIG, np.float32, np.float16)
    k, v = some(np.random.default_rng(2), 3)
    k[0, 0, :2] = 1 + 2.0**-11, 1 + 3 * 2.0**-11  # half way between neighbours
    keys, values = cache.extend(0, k, v)
    assert keys.dtype == values.dtype == np.float32
    np.testing.assert_array_equal(keys, k.astype(np.float16))
    np.testing.assert_array_equal(keys[0, 0, :2], [1, 1 + 2.0**-9])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_of_eight_bits_begin_with_each_head(dtype):
    config = replace(CONFIG, head_dim=40, head_dim_v=32)
    cache = KVCache(config, dtype, "q8_0")
    rng = np.random.default_rng(4)
    k, v = rng.normal(size=(3, 2, 40)).astype(dtype), rng.normal(size=(3, 2, 32)).astype(dtype)
    k[1, 0, :32] = 0
    keys, values = cache.extend(0, k, v)
    assert keys.dtype == values.dtype == dtype
    for got, x in ((keys, k), (values, v)):
        for token, head in np.ndindex(3, 2):
            for first in range(0, x.shape[2], 32):
                block = x[token, head, first : first + 32].astype(np.float32)
                d = np.abs(block).max() / np.float32(127)
                codes = np.rint(block * (np.float32(1) / d)) if d else block  # no ties are drawn
                ref = np.float32(np.float16(d)) * codes
                np.testing.assert_array_equal(got[token, head, first : first + 32], ref)
    cache.advance(3)
    again, _ = cache.extend(0, k[:1], v[:1])
    np.testing.assert_array_equal(again, np.concatenate([keys, keys[:1]]))  # what is stored is not rounded once more


def test_magnitudes_beyond_the_scale_of_a_block_are_refused():
    cache = KVCache(CONFIG, np.float64, "q8_0")
    with pytest.raises(RangeError, match="q8_0"):
        cache.extend(0, np.full((1, 2, 4), 1e7), np.zeros((1, 2, 6)))


def test_truncating_forgets_the_end():
    rng = np.random.default_rng(3)
    cache = KVCache(CONFIG, np.float64, np.float64)
    k, v = some(rng, 6)
    cache.extend(0, k, v)
    cache.advance(6)
    cache.truncate(4)
    keys, _ = cache.extend(0, *some(rng, 1))
    assert keys.shape == (5, 2, 4) and keys.dtype == np.float64
    np.testing.assert_array_equal(keys[:4], k[:4])


@pytest.mark.parametrize("position", [-1, 1])
def test_truncating_cannot_leave_the_sequence(position):
    with pytest.raises(RangeError, match=rf"position = {position}, expected 0\.\.0"):
        KVCache(CONFIG, np.float32, np.float32).truncate(position)


def test_a_number_too_large_for_half_precision_is_refused():
    k, v = some(np.random.default_rng(4), 1)
    v[0, 1, 2] = -7e4
    with pytest.raises(RangeError, match=r"magnitude = 70000\.0, expected at most 65504"):
        KVCache(CONFIG, np.float32, np.float16).extend(0, k, v)
