"""Super-blocks in which one place holds a code of each of four runs: Q2_K, Q3_K, Q6_K, TQ2_0.

The 256 values are two halves of 128, a half is four runs of 32, and what is stored at place l of a half belongs to its
values l, l + 32, l + 64 and l + 96. A function four_codes(w, at, i) gives the codes at places 4i .. 4i + 3 of 16 rows,
as four u8x64; i counts through both halves, 0..15, and `at` is the byte of the first of the rows in the super-block.

Work goes by quarters of 64 values: quarter 2h + p holds, of half h, sub-blocks of 16 number p, p + 2, p + 4 and p + 6.
"""

import numpy as np

from runtime.jit import inlined
from runtime.kernels.ahead import ask_ahead, lines_of
from runtime.simd import broadcast_4, dot_narrow, load_i32, splat_i32


def totals_of_runs(four_codes, scale, bias: int, block: int):
    """totals(w, at, scales, codes, halves, k) -> sum_j scale[j] * D[j] of super-block k for rows 0..15 and 16..31.

    D[j] is the sum of (code - bias) * p over sub-block j. The super-block of `block` bytes begins at byte `at`, its
    scales at `scales`; scale(w, scales, j) gives those of rows 0..15, and 16 bytes further on those of the others.
    Without that function all are 1.
    """
    lines = lines_of(block, 16)

    @inlined
    def begin(halves, by):
        return splat_i32(load_i32(halves, by) * np.int32(-bias)) if bias else splat_i32(np.int32(0))

    @inlined
    def weighted(w, scales, j, one, two, three, four):
        if scale is None:
            return one + two + three + four
        result = scale(w, scales, j) * one + scale(w, scales, j + 2) * two
        return result + scale(w, scales, j + 4) * three + scale(w, scales, j + 6) * four

    @inlined
    def totals(w, at, scales, codes, halves, k):
        first = second = splat_i32(np.int32(0))
        for quarter in range(4):
            half, part = quarter >> 1, quarter & 1
            j, x = half * 8 + part, k * 256 + half * 128 + part * 16
            by = (k * 16 + j) * 4
            one_0, two_0, three_0 = begin(halves, by), begin(halves, by + 8), begin(halves, by + 16)
            four_0 = begin(halves, by + 24)
            one_1, two_1, three_1, four_1 = one_0, two_0, three_0, four_0
            for c in range(4):
                ask_ahead(w, at, quarter * 4 + c, lines)
                q, r = four_codes(w, at, quarter * 4 + c), four_codes(w, at + 64, quarter * 4 + c)
                p = broadcast_4(codes, x + c * 4)
                one_0, one_1 = dot_narrow(one_0, q[0], p), dot_narrow(one_1, r[0], p)
                p = broadcast_4(codes, x + c * 4 + 32)
                two_0, two_1 = dot_narrow(two_0, q[1], p), dot_narrow(two_1, r[1], p)
                p = broadcast_4(codes, x + c * 4 + 64)
                three_0, three_1 = dot_narrow(three_0, q[2], p), dot_narrow(three_1, r[2], p)
                p = broadcast_4(codes, x + c * 4 + 96)
                four_0, four_1 = dot_narrow(four_0, q[3], p), dot_narrow(four_1, r[3], p)
            first += weighted(w, scales, j, one_0, two_0, three_0, four_0)
            second += weighted(w, scales + 16, j, one_1, two_1, three_1, four_1)
        return first, second

    return totals
