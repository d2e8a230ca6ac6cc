"""From the products Wq h, Wk h, Wv h to what attention reads: bias, norm of heads, rotation, and the KV cache.

    q, k, v += bias      q, k = rms_norm of each head (Qwen3)      pairs of q and k turned by the position's angle

    norm   pairs (2i, 2i+1)            Llama, whose converter permuted the rows of Q and K for this
    neox   pairs (i, i + rope_dim/2)   Qwen

A unit is a token. q is written head by head for attention (kv_heads, tokens * group, head_dim), keys and values in the
type and the layout of the cache (runtime.kernels.kv_rows).

Order    first * cos - second * sin and first * sin + second * cos: two products, then their sum; angles in float64 at
         load. The norm of a head: squares in float32, ascending; mean + eps and 1 / sqrt in float64.
Record   buffers 0 q, 1 k, 2 v (products), 3 cos, 4 sin (positions, rope_dim / 2) float32, 5 q out, 6 keys, 7 values,
         8 bias of q, 9 of k, 10 of v, 11 q_norm, 12 k_norm (empty: none); integers 32 kv_heads, 33 group, 34 head_dim,
         35 head_dim_v, 36 bytes of a tile of keys, 37 cuts, 38..40 strides of q, k, v in bytes, 41 rope_dim / 2, 42
         neox, 43 kind of the cache, 46 bytes of a tile of values; number 44 eps; 45 flags: 1 bias of q, 2 of k, 4 of v,
         8 q_norm, 16 k_norm
Source   Su et al. 2021, arXiv:2104.09864.
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.kv_rows import CUT, TILE, store_key, store_value
from runtime.simd import buffer, integer, load_f32, number, store_f32


@inlined
def head(x, at, bias, by, weight, weighted, biased, dim, eps):
    """Bias and norm of one head of `dim` numbers at byte `at` of x, in place."""
    if biased:
        for d in range(0, dim * 4, 4):
            store_f32(x, at + d, np.float32(load_f32(x, at + d) + load_f32(bias, by + d)))
    if weighted:
        total = np.float32(0)
        for d in range(0, dim * 4, 4):
            v = load_f32(x, at + d)
            total += v * v
        scale = np.float32(1 / np.sqrt(np.float64(total) / dim + eps))
        for d in range(0, dim * 4, 4):
            store_f32(x, at + d, np.float32(load_f32(x, at + d) * scale * load_f32(weight, d)))


@inlined
def rotate(x, at, cos, sin, to, pairs, neox):
    """Turn the pairs of one head in place; `to` is the byte of the position's row in cos and sin."""
    for i in range(pairs):
        a = at + 4 * i if neox else at + 8 * i
        b = a + 4 * pairs if neox else a + 4
        first, second = load_f32(x, a), load_f32(x, b)
        c, s = load_f32(cos, to + 4 * i), load_f32(sin, to + 4 * i)
        store_f32(x, a, np.float32(first * c - second * s))
        store_f32(x, b, np.float32(first * s + second * c))


@kernel
def place(args, tokens, start, thread, lo, hi):
    """Everything above for tokens lo..hi."""
    q, k, v, cos, sin = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    out, keys, values = buffer(args, 5), buffer(args, 6), buffer(args, 7)
    q_bias, k_bias, v_bias, q_norm, k_norm = (
        buffer(args, 8),
        buffer(args, 9),
        buffer(args, 10),
        buffer(args, 11),
        buffer(args, 12),
    )
    kv_heads, group, dim, head_dim_v = integer(args, 32), integer(args, 33), integer(args, 34), integer(args, 35)
    key_tile, value_tile, cuts = integer(args, 36), integer(args, 46), integer(args, 37)
    q_step, k_step, v_step = integer(args, 38), integer(args, 39), integer(args, 40)
    pairs, neox, kind, flags, eps = (
        integer(args, 41),
        integer(args, 42),
        integer(args, 43),
        integer(args, 45),
        number(args, 44),
    )
    key_cut, value_cut = CUT // TILE * key_tile, (head_dim_v + TILE - 1) // TILE * value_tile
    for t in range(lo, hi):
        position = start + t
        cut, j, turn = position // CUT, position % CUT, position * pairs * 4
        for h in range(kv_heads * group):
            at = t * q_step + h * dim * 4
            head(q, at, q_bias, h * dim * 4, q_norm, flags & 8, flags & 1, dim, eps)
            rotate(q, at, cos, sin, turn, pairs, neox)
            to = ((h // group * tokens + t) * group + h % group) * dim * 4
            for d in range(0, dim * 4, 4):
                store_f32(out, to + d, load_f32(q, at + d))
        for h in range(kv_heads):
            at = t * k_step + h * dim * 4
            head(k, at, k_bias, h * dim * 4, k_norm, flags & 16, flags & 2, dim, eps)
            rotate(k, at, cos, sin, turn, pairs, neox)
            store_key(keys, kind, (h * cuts + cut) * key_cut, key_tile, j, k, at, dim)
            at = t * v_step + h * head_dim_v * 4
            head(v, at, v_bias, h * head_dim_v * 4, v_bias, 0, flags & 4, head_dim_v, eps)
            store_value(values, kind, (h * cuts + cut) * value_cut, value_tile, j, v, at, head_dim_v)


def place_numpy(q, k, v, biases, norms, cos, sin, kv_heads: int, group: int, dim: int, dim_v: int, neox, flags, eps):
    """The twin of `place`: (queries (kv_heads, tokens * group, dim), keys (kv_heads, tokens, dim), values) as
    float32."""
    tokens, pairs = len(q), cos.shape[1]

    def prepared(x: np.ndarray, heads: int, bias: np.ndarray | None, weight: np.ndarray | None) -> np.ndarray:
        x = x[:, : heads * dim] if bias is None else x[:, : heads * dim] + bias[: heads * dim]
        x = x.reshape(tokens, heads, dim).copy()
        if weight is not None:
            total = np.add.accumulate(x * x, axis=-1)[..., -1:]
            x = x * (1 / np.sqrt(total.astype(np.float64) / dim + eps)).astype(np.float32) * weight[:dim]
        a = slice(0, pairs) if neox else slice(0, 2 * pairs, 2)
        b = slice(pairs, 2 * pairs) if neox else slice(1, 2 * pairs, 2)
        first, second = x[..., a].copy(), x[..., b].copy()
        x[..., a] = first * cos[:, None] - second * sin[:, None]
        x[..., b] = first * sin[:, None] + second * cos[:, None]
        return x

    has = lambda bit, array: array if flags & bit else None
    queries = prepared(q, kv_heads * group, has(1, biases[0]), has(8, norms[0]))
    queries = queries.reshape(tokens, kv_heads, group, dim).transpose(1, 0, 2, 3).reshape(kv_heads, tokens * group, dim)
    keys = prepared(k, kv_heads, has(2, biases[1]), has(16, norms[1])).transpose(1, 0, 2)
    values = v[:, : kv_heads * dim_v] + biases[2][: kv_heads * dim_v] if flags & 4 else v[:, : kv_heads * dim_v]
    values = values.reshape(tokens, kv_heads, dim_v).transpose(1, 0, 2)
    return np.ascontiguousarray(queries), np.ascontiguousarray(keys), np.ascontiguousarray(values)
