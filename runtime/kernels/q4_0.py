"""y = W x with W in Q4_0 and x in 8 bits.

    y[t, r] = sum_b float32(sum_i (q[r,b,i] - 8) * p[t,b,i]) * (d[r,b] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 8 * 127); the outer one is float32, b ascending from 0, product then sum.

File     a block of 18 bytes: d float16, qs[16]; the low nibble of qs[j] is value j, the high one value j + 16.
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
    dot_narrow,
    integer,
    load_f16x16,
    load_i32,
    load_u8x64,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_u8x64,
    to_f32,
)

FIELDS = [(2, 1), (4, 4)]  # (bytes, times) of what is interleaved, in file order
BLOCK = 32 * 18
BIAS = 8


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    blocks = integer(args, 32) // 32
    for group in range(lo, hi):
        first = splat_f32(np.float32(0))
        second = splat_f32(np.float32(0))
        for b in range(blocks):
            at = (group * blocks + b) * BLOCK
            begin = splat_i32(np.int32(-8) * load_i32(sums, b * 4))
            low_0, low_1 = begin, begin
            high_0, high_1 = splat_i32(np.int32(0)), splat_i32(np.int32(0))
            for c in range(4):
                left, right = load_u8x64(w, at + 64 + c * 128), load_u8x64(w, at + 128 + c * 128)
                x, z = broadcast_4(codes, b * 32 + c * 4), broadcast_4(codes, b * 32 + 16 + c * 4)
                low_0, low_1 = dot_narrow(low_0, left & 15, x), dot_narrow(low_1, right & 15, x)
                high_0, high_1 = dot_narrow(high_0, left >> 4, z), dot_narrow(high_1, right >> 4, z)
            scale = broadcast_f32(e, b * 4)
            first += to_f32(low_0 + high_0) * (load_f16x16(w, at) * scale)
            second += to_f32(low_1 + high_1) * (load_f16x16(w, at + 32) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 32, thread * PANEL
    for b in range(count):
        at, u = (group * blocks + first + b) * BLOCK, panel + b * 1024
        store_f32x16(panels, panel + D + b * 256, load_f16x16(w, at))
        store_f32x16(panels, panel + D + b * 256 + 64, load_f16x16(w, at + 32))
        for c in range(8):
            v = load_u8x64(w, at + 64 + c * 64)
            store_u8x64(panels, u + c * 64, v & 15)
            store_u8x64(panels, u + 512 + c * 64, v >> 4)


def matmul_numpy(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of `matvec` and of the GEMM: from the bytes of the file (rows, n / 32 * 18), for all tokens."""
    blocks = w.view(FORMATS["Q4_0"].layout)  # (rows, n / 32)
    q = np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=-1).astype(np.int32) - 8
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (q * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32) * scale[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
