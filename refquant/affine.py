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
            min_scale > 0 is the other custom (torch.ao: float32 eps).
Huge        hi - lo that overflows is computed as hi / n - lo / n; |scale| is held at 0.99 FLT_MAX / |q - zero_point|
            of the outermost code, so that finite input decodes finite. A scale beyond float16 raises RangeError.
Source      Jacob et al. 2018, arXiv:1712.05877; ONNX QuantizeLinear, DynamicQuantizeLinear; torch.ao MinMaxObserver;
            Lin et al. 2023, arXiv:2306.00978 (AWQ), eq. 1; Rastegari et al. 2016, arXiv:1603.05279, sec. 3.1.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from refquant import groups
from refquant.errors import RangeError, SchemeError
from refquant.groups import Granularity
from refquant.inputs import as_float32
from refquant.rounding import ROUNDINGS, narrow, stochastic

RANGES = ("half", "restricted", "full", "signedmax")
SCALE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
LARGEST = 0.99 * float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Rule:
    """Everything that decides a code, as values. Two rules that are equal give equal bytes."""

    bits: int
    signed: bool = True
    symmetric: bool = True
    range_mode: str = "half"  # symmetric with at least 2 bits only
    zero_kind: str = "int"  # asymmetric only: int | float
    zero_added: str = "after"  # to the rounded quotient, or before it is rounded
    scale_dtype: str = "float32"
    codes_from: str = "stored"  # the stored scale, or the wide one it was rounded from
    rounding: str = "half_even"
    min_scale: float = 0.0  # scales below are raised to it, zero groups included

    def __post_init__(self):
        choices = {
            "bits": range(1, 9),
            "range_mode": RANGES,
            "zero_kind": ("int", "float"),
            "zero_added": ("after", "before"),
            "scale_dtype": tuple(SCALE_BITS),
            "codes_from": ("stored", "wide"),
            "rounding": (*ROUNDINGS, "stochastic"),
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise SchemeError(f"affine.Rule: {field} = {getattr(self, field)!r}, expected one of {list(known)}")
        if self.range_mode != "half" and (not self.symmetric or self.bits == 1):
            raise SchemeError(
                f"affine.Rule: range_mode = {self.range_mode!r}, expected a symmetric rule of 2 bits or more"
            )
        if self.symmetric and self.zero_kind == "float":
            raise SchemeError("affine.Rule: zero_kind = 'float', expected an asymmetric rule with it")

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
    def group_bits(self) -> int:
        """Bits that a group stores besides its codes: the scale, and the zero point of an asymmetric rule."""
        scale = SCALE_BITS[self.scale_dtype]
        zero = scale if self.zero_kind == "float" else self.bits
        return scale if self.symmetric else scale + zero

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        kind = "sign of x" if self.binary else f"symmetric, {self.range_mode}" if self.symmetric else "asymmetric"
        zero = "" if self.symmetric else " and zero point" if self.zero_kind == "int" else " and float zero point"
        return f"{self.qmin}..{self.qmax}, {kind}, {self.scale_dtype} scale{zero}"


def encode(
    x: np.ndarray, rule: Rule, granularity: Granularity = groups.TENSOR, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (codes, scale, zero_point). Raises ShapeError, NonFiniteError, RangeError, SchemeError (no rng)."""
    if rule.rounding == "stochastic" and rng is None:
        raise SchemeError("affine.encode: rng = None, expected a np.random.Generator for stochastic rounding")
    x = as_float32("affine.encode", x)
    shape = groups.scale_shape("affine.encode", x.shape, granularity)
    rows = groups.split("affine.encode", x, granularity)  # (groups, members)
    wide, stored = _scales(rows, rule)
    zero = _zeros(rows, wide if rule.codes_from == "wide" else stored, rule)
    stored = _held_finite(stored, zero, rule)
    codes = _codes(rows, wide if rule.codes_from == "wide" else stored, zero, rule, rng)
    if rule.zero_kind == "int" and not rule.binary:
        zero = zero.astype(codes.dtype)
    return (
        groups.join(codes, x.shape, granularity),
        stored.reshape(shape),
        zero if rule.symmetric else zero.reshape(shape),
    )


def decode(codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, granularity: Granularity) -> np.ndarray:
    """(codes - zero_point) * scale in float32, in the shape of `codes`; overflow gives infinity silently."""
    rows = groups.split("affine.decode", codes, granularity)
    scales = groups.column("affine.decode", "scale", scale, len(rows))
    zeros = groups.column("affine.decode", "zero_point", zero_point, len(rows))
    x = np.empty(rows.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in groups.slabs(rows.shape):
            x[part] = rows[part]
            x[part] -= zeros[part[0]]
            x[part] *= scales[part[0]]
    return groups.join(x, codes.shape, granularity)


def _scales(rows: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """(wide, stored) scales (groups,) of rows (groups, members)."""
    zero = np.float32(0)  # x + 0 turns -0 into 0: which of the two a minimum returns depends on the processor
    wide = (_symmetric(rows, rule) if rule.symmetric else _asymmetric(rows, rule)) + zero
    if rule.min_scale:
        wide = np.copysign(np.maximum(np.abs(wide), np.float32(rule.min_scale)), wide)
    wide = np.clip(wide, np.float32(-LARGEST), np.float32(LARGEST))
    stored = narrow(wide, rule.scale_dtype) + zero
    if not np.isfinite(stored).all():
        worst = int(np.argmin(np.isfinite(stored)))
        raise RangeError(
            f"affine.encode: scale of group {worst} = {wide[worst]:.6g}, expected one that {rule.scale_dtype} holds"
        )
    return wide, stored


def _symmetric(rows: np.ndarray, rule: Rule) -> np.ndarray:
    half = 1 << (rule.bits - 1)
    if rule.binary:
        mean = np.abs(rows).mean(axis=1, dtype=np.float64)  # float64, so that the order of the sum does not show
        return (2 * np.minimum(mean, LARGEST / 2)).astype(np.float32)
    lo, hi = rows.min(axis=1), rows.max(axis=1)
    if rule.range_mode == "signedmax":
        peak = np.where(-lo > hi, lo, hi)
        tied = np.flatnonzero((-lo == hi) & (hi > 0))
        first_is_low = (rows[tied] == lo[tied, None]).argmax(axis=1) < (rows[tied] == hi[tied, None]).argmax(axis=1)
        peak[tied[first_is_low]] *= -1
        return peak / np.float32(-half)
    divisor = {"half": half - 0.5, "restricted": half - 1, "full": half}[rule.range_mode]
    return np.maximum(-lo, hi) / np.float32(divisor)


def _asymmetric(rows: np.ndarray, rule: Rule) -> np.ndarray:
    steps = np.float32((1 << rule.bits) - 1)
    lo, hi = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
    with np.errstate(over="ignore"):
        span = hi - lo
        return np.where(np.isfinite(span), span / steps, hi / steps - lo / steps)


def _zeros(rows: np.ndarray, scale: np.ndarray, rule: Rule) -> np.ndarray:
    """Zero points as float32: () of a symmetric rule, else (groups,)."""
    if rule.fixed_zero is not None:
        return np.array(rule.fixed_zero, np.float32)
    exact = np.minimum(rows.min(axis=1), 0) / _divisor(scale)
    if rule.zero_kind == "float":
        return narrow(np.float32(rule.qmin) - exact, rule.scale_dtype)
    whole = ROUNDINGS.get(rule.rounding, ROUNDINGS["half_even"])(exact)  # a stochastic rule draws for codes only
    return np.clip(np.float32(rule.qmin) - whole, rule.qmin, rule.qmax)


def _codes(
    rows: np.ndarray, scale: np.ndarray, zero: np.ndarray, rule: Rule, rng: np.random.Generator | None
) -> np.ndarray:
    codes = np.empty(rows.shape, np.int8 if rule.signed else np.uint8)
    divisor = _divisor(scale)[:, None]
    zeros = np.broadcast_to(zero.reshape(-1, 1), divisor.shape)
    rounded = partial(stochastic, rng=rng) if rule.rounding == "stochastic" else ROUNDINGS[rule.rounding]
    for part in groups.slabs(rows.shape):
        if rule.binary:
            codes[part] = np.where(rows[part] < 0, rule.qmin, rule.qmax)
            continue
        q = rows[part] / divisor[part[0]]
        if rule.zero_added == "before":
            q += zeros[part[0]]
        rounded(q, out=q)
        if rule.zero_added == "after":
            q += zeros[part[0]]
        np.clip(q, rule.qmin, rule.qmax, out=q)
        np.copyto(codes[part], q, casting="unsafe")  # integral and in range: the cast is exact
    return codes


def _divisor(scale: np.ndarray) -> np.ndarray:
    """x / infinity is 0, which is the code of every weight whose scale is 0."""
    return np.where(scale == 0, np.float32(np.inf), scale)


def _held_finite(scale: np.ndarray, zero: np.ndarray, rule: Rule) -> np.ndarray:
    """Keep (q - zero) * scale below infinity for every code; only groups near the end of float32 are touched."""
    if float(np.abs(scale).max()) * (1 << rule.bits) <= LARGEST:
        return scale
    reach = np.maximum(np.abs(rule.qmin - zero), np.abs(rule.qmax - zero)).astype(np.float64)
    held = np.minimum(np.abs(scale), LARGEST / np.maximum(reach, 1)).astype(np.float32)
    return narrow(np.copysign(held, scale), rule.scale_dtype)
