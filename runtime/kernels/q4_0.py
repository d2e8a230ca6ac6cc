"""y = W x with W in Q4_0 and x in 8 bits.

    y[t, r] = sum_b float32(sum_i (q[r,b,i] - 8) * p[t,b,i]) * (d[r,b] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 8 * 127); the outer one is float32, b ascending from 0.

Layout   a block of 18 bytes: d float16, qs[16]; the low nibble of qs[j] is value j, the high one value j + 16.
Shapes   as in runtime.kernels.q8_0; w (rows, n / 32 * 18) uint8.
"""

import numpy as np
from numba import float32, int8

from refquant.gguf import FORMATS
from runtime.jit import kernel
from runtime.kernels.half import widen
from runtime.simd import dot_32, load_u16


@kernel
def matmul(w, codes, scale, sums, y, lo, hi):
    tokens, n = codes.shape
    blocks = n // 32
    q = np.empty(n, np.int8)
    d = np.empty(blocks, np.float32)
    for r in range(lo, hi):
        row = r * w.shape[1]
        for b in range(blocks):
            d[b] = widen(load_u16(w, row + b * 18))
            for i in range(16):
                byte = w[r, b * 18 + 2 + i]
                q[b * 32 + i] = int8(byte & 15) - int8(8)
                q[b * 32 + 16 + i] = int8(byte >> 4) - int8(8)
        for t in range(tokens):
            acc = float32(0)
            for b in range(blocks):
                dot = dot_32(q, b * 32, codes, t * n + b * 32)
                acc += float32(dot) * (d[b] * scale[t, b])
            y[t, r] = acc


def matmul_numpy(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of `matmul`, from the same bytes."""
    blocks = w.view(FORMATS["Q4_0"].layout)  # (rows, n / 32)
    q = np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=-1).astype(np.int32) - 8
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (q * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32) * scale[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1]
