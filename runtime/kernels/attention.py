"""Attention over the KV cache with an online softmax, cut at fixed absolute positions.

    s[j] = (q . k[j]) * scale      for every position j up to the token's own
    y    = sum_j exp(s[j] - max s) v[j] / sum_j exp(s[j] - max s)

The positions are cut at multiples of CUT. Each cut gives (m, l, a): its largest score, its sum of exponentials and its
weighted sum of values; the cuts are merged in ascending order. Where a cut begins never depends on the batch or on the
threads, so a token gets the same bits whether it is read alone or in a long prompt.

Shapes   q (tokens, heads * head_dim) and y (tokens, heads * head_dim_v) float32; keys (kv_heads, head_dim, n_ctx), with
         the positions side by side so that scores are vectors over positions; values (kv_heads, n_ctx, head_dim_v);
         both float32, or float16 as uint16. Head h reads kv head h // (heads / kv_heads). Token t stands at position
         start + t.
Order    q . k: d ascending from 0; l and a: j ascending from 0, product then sum.
Source   Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, FlashAttention, arXiv:2205.14135, alg. 1.
"""

import numpy as np
from numba import float32, types
from numba.extending import overload

from runtime.jit import kernel
from runtime.kernels.exponential import exp, exp_numpy
from runtime.kernels.half import narrow, narrow_numpy, widen, widen_numpy

CUT = 256


def as_float(x):
    """A number of the cache as float32, whichever type the cache holds."""
    return widen_numpy(x) if x.dtype == np.uint16 else x


@overload(as_float)
def _as_float(x):
    return (lambda x: widen(x)) if x == types.uint16 else (lambda x: x)


def as_stored(x, like):
    """A float32 in the type of the cache that `like` belongs to."""
    return narrow_numpy(x) if like.dtype == np.uint16 else x


@overload(as_stored)
def _as_stored(x, like):
    return (lambda x, like: narrow(x)) if like == types.uint16 else (lambda x, like: x)


@kernel
def append(k, v, keys, values, start):
    tokens = k.shape[0]
    kv_heads, head_dim, _ = keys.shape
    head_dim_v = values.shape[2]
    for t in range(tokens):
        for h in range(kv_heads):
            for d in range(head_dim):
                keys[h, d, start + t] = as_stored(k[t, h * head_dim + d], keys[h, d, start + t])
            for d in range(head_dim_v):
                values[h, start + t, d] = as_stored(v[t, h * head_dim_v + d], values[h, start + t, d])


def append_numpy(k: np.ndarray, v: np.ndarray, keys: np.ndarray, values: np.ndarray, start: int) -> None:
    """The twin of `append`: writes `keys` and `values` in place."""
    tokens = len(k)
    keys[:, :, start : start + tokens] = as_stored(k, keys).reshape(tokens, len(keys), -1).transpose(1, 2, 0)
    values[:, start : start + tokens] = as_stored(v, values).reshape(tokens, len(values), -1).transpose(1, 0, 2)


@kernel
def attend(q, keys, values, start, scale, y, lo, hi):
    """Work items lo..hi of tokens * heads, item = token * heads + head."""
    kv_heads, head_dim, _ = keys.shape
    head_dim_v = values.shape[2]
    heads = q.shape[1] // head_dim
    s = np.empty(CUT, np.float32)
    a = np.empty(head_dim_v, np.float32)
    acc = np.empty(head_dim_v, np.float32)
    for item in range(lo, hi):
        t, h = item // heads, item % heads
        kv = h // (heads // kv_heads)
        top, total = float32(-np.inf), float32(0)
        acc[:] = float32(0)
        for cut in range(0, start + t + 1, CUT):
            n = min(CUT, start + t + 1 - cut)
            s[:n] = float32(0)
            for d in range(head_dim):
                x = q[t, h * head_dim + d]
                for j in range(n):
                    s[j] += x * as_float(keys[kv, d, cut + j])
            m = float32(-np.inf)
            for j in range(n):
                s[j] *= scale
                m = max(m, s[j])
            for j in range(n):
                s[j] = exp(s[j] - m)
            a[:] = float32(0)
            part = float32(0)
            for j in range(n):
                p = s[j]
                part += p
                for d in range(head_dim_v):
                    a[d] += p * as_float(values[kv, cut + j, d])
            new = max(top, m)
            before, here = exp(top - new), exp(m - new)
            total = total * before + part * here
            for d in range(head_dim_v):
                acc[d] = acc[d] * before + a[d] * here
            top = new
        for d in range(head_dim_v):
            y[t, h * head_dim_v + d] = acc[d] / total


def attend_numpy(q: np.ndarray, keys: np.ndarray, values: np.ndarray, start: int, scale: np.float32) -> np.ndarray:
    """The twin of `attend` for all tokens and heads: (tokens, heads * head_dim_v) float32."""
    kv_heads, head_dim, _ = keys.shape
    heads = q.shape[1] // head_dim
    kv = np.arange(heads) // (heads // kv_heads)
    y = np.empty((len(q), heads, values.shape[2]), np.float32)
    for t in range(len(q)):
        query = q[t].reshape(heads, head_dim)
        top, total = np.full(heads, -np.inf, np.float32), np.zeros(heads, np.float32)
        acc = np.zeros_like(y[t])
        for cut in range(0, start + t + 1, CUT):
            here = slice(cut, min(cut + CUT, start + t + 1))
            k, v = (
                as_float(keys[kv, :, here]),
                as_float(values[kv, here]),
            )  # (heads, head_dim, n), (heads, n, head_dim_v)
            s = _last(query[:, :, None] * k, axis=1) * scale
            m = s.max(axis=1)
            p = exp_numpy(s - m[:, None])
            part, a = _last(p, axis=1), _last(p[:, :, None] * v, axis=1)
            new = np.maximum(top, m)
            old, now = exp_numpy(top - new), exp_numpy(m - new)
            total = total * old + part * now
            acc = acc * old[:, None] + a * now[:, None]
            top = new
        y[t] = acc / total[:, None]
    return y.reshape(len(q), -1)


def _last(terms: np.ndarray, axis: int) -> np.ndarray:
    """The sum along `axis` in ascending order: `np.sum` is pairwise, and so rounds otherwise."""
    return np.take(np.add.accumulate(terms, axis=axis), -1, axis=axis)
