"""Fused multiply-add in NumPy, which has none: what the twins of kernels with fused sums are written in.

    fma_numpy(a, b, c) = float32(a * b + c), rounded once

The product of two float32 is exact in float64. Its sum with c is not always; rounding it to odd first (of the two
neighbours of an inexact sum the one whose last bit is 1) lets only the second rounding show, the one to float32.
Source   Boldo and Melquiond 2008, Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd.
"""

import numpy as np


def fma_numpy(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c in float32 with one rounding; infinities and NaN as IEEE 754 says. Shapes broadcast."""
    with np.errstate(invalid="ignore", over="ignore"):
        p, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
        total = p + c
        back = total - p  # Knuth's TwoSum: total + error = p + c exactly
        error = (p - (total - back)) + (c - back)
        bits = total.view(np.int64)
        even = (bits & 1 == 0) & (error != 0) & np.isfinite(total)
        away = (error > 0) == (total > 0)  # the exact sum has the larger magnitude
        odd = np.where(even, np.where(away, bits + 1, bits - 1), bits)
        return odd.view(np.float64).astype(np.float32)
