"""Linear quantization, NF4, bit packing and rounding, one number at a time in exact fractions.

Nothing but the standard library is imported, and nothing is fast: this is what the arrays are compared with. An IEEE
operation is the exact result rounded once by `to_float`. Zeros carry no sign here.
"""

from fractions import Fraction

# (bits of precision, exponent of the smallest normal, exponent of the largest value)
FLOAT64, FLOAT32, FLOAT16, BFLOAT16 = (53, -1022, 1023), (24, -126, 127), (11, -14, 15), (8, -126, 127)
FORMATS = {"float64": FLOAT64, "float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}
FLT_MAX = (2 - Fraction(1, 2**23)) * 2**127
LIMIT = 0.99 * float(FLT_MAX)


def round_integer(x: Fraction, mode: str) -> int:
    """`x` to an integer."""
    floor, fraction = x.numerator // x.denominator, x - x.numerator // x.denominator
    if mode == "toward_zero":
        return floor if x >= 0 or fraction == 0 else floor + 1
    if fraction != Fraction(1, 2):
        return floor + (fraction > Fraction(1, 2))
    tie = {
        "half_even": floor + floor % 2,
        "half_up": floor + 1,
        "half_down": floor,
        "half_away": floor + (x > 0),
        "half_to_zero": floor + (x < 0),
    }
    return tie[mode]


def to_float(x: Fraction, fmt: tuple[int, int, int] = FLOAT32) -> Fraction | None:
    """The value of binary format `fmt` nearest to `x`, ties to even; None where that is an infinity."""
    if x == 0:
        return Fraction(0)
    precision, lowest, highest = fmt
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    exponent += abs(x) >= Fraction(2) ** (exponent + 1)
    exponent -= abs(x) < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, lowest) - precision + 1)  # the distance of neighbours; below `lowest` it stays
    rounded = round_integer(x / unit, "half_even") * unit
    return rounded if abs(rounded) < Fraction(2) ** (highest + 1) else None


def linear(
    row: list[float],
    bits: int,
    signed: bool = True,
    symmetric: bool = True,
    range_mode: str = "half",
    scale_dtype: str = "float32",
    rounding: str = "half_even",
) -> tuple[list[int], Fraction, Fraction]:
    """(codes, scale, zero_point) of one group of float32 numbers."""
    x, half, steps = [Fraction(v) for v in row], 2 ** (bits - 1), 2**bits - 1
    low = -half if signed else 0
    high = low + steps
    if symmetric:
        zero = Fraction(low + half)
        scale, low = _symmetric(x, bits, range_mode), low + (range_mode == "restricted")
        if bits == 1:
            zero -= Fraction(1, 2)
    else:
        lo, hi = min([*x, Fraction(0)]), max([*x, Fraction(0)])
        span = to_float(hi - lo)
        scale = to_float(span / steps) if span is not None else to_float(to_float(hi / steps) - to_float(lo / steps))
        scale = FLT_MAX if scale is None else scale
    largest = to_float(Fraction(LIMIT))
    scale = to_float(min(max(scale, -largest), largest), FORMATS[scale_dtype])
    if not symmetric:
        zero = Fraction(low if scale == 0 else low - round_integer(to_float(lo / scale), rounding))
        zero = min(max(zero, low), high)
    reach = max(abs(low - zero), abs(high - zero), 1)
    if abs(scale) * 2**bits > Fraction(LIMIT):  # keep (q - zero) * scale finite
        held = min(abs(scale), to_float(Fraction(LIMIT / float(reach))) or abs(scale))
        scale = to_float(held if scale > 0 else -held, FORMATS[scale_dtype])
    if symmetric and bits == 1:
        return [low if v < 0 else high for v in x], scale, zero
    codes = [(round_integer(to_float(v / scale), rounding) if scale else 0) + zero for v in x]
    return [int(min(max(q, low), high)) for q in codes], scale, zero


def _symmetric(x: list[Fraction], bits: int, range_mode: str) -> Fraction:
    half, amax = 2 ** (bits - 1), max(abs(v) for v in x)
    if bits == 1:
        mean = to_float(sum(abs(v) for v in x) / len(x), FLOAT64)
        return to_float(2 * min(mean, Fraction(LIMIT / 2)))
    if range_mode == "signedmax":
        peak = next(v for v in x if abs(v) == amax)
        return to_float(peak / -half)
    return to_float(amax / {"half": half - Fraction(1, 2), "restricted": half - 1, "full": half}[range_mode])


def decode_linear(codes: list[int], scale: Fraction, zero_point: Fraction) -> list[Fraction | None]:
    """(q - zero_point) * scale in float32."""
    return [to_float((q - zero_point) * scale) for q in codes]


def nearest_level(x: Fraction, levels: list[float]) -> tuple[int, bool]:
    """Index of the level nearest to x and whether two are equally near; a tie takes the lower index."""
    gaps = [abs(x - Fraction(v)) for v in levels]
    return gaps.index(min(gaps)), gaps.count(min(gaps)) > 1


def codebook(row: list[float], levels: list[float]) -> tuple[list[int], Fraction]:
    """(codes, scale) of one group: the float32 quotient by the largest magnitude, then the nearest level exactly."""
    scale = max(abs(Fraction(v)) for v in row)
    quotients = [to_float(Fraction(v) / scale) if scale else Fraction(0) for v in row]
    return [nearest_level(q, levels)[0] for q in quotients], scale


def pack(codes: list[int], bits: int, order: str = "low") -> bytes:
    """One string of binary digits, cut into bytes: low reads it backwards, high forwards."""
    digits = [format(code % 2**bits, f"0{bits}b") for code in codes]
    count = -(-len(codes) * bits // 8)
    if order == "low":
        stream = "".join(reversed(digits)).rjust(8 * count, "0")
        return bytes(int(stream[i : i + 8], 2) for i in range(0, 8 * count, 8))[::-1]
    stream = "".join(digits).ljust(8 * count, "0")
    return bytes(int(stream[i : i + 8], 2) for i in range(0, 8 * count, 8))
