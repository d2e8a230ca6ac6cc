"""Small floats, microscaling and NVFP4, one number at a time in exact fractions. Zeros carry no sign here.

Nothing but the standard library and tests/naive.py is imported, and nothing is fast.
"""

from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache

from naive import FLT_MAX, round_integer, to_float

# name: (exponent bits, mantissa bits, bias, how many codes at the top are no finite numbers)
FORMATS = {
    "e4m3fn": (4, 3, 7, 1),
    "e5m2": (5, 2, 15, 4),
    "e4m3fnuz": (4, 3, 8, 0),
    "e5m2fnuz": (5, 2, 16, 0),
    "e4m3b11fnuz": (4, 3, 11, 0),
    "e4m3": (4, 3, 7, 8),
    "e3m4": (3, 4, 3, 16),
    "e2m3": (2, 3, 1, 0),
    "e3m2": (3, 2, 3, 0),
    "e2m1": (2, 1, 1, 0),
}


@lru_cache
def magnitudes(name: str) -> list[Fraction]:
    """The finite values of a format without a sign, by code."""
    exponent_bits, mantissa_bits, bias, special = FORMATS[name]
    values = []
    for code in range(2 ** (exponent_bits + mantissa_bits) - special):
        exponent, mantissa = code >> mantissa_bits, code & (2**mantissa_bits - 1)
        significand = Fraction(mantissa, 2**mantissa_bits) + (exponent > 0)
        values.append(significand * Fraction(2) ** (max(exponent, 1) - bias))
    return values


def nearest(x: Fraction, values: list[Fraction], mode: str = "half_even") -> int:
    """Code of the magnitude `x` among ascending `values`, saturating. `mode` rounds the code as naive.round_integer."""
    below = bisect_right(values, x) - 1
    if below == len(values) - 1:
        return below
    return (
        below + round_integer(below % 2 + (x - values[below]) / (values[below + 1] - values[below]), mode) - below % 2
    )


def exponent(x: Fraction) -> int:
    """floor(log2(x)) for x > 0."""
    e = x.numerator.bit_length() - x.denominator.bit_length()
    return e if x >= Fraction(2) ** e else e - 1


def mx_exponent(amax: Fraction, rule: str, largest: Fraction, mantissa_bits: int) -> int:
    """The exponent of the shared scale of a block."""
    if amax == 0:
        return -127
    emax, quotient = exponent(largest), to_float(amax / largest)
    if rule == "floor":
        e = exponent(amax) - emax
    elif rule == "ceil":
        e = exponent(amax) - emax + (amax > Fraction(2) ** exponent(amax))
    elif rule == "even":
        half = Fraction(2) ** (exponent(amax) - mantissa_bits - 1)
        e = exponent(amax + half) - emax
    elif quotient == 0:
        e = -127
    elif rule == "rceil":
        e = exponent(quotient) + (quotient > Fraction(2) ** exponent(quotient))
    elif rule == "rne":
        e = exponent(quotient) + (quotient**2 > Fraction(2) ** (2 * exponent(quotient) + 1))
    else:  # nearest: half way is 3/2, and an even exponent wins there
        above = quotient / Fraction(2) ** exponent(quotient)
        e = exponent(quotient) + (above > Fraction(3, 2) or (above == Fraction(3, 2) and exponent(quotient) % 2 == 0))
    return min(max(e, -127), 127)


def mx(row: list[float], name: str, rule: str, mode: str = "half_even") -> tuple[list[Fraction], int]:
    """(decoded values, exponent) of one block. `name` is a format or int8."""
    x = [Fraction(v) for v in row]
    values = [Fraction(k, 64) for k in range(128)] if name == "int8" else magnitudes(name)
    mantissa_bits = 6 if name == "int8" else FORMATS[name][1]
    e = mx_exponent(max(abs(v) for v in x), rule, values[-1], mantissa_bits)
    scale = Fraction(2) ** e
    return [(1 if v > 0 else -1) * values[nearest(abs(v) / scale, values, mode)] * scale for v in x], e


def nvfp4(rows: list[list[float]]) -> tuple[list[list[int]], list[Fraction], Fraction]:
    """(codes without signs, block scales, tensor scale) of the default rule, one float32 operation at a time."""
    x = [[abs(Fraction(v)) for v in row] for row in rows]
    amax = max(max(row) for row in x)
    g = (to_float(2688 / amax) or FLT_MAX) if amax else Fraction(1)
    t = to_float(1 / g)
    e4m3, e2m1 = magnitudes("e4m3fn"), magnitudes("e2m1")
    codes, scales = [], []
    for row in x:
        scale = e4m3[nearest(to_float(to_float(max(row) / 6) * g), e4m3)]
        factor = (to_float(1 / to_float(scale * t)) or FLT_MAX) if scale else Fraction(0)
        codes.append([nearest(to_float(v * factor), e2m1) for v in row])
        scales.append(scale)
    return codes, scales, t
