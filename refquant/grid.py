"""Grid: the levels that a weight may take once its scale is known, which is what calibrated algorithms round to.

    linear      q = clip(round(w / scale) + zero_point)     w^ = (q - zero_point) * scale        affine.py
    codebook    q = nearest level to w / scale              w^ = LEVELS[q] * scale               codebook.py
    minifloat   q = the code nearest to w / scale           w^ = VALUES[q] * scale               scaled_minifloat.py,
                                                            mx.py, nvfp4.py (scale = s * t, `stored` = s)

A format's encoder finds scale and codes together. GPTQ and its relatives find the scale of a group once and round the
group's columns later, one by one, when earlier errors have changed them; a search for a range tries many scales on the
same weights. Both need the two halves apart:

    fit(rows, rule, tensor)     the scale that the format's own encoder gives to each row; `tensor` is the scale of the
                                whole tensor where the format has one (nvfp4), found once: tensor_scale(W, rule)
    from_range(lo, hi, rule)    the same from the two ends of a range, for a linear rule of 2 bits or more

Shapes     rows (groups, members) give scale and zero_point (groups,); lo and hi of any shape give that shape. Both
           broadcast against the w that is rounded: (groups,) against a column of weights, (groups, 1) against rows.
Arithmetic in the dtype of `scale`, float32 or float64; scales are float32 numbers in both, since a file stores those.
Rounding   the rule's; a codebook's tie takes the lower code. The stored scale decides the codes, also where the rule
           says codes_from="wide": an error is compensated as the decoder will see it. Likewise the reciprocal
           arithmetic and the unguarded zero of some codebook dialects are not imitated, nor the products by which
           dialects of nvfp4 replace w / scale. Minifloats round the quotient in float32.
Zero scale x / infinity is 0: the code of 0.
Refused    SchemeError: stochastic rounding, a cast without scale, GGUF's blocks, fitted levels, quantized scales, zero
           points in units of x. The message names what serves instead.
"""

from dataclasses import dataclass, replace

import numpy as np

from refquant import affine, codebook, fitted, gguf, groups, minifloat, mx, nvfp4, scaled_minifloat
from refquant.codebook import count_below
from refquant.codecs import Rule
from refquant.errors import SchemeError
from refquant.rounding import ROUNDINGS

Minifloats = scaled_minifloat.Rule | mx.Rule | nvfp4.Rule
MXINT8_UNIT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The levels of one group or of many: `codes` rounds, `values` decodes; both have the shape of their argument."""

    rule: affine.Rule | codebook.Rule | Minifloats
    scale: np.ndarray
    zero_point: np.ndarray  # of a linear rule
    stored: np.ndarray | None = None  # what a file keeps, where that is a factor of scale

    def codes(self, w: np.ndarray) -> np.ndarray:
        """Codes of w in the dtype of the arithmetic, exactly integral."""
        divisor = np.where(self.scale == 0, self.scale.dtype.type(np.inf), self.scale)
        return _codes(w / divisor, self.zero_point, self.rule)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """What the codes stand for."""
        if isinstance(self.rule, codebook.Rule):
            return self.rule.table.astype(self.scale.dtype)[codes.astype(np.intp)] * self.scale
        if isinstance(self.rule, Minifloats):
            return _values(self.rule).astype(self.scale.dtype)[codes.astype(np.intp)] * self.scale
        return (codes - self.zero_point) * self.scale

    def astype(self, dtype: type[np.floating]) -> "Grid":
        """The same levels for arithmetic in another dtype."""
        return replace(self, scale=self.scale.astype(dtype), zero_point=self.zero_point.astype(dtype))


def fit(rows: np.ndarray, rule: Rule, tensor: np.ndarray | None = None) -> Grid:
    """The grid of each row of (groups, members): scale and zero_point (groups,).

    Raises NonFiniteError, RangeError, SchemeError.
    """
    require_rounding("grid.fit", rule)
    if isinstance(rule, Minifloats):
        return _fit_minifloat(rows, rule, tensor)
    if isinstance(rule, codebook.Rule):
        _, scale = codebook.encode(rows, rule, groups.TOKEN)
        return Grid(rule, scale[:, 0], np.zeros((), np.float32))
    if rule.binary or rule.range_mode == "signedmax":  # these look at more than the two ends
        _, scale, zero = affine.encode(rows, rule, groups.TOKEN)
        return Grid(rule, scale[:, 0], _vector(zero, len(rows)))
    return from_range(rows.min(axis=1), rows.max(axis=1), rule)


def from_range(lo: np.ndarray, hi: np.ndarray, rule: affine.Rule) -> Grid:
    """The grid of ranges lo..hi of any shape; scale has that shape. A linear rule of 2 bits or more, else SchemeError.

    The scale depends on the largest and the smallest weight only, so those two quantize like the group they come from.
    """
    require_rounding("grid.from_range", rule)
    if not isinstance(rule, affine.Rule) or rule.binary:
        raise SchemeError(
            "grid.from_range: rule is not linear with 2 bits or more, expected one whose scale is a range"
        )
    ends = np.stack([np.ravel(lo), np.ravel(hi)], axis=-1)
    _, scale, zero = affine.encode(ends, rule, groups.TOKEN)
    shape = np.shape(lo)
    return Grid(rule, scale.reshape(shape), _vector(zero, len(ends)).reshape(shape))


def tensor_scale(W: np.ndarray, rule: Rule) -> dict[str, np.ndarray]:
    """The scale of the whole tensor by its name among the extras; empty for a format that has none."""
    if not isinstance(rule, nvfp4.Rule):
        return {}
    return nvfp4.encode(W, rule, groups.TENSOR)[2]


def require_rounding(where: str, rule: Rule) -> None:
    """Raise SchemeError unless weights can be rounded by `rule` one at a time, with a scale that is given."""
    if isinstance(rule, gguf.BlockFormat):
        raise SchemeError(
            f"{where}: scheme = {rule.name}, expected a linear or a codebook format, fp8, mx or nvfp4: a block of GGUF "
            "finds its scale and codes together. Take method nearest, awq or smoothquant, or an importance matrix"
        )
    if isinstance(rule, fitted.Rule):
        raise SchemeError(
            f"{where}: scheme = {rule.summary}, expected a format with fixed levels: int4-g128, nf4. "
            "Fitted levels take calibration as `weights`, with method nearest"
        )
    if getattr(rule, "double", False) or getattr(rule, "zero_kind", "int") not in ("int", "float"):
        raise SchemeError(
            f"{where}: scheme = {rule.summary}, expected plain scales and zero points that are codes: int4-g128, nf4"
        )
    if getattr(rule, "rounding", "") == "stochastic":
        raise SchemeError(f"{where}: rounding = 'stochastic', expected a deterministic one: errors are compensated")
    if isinstance(rule, scaled_minifloat.Rule) and not rule.scaled:
        raise SchemeError(f"{where}: scheme = a cast, expected one with a scale: fp8_e4m3fn-channel")


def _fit_minifloat(rows: np.ndarray, rule: Minifloats, tensor: np.ndarray | None) -> Grid:
    none = np.zeros((), np.float32)
    if not isinstance(rule, nvfp4.Rule):
        family = mx if isinstance(rule, mx.Rule) else scaled_minifloat
        return Grid(rule, family.encode(rows, rule, groups.TOKEN)[1][:, 0], none)
    _, s, _ = nvfp4.encode(rows, rule, groups.TOKEN, scale=tensor)
    s = s[:, 0]
    with np.errstate(over="ignore"):
        scale = {"t": np.multiply, "g": np.divide}[rule.stored](s, tensor) if rule.stored != "none" else s
    return Grid(rule, scale, none, stored=s)


def _values(rule: Minifloats) -> np.ndarray:
    """What the codes stand for, by code; codes of mxint8 are signed and index from behind."""
    return rule.values if isinstance(rule, mx.Rule) else minifloat.values(_element(rule))


def _element(rule: Minifloats) -> minifloat.Minifloat | None:
    return nvfp4.E2M1 if isinstance(rule, nvfp4.Rule) else rule.element


def _minifloat_codes(quotient: np.ndarray, rule: Minifloats) -> np.ndarray:
    if _element(rule) is None:  # mxint8
        codes = ROUNDINGS[rule.rounding](quotient * quotient.dtype.type(MXINT8_UNIT))
        return np.clip(codes, -127, 127)
    overflow, zero_sign = getattr(rule, "overflow", "saturate"), getattr(rule, "zero_sign", "kept")
    with np.errstate(over="ignore"):
        codes = minifloat.encode(quotient.astype(np.float32), _element(rule), rule.rounding, overflow, zero_sign)
    return codes.astype(quotient.dtype)


def _codes(quotient: np.ndarray, zero: np.ndarray, rule: affine.Rule | codebook.Rule | Minifloats) -> np.ndarray:
    if isinstance(rule, Minifloats):
        return _minifloat_codes(quotient, rule)
    if isinstance(rule, codebook.Rule):
        codes = count_below(quotient, rule.thresholds)
        codes = codes if rule.order is None else np.array(rule.order, np.uint8)[codes]
        return codes.astype(quotient.dtype)
    if rule.binary:
        return np.where(quotient < 0, rule.qmin, rule.qmax).astype(quotient.dtype)
    rounded = ROUNDINGS[rule.rounding]
    if rule.zero_added == "before":
        quotient += zero
    rounded(quotient, out=quotient)
    if rule.zero_added == "after":
        quotient += zero
    codes = np.clip(quotient, rule.qmin, rule.qmax, out=quotient)
    if rule.zero_kind == "float":  # added after rounding it leaves a fraction, which no stored code has
        np.trunc(codes, out=codes)
    return codes


def _vector(zero: np.ndarray, count: int) -> np.ndarray:
    return np.broadcast_to(zero.astype(np.float32).reshape(-1), (count,))
