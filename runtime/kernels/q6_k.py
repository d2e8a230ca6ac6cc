"""y = W x with W in Q6_K and x in Q8_K.

    y[t, r] = sum_k float32(sum_j sc[j] * D[j]) * (d * e[t,k])

k runs over the super-blocks of 256, ascending from 0; j over its 16 sub-blocks of 16, and D[j] is the sum of
(q - 32) * p. The integers are exact (|.| <= 16 * 128 * 16 * 32 * 127 < 2^31); d * e is a float32 product, formed first.

File     a super-block is 210 bytes: ql[128], qh[64], sc[16] int8, d float16. Half h of 128 values, l in 0..31:
           value l       = ql[64h + l]      & 15 | (qh[32h + l]      & 3) << 4
           value l + 32  = ql[64h + 32 + l] & 15 | (qh[32h + l] >> 2 & 3) << 4
           value l + 64  = ql[64h + l]      >> 4 | (qh[32h + l] >> 4 & 3) << 4
           value l + 96  = ql[64h + 32 + l] >> 4 | (qh[32h + l] >> 6    ) << 4
Packed   32 rows side by side: for c in 0..31 the bytes ql[4c:4c+4] of 32 rows, for c in 0..15 those of qh, then 32 of
         each sc[i], then 32 d.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import SC, D, signed_numpy
from runtime.kernels.runs import totals_of_runs
from runtime.simd import (
    broadcast_f32,
    buffer,
    integer,
    load_f16x16,
    load_i8x16,
    load_u8x64,
    splat_f32,
    store_f32x16,
    store_i32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((4, 32), (4, 16), (1, 16), (2, 1))
BLOCK = 32 * 210
HIGH, SCALES, SCALE = 4096, 4096 + 2048, 4096 + 2048 + 512  # bytes of a packed super-block


@inlined
def four_codes(w, at, i):
    """0..63: what runtime.kernels.runs asks for."""
    here = at + (i // 8 * 16 + i % 8) * 128
    low, next_low, high = load_u8x64(w, here), load_u8x64(w, here + 1024), load_u8x64(w, at + HIGH + i * 128)
    return (
        (low & 15) | (high & 3) << 4,
        (next_low & 15) | (high & 12) << 2,
        (low >> 4) | (high & 48),
        (next_low >> 4) | (high & 192) >> 2,
    )


@inlined
def scale(w, at, j):
    """sc of sub-block j for the 16 rows whose scales begin at byte `at`."""
    return load_i8x16(w, at + j * 32)


totals = totals_of_runs(four_codes, scale, 32, BLOCK)


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super, sums of 16; a unit is a group of 32 rows."""
    w, codes, e, halves, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    supers = integer(args, 32) // 256
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for k in range(supers):
            at, step = (group * supers + k) * BLOCK, broadcast_f32(e, k * 4)
            low, high = totals(w, at, at + SCALES, codes, halves, k)
            first += to_f32(low) * (load_f16x16(w, at + SCALE) * step)
            second += to_f32(high) * (load_f16x16(w, at + SCALE + 32) * step)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes of -32..31; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * BLOCK
        for g in range(2):
            store_f32x16(panels, panel + D + k * 128 + g * 64, load_f16x16(w, at + SCALE + g * 32))
            for j in range(16):
                sc = load_i8x16(w, at + SCALES + j * 32 + g * 16)
                store_i32x16(panels, panel + SC + (k * 16 + j) * 128 + g * 64, sc)
            for i in range(16):
                q, u = four_codes(w, at + g * 64, i), panel + k * 8192 + (i // 8 * 32 + i % 8) * 128 + g * 64
                store_u8x64(panels, u, q[0] - 32)
                store_u8x64(panels, u + 1024, q[1] - 32)
                store_u8x64(panels, u + 2048, q[2] - 32)
                store_u8x64(panels, u + 3072, q[3] - 32)


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 256 * 210), for all tokens."""
    blocks = w.view(FORMATS["Q6_K"].layout)  # (rows, n / 256)
    ql = blocks["ql"].reshape(*blocks.shape, 2, 1, 64)
    low = np.concatenate([ql & 15, ql >> 4], axis=3).reshape(*blocks.shape, 2, 4, 32)
    high = np.stack([blocks["qh"].reshape(*blocks.shape, 2, 32) >> shift & 3 for shift in (0, 2, 4, 6)], axis=3)
    q = (low | high << 4).astype(np.int32).reshape(*blocks.shape, 16, 16) - 32
    return signed_numpy(q, blocks["scales"], blocks["d"].astype(np.float32), codes, e)
