"""y = W x with W in Q2_0 and x in Q8_0: w = (q - 1) * d, q in 0..3, a scale d for 64 values.

    y[t, r] = sum_b float32(sum_i (q[r,b,i] - 1) * p[t,b,i]) * (d[r,b // 2] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 2 * 127); the outer one is float32, b ascending from 0 over 32 values
each, product then sum. (ggml sums e * dot over the 64 values of a d first.)

File     a block of 18 bytes: d float16, qs[16]; value i is bits 2 * (i % 4) and up of qs[i // 4].
Packed   32 rows side by side: 32 d, then for c in 0..3 the bytes qs[4c:4c+4] of 32 rows.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL, D
from runtime.simd import (
    as_u8,
    broadcast_f32,
    buffer,
    columns_by_4,
    dot_narrow,
    integer,
    lane,
    load_f16x16,
    load_i32,
    load_i32x16,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((2, 1), (4, 4))  # (bytes, times) of what is interleaved, in file order
BLOCK = 32 * 18
BIAS = 1


@inlined
def spread(word, c):
    """Byte c of each lane as four: DDCCBBAA -> 0000DDCC 00000000 0000BBAA -> 000000DD 000000CC 000000BB 000000AA."""
    byte = (word >> c * 8) & 255
    pairs = (byte | byte << 12) & 0x000F000F
    return as_u8((pairs | pairs << 6) & 0x03030303)


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm; a unit is a group of 32 rows."""
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    blocks = integer(args, 32) // 32
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for b in range(blocks):
            at = (group * blocks + b) // 2 * BLOCK
            here = at + 64 + b % 2 * 256
            dots_0 = dots_1 = splat_i32(np.int32(-BIAS) * load_i32(sums, b * 4))
            columns = columns_by_4(codes, b * 32)
            for c in range(2):
                left, right = load_i32x16(w, here + c * 128), load_i32x16(w, here + c * 128 + 64)
                for i in range(4):
                    x = lane(columns, c * 4 + i)
                    dots_0 = dot_narrow(dots_0, as_u8((left >> i * 2) & 0x03030303), x)
                    dots_1 = dot_narrow(dots_1, as_u8((right >> i * 2) & 0x03030303), x)
            scale = broadcast_f32(e, b * 4)
            first += to_f32(dots_0) * (load_f16x16(w, at) * scale)
            second += to_f32(dots_1) * (load_f16x16(w, at + 32) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes stand 1 too high; `first` and `count` are multiples of 2."""
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 32, thread * PANEL
    for b in range(count):
        at, u = (group * blocks + first + b) // 2 * BLOCK, panel + b * 1024
        for half in range(2):
            store_f32x16(panels, panel + D + b * 256 + half * 64, load_f16x16(w, at + half * 32))
            for c in range(2):
                word = load_i32x16(w, at + 64 + b % 2 * 256 + c * 128 + half * 64)
                for i in range(4):
                    store_u8x64(panels, u + (c * 4 + i) * 128 + half * 64, spread(word, i))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 64 * 18), for all tokens."""
    blocks = w.view(FORMATS["Q2_0"].layout)  # (rows, n / 64)
    q = blocks["qs"][..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
    q = q.reshape(len(w), -1, 32).astype(np.int32) - 1
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (q * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32).repeat(2, axis=1) * e[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
