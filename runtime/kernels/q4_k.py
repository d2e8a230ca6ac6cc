"""y = W x with W in Q4_K and x in Q8_K.

    y[t, r] = sum_k float32(sum_j sc[j] * D[j]) * (d * e[t,k]) - float32(sum_j m[j] * S[j]) * (dmin * e[t,k])

k runs over the super-blocks of 256, ascending from 0; in each, the first term is added, then the second taken away.
j runs over its 8 sub-blocks of 32: D[j] is the sum of q * p, S[j] that of p. The integers are exact
(|.| <= 8 * 63 * 32 * 15 * 127 < 2^31); d * e and dmin * e are float32 products, formed first.

Layout   a super-block is 144 bytes: d, dmin float16; scales[12]; qs[128]. Sub-blocks 2i and 2i + 1 are the low and the
         high nibbles of the 32 bytes qs[32i:]. The 6-bit sc and m of sub-block j:
           j < 4    sc = scales[j] & 63                                  m = scales[j + 4] & 63
           j >= 4   sc = scales[j + 4] & 15 | (scales[j - 4] >> 6) << 4  m = scales[j + 4] >> 4 | (scales[j] >> 6) << 4
Shapes   as in runtime.kernels.q8_0, but scale (tokens, n / 256); w (rows, n / 256 * 144) uint8.
"""

import numpy as np
from numba import float32, int8, int32

from refquant.gguf import FORMATS
from runtime.jit import kernel
from runtime.kernels.half import widen
from runtime.simd import dot_32, load_u16


@kernel
def matmul(w, codes, scale, sums, y, lo, hi):
    tokens, n = codes.shape
    supers = n // 256
    q = np.empty(n, np.int8)
    sc, m = np.empty(supers * 8, np.int32), np.empty(supers * 8, np.int32)
    d, dmin = np.empty(supers, np.float32), np.empty(supers, np.float32)
    for r in range(lo, hi):
        row = r * w.shape[1]
        for k in range(supers):
            at = k * 144
            d[k], dmin[k] = widen(load_u16(w, row + at)), widen(load_u16(w, row + at + 2))
            for j in range(4):
                low, middle, high = w[r, at + 4 + j], w[r, at + 8 + j], w[r, at + 12 + j]
                sc[k * 8 + j], m[k * 8 + j] = int32(low & 63), int32(middle & 63)
                sc[k * 8 + 4 + j] = int32((high & 15) | (low >> 6) << 4)
                m[k * 8 + 4 + j] = int32((high >> 4) | (middle >> 6) << 4)
            for pair in range(4):
                for i in range(32):
                    byte = w[r, at + 16 + pair * 32 + i]
                    q[k * 256 + pair * 64 + i] = int8(byte & 15)
                    q[k * 256 + pair * 64 + 32 + i] = int8(byte >> 4)
        for t in range(tokens):
            acc = float32(0)
            for k in range(supers):
                plus, minus = int32(0), int32(0)
                for j in range(k * 8, k * 8 + 8):
                    plus += sc[j] * dot_32(q, j * 32, codes, t * n + j * 32)
                    minus += m[j] * sums[t, j]
                acc += float32(plus) * (d[k] * scale[t, k])
                acc -= float32(minus) * (dmin[k] * scale[t, k])
            y[t, r] = acc


def matmul_numpy(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of `matmul`, from the same bytes."""
    blocks = w.view(FORMATS["Q4_K"].layout)  # (rows, n / 256)
    rows, tokens = len(w), len(codes)
    low, middle, high = (blocks["scales"][..., i : i + 4] for i in (0, 4, 8))
    sc = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=-1).astype(np.int32)
    m = np.concatenate([middle & 63, (high >> 4) | (middle >> 6) << 4], axis=-1).astype(np.int32)
    pairs = blocks["qs"].reshape(rows, -1, 4, 1, 32)
    q = np.concatenate([pairs & 15, pairs >> 4], axis=3).reshape(rows, -1, 8, 32).astype(np.int32)
    dots = (q * codes.reshape(tokens, 1, -1, 8, 32).astype(np.int32)).sum(axis=-1, dtype=np.int32)
    plus = (sc * dots).sum(axis=-1, dtype=np.int32).astype(np.float32)
    minus = (m * sums.reshape(tokens, 1, -1, 8)).sum(axis=-1, dtype=np.int32).astype(np.float32)
    plus *= blocks["d"].astype(np.float32) * scale[:, None]
    minus *= blocks["dmin"].astype(np.float32) * scale[:, None]
    terms = np.stack([plus, -minus], axis=-1).reshape(tokens, rows, -1)
    return np.add.accumulate(terms, axis=-1)[..., -1]
