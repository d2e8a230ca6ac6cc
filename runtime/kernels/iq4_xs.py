"""y = W x with W in IQ4_XS and x in Q8_K: sixteen levels at uneven distances, those of IQ4_NL.

    y[t, r] = sum_k float32(sum_j (s[j] - 32) * D[j]) * (d * e[t,k])

k runs over the super-blocks of 256, ascending from 0; j over its 8 sub-blocks of 32, and D[j] is the sum of
LEVELS[q] * p. The integers are exact (|.| <= 8 * 32 * 32 * 127 * 127 < 2^31); d * e is a float32 product, formed first.

File     a super-block is 136 bytes: d float16, scales_h uint16, scales_l[4], qs[128]. The low nibble of qs[16j + l] is
         code l of sub-block j, the high one code l + 16. Of the 6-bit s[j], the low four bits are the low (j even) or
         high half of scales_l[j // 2], the other two are bits 2j and 2j + 1 of scales_h.
Packed   32 rows side by side: 32 d, 32 scales_h, 32 of each scales_l[i], then for c in 0..31 the bytes qs[4c:4c+4].
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.ahead import ask_ahead, lines_of
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import SC, D, signed_numpy
from runtime.kernels.iq4_nl import LEVELS, RAISED
from runtime.simd import (
    broadcast_4,
    broadcast_f32,
    buffer,
    dot_wide,
    integer,
    load_f16x16,
    load_i32,
    load_u8x16,
    load_u8x64,
    load_u16x16,
    lookup_16,
    splat_f32,
    splat_i32,
    start_wide,
    store_f32x16,
    store_i32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((2, 2), (1, 4), (4, 32))
BLOCK = 32 * 136
SCALES, CODES = 64, 128 + 128  # bytes of a packed super-block
LINES = lines_of(BLOCK, 32)
SIGNED = tuple(level & 255 for level in LEVELS)


@inlined
def scale(w, at, g, j):
    """s - 32 of sub-block j for 16 rows, the first (g = 0) or second of the super-block at byte `at`."""
    high = load_u16x16(w, at + SCALES + g * 32) >> 2 * j & 3
    low = load_u8x16(w, at + SCALES + 64 + j // 2 * 32 + g * 16) >> j % 2 * 4 & 15
    return (low | high << 4) - 32


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super; a unit is a group of 32 rows."""
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    supers = integer(args, 32) // 256
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for k in range(supers):
            at = (group * supers + k) * BLOCK
            total_0, total_1 = splat_i32(np.int32(0)), splat_i32(np.int32(0))
            for j in range(8):
                x = k * 256 + j * 32
                dots_0 = start_wide(load_i32(sums, x // 8))
                dots_1 = dots_0
                for c in range(4):
                    ask_ahead(w, at, j * 4 + c, LINES)
                    low, high = broadcast_4(codes, x + c * 4), broadcast_4(codes, x + c * 4 + 16)
                    v = load_u8x64(w, at + CODES + (j * 4 + c) * 128)
                    u = load_u8x64(w, at + CODES + (j * 4 + c) * 128 + 64)
                    dots_0 = dot_wide(dots_0, lookup_16(RAISED, v & 15), low)
                    dots_1 = dot_wide(dots_1, lookup_16(RAISED, u & 15), low)
                    dots_0 = dot_wide(dots_0, lookup_16(RAISED, v >> 4), high)
                    dots_1 = dot_wide(dots_1, lookup_16(RAISED, u >> 4), high)
                total_0, total_1 = total_0 + scale(w, at, 0, j) * dots_0, total_1 + scale(w, at, 1, j) * dots_1
            step = broadcast_f32(e, k * 4)
            first += to_f32(total_0) * (load_f16x16(w, at) * step)
            second += to_f32(total_1) * (load_f16x16(w, at + 32) * step)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Levels; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * BLOCK
        for g in range(2):
            store_f32x16(panels, panel + D + k * 128 + g * 64, load_f16x16(w, at + g * 32))
            for j in range(8):
                store_i32x16(panels, panel + SC + (k * 8 + j) * 128 + g * 64, scale(w, at, g, j))
        for j in range(8):
            u = panel + (k * 8 + j) * 1024
            for c in range(0, 512, 64):
                v = load_u8x64(w, at + CODES + j * 512 + c)
                store_u8x64(panels, u + c, lookup_16(SIGNED, v & 15))
                store_u8x64(panels, u + 512 + c, lookup_16(SIGNED, v >> 4))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 256 * 136), for all tokens."""
    blocks = w.view(FORMATS["IQ4_XS"].layout)  # (rows, n / 256)
    qs = blocks["qs"].reshape(*blocks.shape, 8, 16)
    q = np.array(LEVELS, np.int32)[np.concatenate([qs & 15, qs >> 4], axis=-1)]
    low = np.stack([blocks["scales_l"] & 15, blocks["scales_l"] >> 4], axis=-1).reshape(*blocks.shape, 8)
    high = blocks["scales_h"][..., None] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    sc = low.astype(np.int32) + 16 * high.astype(np.int32) - 32
    return signed_numpy(q, sc, blocks["d"].astype(np.float32), codes, e)
