"""What every key-value cache keeps, and the codecs that look at one token at a time."""

import numpy as np
import pytest

from refquant import kvquant, quantize
from refquant.errors import NonFiniteError, RangeError, SchemeError, ShapeError
from refquant.kivi import KIVI
from refquant.kv_cache import TokenCache

TOKENS, HEADS, DIM = 300, 2, 64


def tokens(seed=0, count=TOKENS):
    rng = np.random.default_rng(seed)
    k, v = rng.standard_normal((2, count, HEADS, DIM)).astype(np.float32)
    k[:, :, [3, 40]] *= 12  # channels that are large in every token, as keys have
    return k, v


def nuq(q_norm=False):
    k, v = tokens(9, 500)
    return kvquant.fit_keys(k, 3, q_norm=q_norm), kvquant.fit_values(v, 3, q_norm=q_norm)


CACHES = {
    "F16": lambda: TokenCache("F16"),
    "int8": lambda: TokenCache("int8-token"),
    "int8 over heads": lambda: TokenCache("int8-token", shared_heads=True),
    "uint4, int4": lambda: TokenCache("uint4-token", "int4-g32"),
    "Q8_0": lambda: TokenCache("Q8_0"),
    "FP8": lambda: TokenCache("fp8_e4m3fn-token"),
    "KIVI": lambda: KIVI(2, group=32, residual=64),
    "KIVI 4": lambda: KIVI(4, group=16, residual=128),
    "KVQuant": lambda: kvquant.KVQuant(*nuq()),
}


@pytest.mark.parametrize("name", CACHES)
def test_what_is_read_does_not_depend_on_how_it_was_appended(name):
    k, v = tokens()
    whole, pieces = CACHES[name](), CACHES[name]()
    whole.append(k, v)
    for start, stop in ((0, 1), (1, 2), (2, 130), (130, 131), (131, 300)):
        pieces.append(k[start:stop], v[start:stop])
        assert len(pieces) == stop
    assert len(whole) == TOKENS
    for got, ref in ((pieces.keys(), whole.keys()), (pieces.values(), whole.values())):
        assert got.dtype == np.float32
        assert got.shape == k.shape
        np.testing.assert_array_equal(got, ref)
    assert pieces.nbytes == whole.nbytes


@pytest.mark.parametrize("name", CACHES)
def test_arguments_are_not_changed_and_errors_leave_the_cache_as_it_was(name):
    k, v = tokens()
    kept = k.copy(), v.copy()
    cache = CACHES[name]()
    cache.append(k, v)
    np.testing.assert_array_equal(k, kept[0])
    np.testing.assert_array_equal(v, kept[1])
    before = cache.keys(), cache.values(), cache.nbytes
    bad = v[:2].copy()
    bad[1, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"v\.flat"):
        cache.append(k[:2], bad)
    with pytest.raises(ShapeError, match=r"k\.shape, v\.shape"):
        cache.append(k[:2, :1], v[:2, :1])
    with pytest.raises(ShapeError, match=r"k\.shape, v\.shape"):
        cache.append(k[:2], v[:3])
    np.testing.assert_array_equal(cache.keys(), before[0])
    np.testing.assert_array_equal(cache.values(), before[1])
    assert cache.nbytes == before[2]


@pytest.mark.parametrize("name", CACHES)
def test_an_empty_cache_says_so(name):
    with pytest.raises(ShapeError, match="tokens = 0"):
        CACHES[name]().keys()


BITS = {  # stored bits a value, at 300 tokens, heads of 64
    "F16": 16,
    "int8": 8 + 32 / 64,
    "int8 over heads": 8 + 32 / 128,
    "uint4, int4": 4 + (36 / 64 + 32 / 32) / 2,
    "Q8_0": 8.5,
}


@pytest.mark.parametrize("name", ["F16", "int8", "int8 over heads", "uint4, int4", "Q8_0"])
def test_bytes_are_those_of_codes_and_scales(name):
    cache = CACHES[name]()
    cache.append(*tokens())
    assert cache.nbytes * 8 / (2 * TOKENS * HEADS * DIM) == pytest.approx(BITS[name])


@pytest.mark.parametrize("scheme", ["int8-token", "uint4-token", "int4-g32", "Q8_0"])
def test_tokens_are_quantized_as_arrays_are(scheme):
    k, v = tokens()
    cache = TokenCache(scheme)
    cache.append(k, v)
    np.testing.assert_array_equal(cache.keys(), quantize(k, scheme).dequantize().reshape(k.shape))
    np.testing.assert_array_equal(cache.values(), quantize(v, scheme).dequantize().reshape(v.shape))


def test_all_heads_of_a_token_may_share_a_scale():
    k, v = tokens()
    cache = TokenCache("int8-token", shared_heads=True)
    cache.append(k, v)
    np.testing.assert_array_equal(
        cache.keys(), quantize(k.reshape(TOKENS, -1), "int8-token").dequantize().reshape(k.shape)
    )


@pytest.mark.parametrize("scheme", ["int8", "int8-channel", "nf4", "int4-b64"])
def test_scales_must_not_span_tokens(scheme):
    with pytest.raises(SchemeError, match="expected scales of a token or of groups in it"):
        TokenCache(scheme)


def test_kivi_is_better_than_tokens_on_keys_with_large_channels():
    k, v = tokens()
    error = {}
    for name, cache in (("kivi", KIVI(2, 32, 32)), ("token", TokenCache("uint2-token"))):
        cache.append(k, v)
        error[name] = (np.square(cache.keys() - k)[:256].mean(axis=0) / k.var(axis=0)).mean()
    assert error["kivi"] < error["token"] / 3


def test_refusals_of_kivi():
    with pytest.raises(ShapeError, match="residual = 100, expected a positive multiple of 32"):
        KIVI(2, 32, 100)
    with pytest.raises(RangeError, match="bits = 9"):
        KIVI(9)
    with pytest.raises(ShapeError, match="48, expected a positive multiple of 32"):
        KIVI().append(np.ones((1, 1, 48)), np.ones((1, 1, 48)))
    with pytest.raises(RangeError, match=r"max \|k\| = 100000, expected at most 65504"):
        KIVI().append(np.full((1, 1, 32), 1e5), np.ones((1, 1, 32)))
    cache = KIVI(2, 32, 32)
    with pytest.raises(RangeError, match="max - min of a group = inf"):
        cache.append(np.where(np.arange(32)[:, None, None] % 2, 6e4, -6e4) * np.ones((32, 1, 32)), np.ones((32, 1, 32)))
    assert len(cache) == 0
