"""FP8, FP6 and FP4 under a float scale: the largest magnitude of a group becomes the largest value of the format.

    decode   x^ = VALUE[code] * scale        encode   scale = max|x| / max        code = nearest VALUE to x / scale

    fp8_e4m3fn         max 448, one scale a tensor; -channel -token -g128 -b128x128 as everywhere
    fp8_e5m2 fp8_e4m3fnuz fp8_e5m2fnuz fp8_e4m3b11fnuz fp8_e4m3 fp8_e3m4 fp6_e2m3 fp6_e3m2 fp4_e2m1
    fp8_e4m3fn-cast    no scale: code = nearest VALUE to x, as a plain cast of an array library

Shapes     x and codes any shape, codes uint8; scale float32 as groups.scale_shape says, None with cast.
Arithmetic float32, one IEEE operation each; x is divided by the scale as it is stored (scale_dtype).
Rounding   to nearest, ties to even, or any mode of rounding.py. Overflow saturates; word `special`: infinity or NaN.
Dynamic    the scale is found as above, e.g. for every token: fp8_e4m3fn-token.
Static     `scale` is given, one for all groups or one each: only the codes are found, and what is too large saturates.
Zero group scale 0 and zero codes, and so where the scale underflows its dtype. Zeros keep the sign of x.
Huge       a scale is held at 0.99 FLT_MAX / max, so that finite x decodes finite. Beyond float16 it raises RangeError.
Source     Micikevicius et al. 2022, FP8 Formats for Deep Learning, arXiv:2209.05433, sec. 3; OCP OFP8 v1.0.

    dialect             differs
    compressed-tensors  a zero group has scale 2^-23 (the eps of float32)                        0.19, E4M3FN
    auto-round          scales are at least 1 / (512 max), as in vLLM                            0.15.1, E4M3FN and E5M2
torchao 0.18 (Float8Tensor) and modelopt 0.47 follow the default but for zero groups, which torchao decodes to NaN.
"""

from dataclasses import dataclass

import numpy as np

from refquant import groups, minifloat
from refquant.errors import RangeError, SchemeError
from refquant.groups import Granularity
from refquant.inputs import as_float32
from refquant.minifloat import FORMATS, OVERFLOWS, Minifloat
from refquant.peak import peaks
from refquant.rounding import ROUNDINGS, narrow
from refquant.scaled_values import scaled_values

SCALE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
LARGEST = 0.99 * float(np.finfo(np.float32).max)
_SLAB = 1 << 16


@dataclass(frozen=True, slots=True)
class Rule:
    """A minifloat and its scale."""

    element: Minifloat
    scaled: bool = True  # False: a cast
    rounding: str = "half_even"
    overflow: str = "saturate"
    scale_dtype: str = "float32"
    min_scale: float = 0.0  # scales below are raised to it, those of zero groups too
    zero_scale: float = 0.0  # the scale of a zero group

    def __post_init__(self):
        choices = {
            "rounding": (*ROUNDINGS, "stochastic"),
            "overflow": OVERFLOWS,
            "scale_dtype": tuple(SCALE_BITS),
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise SchemeError(
                    f"scaled_minifloat.Rule: {field} = {getattr(self, field)!r}, expected one of {list(known)}"
                )

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.element.bits

    @property
    def group_bits(self) -> int:
        """Bits that a group stores besides its codes."""
        return SCALE_BITS[self.scale_dtype] if self.scaled else 0

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        scale = f"{self.scale_dtype} scale" if self.scaled else "no scale"
        return f"E{self.element.exponent_bits}M{self.element.mantissa_bits} up to {self.element.max:g}, {scale}"


def encode(
    x: np.ndarray,
    rule: Rule,
    granularity: Granularity = groups.TENSOR,
    rng: np.random.Generator | None = None,
    scale: np.ndarray | float | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (codes, scale); a scale that is given is used and not looked for.

    Raises ShapeError, NonFiniteError, RangeError (a negative or infinite scale), SchemeError (no rng, cast with scale).
    """
    if rule.rounding == "stochastic" and rng is None:
        raise SchemeError("scaled_minifloat.encode: rng = None, expected a np.random.Generator for stochastic rounding")
    x = as_float32("scaled_minifloat.encode", x)
    if not rule.scaled:
        if scale is not None:
            raise SchemeError("scaled_minifloat.encode: scale is given, expected none: a cast has no scale")
        return minifloat.encode(x, rule.element, rule.rounding, rule.overflow, rng=rng), None
    shape = groups.scale_shape("scaled_minifloat.encode", x.shape, granularity)
    rows = groups.split("scaled_minifloat.encode", x, granularity)  # (groups, members)
    stored = _scales(rows, rule) if scale is None else _given(scale, len(rows), rule)
    divisor = np.where(stored == 0, np.float32(np.inf), stored)[:, None]  # x / infinity is 0
    codes = np.empty(rows.shape, np.uint8)
    with np.errstate(over="ignore", under="ignore"):
        for part in groups.slabs(rows.shape, _SLAB):
            scaled = rows[part] / divisor[part[0]]
            minifloat.encode_into(codes[part], scaled, rule.element, rule.rounding, rule.overflow, "kept", rng)
    return groups.join(codes, x.shape, granularity), stored.reshape(shape)


def decode(codes: np.ndarray, scale: np.ndarray | None, rule: Rule, granularity: Granularity) -> np.ndarray:
    """VALUE[code] * scale in float32, in the shape of `codes`. Raises RangeError for a code of more bits."""
    if not rule.scaled:
        return minifloat.decode(codes, rule.element)
    minifloat.require_codes("scaled_minifloat.decode", codes, rule.element)
    return scaled_values("scaled_minifloat.decode", codes, minifloat.values(rule.element), scale, granularity)


def _scales(rows: np.ndarray, rule: Rule) -> np.ndarray:
    """(groups,) float32 that scale_dtype holds."""
    largest = np.float32(rule.element.max)
    peak = peaks(rows)
    wide = np.minimum(peak / largest, np.float32(LARGEST) / largest)
    wide = np.maximum(np.where(peak == 0, np.float32(rule.zero_scale), wide), np.float32(rule.min_scale))
    return _stored(wide, rule)


def _given(scale: np.ndarray | float, count: int, rule: Rule) -> np.ndarray:
    wide = groups.column("scaled_minifloat.encode", "scale", np.asarray(scale), count)[:, 0]
    if not (np.isfinite(wide) & (wide >= 0)).all():
        raise RangeError(
            f"scaled_minifloat.encode: scale from {wide.min()} to {wide.max()}, expected finite, 0 or more"
        )
    return _stored(wide, rule)


def _stored(wide: np.ndarray, rule: Rule) -> np.ndarray:
    stored = narrow(wide, rule.scale_dtype)
    if not np.isfinite(stored).all():
        worst = int(np.argmin(np.isfinite(stored)))
        raise RangeError(
            f"scaled_minifloat.encode: scale of group {worst} = {wide[worst]:.6g}, expected one that "
            f"{rule.scale_dtype} holds"
        )
    return stored


_ELEMENTS = {f"fp{fmt.bits}_{name}": fmt for name, fmt in FORMATS.items() if fmt.signed}
RULES = {name: Rule(fmt) for name, fmt in _ELEMENTS.items()}
DIALECTS = {
    name: ({"compressed-tensors": {"zero_scale": 2.0**-23}} if name == "fp8_e4m3fn" else {})
    | ({"auto-round": {"min_scale": 1 / (512 * fmt.max)}} if name in ("fp8_e4m3fn", "fp8_e5m2") else {})
    for name, fmt in _ELEMENTS.items()
}
