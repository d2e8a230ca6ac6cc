"""y = W x with W in Q5_0 and x in Q8_0: w = (q - 16) * d.

    y[t, r] = sum_b float32(sum_i (q[r,b,i] - 16) * p[t,b,i]) * (d[r,b] * e[t,b])

The inner sum is int32 and exact (|.| <= 32 * 16 * 127); the outer one is float32, b ascending from 0, product then sum.

File     a block of 22 bytes: d float16, qh[4], qs[16]; the low nibble of qs[j] is value j, the high one value j + 16,
         each without its fifth bit: that of value i is bit i of the little-endian word qh.
Packed   32 rows side by side: 32 d, 32 qh, then for c in 0..3 the bytes qs[4c:4c+4] of 32 rows.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL, D
from runtime.simd import (
    as_u8,
    broadcast_4,
    broadcast_f32,
    buffer,
    dot_narrow,
    integer,
    load_f16x16,
    load_i32,
    load_i32x16,
    load_u8x64,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((2, 1), (4, 5))  # (bytes, times) of what is interleaved, in file order
BLOCK = 32 * 22
BIAS = 16
CODES = 192  # bytes of a packed block before the codes


@inlined
def fifth(word, i):
    """Bits i .. i + 3 of each lane as the fifth bits of its four bytes: ABCD -> 000A0000 000B0000 000C0000 000D0000."""
    return as_u8(((word >> i) & 15) * 0x02040810 & 0x10101010)


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
            bits_0, bits_1 = load_i32x16(w, at + 64), load_i32x16(w, at + 128)
            low_0 = low_1 = splat_i32(np.int32(-BIAS) * load_i32(sums, b * 4))
            high_0, high_1 = zero, zero
            for c in range(4):
                left, right = load_u8x64(w, at + CODES + c * 128), load_u8x64(w, at + CODES + 64 + c * 128)
                x, z = broadcast_4(codes, b * 32 + c * 4), broadcast_4(codes, b * 32 + 16 + c * 4)
                low_0 = dot_narrow(low_0, left & 15 | fifth(bits_0, c * 4), x)
                low_1 = dot_narrow(low_1, right & 15 | fifth(bits_1, c * 4), x)
                high_0 = dot_narrow(high_0, left >> 4 | fifth(bits_0, c * 4 + 16), z)
                high_1 = dot_narrow(high_1, right >> 4 | fifth(bits_1, c * 4 + 16), z)
            scale = broadcast_f32(e, b * 4)
            first += to_f32(low_0 + high_0) * (load_f16x16(w, at) * scale)
            second += to_f32(low_1 + high_1) * (load_f16x16(w, at + 32) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes stand 16 too high."""
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 32, thread * PANEL
    for b in range(count):
        at, u = (group * blocks + first + b) * BLOCK, panel + b * 1024
        for half in range(2):
            store_f32x16(panels, panel + D + b * 256 + half * 64, load_f16x16(w, at + half * 32))
            bits = load_i32x16(w, at + 64 + half * 64)
            for c in range(4):
                v = load_u8x64(w, at + CODES + c * 128 + half * 64)
                store_u8x64(panels, u + c * 128 + half * 64, v & 15 | fifth(bits, c * 4))
                store_u8x64(panels, u + 512 + c * 128 + half * 64, v >> 4 | fifth(bits, c * 4 + 16))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 32 * 22), for all tokens."""
    blocks = w.view(FORMATS["Q5_0"].layout)  # (rows, n / 32)
    fifth = blocks["qh"].copy().view("<u4") >> np.arange(32, dtype=np.uint32) & 1
    q = np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=-1).astype(np.int32) + 16 * fifth.astype(np.int32)
    p = codes.reshape(len(codes), 1, -1, 32).astype(np.int32)
    dots = ((q - 16) * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    terms = dots * (blocks["d"].astype(np.float32) * e[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
