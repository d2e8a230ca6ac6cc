"""Grid: the levels that a weight may take once its scale is known, which is what calibrated algorithms round to.

    linear      q = clip(round(w / scale) + zero_point)     w^ = (q - zero_point) * scale        affine.py
    codebook    q = nearest level to w / scale              w^ = LEVELS[q] * scale               codebook.py

A format's encoder finds scale and codes together. GPTQ and its relatives find the scale of a group once and round the
group's columns later, one by one, when earlier errors have changed them; a search for a range tries many scales on the
same weights. Both need the two halves apart:

    fit(rows, rule)             the scale that the format's own encoder gives to each row
    from_range(lo, hi, rule)    the same from the two ends of a range, for a linear rule of 2 bits or more

Shapes     rows (groups, members) give scale and zero_point (groups,); lo and hi of any shape give that shape. Both
           broadcast against the w that is rounded: (groups,) against a column of weights, (groups, 1) against rows.
Arithmetic in the dtype of `scale`, float32 or float64; scales are float32 numbers in both, since a file stores those.
Rounding   the rule's; a codebook's tie takes the lower code. The stored scale decides the codes, also where the rule
           says codes_from="wide": an error is compensated as the decoder will see it. Likewise the reciprocal
           arithmetic and the unguarded zero of some codebook dialects are not imitated.
Zero scale x / infinity is 0: the code of 0.
Refused    stochastic rounding (SchemeError); formats of other kinds, quantized scales, zero points in units of x
           (UnsupportedError).
"""

from dataclasses import dataclass

import numpy as np

from refquant import affine, codebook, groups
from refquant.codebook import count_below
from refquant.codecs import Rule
from refquant.errors import SchemeError, UnsupportedError
from refquant.rounding import ROUNDINGS


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The levels of one group or of many: `codes` rounds, `values` decodes; both have the shape of their argument."""

    rule: affine.Rule | codebook.Rule
    scale: np.ndarray
    zero_point: np.ndarray  # unused by a codebook

    def codes(self, w: np.ndarray) -> np.ndarray:
        """Codes of w in the dtype of the arithmetic, exactly integral."""
        divisor = np.where(self.scale == 0, self.scale.dtype.type(np.inf), self.scale)
        return _codes(w / divisor, self.zero_point, self.rule)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """What the codes stand for."""
        if isinstance(self.rule, codebook.Rule):
            return self.rule.table.astype(self.scale.dtype)[codes.astype(np.intp)] * self.scale
        return (codes - self.zero_point) * self.scale

    def astype(self, dtype: type[np.floating]) -> "Grid":
        """The same levels for arithmetic in another dtype."""
        return Grid(self.rule, self.scale.astype(dtype), self.zero_point.astype(dtype))


def fit(rows: np.ndarray, rule: Rule) -> Grid:
    """The grid of each row of (groups, members): scale and zero_point (groups,).

    Raises NonFiniteError, RangeError, SchemeError, UnsupportedError.
    """
    require_rounding("grid.fit", rule)
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


def require_rounding(where: str, rule: Rule) -> None:
    """Raise unless weights can be rounded by `rule` one at a time, deterministically, with a scale that is given."""
    if not isinstance(rule, affine.Rule | codebook.Rule):
        raise UnsupportedError(f"{where}: rule = {type(rule).__name__}, expected a linear or a codebook format")
    if getattr(rule, "double", False) or getattr(rule, "zero_kind", "int") not in ("int", "float"):
        raise UnsupportedError(f"{where}: rule = {rule.summary}, expected plain scales and zero points that are codes")
    if isinstance(rule, affine.Rule) and rule.rounding == "stochastic":
        raise SchemeError(f"{where}: rounding = 'stochastic', expected a deterministic one: errors are compensated")


def _codes(quotient: np.ndarray, zero: np.ndarray, rule: affine.Rule | codebook.Rule) -> np.ndarray:
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
    return np.clip(quotient, rule.qmin, rule.qmax, out=quotient)


def _vector(zero: np.ndarray, count: int) -> np.ndarray:
    return np.broadcast_to(zero.astype(np.float32).reshape(-1), (count,))
