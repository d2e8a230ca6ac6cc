"""y = W x with W in Q6_K and x in Q8_K.

    y[t, r] = sum_k float32(sum_j sc[j] * D[j]) * (d * e[t,k])

k runs over the super-blocks of 256, ascending from 0; j over its 16 sub-blocks of 16, and D[j] is the sum of
(q - 32) * p. The integers are exact (|.| <= 16 * 128 * 16 * 32 * 127 < 2^31); d * e is a float32 product, formed first.

Layout   a super-block is 210 bytes: ql[128], qh[64], sc[16] int8, d float16. Half h of 128 values, l in 0..31:
           value l       = ql[64h + l]      & 15 | (qh[32h + l]      & 3) << 4
           value l + 32  = ql[64h + 32 + l] & 15 | (qh[32h + l] >> 2 & 3) << 4
           value l + 64  = ql[64h + l]      >> 4 | (qh[32h + l] >> 4 & 3) << 4
           value l + 96  = ql[64h + 32 + l] >> 4 | (qh[32h + l] >> 6    ) << 4
Shapes   as in runtime.kernels.q8_0, but scale (tokens, n / 256); w (rows, n / 256 * 210) uint8.
"""

import numpy as np
from numba import float32, int8, int32

from refquant.gguf import FORMATS
from runtime.jit import kernel
from runtime.kernels.half import widen
from runtime.simd import dot_16, load_u16


@kernel
def matmul(w, codes, scale, sums, y, lo, hi):
    tokens, n = codes.shape
    supers = n // 256
    q = np.empty(n, np.int8)
    sc = np.empty(supers * 16, np.int32)
    d = np.empty(supers, np.float32)
    for r in range(lo, hi):
        row = r * w.shape[1]
        for k in range(supers):
            at = k * 210
            d[k] = widen(load_u16(w, row + at + 208))
            for i in range(16):
                sc[k * 16 + i] = int32(int8(w[r, at + 192 + i]))
            for half in range(2):
                to = k * 256 + half * 128
                for i in range(32):
                    first, second = w[r, at + half * 64 + i], w[r, at + half * 64 + 32 + i]
                    high = w[r, at + 128 + half * 32 + i]
                    q[to + i] = int8((first & 15) | (high & 3) << 4) - int8(32)
                    q[to + 32 + i] = int8((second & 15) | (high >> 2 & 3) << 4) - int8(32)
                    q[to + 64 + i] = int8((first >> 4) | (high >> 4 & 3) << 4) - int8(32)
                    q[to + 96 + i] = int8((second >> 4) | (high >> 6) << 4) - int8(32)
        for t in range(tokens):
            acc = float32(0)
            for k in range(supers):
                total = int32(0)
                for j in range(k * 16, k * 16 + 16):
                    total += sc[j] * dot_16(q, j * 16, codes, t * n + j * 16)
                acc += float32(total) * (d[k] * scale[t, k])
            y[t, r] = acc


def matmul_numpy(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of `matmul`, from the same bytes."""
    blocks = w.view(FORMATS["Q6_K"].layout)  # (rows, n / 256)
    rows, tokens = len(w), len(codes)
    ql = blocks["ql"].reshape(rows, -1, 2, 1, 64)
    low = np.concatenate([ql & 15, ql >> 4], axis=3).reshape(rows, -1, 2, 4, 32)
    high = np.stack([blocks["qh"].reshape(rows, -1, 2, 32) >> shift & 3 for shift in (0, 2, 4, 6)], axis=3)
    q = (low | high << 4).astype(np.int32).reshape(rows, -1, 16, 16) - 32
    dots = (q * codes.reshape(tokens, 1, -1, 16, 16).astype(np.int32)).sum(axis=-1, dtype=np.int32)
    totals = (blocks["scales"].astype(np.int32) * dots).sum(axis=-1, dtype=np.int32).astype(np.float32)
    return np.add.accumulate(totals * (blocks["d"].astype(np.float32) * scale[:, None]), axis=-1)[..., -1]
