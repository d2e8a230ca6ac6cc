"""Entropy: the clipping that loses least information, TensorRT's calibration.

    for i = levels .. bins       levels = 2^(bits-1) of magnitude (2^bits where the codes are unsigned)
        P = bins[0..i-1], what is beyond added to the last
        Q = bins[0..i-1] summed into `levels` equal stretches, each spread evenly over its bins that are not empty
        divergence[i] = sum P log(P / Q), both normalized; infinite where Q = 0 and P is not
    amax = (i + 1/2) * width for the i with the least divergence, the first of equals, at most the largest value

Range    (-amax, amax), or (0, amax) where no value was negative.
Merging  exact (magnitudes.py).
Source   Migacz 2017, 8-bit inference with TensorRT, GTC, slides 37-39.
Differs  dialect "modelopt": bins[0] is replaced by bins[1], the last of equal divergences wins, amax = i * width, and
         bins are appended at the width of the first batch. Its normalization is a no-op; scipy's entropy does it.
"""

import numpy as np

from refquant.codecs import Rule
from refquant.errors import RangeError
from refquant.observers.magnitudes import Magnitudes
from refquant.observers.parameters import Range, affine, require_data, require_same
from refquant.observers.percentile import DIALECTS, symmetric_range


class Entropy:
    """Counts of magnitudes, and the number of levels they are to be told apart by."""

    def __init__(self, bits: int = 8, signed: bool = True, bins: int = 2048, dialect: str = ""):
        if not 2 <= bits <= 8 or bins <= 1 << bits:
            raise RangeError(f"Entropy: bits, bins = {bits}, {bins}, expected 2..8 bits and more than 2^bits bins")
        if dialect not in DIALECTS:
            raise RangeError(f"Entropy: dialect = {dialect!r}, expected one of {list(DIALECTS)}")
        self.levels, self.dialect = 1 << (bits - signed), dialect
        self.magnitudes = Magnitudes(bins, "appending" if dialect else "doubling")

    def update(self, batch: np.ndarray) -> None:
        """Count a batch. Raises ShapeError, NonFiniteError, RangeError, QuantError (dtype)."""
        self.magnitudes.update(batch)

    def merge(self, other: "Entropy") -> None:
        """Add the counts of another observer: exact."""
        require_same("Entropy.merge", (self.levels, self.dialect), (other.levels, other.dialect))
        self.magnitudes.merge(other.magnitudes)

    def ranges(self) -> Range:
        """(-amax, amax) or (0, amax), both ()."""
        m = self.magnitudes
        require_data("Entropy.ranges", m.counts)
        bins = m.counts.astype(np.float64)
        if not self.dialect:  # empty bins above the largest value say nothing
            bins = bins[: max(self.levels, int(np.flatnonzero(bins)[-1]) + 1)]
        else:
            bins[0] = bins[1]
        start = 128 if self.dialect else self.levels
        divergence = np.array([_divergence(bins, i, self.levels) for i in range(start, len(bins) + 1)])
        if self.dialect:
            best = start + len(divergence) - 1 - int(np.argmin(divergence[::-1]))
            return symmetric_range(m, m.edge(best))
        return symmetric_range(m, m.edge(start + int(np.argmin(divergence)) + 0.5))

    def affine(self, rule: Rule | str) -> Range:
        """(scale, zero_point) for the range; see parameters.affine."""
        return affine(*self.ranges(), rule)


def _divergence(bins: np.ndarray, kept: int, levels: int) -> float:
    """Kullback-Leibler divergence of the first `kept` bins, clipped, from themselves in `levels` stretches."""
    shown = bins[:kept]
    stretch = np.searchsorted(np.linspace(0, kept, levels + 1), np.arange(kept), side="right") - 1
    sums = np.bincount(stretch, weights=shown, minlength=levels)
    occupied = np.bincount(stretch, weights=shown > 0, minlength=levels)
    Q = np.where(shown > 0, (sums / np.maximum(occupied, 1))[stretch], 0.0)
    P = shown.copy()
    P[-1] += bins[kept:].sum()
    known = P > 0
    if not (Q[known] > 0).all():
        return np.inf
    P, Q = P[known] / P.sum(), Q[known] / Q.sum()
    return float(np.sum(P * np.log(P / Q)))
