"""y = W x with W in Q8_0 and x in 8 bits: the twin states the arithmetic, the kernel obeys it.

    y[t, r] = sum_b float32(sum_i q[r,b,i] * p[t,b,i]) * (d[r,b] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 128 * 127); the outer one is float32, b ascending from 0.

Layout   a block of 34 bytes: d float16, q[32] int8.
Shapes   w (rows, n / 32 * 34) uint8, the bytes of the file; codes p (tokens, n) int8, scale e and sums (tokens, n / 32)
         of runtime.kernels.activations; y (tokens, rows) float32; lo, hi the rows to compute.
"""

import numpy as np
from numba import float32

from refquant.gguf import FORMATS
from runtime.jit import kernel
from runtime.kernels.half import widen
from runtime.simd import dot_32, load_u16


@kernel
def matmul(w, codes, scale, sums, y, lo, hi):
    tokens, n = codes.shape
    blocks = n // 32
    d = np.empty(blocks, np.float32)
    for r in range(lo, hi):
        row = r * w.shape[1]
        for b in range(blocks):
            d[b] = widen(load_u16(w, row + b * 34))
        for t in range(tokens):
            acc = float32(0)
            for b in range(blocks):
                dot = dot_32(w, row + b * 34 + 2, codes, t * n + b * 32)
                acc += float32(dot) * (d[b] * scale[t, b])
            y[t, r] = acc


def matmul_numpy(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of `matmul`, from the same bytes."""
    blocks = w.view(FORMATS["Q8_0"].layout)  # (rows, n / 32)
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (blocks["qs"].astype(np.int32) * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32) * scale[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1]
