"""exp(x) in float32, as a polynomial with a fixed float order: the same bits on every machine.

    x = k ln 2 + r,  |r| <= ln(2) / 2        exp(x) = 2^k * P(r),  P of degree 7

ln 2 is subtracted in two parts (Cody and Waite, Software Manual for the Elementary Functions, 1980, ch. 6); the
coefficients are those of the Taylor series, whose remainder is below 2^-27 on this range. Error at most 2 ulp for
-87 <= x <= 88; below -87 the result is 0, above 88 it is exp(88): softmax and the sigmoid need no more. NaN gives NaN.
"""

import numpy as np
from numba import float32, int32, uint32

from runtime.jit import kernel
from runtime.simd import bits_float

LOWEST, HIGHEST = np.float32(-87), np.float32(88)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
MAGIC = np.float32(12582912.0)  # 1.5 * 2^23: adding and taking it away rounds half to even
C2, C3, C4, C5, C6, C7 = (np.float32(1 / factorial) for factorial in (2, 6, 24, 120, 720, 5040))


@kernel
def exp(x):
    clipped = min(max(x, LOWEST), HIGHEST)
    k = (clipped * LOG2_E + MAGIC) - MAGIC
    r = (clipped - k * LN2_HIGH) - k * LN2_LOW
    p = (((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2) * (r * r) + r + float32(1)
    y = p * bits_float(uint32((int32(k) + int32(127)) << int32(23)))
    if x < LOWEST:
        y = float32(0)
    return y if x == x else x


def exp_numpy(x: np.ndarray) -> np.ndarray:
    """The twin of `exp` on a float32 array."""
    clipped = np.minimum(np.maximum(np.where(np.isnan(x), np.float32(0), x), LOWEST), HIGHEST)
    k = (clipped * LOG2_E + MAGIC) - MAGIC
    r = (clipped - k * LN2_HIGH) - k * LN2_LOW
    p = (((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2) * (r * r) + r + np.float32(1)
    y = p * ((k.astype(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.where(np.isnan(x), x, np.where(x < LOWEST, np.float32(0), y))
