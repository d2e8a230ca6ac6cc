"""Casts to small floats by exact fractions: the list of all values, one value past its end, and the nearest of them."""

from fractions import Fraction

import naive_floats
import numpy as np

from conformance.protocol import Unsupported

SPECIALS = {"e4m3fn": "nan", "e5m2": "ieee", "e4m3": "ieee", "e3m4": "ieee"}  # and fnuz by its name, else none


def run(member, op, params, inputs):
    """encode and decode."""
    if member == "e8m0":
        function = power_of_two
    elif member in naive_floats.FORMATS:
        function = small_float
    else:
        raise Unsupported(member)
    if op == "decode":
        return {"values": np.array([decoded(member, code) for code in inputs["codes"].tolist()], np.float32)}
    codes = [function(member, float(v), bool(np.signbit(v)), params["overflow"]) for v in inputs["x"]]
    return {"codes": np.array(codes, np.uint8)}


def specials(member):
    """What lies beyond the finite values."""
    return "fnuz" if member.endswith("fnuz") else SPECIALS.get(member, "none")


def decoded(member, code):
    """The value of a code, NaN or an infinity."""
    if member == "e8m0":
        return 2.0 ** (code - 127) if code < 255 else np.nan
    values, half = naive_floats.magnitudes(member), 1 << sum(naive_floats.FORMATS[member][:2])
    kind, magnitude = specials(member), code % half
    if kind == "fnuz" and code == half:
        return np.nan
    if magnitude >= len(values):
        return (-np.inf if code >= half else np.inf) if kind == "ieee" and magnitude == len(values) else np.nan
    return float(values[magnitude]) * (-1 if code >= half else 1)


def small_float(member, x, negative, overflow):
    """The code of x."""
    values, half, kind = naive_floats.magnitudes(member), 1 << sum(naive_floats.FORMATS[member][:2]), specials(member)
    mantissa = naive_floats.FORMATS[member][1]
    if x != x:
        if kind == "none":
            raise Unsupported("refusals")
        quiet = {"ieee": len(values) + (1 << mantissa >> 1), "nan": half - 1, "fnuz": half}[kind]
        return quiet if kind == "fnuz" else quiet + half * negative
    longer = [*values, 2 * values[-1] - values[-2]]
    code = len(values) if abs(x) == np.inf else naive_floats.nearest(abs(Fraction(x)), longer)
    if code == len(values):
        if overflow == "saturate" or kind == "none":
            code -= 1
        elif kind == "fnuz":
            return half
        elif kind == "nan":
            code = half - 1
    return 0 if kind == "fnuz" and code == 0 else code + half * negative


def power_of_two(member, x, negative, overflow):
    """E8M0: the nearest power of two by distance, a tie to the even code; no zero, no sign."""
    if x != x or (negative and x != 0):
        return 255
    values = [Fraction(2) ** (code - 127) for code in range(256)]
    if x == np.inf:
        code = 255
    else:
        exact = Fraction(x)
        code = 0 if exact <= values[0] else naive_floats.nearest(exact, values)
    return 254 if code == 255 and overflow == "saturate" else code
