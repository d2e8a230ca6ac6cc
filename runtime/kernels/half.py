"""float16 <-> float32 by their bits: float16 does not exist in Numba's CPU code.

widen    exact for every float16, subnormals included; infinity and NaN stay what they are
narrow   round to nearest, ties to even; beyond 65504 + half a step becomes infinity; a NaN becomes the quiet NaN
"""

import numpy as np
from numba import float32, uint16, uint32

from runtime.jit import kernel
from runtime.simd import bits_float, float_bits


@kernel
def widen(h):
    magnitude = uint32(h) & uint32(0x7FFF)
    sign = (uint32(h) & uint32(0x8000)) << uint32(16)
    # The exponent of a float16 counts from 15, that of a float32 from 127: the difference is the factor 2^112.
    bits = float_bits(bits_float(uint32(magnitude << uint32(13))) * float32(2.0**112))
    if magnitude >= uint32(0x7C00):
        bits |= uint32(0x7F800000)
    return bits_float(uint32(bits | sign))


def widen_numpy(h: np.ndarray) -> np.ndarray:
    """The twin of `widen` on an array of uint16."""
    return h.view(np.float16).astype(np.float32)


@kernel
def narrow(x):
    bits = float_bits(x)
    sign = (bits >> uint32(16)) & uint32(0x8000)
    magnitude = bits & uint32(0x7FFFFFFF)
    if magnitude > uint32(0x7F800000):
        half = uint32(0x7E00)
    elif magnitude >= uint32(0x477FF000):  # 65520, half a step above the largest float16
        half = uint32(0x7C00)
    elif magnitude < uint32(0x38800000):  # below 2^-14: adding 0.5 puts the last bit of a subnormal at 2^-24
        half = float_bits(bits_float(magnitude) + float32(0.5)) - uint32(0x3F000000)
    else:
        odd = (magnitude >> uint32(13)) & uint32(1)
        half = (magnitude - uint32(0x38000000) + uint32(0xFFF) + odd) >> uint32(13)
    return uint16(half | sign)


def narrow_numpy(x: np.ndarray) -> np.ndarray:
    """The twin of `narrow` on an array of float32; the result is uint16."""
    with np.errstate(over="ignore"):
        half = np.where(np.isnan(x), np.float32(np.nan), x).astype(np.float16).view(np.uint16)
    return np.where(np.isnan(x), (np.signbit(x).astype(np.uint16) << 15) | np.uint16(0x7E00), half)
