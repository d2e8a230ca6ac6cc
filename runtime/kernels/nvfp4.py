"""y = W x with W in NVFP4 and x in Q8_0: w = DOUBLED[code] * d, a scale d for 16 values.

    y[t, r] = sum_s float32(sum_i DOUBLED[q[r,s,i]] * p[t,s,i]) * (d[r,s] * e[t,s // 2])

The inner sum is int32 and exact (|.| <= 16 * 12 * 127); the outer one is float32, s ascending from 0, product then sum.
d is half of an eight-bit float UE4M3, exponent X = bits 3..6, mantissa Y = bits 0..2 of its byte, bit 7 ignored:

    d = 2^(X - 8) * (1 + Y / 8), or 2^-10 * Y for X = 0, but 0 for the byte 0x7F

File     a block of 64 values is 36 bytes: d[4], qs[32]. Of the bytes qs[8s:8s+8], the low nibbles are codes 16s to
         16s + 7, the high ones 16s + 8 to 16s + 15. A float32 factor of the whole tensor is not applied here.
Packed   32 rows side by side: for s in 0..3 the bytes d[s] of 32 rows, then for c in 0..7 the bytes qs[4c:4c+4].
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL, D
from runtime.kernels.mxfp4 import DOUBLED, RAISED
from runtime.simd import (
    bits_f32,
    broadcast_4,
    broadcast_f32,
    buffer,
    dot_narrow,
    integer,
    load_i32,
    load_u8x16,
    load_u8x64,
    lookup_16,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_u8x64,
    to_f32,
    zero_below,
)

FIELDS = ((1, 4), (4, 8))  # (bytes, times) of what is interleaved, in file order
BLOCK = 32 * 36
BIAS = 12
CODES = 128  # bytes of a packed block before the codes


@inlined
def half_ue4m3(byte):
    """X and Y in the places of a float32 are 2^(X - 127) * (1 + Y / 8), or 2^-126 * Y / 8: 2^119 too small."""
    value = bits_f32((byte & 127) << 20) * np.float32(2.0**119)
    return zero_below(value, to_f32(byte ^ 127), np.float32(1))


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm, sums of 16 codes; a unit is a group of 32 rows."""
    w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    blocks = integer(args, 32) // 64
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for b in range(blocks):
            at = (group * blocks + b) * BLOCK
            for s in range(4):
                dots_0 = dots_1 = splat_i32(np.int32(-BIAS) * load_i32(sums, (b * 4 + s) * 4))
                for c in range(2):
                    here, x = at + CODES + (s * 2 + c) * 128, b * 64 + s * 16 + c * 4
                    left, right = load_u8x64(w, here), load_u8x64(w, here + 64)
                    dots_0 = dot_narrow(dots_0, lookup_16(RAISED, left & 15), broadcast_4(codes, x))
                    dots_1 = dot_narrow(dots_1, lookup_16(RAISED, right & 15), broadcast_4(codes, x))
                    dots_0 = dot_narrow(dots_0, lookup_16(RAISED, left >> 4), broadcast_4(codes, x + 8))
                    dots_1 = dot_narrow(dots_1, lookup_16(RAISED, right >> 4), broadcast_4(codes, x + 8))
                scale = broadcast_f32(e, (b * 2 + s // 2) * 4)
                first += to_f32(dots_0) * (half_ue4m3(load_u8x16(w, at + s * 32)) * scale)
                second += to_f32(dots_1) * (half_ue4m3(load_u8x16(w, at + s * 32 + 16)) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Doubled values stand 12 too high; `first` and `count` are multiples of 2."""
    w, panels = buffer(args, 0), buffer(args, 5)
    blocks, panel = integer(args, 32) // 64, thread * PANEL
    for b in range(count // 2):
        at = (group * blocks + first // 2 + b) * BLOCK
        for s in range(4):
            d, u = panel + D + b * 512 + s * 128, panel + b * 2048 + s * 512
            store_f32x16(panels, d, half_ue4m3(load_u8x16(w, at + s * 32)))
            store_f32x16(panels, d + 64, half_ue4m3(load_u8x16(w, at + s * 32 + 16)))
            for c in range(0, 256, 64):
                v = load_u8x64(w, at + CODES + s * 256 + c)
                store_u8x64(panels, u + c, lookup_16(RAISED, v & 15))
                store_u8x64(panels, u + 256 + c, lookup_16(RAISED, v >> 4))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 64 * 36), for all tokens."""
    blocks = w.view(FORMATS["NVFP4"].layout)  # (rows, n / 64)
    qs = blocks["qs"].reshape(len(w), -1, 8)
    q = np.array(DOUBLED, np.int32)[np.concatenate([qs & 15, qs >> 4], axis=-1)]  # (rows, n / 16, 16)
    p = codes.reshape(len(codes), 1, -1, 16).astype(np.int32)
    dots = (q * p).sum(axis=-1, dtype=np.int32).astype(np.float32)
    byte = np.arange(256)
    x, y = byte >> 3 & 15, (byte & 7).astype(np.float32)
    d = np.where(x > 0, np.ldexp(1 + y / 8, x - 8), y * np.float32(2.0**-10)) * (byte != 0x7F)
    terms = dots * (d.astype(np.float32)[blocks["d"]].reshape(len(w), -1) * e.repeat(2, axis=1)[:, None])
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0
