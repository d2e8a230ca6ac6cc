"""y = W x with W in IQ4_NL and x in Q8_0: w = LEVELS[code] * d, sixteen levels at uneven distances.

    y[t, r] = sum_b float32(sum_i LEVELS[q[r,b,i]] * p[t,b,i]) * (d[r,b] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 127 * 127); the outer one is float32, b ascending from 0, product then
sum.

File     a block of 18 bytes: d float16, qs[16]; the low nibble of qs[j] is code j, the high one code j + 16.
Packed   32 rows side by side: 32 d, then for c in 0..3 the bytes qs[4c:4c+4] of 32 rows.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import kernel, unpacker
from runtime.kernels.gemm import PANEL, D
from runtime.simd import (
    broadcast_4,
    broadcast_f32,
    buffer,
    dot_wide,
    integer,
    load_f16x16,
    load_i32,
    load_u8x64,
    lookup_16,
    splat_f32,
    start_wide,
    store_f32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((2, 1), (4, 4))  # (bytes, times) of what is interleaved, in file order
BLOCK = 32 * 18
BIAS = 128
LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
RAISED = tuple(level + BIAS for level in LEVELS)


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm; a unit is a group of 32 rows."""
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    blocks = integer(args, 32) // 32
    none = start_wide(np.int32(0))
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for b in range(blocks):
            at = (group * blocks + b) * BLOCK
            low_0 = low_1 = start_wide(load_i32(sums, b * 4))
            high_0, high_1 = none, none  # the start of the whole block is in low
            for c in range(4):
                left, right = load_u8x64(w, at + 64 + c * 128), load_u8x64(w, at + 128 + c * 128)
                x, z = broadcast_4(codes, b * 32 + c * 4), broadcast_4(codes, b * 32 + 16 + c * 4)
                low_0 = dot_wide(low_0, lookup_16(RAISED, left & 15), x)
                low_1 = dot_wide(low_1, lookup_16(RAISED, right & 15), x)
                high_0 = dot_wide(high_0, lookup_16(RAISED, left >> 4), z)
                high_1 = dot_wide(high_1, lookup_16(RAISED, right >> 4), z)
            scale = broadcast_f32(e, b * 4)
            first += to_f32(low_0 + high_0) * (load_f16x16(w, at) * scale)
            second += to_f32(low_1 + high_1) * (load_f16x16(w, at + 32) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Levels stand 128 too high."""
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 32, thread * PANEL
    for b in range(count):
        at, u = (group * blocks + first + b) * BLOCK, panel + b * 1024
        store_f32x16(panels, panel + D + b * 256, load_f16x16(w, at))
        store_f32x16(panels, panel + D + b * 256 + 64, load_f16x16(w, at + 32))
        for c in range(0, 512, 64):
            v = load_u8x64(w, at + 64 + c)
            store_u8x64(panels, u + c, lookup_16(RAISED, v & 15))
            store_u8x64(panels, u + 512 + c, lookup_16(RAISED, v >> 4))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 32 * 18), for all tokens."""
    blocks = w.view(FORMATS["IQ4_NL"].layout)  # (rows, n / 32)
    q = np.array(LEVELS, np.int32)[np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=-1)]
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (q * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32) * e[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
