"""Counts of |x| in bins of equal width, that two machines can add up: what percentile and entropy look at.

    bin of x      floor(|x| / width)
    doubling      width = 2^e; when a value does not fit into `bins` bins, e grows and neighbouring bins become one.
                  floor(floor(y) / 2) = floor(y / 2), so the counts are those that one observer of all data would have:
                  adding histograms is exact, in any order and any split of the data. Between half and all of the bins
                  are used.
    appending     the dialect of modelopt: width = max|x| / bins of the first batch; more bins are appended. Histograms
                  add up only if their widths are equal.

Arithmetic  float64, exact for a width of 2^e; counts int64. A largest value on the edge of the last bin belongs to it.
Source      Migacz 2017, 8-bit inference with TensorRT, GTC; modelopt, torch/quantization/calib/histogram.py.
"""

import math

import numpy as np

from refquant import groups
from refquant.errors import QuantError, RangeError
from refquant.observers.parameters import require_same, rows_of

MOST = 1 << 24  # bins that appending may lead to
SMALLEST = -160  # exponent of the narrowest bins: below the smallest subnormal float32


class Magnitudes:
    """Counts, bin width, the largest |x| and whether any value was negative."""

    def __init__(self, bins: int = 2048, growth: str = "doubling"):
        if not 2 <= bins <= 1 << 20 or growth not in ("doubling", "appending"):
            raise RangeError(f"Magnitudes: bins, growth = {bins}, {growth!r}, expected 2..2^20, doubling or appending")
        self.bins, self.growth = bins, growth
        self.counts: np.ndarray | None = None  # int64
        self.width, self.largest, self.negative = 2.0**SMALLEST, 0.0, False

    def update(self, batch: np.ndarray) -> None:
        """Count a batch. Raises ShapeError, NonFiniteError, RangeError, QuantError (dtype)."""
        x = rows_of("Magnitudes.update", batch, groups.TENSOR, None)[0]
        magnitude = np.abs(x).astype(np.float64)
        amax = float(magnitude.max())
        if self.growth == "appending" and not self.largest:
            self.width = amax / self.bins or self.width
        self._grow(amax)
        found = np.bincount(self._bin(magnitude), minlength=len(self.counts))
        self.counts = self.counts + found
        self.negative |= bool((x < 0).any())

    def merge(self, other: "Magnitudes") -> None:
        """Add the counts of another: exact; QuantError for appended bins of other widths."""
        require_same("Magnitudes.merge", (self.bins, self.growth), (other.bins, other.growth))
        if other.counts is None:
            return
        if self.counts is None and self.growth == "appending":
            self.width = other.width
        if self.growth == "appending" and self.width != other.width:
            raise QuantError(
                f"Magnitudes.merge: width = {other.width:.6g}, expected {self.width:.6g}, or growth='doubling' in both"
            )
        width = other.width
        self._grow(other.largest, at_least=width)
        index = np.arange(len(other.counts)) >> min(_exponent(self.width) - _exponent(width), 63)
        moved = np.zeros_like(self.counts)
        np.add.at(moved, index, other.counts)
        self.counts = self.counts + moved
        self.negative |= other.negative

    def edge(self, index: float) -> np.float32:
        """Where bin `index` begins, as float32; never beyond the largest value."""
        return np.float32(min(index * self.width, self.largest))

    def _bin(self, magnitude: np.ndarray) -> np.ndarray:
        return np.minimum((magnitude / self.width).astype(np.int64), len(self.counts) - 1)

    def _grow(self, amax: float, at_least: float = 0.0) -> None:
        """Make room for amax, and the width no less than that of what is to be added."""
        needed = math.ceil(amax / self.width)
        if self.growth == "appending" and needed > MOST:
            raise RangeError(f"Magnitudes.update: max|x| = {amax:.6g}, expected at most 2^24 bins of {self.width:.6g}")
        self.counts = np.zeros(self.bins, np.int64) if self.counts is None else self.counts
        self.largest = max(self.largest, amax)
        if self.growth == "appending":
            self.counts = np.pad(self.counts, (0, max(0, needed - len(self.counts))))
            return
        needed = 2.0 ** math.frexp(self.largest / self.bins)[1]  # largest / bins < 2^exponent
        width = max(self.width, at_least, needed if self.largest else 0.0)
        halvings = _exponent(width) - _exponent(self.width)
        if halvings:
            target = np.arange(self.bins) >> min(halvings, 63)
            self.counts, old = np.zeros_like(self.counts), self.counts
            np.add.at(self.counts, target, old)
            self.width = width


def _exponent(width: float) -> int:
    """e of a width 2^e."""
    return math.frexp(width)[1] - 1
