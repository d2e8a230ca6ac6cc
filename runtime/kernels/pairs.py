"""Super-blocks of four pairs of sub-blocks of 32 with a scale and a minimum each: one token times Q4_K or Q5_K.

A byte of codes belongs to both sub-blocks of a pair. A function two_codes(w, at, pair, c) gives codes 4c .. 4c + 3 of
sub-blocks 2 pair and 2 pair + 1 of 16 rows, as two u8x64; `at` is the byte of the first of the rows in the super-block.

A packed super-block begins with 32 d, 32 dmin and 32 of each of 12 bytes. From those the 6-bit scale and minimum of
sub-block j come:
    j < 4    sc = scales[j] & 63                                  m = scales[j + 4] & 63
    j >= 4   sc = scales[j + 4] & 15 | (scales[j - 4] >> 6) << 4  m = scales[j + 4] >> 4 | (scales[j] >> 6) << 4
"""

import numpy as np

from runtime.jit import inlined
from runtime.kernels.ahead import ask_ahead, lines_of
from runtime.simd import (
    broadcast_4,
    broadcast_f32,
    broadcast_i32,
    buffer,
    dot_narrow,
    integer,
    load_f16x16,
    load_u8x16,
    splat_f32,
    splat_i32,
    store_f32x16,
    to_f32,
)

SCALES, CODES = 128, 128 + 384  # bytes of a packed super-block


@inlined
def scale_and_minimum(w, at, j):
    """sc and m of sub-block j for the 16 rows whose scale bytes begin at `at`."""
    if j < 4:
        return load_u8x16(w, at + j * 32) & 63, load_u8x16(w, at + j * 32 + 128) & 63
    both = load_u8x16(w, at + (j + 4) * 32)
    sc = (both & 15) | (load_u8x16(w, at + (j - 4) * 32) >> 6) << 4
    return sc, (both >> 4) | (load_u8x16(w, at + j * 32) >> 6) << 4


def product_of_pairs(two_codes, block: int):
    """product(args, lo, hi): groups lo..hi of y = W x; `block` is the size of a packed super-block in bytes."""
    lines = lines_of(block, 32)

    @inlined
    def product(args, lo, hi):
        w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
        supers = integer(args, 32) // 256
        zero = splat_i32(np.int32(0))
        for group in range(lo, hi):
            first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
            for k in range(supers):
                at = (group * supers + k) * block
                plus_0, plus_1, minus_0, minus_1 = zero, zero, zero, zero
                for pair in range(4):
                    low_0, low_1, high_0, high_1 = zero, zero, zero, zero
                    for c in range(8):
                        ask_ahead(w, at, pair * 8 + c, lines)
                        left, right = two_codes(w, at, pair, c), two_codes(w, at + 64, pair, c)
                        x = broadcast_4(codes, k * 256 + pair * 64 + c * 4)
                        z = broadcast_4(codes, k * 256 + pair * 64 + 32 + c * 4)
                        low_0, low_1 = dot_narrow(low_0, left[0], x), dot_narrow(low_1, right[0], x)
                        high_0, high_1 = dot_narrow(high_0, left[1], z), dot_narrow(high_1, right[1], z)
                    s = broadcast_i32(sums, (k * 8 + pair * 2) * 4)
                    sc, m = scale_and_minimum(w, at + SCALES, pair * 2)
                    plus_0, minus_0 = plus_0 + sc * low_0, minus_0 + m * s
                    sc, m = scale_and_minimum(w, at + SCALES + 16, pair * 2)
                    plus_1, minus_1 = plus_1 + sc * low_1, minus_1 + m * s
                    s = broadcast_i32(sums, (k * 8 + pair * 2 + 1) * 4)
                    sc, m = scale_and_minimum(w, at + SCALES, pair * 2 + 1)
                    plus_0, minus_0 = plus_0 + sc * high_0, minus_0 + m * s
                    sc, m = scale_and_minimum(w, at + SCALES + 16, pair * 2 + 1)
                    plus_1, minus_1 = plus_1 + sc * high_1, minus_1 + m * s
                scale = broadcast_f32(e, k * 4)
                first += to_f32(plus_0) * (load_f16x16(w, at) * scale)
                first -= to_f32(minus_0) * (load_f16x16(w, at + 64) * scale)
                second += to_f32(plus_1) * (load_f16x16(w, at + 32) * scale)
                second -= to_f32(minus_1) * (load_f16x16(w, at + 96) * scale)
            store_f32x16(y, group * 128, first)
            store_f32x16(y, group * 128 + 64, second)

    return product
