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
from runtime.kernels.gemm_super import SC, D
from runtime.simd.dot import dot_narrow
from runtime.simd.memory import (
    broadcast_4,
    broadcast_f32,
    buffer,
    integer,
    load_f16x16,
    load_i8x16,
    load_i32,
    load_u8x64,
    store_f32x16,
    store_i32x16,
    store_u8x64,
)
from runtime.simd.vectors import splat_f32, splat_i32, to_f32

FIELDS = ((4, 32), (4, 16), (1, 16), (2, 1))
BLOCK = 32 * 210
HIGH, SCALES, SCALE = 4096, 4096 + 2048, 4096 + 2048 + 512  # bytes of a packed super-block
BIAS = 32


@inlined
def four_codes(low, next_low, high):
    """The codes of values l, l + 32, l + 64 and l + 96 from ql[l], ql[32 + l] and qh[l]."""
    return (
        (low & 15) | (high & 3) << 4,
        (next_low & 15) | (high & 12) << 2,
        (low >> 4) | (high & 48),
        (next_low >> 4) | (high & 192) >> 2,
    )


@inlined
def whole(w, at, scales, codes, halves, k):
    """The integer of super-block k for 16 rows; `at` is the byte of their first ql, `scales` that of their first sc."""
    total = splat_i32(np.int32(0))
    for quarter in range(4):  # 16 values of each of the four runs of 32 of a half
        half, part = quarter // 2, quarter % 2
        j, x = half * 8 + part, k * 256 + half * 128 + part * 16
        by = (k * 16 + j) * 4
        one, two = splat_i32(load_i32(halves, by) * np.int32(-32)), splat_i32(load_i32(halves, by + 8) * np.int32(-32))
        three, four = (
            splat_i32(load_i32(halves, by + 16) * np.int32(-32)),
            splat_i32(load_i32(halves, by + 24) * np.int32(-32)),
        )
        for c in range(4):
            here = at + half * 2048 + (part * 4 + c) * 128
            high = load_u8x64(w, at + HIGH + half * 1024 + (part * 4 + c) * 128)
            q = four_codes(load_u8x64(w, here), load_u8x64(w, here + 1024), high)
            one, two = (
                dot_narrow(one, q[0], broadcast_4(codes, x + c * 4)),
                dot_narrow(two, q[1], broadcast_4(codes, x + 32 + c * 4)),
            )
            three = dot_narrow(three, q[2], broadcast_4(codes, x + 64 + c * 4))
            four = dot_narrow(four, q[3], broadcast_4(codes, x + 96 + c * 4))
        total += load_i8x16(w, scales + j * 32) * one + load_i8x16(w, scales + j * 32 + 64) * two
        total += load_i8x16(w, scales + j * 32 + 128) * three + load_i8x16(w, scales + j * 32 + 192) * four
    return total


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super; a unit is a group of 32 rows."""
    w, codes, e, halves, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    supers = integer(args, 32) // 256
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for k in range(supers):
            at, scale = (group * supers + k) * BLOCK, broadcast_f32(e, k * 4)
            low = whole(w, at, at + SCALES, codes, halves, k)
            high = whole(w, at + 64, at + SCALES + 16, codes, halves, k)
            first += to_f32(low) * (load_f16x16(w, at + SCALE) * scale)
            second += to_f32(high) * (load_f16x16(w, at + SCALE + 32) * scale)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes stand 32 too high; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * BLOCK
        for g in range(2):
            store_f32x16(panels, panel + D + k * 128 + g * 64, load_f16x16(w, at + SCALE + g * 32))
            for j in range(16):
                sc = load_i8x16(w, at + SCALES + j * 32 + g * 16)
                store_i32x16(panels, panel + SC + (k * 16 + j) * 128 + g * 64, sc)
        for half in range(2):
            u = panel + (k * 8 + half * 4) * 1024
            for c in range(0, 1024, 64):
                here = at + half * 2048 + c
                high = load_u8x64(w, at + HIGH + half * 1024 + c)
                q = four_codes(load_u8x64(w, here), load_u8x64(w, here + 1024), high)
                store_u8x64(panels, u + c, q[0])
                store_u8x64(panels, u + 1024 + c, q[1])
                store_u8x64(panels, u + 2048 + c, q[2])
                store_u8x64(panels, u + 3072 + c, q[3])


def matmul_numpy(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 256 * 210), for all tokens."""
    blocks = w.view(FORMATS["Q6_K"].layout)  # (rows, n / 256)
    rows, tokens = len(w), len(codes)
    ql = blocks["ql"].reshape(rows, -1, 2, 1, 64)
    low = np.concatenate([ql & 15, ql >> 4], axis=3).reshape(rows, -1, 2, 4, 32)
    high = np.stack([blocks["qh"].reshape(rows, -1, 2, 32) >> shift & 3 for shift in (0, 2, 4, 6)], axis=3)
    q = (low | high << 4).astype(np.int32).reshape(rows, -1, 16, 16) - 32
    dots = (q * codes.reshape(tokens, 1, -1, 16, 16).astype(np.int32)).sum(axis=-1, dtype=np.int32)
    totals = (blocks["scales"].astype(np.int32) * dots).sum(axis=-1, dtype=np.int32).astype(np.float32)
    return np.add.accumulate(totals * (blocks["d"].astype(np.float32) * scale[:, None]), axis=-1)[..., -1]
