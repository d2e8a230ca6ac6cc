"""Minifloats: floating point of at most 8 bits, each format five numbers.

    code          s E..E M..M              E of exponent_bits, M of mantissa_bits, s where the format is signed
    value         E > 0:  (-1)^s 2^(E - bias) (1 + M / 2^m)          E = 0:  (-1)^s 2^(1 - bias) M / 2^m

    format        bits      bias  largest   smallest   codes that are no numbers                         specials
    e4m3fn        1 4 3     7     448       2^-9       s1111111 NaN                                      fn
    e5m2          1 5 2     15    57344     2^-16      E = 31: M = 0 infinity, else NaN                  ieee
    e4m3fnuz      1 4 3     8     240       2^-10      10000000 NaN, no -0                               fnuz
    e5m2fnuz      1 5 2     16    57344     2^-17      10000000 NaN, no -0                               fnuz
    e4m3b11fnuz   1 4 3     11    30        2^-13      10000000 NaN, no -0                               fnuz
    e4m3          1 4 3     7     240       2^-9       E = 15: M = 0 infinity, else NaN                  ieee
    e3m4          1 3 4     3     15.5      2^-6       E = 7: M = 0 infinity, else NaN                   ieee
    e2m3          1 2 3     1     7.5       2^-3       none                                              none
    e3m2          1 3 2     3     28        2^-4       none                                              none
    e2m1          1 2 1     1     6         2^-1       none                                              none
    e8m0          0 8 0     127   2^127     2^-127     11111111 NaN; E = 0 is 2^-127, there is no zero   fn

    encode        c(|x|) = (e - e_min) 2^m + |x| / 2^(e - m),  e = max(floor(log2 |x|), e_min),  e_min = 1 - bias
                  code = round(c(|x|)) with the sign of x: c is the number of values below |x| where x is one of them,
                  and a straight line in between. Rounding c is rounding x, a tie goes to the even code.

Shapes     any; codes uint8, the unused high bits 0; x float32 (float16 and bfloat16 widen exactly, float64 is rounded
           to float32 first).
Rounding   half_even by default, or any mode of rounding.py; stochastic needs an rng and draws one number an element.
Overflow   what is past the largest value after rounding, and infinity: "saturate" to the largest (the default, as
           CUDA's satfinite and ONNX's saturate); "special": infinity (ieee) or NaN (fn, fnuz), saturating still where
           there is neither. With toward_zero, finite x saturates in either case (IEEE 754). torch 2.13 saturates
           e4m3fn and no other format.
NaN        the quiet NaN with the sign of x: ieee E all ones, M = 1000; fn all ones; fnuz 10000000. A format without a
           NaN refuses it with NonFiniteError.
Zeros      -0 keeps its sign where the format has two zeros, and so does what rounds to it; `zero_sign` names the other
           customs. e8m0: 0 becomes 2^-127 and a negative x NaN.
Speed      whatever decides a code is in the upper 16 bits of a float32 once "some lower bit is set" is kept in the
           last of them: for 5 mantissa bits at most, the bit after the first one dropped is never looked at alone. So
           all modes but the stochastic one are a table of 2^16 codes, made by the formula above.
Source     OCP 8-bit Floating Point Specification (OFP8) v1.0, sec. 4; OCP Microscaling Formats v1.0, sec. 5.3, 5.4;
           Noune et al. 2022, arXiv:2206.02915 (fnuz). The names are those of ml_dtypes.
Differs    ml_dtypes 0.6.0: overflow "special"; e8m0 ties upward, 0 to NaN, and below 2^-126 not to nearest; NaN to a
           zero in the formats without NaN. torch 2.13: NaN of e5m2 is 1111111; e8m0 as ml_dtypes, without the sign.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from refquant.errors import NonFiniteError, QuantError, RangeError, SchemeError
from refquant.rounding import ROUNDINGS, Rounding, stochastic

OVERFLOWS = ("saturate", "special")
ZERO_SIGNS = ("kept", "negative", "dropped", "inverted")
_SLAB = 1 << 15  # values at a time: the temporaries stay in the L2 cache


@dataclass(frozen=True, slots=True)
class Minifloat:
    """A format. `specials` is ieee, fn, fnuz or none (the table above)."""

    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: str
    signed: bool = True
    has_zero: bool = True  # False: E = 0 is an exponent like the others

    def __post_init__(self):
        if self.specials not in ("ieee", "fn", "fnuz", "none"):
            raise SchemeError(f"Minifloat: specials = {self.specials!r}, expected ieee, fn, fnuz or none")
        if not (self.exponent_bits >= 1 and 0 <= self.mantissa_bits <= 5 and self.bits <= 8):
            got = f"exponent_bits, mantissa_bits = {self.exponent_bits}, {self.mantissa_bits}"
            raise SchemeError(f"Minifloat: {got}, expected at least 1, 0 to 5, and 8 bits in all with the sign")

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def sign_bit(self) -> int:
        """The code of -0, or what would be; 0 of an unsigned format."""
        return self.signed << (self.exponent_bits + self.mantissa_bits)

    @property
    def min_exponent(self) -> int:
        """The exponent of the smallest normal value, and of the subnormal ones."""
        return self.has_zero - self.bias

    @property
    def largest_code(self) -> int:
        """The code of the largest finite value."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        return {"ieee": top - (1 << self.mantissa_bits), "fn": top - 1}.get(self.specials, top)

    @property
    def nan(self) -> int | None:
        """The code of NaN without a sign, None if there is none."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        quiet = top - (1 << self.mantissa_bits) + 1 + (1 << self.mantissa_bits >> 1)
        return {"ieee": quiet, "fn": top, "fnuz": self.sign_bit}.get(self.specials)

    @property
    def max(self) -> float:
        """The largest finite value."""
        return float(values(self)[self.largest_code])


FORMATS = {
    "e4m3fn": Minifloat(4, 3, 7, "fn"),
    "e5m2": Minifloat(5, 2, 15, "ieee"),
    "e4m3fnuz": Minifloat(4, 3, 8, "fnuz"),
    "e5m2fnuz": Minifloat(5, 2, 16, "fnuz"),
    "e4m3b11fnuz": Minifloat(4, 3, 11, "fnuz"),
    "e4m3": Minifloat(4, 3, 7, "ieee"),
    "e3m4": Minifloat(3, 4, 3, "ieee"),
    "e2m3": Minifloat(2, 3, 1, "none"),
    "e3m2": Minifloat(3, 2, 3, "none"),
    "e2m1": Minifloat(2, 1, 1, "none"),
    "e8m0": Minifloat(8, 0, 127, "fn", signed=False, has_zero=False),
}


def encode(
    x: np.ndarray,
    fmt: Minifloat,
    rounding: str = "half_even",
    overflow: str = "saturate",
    zero_sign: str = "kept",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Codes of x. `zero_sign` says which x that become a zero take the code of -0: those with a sign (kept), those
    below 0 (negative), none (dropped), or all but those above 0 (inverted).

    Raises NonFiniteError (NaN without a code), QuantError (dtype), SchemeError (unknown mode, no rng).
    """
    x = np.asarray(x)
    if x.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise QuantError(f"minifloat.encode: x.dtype = {x.dtype}, expected a floating point dtype")
    with np.errstate(over="ignore", under="ignore"):
        x = np.ascontiguousarray(x, np.float32).reshape(x.shape)
    if fmt.nan is None and np.isnan(x).any():
        raise NonFiniteError("minifloat.encode: x holds NaN, expected none: the format cannot store it")
    codes = np.empty(x.shape, np.uint8)
    encode_into(codes, x, fmt, rounding, overflow, zero_sign, rng)
    return codes


def decode(codes: np.ndarray, fmt: Minifloat) -> np.ndarray:
    """The float32 values of uint8 codes. Raises RangeError for a code of more bits than the format has."""
    require_codes("minifloat.decode", codes, fmt)
    x, table = np.empty(codes.shape, np.float32), values(fmt)
    flat, into = np.ascontiguousarray(codes).reshape(-1), x.reshape(-1)
    for part in _slabs(codes.size):
        table.take(flat[part], out=into[part], mode="clip")  # no index is out of range: this saves a check of each
    return x


def require_codes(where: str, codes: np.ndarray, fmt: Minifloat) -> None:
    """Raise RangeError unless `codes` are uint8 of at most `fmt.bits` bits."""
    if codes.dtype != np.uint8 or (fmt.bits < 8 and codes.size and int(codes.max()) >> fmt.bits):
        got = codes.max() if codes.dtype == np.uint8 else codes.dtype
        raise RangeError(f"{where}: codes = {got}, expected uint8 below {1 << fmt.bits}")


def encode_into(
    codes: np.ndarray,
    x: np.ndarray,
    fmt: Minifloat,
    rounding: str,
    overflow: str,
    zero_sign: str,
    rng: np.random.Generator | None,
) -> None:
    """`encode` for those who checked x: C-contiguous float32. NaN without a code becomes the zero."""
    x, codes = x.reshape(-1), codes.reshape(-1)
    if rounding == "stochastic":
        if rng is None:
            raise SchemeError("minifloat.encode: rng = None, expected a np.random.Generator for stochastic rounding")
        for part in _slabs(x.size):
            codes[part] = _codes(x[part], fmt, lambda c: stochastic(c, rng), overflow, zero_sign, False)
        return
    table = table_of(fmt, rounding, overflow, zero_sign)
    for part in _slabs(x.size):
        table.take(deciding_bits(x[part]), out=codes[part], mode="clip")


def deciding_bits(x: np.ndarray) -> np.ndarray:
    """float32 -> uint32 below 2^16: the upper half of each, its last bit set too where the lower half is not 0."""
    bits = x.view(np.uint32)
    dropped = (bits & np.uint32(0xFFFF)) != 0
    return np.bitwise_or(bits >> np.uint32(16), dropped.view(np.uint8))


@lru_cache(maxsize=64)
def table_of(fmt: Minifloat, rounding: str, overflow: str, zero_sign: str) -> np.ndarray:
    """(65536,) uint8: the code of every x by `deciding_bits(x)`. Read-only. Raises SchemeError."""
    for name, got, known in (
        ("rounding", rounding, (*ROUNDINGS, "stochastic")),
        ("overflow", overflow, OVERFLOWS),
        ("zero_sign", zero_sign, ZERO_SIGNS),
    ):
        if got not in known:
            raise SchemeError(f"minifloat: {name} = {got!r}, expected one of {', '.join(known)}")
    x = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    table = _codes(x, fmt, ROUNDINGS[rounding], overflow, zero_sign, rounding == "toward_zero")
    table.flags.writeable = False
    return table


@lru_cache(maxsize=64)
def values(fmt: Minifloat) -> np.ndarray:
    """(2^bits,) float32: the value of every code. Read-only."""
    size = np.arange(1 << (fmt.bits - fmt.signed))
    exponent, mantissa = size >> fmt.mantissa_bits, size & ((1 << fmt.mantissa_bits) - 1)
    normal = (exponent > 0) | (not fmt.has_zero)
    units = (mantissa + (normal << fmt.mantissa_bits)).astype(np.float64)
    table = np.ldexp(units, np.maximum(exponent, fmt.has_zero) - fmt.bias - fmt.mantissa_bits)
    table[size > fmt.largest_code] = np.nan
    if fmt.specials == "ieee":
        table[fmt.largest_code + 1] = np.inf
    if fmt.signed:
        table = np.concatenate([table, -table])
    if fmt.specials == "fnuz":
        table[fmt.sign_bit] = np.nan
    table = table.astype(np.float32)
    table.flags.writeable = False
    return table


def _slabs(count: int) -> Iterator[slice]:
    return (slice(start, start + _SLAB) for start in range(0, count, _SLAB))


def _codes(
    x: np.ndarray, fmt: Minifloat, rounded: Rounding, overflow: str, zero_sign: str, finite_saturates: bool
) -> np.ndarray:
    """The formula of the module, in float64, where every operation on a float32 x is exact."""
    finite, negative = np.isfinite(x), np.signbit(x)
    size = np.where(finite, np.abs(x), 0).astype(np.float64)
    exponent = np.where(size > 0, np.frexp(size)[1] - 1, fmt.min_exponent)
    exponent = np.maximum(exponent, fmt.min_exponent)
    line = np.ldexp(size, fmt.mantissa_bits - exponent) + (exponent - fmt.min_exponent) * 2.0**fmt.mantissa_bits
    if not fmt.has_zero:
        line -= 2.0**fmt.mantissa_bits
    codes = np.maximum(rounded(np.where(negative, -line, line)) * np.where(negative, -1, 1), 0)
    past = (codes > fmt.largest_code) | ~finite
    codes = np.where(past, fmt.largest_code, codes).astype(np.uint8)
    if overflow == "special" and fmt.nan is not None:
        codes[past & ~finite if finite_saturates else past] = (
            fmt.largest_code + 1 if fmt.specials == "ieee" else fmt.nan
        )
    codes[np.isnan(x)] = fmt.nan or 0
    if not fmt.signed:
        return np.where(x < 0, np.uint8(fmt.nan or 0), codes)
    if fmt.specials == "fnuz":
        zero_sign = "dropped"
    signed_zero = {"kept": negative, "negative": x < 0, "dropped": np.False_, "inverted": ~(x > 0)}[zero_sign]
    return codes | (np.where(codes == 0, signed_zero, negative) * fmt.sign_bit).astype(np.uint8)
