"""Rotary position embedding: pairs of values turned by an angle that grows with the position.

    norm   pairs (2i, 2i+1)            Llama, whose converter permuted the rows of Q and K for this
    neox   pairs (i, i + rope_dim/2)   Qwen

Shapes   x (tokens, heads * head_dim) float32, turned in place; cos, sin (tokens, rope_dim / 2) float32, made in float64
         from the positions; values beyond rope_dim stay.
Source   Su et al. 2021, arXiv:2104.09864.
"""

import numpy as np

from runtime.jit import kernel


@kernel
def rotate(x, head_dim, cos, sin, neox):
    tokens, width = x.shape
    pairs = cos.shape[1]
    for t in range(tokens):
        for start in range(0, width, head_dim):
            for i in range(pairs):
                a = start + i if neox else start + 2 * i
                b = a + pairs if neox else a + 1
                first, second = x[t, a], x[t, b]
                x[t, a] = first * cos[t, i] - second * sin[t, i]
                x[t, b] = first * sin[t, i] + second * cos[t, i]


def rotate_numpy(x: np.ndarray, head_dim: int, cos: np.ndarray, sin: np.ndarray, neox: bool) -> np.ndarray:
    """The twin of `rotate`; returns a new array."""
    pairs = cos.shape[1]
    y = x.reshape(len(x), -1, head_dim).copy()
    a = slice(0, pairs) if neox else slice(0, 2 * pairs, 2)
    b = slice(pairs, 2 * pairs) if neox else slice(1, 2 * pairs, 2)
    first, second = y[..., a].copy(), y[..., b].copy()
    y[..., a] = first * cos[:, None] - second * sin[:, None]
    y[..., b] = first * sin[:, None] + second * cos[:, None]
    return y.reshape(x.shape)
