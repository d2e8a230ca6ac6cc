"""y = W x with W in Q8_0 and x in Q8_0.

    y[t, r] = sum_b float32(sum_i q[r,b,i] * p[t,b,i]) * (d[r,b] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 128 * 127); the outer one is float32, b ascending from 0, product then
sum.

File     a block of 34 bytes: d float16, q[32] int8.
Packed   32 rows side by side: 32 d, then for c in 0..7 the bytes q[4c:4c+4] of 32 rows.
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
    splat_f32,
    start_wide,
    store_f32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((2, 1), (4, 8))  # (bytes, times) of what is interleaved, in file order
BLOCK = 32 * 34
BIAS = 128


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm; a unit is a group of 32 rows."""
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    blocks = integer(args, 32) // 32
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for b in range(blocks):
            at = (group * blocks + b) * BLOCK
            left = right = start_wide(load_i32(sums, b * 4))
            for c in range(8):
                x = broadcast_4(codes, b * 32 + c * 4)
                left = dot_wide(left, load_u8x64(w, at + 64 + c * 128) ^ 128, x)
                right = dot_wide(right, load_u8x64(w, at + 128 + c * 128) ^ 128, x)
            scale = broadcast_f32(e, b * 4)
            first += to_f32(left) * (load_f16x16(w, at) * scale)
            second += to_f32(right) * (load_f16x16(w, at + 32) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes stand 128 too high."""
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 32, thread * PANEL
    for b in range(count):
        at, u = (group * blocks + first + b) * BLOCK, panel + b * 1024
        store_f32x16(panels, panel + D + b * 256, load_f16x16(w, at))
        store_f32x16(panels, panel + D + b * 256 + 64, load_f16x16(w, at + 32))
        for c in range(0, 1024, 64):
            store_u8x64(panels, u + c, load_u8x64(w, at + 64 + c) ^ 128)


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 32 * 34), for all tokens."""
    blocks = w.view(FORMATS["Q8_0"].layout)  # (rows, n / 32)
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (blocks["qs"].astype(np.int32) * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32) * e[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
