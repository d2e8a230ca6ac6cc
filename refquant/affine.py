"""Linear (affine) quantization: evenly spaced levels, 1 to 8 bits.

    decode      x^ = (q - zero_point) * scale
    symmetric   scale from the largest magnitude; zero_point is 0 (signed codes) or h = 2^(bits-1) (unsigned codes)
    asymmetric  lo = min(x, 0), hi = max(x, 0);  scale = (hi - lo) / (2^bits - 1)
                zero_point = clip(qmin - round(lo / scale)), so that 0 is one of the levels
    codes       q = clip(round(x / scale) + zero_point)        qmin = -h or 0,  qmax = qmin + 2^bits - 1

Symmetric ranges, for amax = max|x| of a group (h = 8 for 4 bits):

    range       scale              codes      +amax becomes          who
    half        amax / (h - 1/2)   -h..h-1    (h-1)/(h-1/2) amax     torch.ao, torchao, compressed-tensors, GPTQ
    restricted  amax / (h - 1)     1-h..h-1   amax                   SmoothQuant, AutoAWQ, quanto, LLM.int8()
    full        amax / h           -h..h-1    (h-1)/h amax           the AWQ paper
    signedmax   peak / -h          -h..h-1    peak is exact          ggml Q4_0, AutoRound; peak = the x with |x| = amax
    covering    max(-lo / h,       -h..h-1    amax, or nothing clips torchao SYMMETRIC_NO_CLIPPING_ERR
                    hi / (h-1))
    (1 bit)     2 mean|x|          sign of x  mean|x|                XNOR-Net; zero_point = qmin + 1/2, no range mode

Default     half: no published specification fixes the symmetric scale (ONNX leaves it to the caller); this one uses
            all codes, keeps |x^ - x| <= scale / 2, and at 4 bits its error is 9 % below restricted. Its -amax is a tie
            of -h and 1-h: the last bit of the scale decides which.
Shapes      x and codes any shape, codes int8 (signed) or uint8; scale float32 and zero_point as groups.scale_shape
            says. zero_point has the dtype of the codes, or float32 if it is no integer; () for a symmetric rule.
Arithmetic  float32, one IEEE operation for each written above; division, never a reciprocal. The mean sums in float64.
Narrowing   the scale is rounded to scale_dtype first; zero_point and codes are computed with the value that is stored
            (codes_from="wide" is the other order). It is returned as float32 that scale_dtype can hold.
Rounding    to nearest, ties to even, then + zero_point, then clip. Every mode of rounding.py can be chosen.
Ties        signedmax: of +amax and -amax, the first in memory is the peak.
Zero group  scale +0, codes = zero_point, decodes to zeros; the same where the stored scale underflows to 0.
            min_scale > 0 is the other custom (torch.ao: float32 eps), min_range and flat_scale are more of them.
Static      `scale` and `zero_point` may be given: then only the line "codes" above is done, with the scale rounded to
            scale_dtype. One value for all groups, or one each; an asymmetric rule needs both.
Zero kinds  int and float as above; two more store a value of x (lo need not be below 0 there):
            min   codes = clip(round((x - lo) / scale)), x^ = q * scale + lo                         quanto, KIVI
            mid   mid = lo + scale * h; the same with lo = mid - scale * h, x^ = (q - h) * scale + mid         tinygemm
            (unsigned codes; of signed ones h is taken off)
Dialects    linear_dialects.py: the customs of other people's code, as values of the rule.
Huge        hi - lo that overflows is computed as hi / n - lo / n; |scale| is held at 0.99 FLT_MAX / |q - zero_point|
            of the outermost code, so that finite input decodes finite. A scale beyond float16 raises RangeError, and so
            do a group with min or mid whose ends or width are above 0.99 FLT_MAX: no float32 arithmetic decodes it.
Source      Jacob et al. 2018, arXiv:1712.05877; ONNX QuantizeLinear, DynamicQuantizeLinear; torch.ao MinMaxObserver;
            Lin et al. 2023, arXiv:2306.00978 (AWQ), eq. 1; Rastegari et al. 2016, arXiv:1603.05279, sec. 3.1.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from refquant import affine_scale, groups
from refquant.affine_scale import IN_UNITS_OF_X, held_finite, quotient, safe_divisor
from refquant.errors import RangeError, SchemeError, require_finite
from refquant.groups import Granularity
from refquant.inputs import as_float32
from refquant.rounding import ROUNDINGS, narrow, stochastic

RANGES = ("half", "restricted", "full", "signedmax", "covering")
ARITHMETIC = ("divide", "reciprocal", "multiplier", "reciprocal_multiplier")
SCALE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}


@dataclass(frozen=True, slots=True)
class Rule:
    """Everything that decides a code, as values. Two rules that are equal give equal bytes."""

    bits: int
    signed: bool = True
    symmetric: bool = True
    range_mode: str = "half"  # symmetric with at least 2 bits only
    zero_kind: str = "int"  # asymmetric only: int | float | min | mid
    zero_added: str = "after"  # to the rounded quotient, or before it is rounded
    scale_dtype: str = "float32"
    codes_from: str = "stored"  # the stored scale, or the wide one it was rounded from
    rounding: str = "half_even"
    min_scale: float = 0.0  # scales below are raised to it, zero groups included
    min_range: float = 0.0  # the same for amax or hi - lo, before it is divided
    flat_range: float = 0.0  # a group whose amax or hi - lo is not above, or whose scale is stored as 0, is flat
    flat_scale: float = 0.0  # the scale of a flat group
    flat_zero: float | None = None  # its zero point; None: as of any other group
    arithmetic: str = "divide"  # x / scale | x * (1 / scale) | x * m, m = steps / range | m = (1 / range) * steps
    include_zero: bool = True  # lo <= 0 <= hi
    mirror: str = "always"  # symmetric, half: the range is -amax..amax | only with a negative x, else 0..amax
    zero_rounded: str = "quotient"  # zero point is qmin - round(lo / scale) | difference: round(qmin - lo / scale)

    def __post_init__(self):
        choices = {
            "bits": range(1, 9),
            "range_mode": RANGES,
            "zero_kind": ("int", "float", *IN_UNITS_OF_X),
            "zero_added": ("after", "before"),
            "scale_dtype": tuple(SCALE_BITS),
            "codes_from": ("stored", "wide"),
            "rounding": (*ROUNDINGS, "stochastic"),
            "arithmetic": ARITHMETIC,
            "mirror": ("always", "negative"),
            "zero_rounded": ("quotient", "difference"),
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise SchemeError(f"affine.Rule: {field} = {getattr(self, field)!r}, expected one of {list(known)}")
        if self.range_mode != "half" and (not self.symmetric or self.bits == 1):
            raise SchemeError(
                f"affine.Rule: range_mode = {self.range_mode!r}, expected a symmetric rule of 2 bits or more"
            )
        if self.symmetric and self.zero_kind != "int":
            raise SchemeError(f"affine.Rule: zero_kind = {self.zero_kind!r}, expected an asymmetric rule with it")

    @property
    def binary(self) -> bool:
        """One bit, symmetric: the sign of x and the mean of |x|."""
        return self.symmetric and self.bits == 1

    @property
    def qmin(self) -> int:
        """The smallest code that is stored."""
        lowest = -(1 << (self.bits - 1)) if self.signed else 0
        return lowest + (self.symmetric and self.range_mode == "restricted")

    @property
    def qmax(self) -> int:
        """The largest code that is stored."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def fixed_zero(self) -> float | None:
        """The zero point of a symmetric rule, a constant that no file needs to store; None if it depends on x."""
        middle = 0 if self.signed else 1 << (self.bits - 1)
        return middle - 0.5 * self.binary if self.symmetric else None

    @property
    def base(self) -> int:
        """The code that a zero point in units of x belongs to: the lowest, or the middle one."""
        return self.qmin + (self.zero_kind == "mid") * (1 << (self.bits - 1))

    @property
    def group_bits(self) -> int:
        """Bits that a group stores besides its codes: the scale, and the zero point of an asymmetric rule."""
        scale = SCALE_BITS[self.scale_dtype]
        zero = self.bits if self.zero_kind == "int" else scale
        return scale if self.symmetric else scale + zero

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        kind = "sign of x" if self.binary else f"symmetric, {self.range_mode}" if self.symmetric else "asymmetric"
        zero = "" if self.symmetric else _ZEROS[self.zero_kind]
        return f"{self.qmin}..{self.qmax}, {kind}, {self.scale_dtype} scale{zero}"


_ZEROS = {"int": " and zero point", "float": " and float zero", "min": " and least x", "mid": " and middle x"}


def encode(
    x: np.ndarray,
    rule: Rule,
    granularity: Granularity = groups.TENSOR,
    rng: np.random.Generator | None = None,
    scale: np.ndarray | float | None = None,
    zero_point: np.ndarray | float | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (codes, scale, zero_point); a scale (and zero point) that is given is used and not looked for.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError (no rng, a scale without its zero point).
    """
    if rule.rounding == "stochastic" and rng is None:
        raise SchemeError("affine.encode: rng = None, expected a np.random.Generator for stochastic rounding")
    x = as_float32("affine.encode", x)
    shape = groups.scale_shape("affine.encode", x.shape, granularity)
    rows = groups.split("affine.encode", x, granularity)  # (groups, members)
    if scale is not None or zero_point is not None:
        stored, zero = _given(scale, zero_point, len(rows), rule)
        codes = _codes(rows, stored, zero, rule, rng)
    else:
        found = affine_scale.scales(rows, rule)
        zero = affine_scale.zeros(rows, found, rule)
        stored = held_finite(found.stored, zero, rule)
        codes = _codes(rows, found.wide if rule.codes_from == "wide" else stored, zero, rule, rng, found.multiplier)
    if rule.zero_kind == "int" and not rule.binary:
        zero = zero.astype(codes.dtype)
    return (
        groups.join(codes, x.shape, granularity),
        stored.reshape(shape),
        zero if rule.symmetric else zero.reshape(shape),
    )


def decode(
    codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, granularity: Granularity, rule: Rule | None = None
) -> np.ndarray:
    """(codes - zero_point) * scale in float32, in the shape of `codes`; overflow gives infinity silently.

    `rule` matters for zero kinds min and mid only: (codes - base) * scale + zero_point, base being the code that
    zero_point belongs to.
    """
    rows = groups.split("affine.decode", codes, granularity)
    scales = groups.column("affine.decode", "scale", scale, len(rows))
    zeros = groups.column("affine.decode", "zero_point", zero_point, len(rows))
    shifted = rule is not None and rule.zero_kind in IN_UNITS_OF_X
    x = np.empty(rows.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in groups.slabs(rows.shape):
            x[part] = rows[part]
            x[part] -= np.float32(rule.base) if shifted else zeros[part[0]]
            x[part] *= scales[part[0]]
            if shifted:
                x[part] += zeros[part[0]]
    return groups.join(x, codes.shape, granularity)


def _codes(
    rows: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray,
    rule: Rule,
    rng: np.random.Generator | None,
    multiplier: np.ndarray | None = None,
) -> np.ndarray:
    codes = np.empty(rows.shape, np.int8 if rule.signed else np.uint8)
    divisor, subnormal = safe_divisor(scale)[:, None], None
    if rule.arithmetic == "reciprocal":
        with np.errstate(divide="ignore", over="ignore"):
            multiplier = np.float32(1) / divisor
        subnormal = np.isinf(multiplier)
        multiplier = np.where(subnormal, np.float32(0), multiplier)
    elif multiplier is not None:
        multiplier = np.where(np.isinf(multiplier), np.float32(0), multiplier)[:, None]
    shifted = rule.zero_kind in IN_UNITS_OF_X
    zeros = np.broadcast_to(zero.reshape(-1, 1), divisor.shape)
    if shifted:
        lo = zeros - scale[:, None] * np.float32(rule.base - rule.qmin)
        zeros = np.full_like(zeros, rule.qmin)
    rounded = partial(stochastic, rng=rng) if rule.rounding == "stochastic" else ROUNDINGS[rule.rounding]
    for part in groups.slabs(rows.shape):
        if rule.binary:
            codes[part] = np.where(rows[part] < 0, rule.qmin, rule.qmax)
            continue
        x = rows[part] - lo[part[0]] if shifted else rows[part]
        q = quotient(x, divisor[part[0]], None if multiplier is None else multiplier[part[0]])
        if subnormal is not None and subnormal[part[0]].any():  # such a scale is divided by
            q = np.where(subnormal[part[0]], quotient(x, divisor[part[0]], None), q)
        if rule.zero_added == "before":
            q += zeros[part[0]]
        rounded(q, out=q)
        if rule.zero_added == "after":
            q += zeros[part[0]]
        np.clip(q, rule.qmin, rule.qmax, out=q)
        np.copyto(codes[part], q, casting="unsafe")  # in range; integral, but for a float zero added after rounding
    return codes


def _given(
    scale: np.ndarray | float | None, zero_point: np.ndarray | float | None, count: int, rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    """The caller's scale (groups,), and zero point (groups,) or () of a symmetric rule, checked."""
    if scale is None or (zero_point is None) != rule.symmetric or rule.binary:
        wanted = "a scale alone" if rule.symmetric else "a scale and a zero_point"
        raise SchemeError(f"affine.encode: static scale of a rule {rule.summary!r}, expected {wanted}")
    values = {"scale": np.asarray(scale, np.float32)}
    if not rule.symmetric:
        values["zero_point"] = np.asarray(zero_point, np.float32)
    for name, value in values.items():
        require_finite("affine.encode", value.reshape(-1), name)
        values[name] = groups.column("affine.encode", name, value, count)[:, 0]
    stored = narrow(values["scale"], rule.scale_dtype)
    if not np.isfinite(stored).all():
        raise RangeError(f"affine.encode: scale = {stored.max():.6g}, expected one that {rule.scale_dtype} holds")
    if rule.symmetric:
        return stored, np.array(rule.fixed_zero, np.float32)
    zero = values["zero_point"]
    if rule.zero_kind == "int" and ((zero < rule.qmin) | (zero > rule.qmax) | (zero != np.trunc(zero))).any():
        raise RangeError(f"affine.encode: zero_point = {zero.min()}..{zero.max()}, expected integers that are codes")
    return stored, narrow(zero, "float32" if rule.zero_kind == "int" else rule.scale_dtype)
