"""Rules for the shared scale of a microscaled block: which power of two is stored, given the largest magnitude.

    rule    exponent e of the scale 2^e          e for amax = 6.5, E2M1 (emax = 2, max = 6, m = 1)
    floor   floor(log2 amax) - emax              0     OCP MX v1.0 sec. 6.3; microxcaling, torchao, ggml
    ceil    ceil(log2 amax) - emax               1     torchao CEIL
    even    floor(log2 r(amax)) - emax           0     compressed-tensors, Quark, torchao EVEN
    rceil   ceil(log2 (amax / max))              1     cuBLAS, modelopt, torchao RCEIL
    rne     round(log2 (amax / max))             0     torchao's E8M0 scales of FP8; 2^(k + 1/2) is no float: no ties
    nearest the power of two nearest amax / max  0     E8M0(amax / max), a tie to the even exponent; older AMD kernels

    emax    floor(log2 max) of the element format; m: its mantissa bits
    r       amax rounded half up to m mantissa bits: from 2 - 2^-(m+1) times a power of two on, it is the next power

Clipping   under floor the largest element may be past max (amax = 7.9: 7.9 becomes 6), under ceil never, and under
           rceil by the rounding of amax / max at most.
Exact      exponents are read off the float32 amax, or amax / max rounded to float32. logarithm="float32" imitates code
           that rounds log2 to float32 first: up to 44 floats below a power of two then count as that power (floor), and
           up to 22 above it (ceil).
Range      e is held in -127..127, the exponents of E8M0. A block of zeros takes `zero_exponent`.
"""

import numpy as np

from refquant import minifloat
from refquant.minifloat import FORMATS
from refquant.rounding import half_even

SCALE_RULES = ("floor", "ceil", "even", "rceil", "rne", "nearest")
_OF_QUOTIENT = ("rceil", "rne", "nearest")
LOWEST, HIGHEST = -127, 127


def exponents(
    amax: np.ndarray, scale_rule: str, element_max: float, mantissa_bits: int, logarithm: str, zero_exponent: int
) -> np.ndarray:
    """(groups,) float32, not negative and finite -> (groups,) int32 in -127..127."""
    size = amax / np.float32(element_max) if scale_rule in _OF_QUOTIENT else amax
    emax = 0 if scale_rule in _OF_QUOTIENT else int(np.frexp(element_max)[1]) - 1
    if scale_rule == "nearest":
        e = minifloat.encode(size, FORMATS["e8m0"]).astype(np.int32) + LOWEST
    elif logarithm == "float32":
        with np.errstate(divide="ignore"):
            log = np.log2(size.astype(np.float64)).astype(np.float32)
        whole = {"ceil": np.ceil, "rceil": np.ceil, "rne": half_even}.get(scale_rule, np.floor)(log)
        e = np.maximum(whole, LOWEST - 100).astype(np.int32)  # log2(0) is -infinity
    else:
        fraction, e = np.frexp(size)  # size = fraction * 2^e, fraction in [1/2, 1)
        e -= (fraction == 0.5) if scale_rule in ("ceil", "rceil") else 1
        if scale_rule == "even":
            e += fraction >= 1 - 2.0 ** -(mantissa_bits + 2)
        if scale_rule == "rne":
            e += fraction.astype(np.float64) > 0.5**0.5
    return np.where(amax == 0, zero_exponent, np.clip(e - emax, LOWEST, HIGHEST)).astype(np.int32)


def powers(e: np.ndarray) -> np.ndarray:
    """2^e as float32, exact for e in -149..127."""
    return np.ldexp(np.float32(1), e)
