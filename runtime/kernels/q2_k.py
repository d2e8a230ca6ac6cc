"""y = W x with W in Q2_K and x in Q8_K.

    y[t, r] = sum_k float32(sum_j sc[j] * D[j]) * (d * e[t,k]) - float32(sum_j m[j] * S[j]) * (dmin * e[t,k])

k runs over the super-blocks of 256, ascending from 0; in each, the first term is added, then the second taken away.
j runs over its 16 sub-blocks of 16: D[j] is the sum of q * p, S[j] that of p. The integers are exact
(|.| <= 16 * 15 * 16 * 3 * 127 < 2^31); d * e and dmin * e are float32 products, formed first.

File     a super-block is 84 bytes: scales[16], qs[64], d, dmin float16. sc and m of sub-block j are the low and the
         high half of scales[j]. Half h of 128 values, run r of 32, l < 32: q = qs[32h + l] >> 2r & 3.
Packed   32 rows side by side: 32 of each scales[i], then for c in 0..15 the bytes qs[4c:4c+4] of 32 rows, 32 d, 32
         dmin.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import DMIN, D, M, minimum_numpy
from runtime.kernels.runs import totals_of_runs
from runtime.simd import (
    as_i32,
    as_u8,
    broadcast_f32,
    broadcast_i32,
    buffer,
    integer,
    load_f16x16,
    load_u8x16,
    load_u8x64,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_i32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((1, 16), (4, 16), (2, 2))
BLOCK = 32 * 84
CODES, SCALE = 512, 512 + 2048  # bytes of a packed super-block


@inlined
def four_codes(w, at, i):
    """0..3: what runtime.kernels.runs asks for."""
    v = load_u8x64(w, at + CODES + i * 128)
    return v & 3, v >> 2 & 3, v >> 4 & 3, v >> 6


@inlined
def scale(w, at, j):
    """sc of sub-block j for the 16 rows whose scales begin at byte `at`."""
    return load_u8x16(w, at + j * 32) & 15


@inlined
def minimum(w, at, halves, k):
    """sum_j m[j] * S[j] of super-block k for the 16 rows whose scales begin at byte `at`."""
    total = splat_i32(np.int32(0))
    for j in range(16):
        total += (load_u8x16(w, at + j * 32) >> 4) * broadcast_i32(halves, (k * 16 + j) * 4)
    return total


totals = totals_of_runs(four_codes, scale, 0, BLOCK)


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super, sums of 16; a unit is a group of 32 rows."""
    w, codes, e, halves, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    supers = integer(args, 32) // 256
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for k in range(supers):
            at, step = (group * supers + k) * BLOCK, broadcast_f32(e, k * 4)
            plus_0, plus_1 = totals(w, at, at, codes, halves, k)
            minus_0, minus_1 = minimum(w, at, halves, k), minimum(w, at + 16, halves, k)
            first += to_f32(plus_0) * (load_f16x16(w, at + SCALE) * step)
            first -= to_f32(minus_0) * (load_f16x16(w, at + SCALE + 64) * step)
            second += to_f32(plus_1) * (load_f16x16(w, at + SCALE + 32) * step)
            second -= to_f32(minus_1) * (load_f16x16(w, at + SCALE + 96) * step)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@inlined
def folded(q, scale):
    """q * sc, 0..45: one product of 32 bits does all four codes of a lane."""
    return as_u8(as_i32(q) * (scale & 15))


@unpacker
def unpack(args, thread, group, first, count):
    """Codes times scales; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        for g in range(2):
            at = (group * supers + first // 8 + k) * BLOCK
            store_f32x16(panels, panel + D + k * 128 + g * 64, load_f16x16(w, at + SCALE + g * 32))
            store_f32x16(panels, panel + DMIN + k * 128 + g * 64, load_f16x16(w, at + SCALE + 64 + g * 32))
            for i in range(8):
                low, high = load_u8x16(w, at + i * 64 + g * 16), load_u8x16(w, at + i * 64 + 32 + g * 16)
                store_i32x16(panels, panel + M + (k * 8 + i) * 128 + g * 64, low >> 4 | (high >> 4) << 16)
            for half in range(2):
                for part in range(2):
                    j, u = half * 8 + part, panel + k * 8192 + (half * 32 + part * 4) * 128 + g * 64
                    one, two = load_u8x16(w, at + j * 32 + g * 16), load_u8x16(w, at + j * 32 + 64 + g * 16)
                    three, four = load_u8x16(w, at + j * 32 + 128 + g * 16), load_u8x16(w, at + j * 32 + 192 + g * 16)
                    for c in range(4):
                        q = four_codes(w, at + g * 64, half * 8 + part * 4 + c)
                        store_u8x64(panels, u + c * 128, folded(q[0], one))
                        store_u8x64(panels, u + c * 128 + 1024, folded(q[1], two))
                        store_u8x64(panels, u + c * 128 + 2048, folded(q[2], three))
                        store_u8x64(panels, u + c * 128 + 3072, folded(q[3], four))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 256 * 84), for all tokens."""
    blocks = w.view(FORMATS["Q2_K"].layout)  # (rows, n / 256)
    q = np.stack([blocks["qs"].reshape(*blocks.shape, 2, 32) >> shift & 3 for shift in (0, 2, 4, 6)], axis=3)
    q, sc, m = q.reshape(*blocks.shape, 16, 16), blocks["scales"] & 15, blocks["scales"] >> 4
    return minimum_numpy(q, sc, m, blocks["d"].astype(np.float32), blocks["dmin"].astype(np.float32), codes, e, halves)
