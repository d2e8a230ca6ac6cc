"""Microscaling (MX): blocks of 32 small numbers under one power of two.

    decode   x^ = VALUE[code] * 2^e          encode   e = rule(max|x|)          code = nearest VALUE to x / 2^e

    mxfp4       E2M1            4 bits  4.25 bits per weight
    mxfp6_e2m3  E2M3            6       6.25
    mxfp6_e3m2  E3M2            6       6.25
    mxfp8_e4m3  E4M3FN          8       8.25
    mxfp8_e5m2  E5M2            8       8.25
    mxint8      int8 / 64       8       8.25      codes -127..127; -128 decodes to -2 and is never written

Shapes     x and codes any shape; codes uint8 (mxint8: int8); scale 2^e float32 as groups.scale_shape says. The byte of
           a file is minifloat.encode(scale, E8M0) = e + 127.
Scale      floor by default; mx_scale.py has the rules and their names.
Arithmetic x / 2^e is exact (float32, but for results below 2^-126); so is VALUE * 2^e unless it leaves float32's range.
Rounding   elements to nearest, ties to even, saturating; every mode of rounding.py can be chosen.
Zeros      a zero block has e = -127 and zero codes. -0, and what is negative and rounds to zero, keep the sign bit.
Subnormal  amax below 2^(emax - 127) has e = -127 too: such blocks lose bits from the top value down.
Non-finite x is refused. A scale of NaN (byte 255 of a file) decodes the whole block to NaN.
Huge       under all rules but floor, |x| from 1.75 * 2^127 on (E2M1; others alike) may decode to infinity.
Source     OCP Microscaling Formats (MX) Specification v1.0, sec. 5.2, 5.3, 6.3. It leaves the rule for the scale, the
           rounding and NaN to the implementation: where it recommends (sec. 6.3, floor), that is the default.

    dialect             scale         log2     rounding        sign of 0 codes   else
    ocp (default)       floor         exact    half_even       of x
    torchao             floor         exact    half_even       of x              where e = -127, x / 2^-126 is encoded
    torchao-even        even          exact    half_even       of x              the same
    torchao-ceil        ceil          exact    half_even       of x              the same
    torchao-rceil       rceil         float32  half_even       of x              where e = -127, x itself is encoded
    compressed-tensors  even, m = 1   exact    half_even       - if x < 0        (m = 1 for E4M3 too; -0 kept in E4M3)
    modelopt            rceil         float32  half_to_zero    - unless x > 0    half_even and signs of x in E4M3
    microxcaling        floor         float32  half_away       - if x < 0        values only: it stores no codes
    auto-round          floor         float32  half_even       - if x < 0        a zero block has e = 1 - emax
    auto-round-rceil    rceil         float32  half_even       - if x < 0        a zero block has e = 1
    ggml                floor         float32  half_to_zero    +                 (below amax = 2^-125 ggml wraps e)
Versions read: torchao 0.18, compressed-tensors 0.19, nvidia-modelopt 0.47, auto-round 0.15.1, llama.cpp of
llama-cpp-python 0.3.36; microxcaling of 2024. The ggml bytes of every block are scheme MXFP4.
"""

from dataclasses import dataclass

import numpy as np

from refquant import groups, minifloat, mx_scale
from refquant.errors import SchemeError
from refquant.groups import Granularity
from refquant.inputs import as_float32
from refquant.minifloat import FORMATS, ZERO_SIGNS, Minifloat
from refquant.peak import peaks
from refquant.rounding import ROUNDINGS, stochastic
from refquant.scaled_values import scaled_values

BLOCK = groups.group(32)
_INT8_UNIT = 64  # codes of mxint8 are in units of 2^-6
_SLAB = 1 << 16


@dataclass(frozen=True, slots=True)
class Rule:
    """A microscaled format. `element` None is int8."""

    element: Minifloat | None
    scale_rule: str = "floor"
    rounding: str = "half_even"
    zero_sign: str = "kept"  # which zeros take the code of -0: minifloat.encode
    logarithm: str = "exact"  # or float32: rounded before floor or ceil
    even_bits: int | None = None  # mantissa bits that the rule even looks at; None: those of the element
    zero_exponent: int = mx_scale.LOWEST  # of a zero block
    lowest_divisor: int = mx_scale.LOWEST  # x is divided by 2^this where -127 is stored

    def __post_init__(self):
        choices = {
            "scale_rule": mx_scale.SCALE_RULES,
            "rounding": (*ROUNDINGS, "stochastic"),
            "zero_sign": ZERO_SIGNS,
            "logarithm": ("exact", "float32"),
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise SchemeError(f"mx.Rule: {field} = {getattr(self, field)!r}, expected one of {list(known)}")

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 8 if self.element is None else self.element.bits

    @property
    def group_bits(self) -> int:
        """Bits that a block stores besides its codes: the exponent."""
        return 8

    @property
    def max(self) -> float:
        """The largest value of a code."""
        return 127 / _INT8_UNIT if self.element is None else self.element.max

    @property
    def mantissa_bits(self) -> int:
        """Bits after the leading one in the largest value, as the scale rule `even` counts them."""
        if self.even_bits is not None:
            return self.even_bits
        return 6 if self.element is None else self.element.mantissa_bits

    @property
    def values(self) -> np.ndarray:
        """float32, by the bits of the code."""
        if self.element is None:
            return np.arange(256, dtype=np.uint8).view(np.int8) / np.float32(_INT8_UNIT)
        return minifloat.values(self.element)

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        e = self.element
        return f"{'int8' if e is None else f'E{e.exponent_bits}M{e.mantissa_bits}'}, E8M0 scale by {self.scale_rule}"


def encode(
    x: np.ndarray, rule: Rule, granularity: Granularity = BLOCK, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, scale). Raises ShapeError, NonFiniteError, RangeError, SchemeError (no rng)."""
    if rule.rounding == "stochastic" and rng is None:
        raise SchemeError("mx.encode: rng = None, expected a np.random.Generator for stochastic rounding")
    x = as_float32("mx.encode", x)
    shape = groups.scale_shape("mx.encode", x.shape, granularity)
    rows = groups.split("mx.encode", x, granularity)  # (groups, members)
    e = mx_scale.exponents(
        peaks(rows), rule.scale_rule, rule.max, rule.mantissa_bits, rule.logarithm, rule.zero_exponent
    )
    multiplier = mx_scale.powers(-np.where(e == mx_scale.LOWEST, rule.lowest_divisor, e))[:, None]
    codes = np.empty(rows.shape, np.int8 if rule.element is None else np.uint8)
    for part in groups.slabs(rows.shape, _SLAB):
        _encode_into(codes[part], rows[part] * multiplier[part[0]], rule, rng)
    return groups.join(codes, x.shape, granularity), mx_scale.powers(e).reshape(shape)


def decode(codes: np.ndarray, scale: np.ndarray, rule: Rule, granularity: Granularity = BLOCK) -> np.ndarray:
    """VALUE[code] * scale in float32, in the shape of `codes`. Raises RangeError for a code of more bits."""
    if rule.element is not None:
        minifloat.require_codes("mx.decode", codes, rule.element)
    return scaled_values("mx.decode", codes.view(np.uint8), rule.values, scale, granularity)


def _encode_into(codes: np.ndarray, x: np.ndarray, rule: Rule, rng: np.random.Generator | None) -> None:
    """Codes of scaled x; x is overwritten."""
    if rule.element is not None:
        minifloat.encode_into(codes, x, rule.element, rule.rounding, "saturate", rule.zero_sign, rng)
        return
    x *= np.float32(_INT8_UNIT)
    if rule.rounding == "stochastic":
        stochastic(x, rng, out=x)
    else:
        ROUNDINGS[rule.rounding](x, out=x)
    np.copyto(codes, np.clip(x, -127, 127, out=x), casting="unsafe")  # integral and in range: the cast is exact


_ELEMENTS = {
    "mxfp4": FORMATS["e2m1"],
    "mxfp6_e2m3": FORMATS["e2m3"],
    "mxfp6_e3m2": FORMATS["e3m2"],
    "mxfp8_e4m3": FORMATS["e4m3fn"],
    "mxfp8_e5m2": FORMATS["e5m2"],
    "mxint8": None,
}
RULES = {name: Rule(element) for name, element in _ELEMENTS.items()}


def _dialects(name: str) -> dict[str, dict[str, object]]:
    """The dialects of a format: the values of fields that differ from the defaults of `Rule`."""
    rule = RULES[name]
    emax = int(np.frexp(rule.max)[1]) - 1
    float_log, minus = {"logarithm": "float32"}, {"zero_sign": "negative"}
    known = {
        "ocp": {},
        "microxcaling": {**float_log, **minus, "rounding": "half_away"},
    }
    if name != "mxint8":
        known |= {
            "torchao": {"lowest_divisor": -126},
            "torchao-even": {"lowest_divisor": -126, "scale_rule": "even"},
            "torchao-ceil": {"lowest_divisor": -126, "scale_rule": "ceil"},
            "torchao-rceil": {"lowest_divisor": 0, "scale_rule": "rceil", **float_log},
        }
    if name in ("mxfp4", "mxfp8_e4m3"):
        fp8 = name == "mxfp8_e4m3"
        known |= {
            "compressed-tensors": {"scale_rule": "even", "even_bits": 1, "zero_sign": "kept" if fp8 else "negative"},
            "modelopt": {"scale_rule": "rceil", **float_log}
            | ({} if fp8 else {"rounding": "half_to_zero", "zero_sign": "inverted"}),
        }
    known |= {
        "auto-round": {**float_log, **minus, "zero_exponent": 1 - emax},
        "auto-round-rceil": {**float_log, **minus, "zero_exponent": 1, "scale_rule": "rceil"},
    }
    if name == "mxfp4":
        known["ggml"] = {**float_log, "rounding": "half_to_zero", "zero_sign": "dropped"}
    return known


DIALECTS = {name: _dialects(name) for name in RULES}
