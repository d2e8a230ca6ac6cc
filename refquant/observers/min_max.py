"""Ranges from the extremes of the data.

    MinMax          lo = min(lo, min x)               hi = max(hi, max x)
    MovingAverage   lo += c (min x - lo)              hi += c (max x - hi)       the first batch sets lo and hi

Arithmetic  float32; c is rounded to float32; one subtraction, one product, one sum, in that order.
Merging     MinMax: exact, in any order. MovingAverage: (n lo + n' lo') / (n + n') for n and n' batches, in float64: the
            average of two averages, not what one observer of all batches would hold, since that depends on their order.
            Data-parallel training averages in the same way.
Source      torch.ao.quantization MinMaxObserver, PerChannelMinMaxObserver, MovingAverageMinMaxObserver; c = 0.01 there.
"""

import numpy as np

from refquant import groups
from refquant.codecs import Rule
from refquant.errors import RangeError
from refquant.groups import Granularity
from refquant.observers.parameters import Range, affine, require_data, require_same, rows_of


class MinMax:
    """Smallest and largest value so far."""

    def __init__(self, granularity: Granularity = groups.TENSOR):
        self.granularity = granularity
        self._range: Range | None = None

    def update(self, batch: np.ndarray) -> None:
        """Widen the range. Raises ShapeError, NonFiniteError, RangeError, QuantError (dtype)."""
        lo, hi = _extremes("MinMax.update", batch, self.granularity, self._range)
        self._widen(lo, hi)

    def merge(self, other: "MinMax") -> None:
        """The range of both: exactly what one observer of all batches would have."""
        require_same("MinMax.merge", (self.granularity,), (other.granularity,))
        if other._range is not None:
            self._widen(*other._range)

    def ranges(self) -> Range:
        """(lo, hi) in the shape of the scales."""
        require_data("MinMax.ranges", self._range)
        return self._range

    def affine(self, rule: Rule | str) -> Range:
        """(scale, zero_point) for the range; see parameters.affine."""
        return affine(*self.ranges(), rule)

    def _widen(self, lo: np.ndarray, hi: np.ndarray) -> None:
        if self._range is not None:
            lo, hi = np.minimum(lo, self._range[0]), np.maximum(hi, self._range[1])
        self._range = np.asarray(lo), np.asarray(hi)


class MovingAverage:
    """Exponential moving averages of the extremes of each batch."""

    def __init__(self, granularity: Granularity = groups.TENSOR, constant: float = 0.01):
        if not 0 < constant <= 1:
            raise RangeError(f"MovingAverage: constant = {constant}, expected a number in (0, 1]")
        self.granularity, self.constant, self.batches = granularity, constant, 0
        self._range: Range | None = None

    def update(self, batch: np.ndarray) -> None:
        """Move the range toward that of the batch. Raises ShapeError, NonFiniteError, RangeError, QuantError."""
        new = _extremes("MovingAverage.update", batch, self.granularity, self._range)
        old = new if self._range is None else self._range
        c = np.float32(self.constant)
        self._range = tuple(np.asarray(m + c * (x - m)) for m, x in zip(old, new))
        self.batches += 1

    def merge(self, other: "MovingAverage") -> None:
        """The mean of both ranges, weighted by batches."""
        require_same("MovingAverage.merge", (self.granularity, self.constant), (other.granularity, other.constant))
        self._range = weighted_mean(self._range, self.batches, other._range, other.batches)
        self.batches += other.batches

    def ranges(self) -> Range:
        """(lo, hi) in the shape of the scales."""
        require_data("MovingAverage.ranges", self._range)
        return self._range

    def affine(self, rule: Rule | str) -> Range:
        """(scale, zero_point) for the range; see parameters.affine."""
        return affine(*self.ranges(), rule)


def weighted_mean(a: Range | None, m: int, b: Range | None, n: int) -> Range | None:
    """(m a + n b) / (m + n) for both ends in float64, rounded to float32; None counts as nothing."""
    if a is None or b is None:
        return b if a is None else a
    return tuple(np.asarray(((m * x.astype(np.float64) + n * y) / (m + n)).astype(np.float32)) for x, y in zip(a, b))


def _extremes(where: str, batch: np.ndarray, granularity: Granularity, seen: Range | None) -> Range:
    rows = rows_of(where, batch, granularity, None if seen is None else seen[0].shape)
    shape = groups.scale_shape(where, np.shape(batch), granularity)
    zero = np.float32(0)  # x + 0 turns -0 into 0, which of the two a minimum returns depends on the processor
    return (rows.min(axis=1) + zero).reshape(shape), (rows.max(axis=1) + zero).reshape(shape)
