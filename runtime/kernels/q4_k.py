"""y = W x with W in Q4_K and x in Q8_K.

    y[t, r] = sum_k float32(sum_j sc[j] * D[j]) * (d * e[t,k]) - float32(sum_j m[j] * S[j]) * (dmin * e[t,k])

k runs over the super-blocks of 256, ascending from 0; in each, the first term is added, then the second taken away.
j runs over its 8 sub-blocks of 32: D[j] is the sum of q * p, S[j] that of p. The integers are exact
(|.| <= 8 * 63 * 32 * 15 * 127 < 2^31); d * e and dmin * e are float32 products, formed first.

File     a super-block is 144 bytes: d, dmin float16; scales[12] (runtime.kernels.pairs); qs[128]. Sub-blocks 2i and
         2i + 1 are the low and the high nibbles of the 32 bytes qs[32i:].
Packed   32 rows side by side: 32 d, 32 dmin, 32 of each scales[i], then for c in 0..31 the bytes qs[4c:4c+4] of 32
         rows.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import DMIN, SC, D, M, minimum_numpy
from runtime.kernels.pairs import CODES, SCALES, product_of_pairs, scale_and_minimum
from runtime.simd import buffer, integer, load_f16x16, load_u8x64, store_f32x16, store_i32x16, store_u8x64

FIELDS = ((2, 2), (1, 12), (4, 32))
BLOCK = 32 * 144


@inlined
def two_codes(w, at, pair, c):
    """0..15: what runtime.kernels.pairs asks for."""
    v = load_u8x64(w, at + CODES + (pair * 8 + c) * 128)
    return v & 15, v >> 4


product = product_of_pairs(two_codes, BLOCK)


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super; a unit is a group of 32 rows."""
    product(args, lo, hi)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes as they are; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * BLOCK
        for half in range(2):
            store_f32x16(panels, panel + D + k * 128 + half * 64, load_f16x16(w, at + half * 32))
            store_f32x16(panels, panel + DMIN + k * 128 + half * 64, load_f16x16(w, at + 64 + half * 32))
            for i in range(4):
                sc, m = scale_and_minimum(w, at + SCALES + half * 16, 2 * i)
                next_sc, next_m = scale_and_minimum(w, at + SCALES + half * 16, 2 * i + 1)
                here = panel + SC + (k * 8 + 2 * i) * 128 + half * 64
                store_i32x16(panels, here, sc)
                store_i32x16(panels, here + 128, next_sc)
                store_i32x16(panels, panel + M + (k * 4 + i) * 128 + half * 64, m | next_m << 16)
        for pair in range(4):
            u = panel + (k * 8 + pair * 2) * 1024
            for c in range(0, 1024, 64):
                v = load_u8x64(w, at + CODES + pair * 1024 + c)
                store_u8x64(panels, u + c, v & 15)
                store_u8x64(panels, u + 1024 + c, v >> 4)


def scales_and_minimums_numpy(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 12) bytes -> sc and m, (..., 8) each."""
    low, middle, high = (packed[..., i : i + 4] for i in (0, 4, 8))
    sc = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=-1)
    return sc, np.concatenate([middle & 63, (high >> 4) | (middle >> 6) << 4], axis=-1)


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 256 * 144), for all tokens."""
    blocks = w.view(FORMATS["Q4_K"].layout)  # (rows, n / 256)
    pairs = blocks["qs"].reshape(*blocks.shape, 4, 1, 32)
    q = np.concatenate([pairs & 15, pairs >> 4], axis=3).reshape(*blocks.shape, 8, 32)
    sc, m = scales_and_minimums_numpy(blocks["scales"])
    return minimum_numpy(q, sc, m, blocks["d"].astype(np.float32), blocks["dmin"].astype(np.float32), codes, e, sums)
