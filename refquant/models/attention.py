"""Causal attention with grouped key and value heads.

    out[t, h] = sum_c softmax_c(scale * q[t, h] . k[c, h // n_group]) v[c, h // n_group]        c <= past + t

Query t is the token at position past + t, where past = context - tokens were there before; it sees itself and what
came earlier. Each of the n_head_kv key and value heads serves n_group = n_head / n_head_kv query heads.

Shapes   q (tokens, n_head, head_dim); k (context, n_head_kv, head_dim); v (context, n_head_kv, head_dim_v), one dtype.
Memory   all scores at once: n_head * tokens * context elements.
Source   Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2; Ainslie et al. 2023, GQA, arXiv:2305.13245.
"""

import numpy as np


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Weighted values of every query head, side by side: (tokens, n_head * head_dim_v)."""
    (tokens, n_head, head_dim), (context, n_head_kv, _) = q.shape, k.shape
    q = q.reshape(tokens, n_head_kv, n_head // n_head_kv, head_dim)
    q = q.transpose(1, 2, 0, 3)  # (n_head_kv, n_group, tokens, head_dim)
    k = k.transpose(1, 2, 0)[:, None]  # (n_head_kv, 1, head_dim, context)
    v = v.transpose(1, 0, 2)[:, None]  # (n_head_kv, 1, context, head_dim_v)
    last_seen = context - tokens + np.arange(tokens)
    future = np.arange(context) > last_seen[:, None]  # (tokens, context)
    scores = np.where(future, -np.inf, q @ k * scale)  # (n_head_kv, n_group, tokens, context)
    out = softmax(scores) @ v  # (n_head_kv, n_group, tokens, head_dim_v)
    return out.transpose(2, 0, 1, 3).reshape(tokens, -1)


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x - max) / sum over the last axis; -inf becomes 0."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
