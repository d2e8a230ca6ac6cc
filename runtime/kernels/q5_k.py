"""y = W x with W in Q5_K and x in Q8_K: Q4_K with a fifth bit.

    y[t, r] = sum_k float32(sum_j sc[j] * D[j]) * (d * e[t,k]) - float32(sum_j m[j] * S[j]) * (dmin * e[t,k])

k runs over the super-blocks of 256, ascending from 0; in each, the first term is added, then the second taken away.
j runs over its 8 sub-blocks of 32: D[j] is the sum of q * p, S[j] that of p. The integers are exact
(|.| <= 8 * 63 * 32 * 31 * 127 < 2^31); d * e and dmin * e are float32 products, formed first.

File     a super-block is 176 bytes: d, dmin float16; scales[12] and qs[128] as in Q4_K with qh[32] between them. The
         fifth bit of value l of sub-block j is bit j of qh[l].
Packed   32 rows side by side: 32 d, 32 dmin, 32 of each scales[i], for c in 0..7 the bytes qh[4c:4c+4] of 32 rows, then
         for c in 0..31 those of qs.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import DMIN, SC, D, M, minimum_numpy
from runtime.kernels.pairs import SCALES, product_of_pairs, scale_and_minimum
from runtime.kernels.q4_k import scales_and_minimums_numpy
from runtime.simd import (
    as_i32,
    as_u8,
    buffer,
    integer,
    load_f16x16,
    load_u8x64,
    store_f32x16,
    store_i32x16,
    store_u8x64,
)

FIELDS = ((2, 2), (1, 12), (4, 8), (4, 32))
BLOCK = 32 * 176
HIGH, CODES = 128 + 384, 128 + 384 + 1024  # bytes of a packed super-block


@inlined
def two_codes(w, at, pair, c):
    """Codes 4c .. 4c + 3 of sub-blocks 2 pair and 2 pair + 1 for the 16 rows that begin at byte `at`."""
    low = load_u8x64(w, at + CODES + (pair * 8 + c) * 128)
    high = as_u8(as_i32(load_u8x64(w, at + HIGH + c * 128)) >> 2 * pair)  # bits of a neighbour come in from above only
    return (low & 15) | (high & 1) << 4, (low >> 4) | (high & 2) << 3


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
        for g in range(2):
            store_f32x16(panels, panel + D + k * 128 + g * 64, load_f16x16(w, at + g * 32))
            store_f32x16(panels, panel + DMIN + k * 128 + g * 64, load_f16x16(w, at + 64 + g * 32))
            for pair in range(4):
                sc, m = scale_and_minimum(w, at + SCALES + g * 16, 2 * pair)
                next_sc, next_m = scale_and_minimum(w, at + SCALES + g * 16, 2 * pair + 1)
                here = panel + SC + (k * 8 + 2 * pair) * 128 + g * 64
                store_i32x16(panels, here, sc)
                store_i32x16(panels, here + 128, next_sc)
                store_i32x16(panels, panel + M + (k * 4 + pair) * 128 + g * 64, m | next_m << 16)
                for c in range(8):
                    q, u = two_codes(w, at + g * 64, pair, c), panel + k * 8192 + (pair * 16 + c) * 128 + g * 64
                    store_u8x64(panels, u, q[0])
                    store_u8x64(panels, u + 1024, q[1])


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 256 * 176), for all tokens."""
    blocks = w.view(FORMATS["Q5_K"].layout)  # (rows, n / 256)
    pairs = blocks["qs"].reshape(*blocks.shape, 4, 1, 32)
    low = np.concatenate([pairs & 15, pairs >> 4], axis=3).reshape(*blocks.shape, 8, 32)
    q = low | np.stack([blocks["qh"] >> j & 1 for j in range(8)], axis=2) << 4
    sc, m = scales_and_minimums_numpy(blocks["scales"])
    return minimum_numpy(q, sc, m, blocks["d"].astype(np.float32), blocks["dmin"].astype(np.float32), codes, e, sums)
