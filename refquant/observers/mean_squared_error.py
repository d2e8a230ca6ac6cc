"""MSE: shrink the range in steps and keep the one with the least sum |x - x^|^p.

    for p_i in factors:  (lo, hi) = p_i (min x, max x)      error = sum over the group of |x - x^|^norm
    each group keeps its best; the first of equals wins

    search          factors                        norm   stops                                    range tried
    llm-compressor  1 - i/100, i = 0..19            2.4   after 5 steps that improved no group      p (min, max)
    gptq            1 - i/100, i = 0..79            2.4   never                                     p (min, max)
    torchao         i/100, i = 1..100               2     never                                     -+ p max|x|

Batches    every batch is searched alone; the answers are averaged as in MovingAverage (constant 1 keeps the last).
           One batch, a weight, is the usual case.
Arithmetic x^ in float32 by the rule (grid.py), errors in float64: near-ties may fall otherwise than in the float32 sums
           of the sources.
Merging    mean weighted by batches.
torchao    mirrors the range: an asymmetric rule loses its advantage on data of one sign.
Zero group keeps (0, 0): no error improves on another. Nor does one that is infinite: above 1e16 a range stays whole.
Tiny       weights, from some 1e-19 down, have errors that vanish in float32: the first range tried is kept.
Source     llm-compressor observers/mse.py (CPU path); IST-DASLab gptq quant.py; torchao AffineQuantizedMSEObserver. The
           norm 2.4 appears first in IST's code.
"""

from dataclasses import dataclass

import numpy as np

from refquant import affine as linear
from refquant import groups
from refquant.codecs import Rule
from refquant.errors import RangeError, SchemeError
from refquant.grid import Grid, from_range, require_rounding
from refquant.groups import Granularity
from refquant.observers.min_max import weighted_mean
from refquant.observers.parameters import Range, affine, require_data, require_same, rows_of
from refquant.schemes import Scheme, parse


@dataclass(frozen=True, slots=True)
class Search:
    """Which ranges are tried, and what their error is."""

    factors: tuple[float, ...]
    norm: float
    patience: int | None = None  # steps without any improvement before giving up
    mirrored: bool = False  # -+ p max|x| instead of p (min, max)


SEARCHES = {
    "llm-compressor": Search(tuple(1 - i / 100 for i in range(20)), 2.4, patience=5),
    "gptq": Search(tuple(1 - i / 100 for i in range(80)), 2.4),
    "torchao": Search(tuple(i / 100 for i in range(1, 101)), 2.0, mirrored=True),
}


class MeanSquaredError:
    """Best ranges of the batches, averaged."""

    def __init__(
        self,
        rule: Rule | Scheme | str,
        granularity: Granularity = groups.TENSOR,
        search: str | Search = "llm-compressor",
        constant: float = 0.01,
    ):
        if isinstance(search, str) and search not in SEARCHES:
            raise RangeError(f"MeanSquaredError: search = {search!r}, expected one of {list(SEARCHES)}")
        if not 0 < constant <= 1:
            raise RangeError(f"MeanSquaredError: constant = {constant}, expected a number in (0, 1]")
        self.rule = parse(rule).rule if isinstance(rule, str | Scheme) else rule
        require_rounding("MeanSquaredError", self.rule)
        if not isinstance(self.rule, linear.Rule) or self.rule.binary:
            raise SchemeError("MeanSquaredError: rule is not linear with 2 bits or more, expected one with a range")
        self.granularity, self.constant, self.batches = granularity, constant, 0
        self.search = SEARCHES[search] if isinstance(search, str) else search
        self._range: Range | None = None

    def update(self, batch: np.ndarray) -> None:
        """Search the batch and move toward its answer. Raises ShapeError, NonFiniteError, RangeError, QuantError."""
        where, old = "MeanSquaredError.update", self._range
        rows = rows_of(where, batch, self.granularity, None if old is None else old[0].shape)
        shape = groups.scale_shape(where, np.shape(batch), self.granularity)
        best = tuple(end.reshape(shape) for end in best_range(rows, self.rule, self.search))
        c = np.float32(self.constant)
        self._range = best if old is None else tuple(np.asarray(m + c * (x - m)) for m, x in zip(old, best))
        self.batches += 1

    def merge(self, other: "MeanSquaredError") -> None:
        """The mean of both ranges, weighted by batches."""
        settings = [(o.rule, o.granularity, o.search, o.constant) for o in (self, other)]
        require_same("MeanSquaredError.merge", *settings)
        self._range = weighted_mean(self._range, self.batches, other._range, other.batches)
        self.batches += other.batches

    def ranges(self) -> Range:
        """(lo, hi) in the shape of the scales."""
        require_data("MeanSquaredError.ranges", self._range)
        return self._range

    def affine(self, rule: Rule | str | None = None) -> Range:
        """(scale, zero_point) for the range, by the rule that was searched for unless another is given."""
        return affine(*self.ranges(), self.rule if rule is None else rule)


def best_range(rows: np.ndarray, rule: linear.Rule, search: Search) -> Range:
    """(lo, hi) float32 (groups,) with the least error for each row of (groups, members) float32."""
    lo, hi = rows.min(axis=1), rows.max(axis=1)
    if search.mirrored:
        hi = np.maximum(-lo, hi)
        lo = -hi
    best, least, idle = (lo, hi), np.full(len(rows), np.inf), 0
    for factor in search.factors:
        tried = np.float32(factor) * lo, np.float32(factor) * hi
        error = _error(rows, from_range(*tried, rule), search.norm)
        better = error < least
        least = np.where(better, error, least)
        best = tuple(np.where(better, new, old) for new, old in zip(tried, best))
        idle = 0 if better.any() else idle + 1
        if search.patience is not None and idle >= search.patience:
            break
    return best


def _error(rows: np.ndarray, grid: Grid, norm: float) -> np.ndarray:
    """sum |x - x^|^norm of each row, float64."""
    column = Grid(grid.rule, grid.scale[:, None], grid.zero_point[:, None])
    error = np.empty(len(rows))
    for row in range(0, len(rows), step := max(1, groups.SLAB // rows.shape[1])):
        part = slice(row, row + step)
        of_part = Grid(grid.rule, column.scale[part], column.zero_point[part])
        x_hat = of_part.values(of_part.codes(rows[part]))
        with np.errstate(over="ignore"):  # of the power
            error[part] = (np.abs(rows[part] - x_hat) ** np.float32(norm)).sum(axis=1, dtype=np.float64)
    return error
