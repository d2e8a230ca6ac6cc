"""y = W x with W in Q1_0 and x in Q8_0: w = d where the bit is 1, -d where it is 0, a scale d for 128 values.

    y[t, r] = sum_b float32(sum_i (2 * bit[r,b,i] - 1) * p[t,b,i]) * (d[r,b // 4] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 127); the outer one is float32, b ascending from 0 over 32 values each,
product then sum. (ggml sums e * dot over the 128 values of a d first.)

File     a block of 18 bytes: d float16, qs[16]; value i is bit i % 8 of qs[i // 8].
Packed   32 rows side by side: 32 d, then for b in 0..3 the bytes qs[4b:4b+4] of 32 rows.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL, D
from runtime.simd import (
    as_u8,
    broadcast_f32,
    buffer,
    columns_by_8,
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
def doubled(word, i):
    """Bits i .. i + 3 of each lane, doubled, as its four bytes: ABCD -> 000000A0 000000B0 000000C0 000000D0."""
    return as_u8(((word >> i) & 15) * 0x00408102 & 0x02020202)


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm; a unit is a group of 32 rows."""
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    blocks = integer(args, 32) // 32
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for b in range(blocks):
            at = (group * blocks + b) // 4 * BLOCK
            left, right = load_i32x16(w, at + 64 + b % 4 * 128), load_i32x16(w, at + 128 + b % 4 * 128)
            begin = splat_i32(np.int32(-BIAS) * load_i32(sums, b * 4))
            half_0 = half_1 = splat_i32(np.int32(0))
            columns = columns_by_8(codes, b * 32)
            for i in range(8):
                x = lane(columns, i)
                half_0 = dot_narrow(half_0, as_u8((left >> i) & 0x01010101), x)
                half_1 = dot_narrow(half_1, as_u8((right >> i) & 0x01010101), x)
            scale = broadcast_f32(e, b * 4)
            first += to_f32(half_0 + half_0 + begin) * (load_f16x16(w, at) * scale)
            second += to_f32(half_1 + half_1 + begin) * (load_f16x16(w, at + 32) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Doubled bits stand 1 too high; `first` and `count` are multiples of 4."""
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 32, thread * PANEL
    for b in range(count):
        at, u = (group * blocks + first + b) // 4 * BLOCK, panel + b * 1024
        for half in range(2):
            store_f32x16(panels, panel + D + b * 256 + half * 64, load_f16x16(w, at + half * 32))
            word = load_i32x16(w, at + 64 + b % 4 * 128 + half * 64)
            for c in range(8):
                store_u8x64(panels, u + c * 128 + half * 64, doubled(word, c * 4))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 128 * 18), for all tokens."""
    blocks = w.view(FORMATS["Q1_0"].layout)  # (rows, n / 128)
    bits = blocks["qs"][..., None] >> np.arange(8, dtype=np.uint8) & 1
    q = bits.reshape(len(w), -1, 32).astype(np.int32) * 2 - 1
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = (q * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32).repeat(4, axis=1) * e[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
