"""Super-blocks in which one place holds a code of each of four runs: Q2_K, Q3_K, Q6_K, TQ2_0.

The 256 values are two halves of 128, a half is four runs of 32, and what is stored at place l of a half belongs to its
values l, l + 32, l + 64 and l + 96. A function four_codes(w, at, i) gives the codes at places 4i .. 4i + 3 of 16 rows,
as four u8x64; i counts through both halves, 0..15, and `at` is the byte of the first of the rows in the super-block.
"""

import numpy as np

from runtime.jit import inlined
from runtime.simd.dot import dot_narrow
from runtime.simd.memory import broadcast_4, load_i32
from runtime.simd.vectors import splat_i32


def dots_of_runs(four_codes, bias: int):
    """dots(w, at, codes, halves, k, half, part) -> the sums of (code - bias) * p over 16 values of each run of a half.

    They are its sub-blocks of 16 number part, part + 2, part + 4 and part + 6; part is 0 or 1.
    """

    @inlined
    def begin(halves, by):
        return splat_i32(load_i32(halves, by) * np.int32(-bias)) if bias else splat_i32(np.int32(0))

    @inlined
    def dots(w, at, codes, halves, k, half, part):
        by, x = (k * 16 + half * 8 + part) * 4, k * 256 + half * 128
        one, two, three, four = begin(halves, by), begin(halves, by + 8), begin(halves, by + 16), begin(halves, by + 24)
        for c in range(part * 4, part * 4 + 4):
            q = four_codes(w, at, half * 8 + c)
            one = dot_narrow(one, q[0], broadcast_4(codes, x + c * 4))
            two = dot_narrow(two, q[1], broadcast_4(codes, x + c * 4 + 32))
            three = dot_narrow(three, q[2], broadcast_4(codes, x + c * 4 + 64))
            four = dot_narrow(four, q[3], broadcast_4(codes, x + c * 4 + 96))
        return one, two, three, four

    return dots
