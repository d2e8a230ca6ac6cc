"""y = W x with W in Q4_1 and x in Q8_0: w = q * d + m.

    y[t, r] = sum_b float32(sum_i q[r,b,i] * p[t,b,i]) * (d[r,b] * e[t,b]) + m[r,b] * (float32(sums[t,b]) * e[t,b])

The inner sums are int32 and exact (|.| <= 32 * 15 * 127). The outer one is float32, b ascending from 0; of each block
the term with d is added first, then the one with m. (ggml rounds sums * e to a float16, the s of Q8_1.)

File     a block of 20 bytes: d, m float16, qs[16]; the low nibble of qs[j] is value j, the high one value j + 16.
Packed   32 rows side by side: 32 d, 32 m, then for c in 0..3 the bytes qs[4c:4c+4] of 32 rows.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import kernel, unpacker
from runtime.kernels.gemm import PANEL, D, M
from runtime.simd import (
    broadcast_4,
    broadcast_f32,
    buffer,
    dot_narrow,
    integer,
    load_f16x16,
    load_f32,
    load_i32,
    load_u8x64,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((2, 2), (4, 4))  # (bytes, times) of what is interleaved, in file order
BLOCK = 32 * 20
CODES = 128  # bytes of a packed block before the codes


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm; a unit is a group of 32 rows."""
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    blocks = integer(args, 32) // 32
    zero = splat_i32(np.int32(0))
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for b in range(blocks):
            at = (group * blocks + b) * BLOCK
            low_0, low_1, high_0, high_1 = zero, zero, zero, zero
            for c in range(4):
                left, right = load_u8x64(w, at + CODES + c * 128), load_u8x64(w, at + CODES + 64 + c * 128)
                x, z = broadcast_4(codes, b * 32 + c * 4), broadcast_4(codes, b * 32 + 16 + c * 4)
                low_0, low_1 = dot_narrow(low_0, left & 15, x), dot_narrow(low_1, right & 15, x)
                high_0, high_1 = dot_narrow(high_0, left >> 4, z), dot_narrow(high_1, right >> 4, z)
            scale, total = broadcast_f32(e, b * 4), np.float32(load_i32(sums, b * 4)) * load_f32(e, b * 4)
            first += to_f32(low_0 + high_0) * (load_f16x16(w, at) * scale)
            first += load_f16x16(w, at + 64) * total
            second += to_f32(low_1 + high_1) * (load_f16x16(w, at + 32) * scale)
            second += load_f16x16(w, at + 96) * total
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes as they are; the product takes minima away, so M of the panel is -m."""
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 32, thread * PANEL
    for b in range(count):
        at, u = (group * blocks + first + b) * BLOCK, panel + b * 1024
        for half in range(2):
            here = panel + b * 256 + half * 64
            store_f32x16(panels, here + D, load_f16x16(w, at + half * 32))
            store_f32x16(panels, here + M, load_f16x16(w, at + 64 + half * 32) * np.float32(-1))
        for c in range(0, 512, 64):
            v = load_u8x64(w, at + CODES + c)
            store_u8x64(panels, u + c, v & 15)
            store_u8x64(panels, u + 512 + c, v >> 4)


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 32 * 20), for all tokens."""
    blocks = w.view(FORMATS["Q4_1"].layout)  # (rows, n / 32)
    q = np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=-1).astype(np.int32)
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (q * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    scaled = dots * (blocks["d"].astype(np.float32) * e[:, None])
    offset = blocks["m"].astype(np.float32) * (sums.astype(np.float32) * e)[:, None]
    terms = np.stack([scaled, offset], axis=-1).reshape(*scaled.shape[:2], -1)
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
