"""exp(x) in float32, as a polynomial with a fixed float order: the same bits on every machine.

    x = k ln 2 + r,  |r| <= ln(2) / 2        exp(x) = 2^k * P(r),  P of degree 7

ln 2 is subtracted in two parts (Cody and Waite, Software Manual for the Elementary Functions, 1980, ch. 6); the
coefficients are those of the Taylor series, whose remainder is below 2^-27 on this range. Error at most 2 ulp for
-87 <= x <= 88; below -87 the result is 0, above 88 it is exp(88): softmax and the sigmoid need no more. NaN gives 0
or exp(88) like the ends.
"""

import numpy as np

from runtime.jit import inlined
from runtime.simd import bits_f32, larger, round_half_even, smaller, splat_f32, to_i32, zero_below

LOWEST, HIGHEST = np.float32(-87), np.float32(88)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
C2, C3, C4, C5, C6, C7 = (np.float32(1 / factorial) for factorial in (2, 6, 24, 120, 720, 5040))


@inlined
def exp(x):
    """exp of an f32x16."""
    clipped = smaller(larger(x, splat_f32(LOWEST)), splat_f32(HIGHEST))
    k = round_half_even(clipped * LOG2_E)
    r = (clipped - k * LN2_HIGH) - k * LN2_LOW
    p = splat_f32(C7) * r + splat_f32(C6)
    p = p * r + splat_f32(C5)
    p = p * r + splat_f32(C4)
    p = p * r + splat_f32(C3)
    p = p * r + splat_f32(C2)
    p = p * (r * r) + r + splat_f32(np.float32(1))
    return zero_below(p * bits_f32((to_i32(k) + 127) << 23), x, LOWEST)


def exp_numpy(x: np.ndarray) -> np.ndarray:
    """The twin of `exp` on a float32 array without NaN."""
    clipped = np.minimum(np.maximum(x, LOWEST), HIGHEST)
    k = np.rint(clipped * LOG2_E)
    r = (clipped - k * LN2_HIGH) - k * LN2_LOW
    p = (((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2) * (r * r) + r + np.float32(1)
    y = p * ((k.astype(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.where(x < LOWEST, np.float32(0), y)
