"""Rounding of sixteen numbers: what the searches do not need, and the plain encoders do."""

import numpy as np

from runtime.encoders.lanes import floor, where
from runtime.encoders.searches import NOTHING, ONE
from runtime.jit import inlined
from runtime.simd import absolute, splat_f32, to_i32

INFINITY = np.float32(np.inf)
HALF = np.float32(0.5)


@inlined
def reciprocal(d):
    """1 / d, and 0 for 0."""
    return where(d == NOTHING, splat_f32(NOTHING), splat_f32(ONE) / d)


@inlined
def finite_or(v, other):
    """v where it is finite, else `other`: on x86-64, the outcome of C's undefined casts."""
    return where(absolute(v) < INFINITY, v, splat_f32(other))


@inlined
def half_away(v):
    """C's roundf of |v| < 2^23 to an int32."""
    size = absolute(v)
    whole = floor(size)
    whole = where(size - whole >= HALF, whole + ONE, whole)
    return to_i32(where(v < NOTHING, splat_f32(NOTHING) - whole, whole))
