"""Attention, what feeds it and the cache between: both ways of reading equal one twin bit for bit, and are close to
plain softmax; what is stored is what the pages of the types say."""

import numpy as np
import pytest
from kernel_runner import assert_same_bits, run

from refquant import gguf
from runtime.kernels import attention, kv_rows, rope

SHAPES = [(1, 1, 8, 8), (2, 6, 16, 32), (2, 7, 64, 64), (3, 4, 24, 16), (1, 2, 128, 128)]  # kv_heads, group, dim, dim_v


def padded(n: int) -> int:
    return -(-n // 32) * 32


def as_cache(k: np.ndarray, v: np.ndarray, cuts: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """k, v (kv_heads, n, dim) as the bytes of a cache: written out number by number, not by the layout's own code."""
    heads, n, dim = k.shape
    shapes = (heads, cuts * 8, 32, padded(dim), 1), (heads, cuts, 256, padded(v.shape[2]), 1)
    keys, values = np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32)
    for j in range(n):
        keys[:, j // 32, j % 32, :dim, 0] = k[:, j]
        values[:, j // 256, j % 256, : v.shape[2], 0] = v[:, j]
    keys = keys.reshape(heads, cuts * 8, 32, -1, 32).transpose(0, 1, 3, 4, 2)  # tile, run of 32 elements, element, lane
    values = values.reshape(heads, cuts, 256, -1, 32).transpose(0, 1, 3, 2, 4)  # cut, tile of 32 columns, position
    if name == "q8_0":
        return q8_0_bytes(keys, 3, heads, cuts), q8_0_bytes(values, 4, heads, cuts)
    narrow = np.float16 if name == "f16" else np.float32
    keys = keys.reshape(heads, cuts * 8, -1, 32)[:, :, :dim]
    return tuple(np.ascontiguousarray(x, narrow).view(np.uint8).reshape(heads, cuts, -1) for x in (keys, values))


def q8_0_bytes(x: np.ndarray, axis: int, heads: int, cuts: int) -> np.ndarray:
    """Blocks along `axis` through the NumPy page of Q8_0, their scales ahead of their codes."""
    blocks = gguf.quantize(np.moveaxis(x, axis, -1).reshape(-1, 32), "Q8_0").view(gguf.FORMATS["Q8_0"].layout)
    shape = np.moveaxis(x, axis, -1).shape
    d, codes = blocks["d"].reshape(shape[:-1]), np.moveaxis(blocks["qs"].reshape(shape), -1, axis)
    parts = [np.ascontiguousarray(part).view(np.uint8).reshape(*shape[:3], -1) for part in (d, codes)]
    return np.concatenate(parts, axis=-1).reshape(heads, cuts, -1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", kv_rows.ROWS)
@pytest.mark.parametrize("start, tokens", [(0, 1), (0, 9), (250, 14), (255, 1), (511, 3), (700, 1)])
def test_prompt_and_token_kernels_equal_the_twin(shape, name, start, tokens):
    kv_heads, group, dim, dim_v = shape
    rng = np.random.default_rng([start, tokens, *shape])
    draw = lambda *size: rng.standard_normal(size, np.float32) * np.float32(2)
    n, cuts = start + tokens, 3
    k, v, q = draw(kv_heads, n, dim), draw(kv_heads, n, dim_v), draw(tokens, kv_heads, group, dim)
    keys, values = as_cache(k, v, cuts, name)
    assert keys.shape[2] == kv_rows.ROWS[name].key_cut(dim)
    assert values.shape[2] == kv_rows.ROWS[name].value_cut(dim_v)
    scale = float(np.float32(dim**-0.5))
    heads, wide_v, stride = kv_heads * group, padded(dim_v), padded(kv_heads * group * dim_v)
    step = 2 + wide_v
    scratch = np.zeros(attention.scratch_bytes(group, wide_v), np.uint8)
    partials = np.zeros((heads, cuts, step), np.float32)
    numbers = [kv_heads, group, dim, wide_v, dim_v, cuts, stride * 4, scale, kv_rows.ROWS[name].key_tile(dim)]

    def attend(queries: np.ndarray, begin: int, many: bool) -> np.ndarray:
        count = len(queries)
        y = np.zeros((count, stride), np.float32)
        by_head = np.ascontiguousarray(queries.transpose(1, 0, 2, 3))
        buffers = [by_head, keys, values, y, scratch, partials]
        if many:
            run(attention.PROMPT[name], buffers, numbers, kv_heads * -(-count // 6), count, begin)
        else:
            run(attention.CUTS[name], buffers, numbers, kv_heads * (begin // 256 + 1), 1, begin)
            run(attention.merge_cuts, buffers, numbers, heads, 1, begin)
        return y[:, : heads * dim_v]

    keys_f, values_f = kv_rows.stored_numpy(k, name), kv_rows.stored_numpy(v, name)
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


@pytest.mark.parametrize("dim, dim_v", [(16, 8), (64, 32), (80, 40)])
@pytest.mark.parametrize("neox", [False, True])
@pytest.mark.parametrize("flags", [0, 31])
@pytest.mark.parametrize("name", kv_rows.ROWS)
def test_products_are_placed_where_attention_reads_them(neox, flags, name, dim, dim_v):
    kv_heads, group, tokens, start, rope_dim, eps = 2, 3, 5, 253, 12, 1e-6
    rng = np.random.default_rng([neox, flags, dim])
    draw = lambda *size: rng.standard_normal(size).astype(np.float32)
    widths = [kv_heads * group * dim, kv_heads * dim, kv_heads * dim_v]
    q, k, v = (draw(tokens, padded(w)) for w in widths)
    biases, norms = [draw(padded(w)) for w in widths], [draw(padded(dim)), draw(padded(dim))]
    angle = rng.uniform(0, 100, (300, rope_dim // 2))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    rows = kv_rows.ROWS[name]
    keys = np.zeros((kv_heads, 2, rows.key_cut(dim)), np.uint8)
    values = np.zeros((kv_heads, 2, rows.value_cut(dim_v)), np.uint8)
    out = np.zeros((kv_heads, tokens * group, dim), np.float32)
    strides = [padded(w) * 4 for w in widths]
    numbers = [kv_heads, group, dim, dim_v, rows.key_tile(dim), 2, *strides, rope_dim // 2, neox, rows.kind, eps, flags]
    buffers = [q.copy(), k.copy(), v.copy(), cos, sin, out, keys, values, *biases, *norms]
    run(rope.place, buffers, [*numbers, rows.value_tile], tokens, tokens, start)
    here = slice(start, start + tokens)
    ref_q, ref_k, ref_v = rope.place_numpy(
        q, k, v, biases, norms, cos[here], sin[here], kv_heads, group, dim, dim_v, neox, flags, eps
    )
    assert_same_bits(out, ref_q)
    at_start = lambda x: np.concatenate([np.zeros((kv_heads, start, x.shape[2]), np.float32), x], axis=1)
    for got, ref in zip((keys, values), as_cache(at_start(ref_k), at_start(ref_v), 2, name)):
        np.testing.assert_array_equal(got, ref)
    if not flags:  # turning keeps lengths
        np.testing.assert_allclose(
            np.linalg.norm(ref_k, axis=-1),
            np.linalg.norm(k[:, : widths[1]].reshape(tokens, 2, dim), axis=-1).T,
            rtol=1e-5,
        )


def test_hard_blocks_are_stored_as_the_page_of_q8_0_says():
    """Ties, blocks of zeros, of subnormal size, of huge size; infinity and NaN show as NaN."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((12, 32), np.float32)
    x[0] = 0
    x[1] *= np.float32(1e-41)
    x[2] *= np.float32(1e34)
    x[3] = np.arange(-15.5, 16.5)
    x[3, 0] = 127
    x[4] *= np.float32(2.0**-126)
    x[5, 7], x[6, 9], x[7, 30] = np.inf, np.nan, -np.inf
    x[8] = np.float32(65504.0 * 127)
    x[9] = np.float32(65520.0 * 127)
    finite = np.isfinite(x).all(axis=1)
    got = kv_rows.stored_numpy(x, "q8_0")
    with np.errstate(over="ignore", invalid="ignore"):
        ref = gguf.dequantize(gguf.quantize(x[finite], "Q8_0"), "Q8_0")
    np.testing.assert_array_equal(got[finite] + 0, ref + 0)
    assert np.isnan(got[~finite]).all()
    keys, values = (np.zeros((1, 1, size), np.uint8) for size in (8 * 1088, 8704))
    rows, out = kv_rows.ROWS["q8_0"], np.zeros((1, 12, 32), np.float32)
    one, zero = np.ones((12, 1), np.float32), np.zeros((12, 1), np.float32)
    numbers = [1, 1, 32, 32, rows.key_tile(32), 1, 128, 128, 128, 1, True, rows.kind, 1e-6, 0, rows.value_tile]
    run(rope.place, [x.copy(), x.copy(), x.copy(), one, zero, out, keys, values], numbers, 12, 12, 0)
    tile = keys.reshape(8, 1088)[0]
    d, codes = tile[:64].view(np.float16), tile[64:].view(np.int8).reshape(32, 32).T
    d_v, codes_v = values[0, 0, :512].view(np.float16), values[0, 0, 512:].view(np.int8).reshape(256, 32)
    with np.errstate(invalid="ignore"):
        for scales, integers in ((d[:12], codes[:12]), (d_v[:12], codes_v[:12])):
            stored = scales.astype(np.float32)[:, None] * integers.astype(np.float32)
            np.testing.assert_array_equal(stored + 0, got + 0)
