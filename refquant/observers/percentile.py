"""Percentile: the magnitude that a share of all values does not exceed.

    amax = upper edge of the first bin where the cumulated share of |x| reaches percentile / 100
    range = (-amax, amax), or (0, amax) where no value was negative

Error    at most one bin (magnitudes.py): the range covers at least the share asked for. 100 gives the largest value.
Merging  exact.
Source   Wu et al. 2020, arXiv:2004.09602, sec. 4; 99.99 is modelopt's default.
Differs  dialect "modelopt": the lower edge of that bin, bins appended at the width of the first batch.
"""

import numpy as np

from refquant.codecs import Rule
from refquant.errors import RangeError
from refquant.observers.magnitudes import Magnitudes
from refquant.observers.parameters import Range, affine, require_data, require_same

DIALECTS = ("", "modelopt")


class Percentile:
    """Counts of magnitudes and the share of them to keep."""

    def __init__(self, percentile: float = 99.99, bins: int = 2048, dialect: str = ""):
        if not 0 < percentile <= 100:
            raise RangeError(f"Percentile: percentile = {percentile}, expected a number in (0, 100]")
        if dialect not in DIALECTS:
            raise RangeError(f"Percentile: dialect = {dialect!r}, expected one of {list(DIALECTS)}")
        self.percentile, self.dialect = percentile, dialect
        self.magnitudes = Magnitudes(bins, "appending" if dialect else "doubling")

    def update(self, batch: np.ndarray) -> None:
        """Count a batch. Raises ShapeError, NonFiniteError, RangeError, QuantError (dtype)."""
        self.magnitudes.update(batch)

    def merge(self, other: "Percentile") -> None:
        """Add the counts of another observer: exact."""
        require_same("Percentile.merge", (self.percentile, self.dialect), (other.percentile, other.dialect))
        self.magnitudes.merge(other.magnitudes)

    def ranges(self) -> Range:
        """(-amax, amax) or (0, amax), both ()."""
        m = self.magnitudes
        require_data("Percentile.ranges", m.counts)
        share = np.cumsum(m.counts / m.counts.sum())
        index = min(int(np.searchsorted(share, self.percentile / 100)), len(share) - 1)
        return symmetric_range(m, m.edge(index + (self.dialect == "")))

    def affine(self, rule: Rule | str) -> Range:
        """(scale, zero_point) for the range; see parameters.affine."""
        return affine(*self.ranges(), rule)


def symmetric_range(magnitudes: Magnitudes, amax: np.float32) -> Range:
    """(-amax, amax), or (0, amax) where no value was negative."""
    return np.asarray(-amax if magnitudes.negative else np.float32(0)), np.asarray(amax)
