"""Rounding in training once more, one number at a time in exact fractions. Imports the standard library only.

round_to   rounds the fraction that an operation gives to float32 or float64; sums are exact and rounded once.
"""

import math
from fractions import Fraction

from naive import FORMATS, round_integer, to_float


def exact(x):
    """A float as a fraction."""
    return Fraction(x)


def step(x, scale, shift, qmin, qmax, dtype, moved):
    """(value, code, quotient, whether it is inside) of one weight; shift is a zero point, or `moved` an offset."""
    rounded = lambda value: to_float(value, FORMATS[dtype])
    v = (
        rounded(rounded(Fraction(x) - Fraction(shift)) / Fraction(scale))
        if moved
        else rounded(Fraction(x) / Fraction(scale))
    )
    code = round_integer(v, "half_even") + (0 if moved else Fraction(shift))
    held = min(max(code, Fraction(qmin)), Fraction(qmax))
    back = held if moved else held - Fraction(shift)
    value = rounded(back * Fraction(scale))
    value = rounded(value + Fraction(shift)) if moved else value
    return value, code, v, qmin <= code <= qmax


def slopes(dy, x, scale, offset, qmin, qmax, dtype, inside):
    """(dx, ds, db) of one weight, without the gradient scale."""
    _, code, v, within = step(x, scale, offset, qmin, qmax, dtype, True)
    if inside == "unrounded":
        within = qmin < v < qmax
    by_scale = code - v if within else min(max(code, Fraction(qmin)), Fraction(qmax))
    return (dy if within else 0.0), Fraction(dy) * by_scale, Fraction(0) if within else Fraction(dy)


def pact(x, alpha, bits, dtype):
    """The value of one activation."""
    rounded = lambda value: to_float(value, FORMATS[dtype])
    n, a = Fraction(2**bits - 1), Fraction(alpha)
    held = min(max(Fraction(x), Fraction(0)), a)
    code = round_integer(rounded(held * rounded(n / a)), "half_even")
    return rounded(code * rounded(a / n))


def lsq_scale(x, qmax):
    """2 mean |x| / sqrt(qmax)."""
    return 2 * math.fsum(abs(v) for v in x) / len(x) / math.sqrt(qmax)


def lsq_plus_scale(x, bits):
    """max |mean -+ 3 sigma| / 2^(bits-1)."""
    mean = math.fsum(x) / len(x)
    sigma = math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x))
    return max(abs(mean - 3 * sigma), abs(mean + 3 * sigma)) / 2 ** (bits - 1)
