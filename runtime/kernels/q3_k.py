"""y = W x with W in Q3_K and x in Q8_K.

    y[t, r] = sum_k float32(sum_j (sc[j] - 32) * D[j]) * (d * e[t,k])

k runs over the super-blocks of 256, ascending from 0; j over its 16 sub-blocks of 16, and D[j] is the sum of
(q - 4) * p. The integers are exact (|.| <= 16 * 32 * 16 * 4 * 127 < 2^31); d * e is a float32 product, formed first.

File     a super-block is 110 bytes: hmask[32], qs[64], scales[12], d float16. Half h of 128 values, run r of 32, l <
         32:
           q = qs[32h + l] >> 2r & 3 | (hmask[l] >> (4h + r) & 1) << 2
         The 6-bit sc of sub-block j: its low four bits are the low (j < 8) or high half of scales[j % 8], the other two
         are bits 2 (j // 4) and on of scales[8 + j % 4].
Packed   32 rows side by side: for c in 0..7 the bytes hmask[4c:4c+4] of 32 rows, for c in 0..15 those of qs, then 32 of
         each scales[i], then 32 d.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import D, signed_numpy
from runtime.kernels.runs import totals_of_runs
from runtime.simd import (
    as_i32,
    as_u8,
    broadcast_f32,
    buffer,
    integer,
    load_f16x16,
    load_u8x16,
    load_u8x64,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_u8x64,
    to_f32,
)

FIELDS = ((4, 8), (4, 16), (1, 12), (2, 1))
BLOCK = 32 * 110
CODES, SCALES, SCALE = 1024, 1024 + 2048, 1024 + 2048 + 384  # bytes of a packed super-block


@inlined
def four_codes(w, at, i):
    """0..7: what runtime.kernels.runs asks for."""
    low = load_u8x64(w, at + CODES + i * 128)
    third = as_u8(as_i32(load_u8x64(w, at + i % 8 * 128)) >> i // 8 * 4)  # bits of a neighbour come in from above only
    return (
        (low & 3) | (third & 1) << 2,
        (low >> 2 & 3) | (third & 2) << 1,
        (low >> 4 & 3) | (third & 4),
        (low >> 6) | (third & 8) >> 1,
    )


@inlined
def scale(w, at, j):
    """sc - 32 of sub-block j for the 16 rows whose scales begin at byte `at`."""
    low = load_u8x16(w, at + j % 8 * 32) >> j // 8 * 4
    return ((low & 15) | (load_u8x16(w, at + (8 + j % 4) * 32) >> j // 4 * 2 & 3) << 4) - 32


totals = totals_of_runs(four_codes, scale, 4, BLOCK)


@kernel
def matvec(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super, sums of 16; a unit is a group of 32 rows."""
    w, codes, e, halves, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
    supers = integer(args, 32) // 256
    for group in range(lo, hi):
        first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
        for k in range(supers):
            at, step = (group * supers + k) * BLOCK, broadcast_f32(e, k * 4)
            low, high = totals(w, at, at + SCALES, codes, halves, k)
            first += to_f32(low) * (load_f16x16(w, at + SCALE) * step)
            second += to_f32(high) * (load_f16x16(w, at + SCALE + 32) * step)
        store_f32x16(y, group * 128, first)
        store_f32x16(y, group * 128 + 64, second)


@inlined
def factors(w, at, j):
    """What `folded` needs of sub-block j: the size of sc - 32, what turns codes, what is added; the last two per
    byte."""
    sc = scale(w, at, j)
    negative = splat_i32(np.int32(0)) - (sc >> 31)  # every bit of the lane
    size = (sc ^ negative) - negative
    turn = (negative & 0x07070707) ^ 0x07070707
    return size, turn, (splat_i32(np.int32(128)) - size * 3 - (size & negative)) * 0x01010101


@inlined
def folded(q, f):
    """(4 - q) * (sc - 32), which is -128..124; (q - 4) * (sc - 32) would need 128.

    One product of 32 bits does all four codes of a lane, because no byte leaves 0..255 on the way:
    with s = |sc - 32|, the result + 128 is (7 - q) * s + 128 - 3 s where sc >= 32, else q * s + 128 - 4 s.
    """
    return as_u8(((as_i32(q) ^ f[1]) * f[0] + f[2]) ^ 0x80808080)


@unpacker
def unpack(args, thread, group, first, count):
    """Codes times scales, both they and d negated; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        for g in range(2):
            at = (group * supers + first // 8 + k) * BLOCK
            d, scales = load_f16x16(w, at + SCALE + g * 32), at + SCALES + g * 16
            store_f32x16(panels, panel + D + k * 128 + g * 64, d * np.float32(-1))
            for half in range(2):
                for part in range(2):
                    j, u = half * 8 + part, panel + k * 8192 + (half * 32 + part * 4) * 128 + g * 64
                    one, two = factors(w, scales, j), factors(w, scales, j + 2)
                    three, four = factors(w, scales, j + 4), factors(w, scales, j + 6)
                    for c in range(4):
                        q = four_codes(w, at + g * 64, half * 8 + part * 4 + c)
                        store_u8x64(panels, u + c * 128, folded(q[0], one))
                        store_u8x64(panels, u + c * 128 + 1024, folded(q[1], two))
                        store_u8x64(panels, u + c * 128 + 2048, folded(q[2], three))
                        store_u8x64(panels, u + c * 128 + 3072, folded(q[3], four))


def matmul_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """The twin of both: from the bytes of the file (rows, n / 256 * 110), for all tokens."""
    blocks = w.view(FORMATS["Q3_K"].layout)  # (rows, n / 256)
    low = np.stack([blocks["qs"].reshape(*blocks.shape, 2, 32) >> shift & 3 for shift in (0, 2, 4, 6)], axis=3)
    third = np.stack([blocks["hmask"] >> shift & 1 for shift in range(8)], axis=2).reshape(low.shape)
    q = (low | third << 2).astype(np.int32).reshape(*blocks.shape, 16, 16) - 4
    sc = np.concatenate([blocks["scales"][..., :8] & 15, blocks["scales"][..., :8] >> 4], axis=-1)
    top = np.concatenate([blocks["scales"][..., 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1)
    sc = (sc | top << 4).astype(np.int32) - 32
    return signed_numpy(q, sc, blocks["d"].astype(np.float32), codes, e)
