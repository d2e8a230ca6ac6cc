"""Histogram of all values, and the part of its range that quantizes with the least squared error.

    bin of x        min(floor((x - lo) / (hi - lo) * bins), bins - 1)             2048 bins
    a wider range   each old bin is cut into 16 parts, each part goes whole to the new bin that holds its middle
    search          start at the whole range; alpha = 0, beta = 1
                    l, r = first bins where the cumulated share reaches alpha + 1e-5, falls to beta - 1e-5
                    move the end that can skip more bins; stop when the error grows
    error           sum over bins of  count / width * integral of (x - nearest level)^2
                    2^bits levels in the middle of equal cells from the first to the last kept bin; what lies outside
                    belongs to the outermost levels

Arithmetic  the bin of a value in float32, counts and everything after in float64. torch.ao searches in float32; its
            answer may be a step of the search away.
Constant    data with lo = hi is kept as one bin and answers (lo, hi).
Merging     both histograms move to the union of the ranges. A count moves by less than one of its old bins, so
            every quantile by at most one bin of the union for each time that its histogram was widened.
Per tensor  only, as in torch.ao: a histogram for each channel would be larger than the channel.
Source      torch.ao.quantization HistogramObserver, after caffe2/quantization/server/norm_minimization.cc.
"""

import numpy as np

from refquant import groups
from refquant.codecs import Rule
from refquant.errors import RangeError
from refquant.observers.parameters import Range, affine, require_data, require_same, rows_of

PARTS = 16  # of a bin, when it moves into other bins
STEP = 1e-5  # of the cumulated share, in the search


class Histogram:
    """Counts of all values in `bins` equal bins between the smallest and the largest; `bits` of the codes to come."""

    def __init__(self, bins: int = 2048, bits: int = 8):
        if not 2 <= bins <= 1 << 20 or not 1 <= bits <= 16:
            raise RangeError(f"Histogram: bins, bits = {bins}, {bits}, expected 2..2^20 bins and 1..16 bits")
        self.bins, self.bits = bins, bits
        self.counts: np.ndarray | None = None  # float64 (bins,): a bin may be spread over others
        self.lo = self.hi = np.float32(0)

    def update(self, batch: np.ndarray) -> None:
        """Count the values of a batch. Raises ShapeError, NonFiniteError, RangeError, QuantError (dtype)."""
        x = rows_of("Histogram.update", batch, groups.TENSOR, None)[0]
        self._widen(x.min(), x.max())
        self.counts = self.counts + np.bincount(_bin(x, self.lo, self.hi, self.bins), minlength=self.bins)

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another observer, within one bin of the common range."""
        require_same("Histogram.merge", (self.bins, self.bits), (other.bins, other.bits))
        if other.counts is not None:
            self._widen(other.lo, other.hi)
            self.counts = self.counts + _moved(other.counts, other.lo, other.hi, self.lo, self.hi)

    def ranges(self) -> Range:
        """(lo, hi) with the least squared error, both ()."""
        require_data("Histogram.ranges", self.counts)
        if self.lo == self.hi:
            return np.asarray(self.lo), np.asarray(self.hi)
        first, last = _search(self.counts, self.bits)
        width = (self.hi.astype(np.float64) - self.lo) / self.bins
        ends = self.lo + width * first, self.lo + width * (last + 1)
        return tuple(np.asarray(end, np.float32) for end in ends)

    def affine(self, rule: Rule | str) -> Range:
        """(scale, zero_point) for the range; see parameters.affine."""
        return affine(*self.ranges(), rule)

    def _widen(self, lo: np.float32, hi: np.float32) -> None:
        if self.counts is None:
            self.counts, self.lo, self.hi = np.zeros(self.bins), lo, hi
        new_lo, new_hi = np.minimum(lo, self.lo), np.maximum(hi, self.hi)
        self.counts = _moved(self.counts, self.lo, self.hi, new_lo, new_hi)
        self.lo, self.hi = new_lo, new_hi


def _bin(x: np.ndarray, lo: np.floating, hi: np.floating, bins: int) -> np.ndarray:
    """Index of the bin of each x, in the dtype of x; all values of an empty range are in bin 0."""
    if lo == hi:
        return np.zeros(x.shape, np.intp)
    with np.errstate(over="ignore"):  # of hi - lo: then in halves
        span, start = hi - lo, x - lo
    if not np.isfinite(span):
        span, start = hi / 2 - lo / 2, x / 2 - lo / 2
    return np.clip((start / span * x.dtype.type(bins)).astype(np.intp), 0, bins - 1)


def _moved(counts: np.ndarray, lo: np.float32, hi: np.float32, new_lo: np.float32, new_hi: np.float32) -> np.ndarray:
    """The counts in the bins of a wider range; the same array where the range is the same."""
    if (lo, hi) == (new_lo, new_hi):
        return counts
    bins, (a, b) = len(counts), (np.float64(lo), np.float64(hi))
    middles = a + (b - a) * ((np.arange(bins * PARTS) + 0.5) / (bins * PARTS))
    target = _bin(middles, np.float64(new_lo), np.float64(new_hi), bins)
    return np.bincount(target, weights=np.repeat(counts / PARTS, PARTS), minlength=bins)


def _search(counts: np.ndarray, bits: int) -> tuple[int, int]:
    """First and last bin of the range with the least error."""
    total, cumulated = float(counts.sum()), np.cumsum(counts)
    first, last, least = 0, len(counts) - 1, np.inf
    alpha, beta = 0.0, 1.0
    while alpha < beta:
        low, high = alpha + STEP, beta - STEP
        left = min(max(first, int(np.searchsorted(cumulated, low * total))), last)
        right = max(min(last, int(np.searchsorted(cumulated, high * total, side="right")) - 1), first)
        if left - first > last - right:
            alpha, candidate = low, (left, last)
        else:
            beta, candidate = high, (first, right)
        if candidate == (first, last):
            continue
        error = _squared_error(counts, *candidate, 1 << bits)
        if error > least:
            break
        (first, last), least = candidate, error
    return first, last


def _squared_error(counts: np.ndarray, first: int, last: int, levels: int) -> float:
    """Squared error, in units of bin widths, when `levels` cells cover the bins first..last.

    A bin reaches from the cell of its begin over whole cells to the cell of its end; in each cell the integral of the
    square runs from the cell's middle:

          begin                                   end
        --|----.-----|-----.-----|-----.-----|-----.-|---
          |    middle|     whole cells       |     middle
    """
    cell = (last - first + 1) / levels
    begin = np.arange(len(counts)) - float(first)
    end = begin + 1
    of_begin = np.clip(np.floor(begin / cell), 0, levels - 1)
    of_end = np.clip(np.floor(end / cell), 0, levels - 1)
    tail = _integral(begin - (of_begin + 0.5) * cell, cell / 2)
    whole = (of_end - of_begin - 1) * _integral(-cell / 2, cell / 2)
    head = _integral(-cell / 2, end - (of_end + 0.5) * cell)
    return float(np.sum(counts * (tail + whole + head)))


def _integral(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray | float:
    """Integral of t^2 from a to b."""
    return (b * b * b - a * a * a) / 3
