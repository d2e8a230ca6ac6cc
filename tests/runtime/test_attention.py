"""Attention and what feeds it: both ways of reading a cache equal one twin bit for bit, and are close to plain
softmax."""

import numpy as np
import pytest
from kernel_runner import assert_same_bits, run

from runtime.kernels import attention, rope

SHAPES = [(1, 1, 8, 8), (2, 6, 16, 32), (2, 7, 64, 64), (3, 4, 24, 16), (1, 2, 128, 128)]  # kv_heads, group, dim, dim_v


def padded(n: int) -> int:
    return -(-n // 32) * 32


def cache_of(k: np.ndarray, v: np.ndarray, cuts: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    """k, v (kv_heads, n, dim) in the layout of the cache."""
    heads, n, dim = k.shape
    narrow = (lambda x: x.astype(np.float16).view(np.uint16)) if dtype is np.uint16 else (lambda x: x)
    keys = np.zeros((heads, cuts * 256, dim), dtype)
    values = np.zeros((heads, cuts * 256, padded(v.shape[2])), dtype)
    keys[:, :n], values[:, :n, : v.shape[2]] = narrow(k), narrow(v)
    keys = np.ascontiguousarray(keys.reshape(heads, cuts, 256, dim).transpose(0, 1, 3, 2))
    return keys, values.reshape(heads, cuts, 256, -1)


def as_float(x: np.ndarray) -> np.ndarray:
    return x.view(np.float16).astype(np.float32) if x.dtype == np.uint16 else x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("start, tokens", [(0, 1), (0, 9), (250, 14), (255, 1), (511, 3), (700, 1)])
def test_prompt_and_token_kernels_equal_the_twin(shape, dtype, start, tokens):
    kv_heads, group, dim, dim_v = shape
    rng = np.random.default_rng([start, tokens, *shape])
    draw = lambda *size: rng.standard_normal(size, np.float32) * np.float32(2)
    n, cuts = start + tokens, 3
    k, v, q = draw(kv_heads, n, dim), draw(kv_heads, n, dim_v), draw(tokens, kv_heads, group, dim)
    keys, values = cache_of(k, v, cuts, dtype)
    scale = float(np.float32(dim**-0.5))
    heads, wide_v, stride = kv_heads * group, padded(dim_v), padded(kv_heads * group * dim_v)
    step = 2 + wide_v
    scratch = np.zeros(attention.SCRATCH + 12 * step * 4, np.uint8)
    partials = np.zeros((heads, cuts, step), np.float32)
    numbers = [kv_heads, group, dim, wide_v, dim_v, cuts, stride * 4, scale]

    def attend(queries: np.ndarray, begin: int, many: bool) -> np.ndarray:
        count = len(queries)
        y = np.zeros((count, stride), np.float32)
        by_head = np.ascontiguousarray(queries.transpose(1, 0, 2, 3))
        buffers = [by_head, keys, values, y, scratch, partials]
        narrow = dtype is np.uint16
        if many:
            kernel = attention.attend_prompt_f16 if narrow else attention.attend_prompt_f32
            run(kernel, buffers, numbers, kv_heads * -(-count // 6), count, begin)
        else:
            kernel = attention.attend_cuts_f16 if narrow else attention.attend_cuts_f32
            run(kernel, buffers, numbers, kv_heads * (begin // 256 + 1), 1, begin)
            run(attention.merge_cuts, buffers, numbers, heads, 1, begin)
        return y[:, : heads * dim_v]

    keys_f = as_float(keys).transpose(0, 1, 3, 2).reshape(kv_heads, -1, dim)[:, :n]
    values_f = as_float(values).reshape(kv_heads, -1, wide_v)[:, :n, :dim_v]
    ref = attention.attend_numpy(q, keys_f, values_f, start, np.float32(scale))
    got = attend(q, start, many=True)
    assert_same_bits(got, ref)
    for t in range(tokens):
        assert_same_bits(attend(q[t : t + 1], start + t, many=False)[0], ref[t])

    for t in range(tokens):
        s = np.einsum("hgd,hnd->hgn", q[t].astype(np.float64), keys_f[:, : start + t + 1]) * scale
        p = np.exp(s - s.max(axis=-1, keepdims=True))
        plain = np.einsum("hgn,hnd->hgd", p / p.sum(axis=-1, keepdims=True), values_f[:, : start + t + 1])
        np.testing.assert_allclose(got[t], plain.reshape(-1), atol=3e-5)


@pytest.mark.parametrize("neox", [False, True])
@pytest.mark.parametrize("flags", [0, 31])
@pytest.mark.parametrize("wide", [False, True])
def test_products_are_placed_where_attention_reads_them(neox, flags, wide):
    kv_heads, group, dim, dim_v, tokens, start, rope_dim, eps = 2, 3, 16, 8, 5, 253, 12, 1e-6
    rng = np.random.default_rng([neox, flags, wide])
    draw = lambda *size: rng.standard_normal(size).astype(np.float32)
    widths = [kv_heads * group * dim, kv_heads * dim, kv_heads * dim_v]
    q, k, v = (draw(tokens, padded(w)) for w in widths)
    biases, norms = [draw(padded(w)) for w in widths], [draw(32), draw(32)]
    angle = rng.uniform(0, 100, (300, rope_dim // 2))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    dtype = np.float32 if wide else np.uint16
    keys, values = np.zeros((kv_heads, 2, dim, 256), dtype), np.zeros((kv_heads, 2, 256, 32), dtype)
    out = np.zeros((kv_heads, tokens * group, dim), np.float32)
    numbers = [
        kv_heads,
        group,
        dim,
        dim_v,
        32,
        2,
        *(padded(w) * 4 for w in widths),
        rope_dim // 2,
        neox,
        wide,
        eps,
        flags,
    ]
    buffers = [q.copy(), k.copy(), v.copy(), cos, sin, out, keys, values, *biases, *norms]
    run(rope.place, buffers, numbers, tokens, tokens, start)
    here = slice(start, start + tokens)
    ref_q, ref_k, ref_v = rope.place_numpy(
        q, k, v, biases, norms, cos[here], sin[here], kv_heads, group, dim, dim_v, neox, flags, eps
    )
    assert_same_bits(out, ref_q)
    store = (lambda x: x) if wide else (lambda x: x.astype(np.float16).view(np.uint16))
    assert_same_bits(
        np.ascontiguousarray(keys.transpose(0, 1, 3, 2).reshape(kv_heads, 512, dim)[:, here]), store(ref_k)
    )
    assert_same_bits(np.ascontiguousarray(values.reshape(kv_heads, 512, 32)[:, here, :dim_v]), store(ref_v))
    assert np.count_nonzero(keys) == np.count_nonzero(ref_k)
    if not flags:  # turning keeps lengths
        np.testing.assert_allclose(
            np.linalg.norm(ref_k, axis=-1),
            np.linalg.norm(k[:, : widths[1]].reshape(tokens, 2, dim), axis=-1).T,
            rtol=1e-5,
        )
