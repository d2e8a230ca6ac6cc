"""Equal-mass tables: levels that each stand for the same share of the data.

    level[i] = Q((i + 1/2) / k),  i = 0 .. k-1        Q(p): the quantile function of the data

The code of a value is uniform then, which is the most information k codes can carry; it is not the least error, which
is kmeans.py. NF4 is this idea for Gaussians, with 0 and both ends kept as levels.

Q          by linear interpolation of the order statistics, the sorted value at position p (n - 1): float64, the result
           float32.
Repeats    data with fewer than k distinct values gives equal levels; a codebook needs ascending ones, so `ascending`
           moves a level that does not exceed the one before it to the next float32.
Source     Dettmers et al. 2021, arXiv:2110.02861, sec. 2 (quantile quantization); Hyndman & Fan 1996, definition 7.
"""

import numpy as np

from refquant.errors import RangeError
from refquant.inputs import as_float32


def table(x: np.ndarray, k: int) -> np.ndarray:
    """The k levels, ascending float32. Raises RangeError for k outside 2..256 and as inputs.as_float32 does."""
    if not 2 <= k <= 256:
        raise RangeError(f"quantile.table: k = {k}, expected 2 to 256 levels")
    values = np.sort(as_float32("quantile.table", x), axis=None)
    return ascending(at_shares(values, (np.arange(k) + 0.5) / k))


def at_shares(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Q(shares) of sorted `values` (n,), float32."""
    position = shares * (values.size - 1)
    left = position.astype(np.int64)
    right = np.minimum(left + 1, values.size - 1)
    part = position - left
    return (values[left] * (1 - part) + values[right] * part).astype(np.float32)


def ascending(levels: np.ndarray) -> np.ndarray:
    """The same levels, each raised where needed to the float32 after the one before it."""
    levels = levels.copy()
    for i in range(1, levels.size):
        if levels[i] <= levels[i - 1]:
            levels[i] = np.nextafter(levels[i - 1], np.float32(np.inf))
    return levels
