"""k-means in one dimension: k levels that make the weighted squared error least.

    minimize  sum_i w[i] (x[i] - level[code[i]])^2        w = 1 unless weights are given

Sorted data has clusters that are intervals, so a solution is k - 1 cuts, and sums over intervals come from prefix sums.

lloyd    alternates: a cut is the midpoint of two levels, a level is the weighted mean of its interval. It starts from
         `spread` and stops when no cut moves, or after `iterations`. A local minimum, within some 10 % of the least
         error up to 16 levels; fast: the data is sorted once and a round costs k binary searches. An interval without
         weight keeps its level.
spread   levels as dense as the cube root of the data's density, which is the best for many levels: 16 k cells of equal
         mass, each counting as width^(2/3). (Equal-mass levels leave the tails to one level each, for good.)
optimal  dynamic programming, cost[j, n] = min_m cost[j-1, m] + error(m .. n): the global minimum, in O(k n^2) time and
         O(n^2) memory for n distinct values, at most 4096.

Memory     lloyd: 12 bytes a value besides x; with weights 40.
Arithmetic float64 on float32 data; the levels are rounded to float32 at the end, and raised where two fall together.
Source     Lloyd 1957, published 1982; Panter & Dite 1951 (the cube root); Wang & Song 2011 (Ckmeans.1d.dp); weighting
           by the Fisher information: Kim et al. 2023, SqueezeLLM, arXiv:2306.07629, eq. 4; KVQuant, arXiv:2401.18079.
"""

from typing import NamedTuple

import numpy as np

from refquant.errors import RangeError, ShapeError, require_finite
from refquant.groups import SLAB
from refquant.inputs import as_float32
from refquant.quantile import ascending, at_shares

MOST = 4096


class _Sums(NamedTuple):
    """Sorted values, and for each position the sums of everything before it: weight and weight * value."""

    values: np.ndarray  # (n,) float32
    weight: np.ndarray | None  # (n + 1,) float64; None: every weight is 1
    first: np.ndarray  # (n + 1,) float64

    def mass(self, edges: np.ndarray) -> np.ndarray:
        """Weights between neighbouring edges."""
        return np.diff(edges if self.weight is None else self.weight[edges])


def lloyd(x: np.ndarray, k: int, weights: np.ndarray | None = None, iterations: int = 1000) -> np.ndarray:
    """k ascending float32 levels. Raises RangeError (k, weights), ShapeError, NonFiniteError."""
    values, w = _checked("kmeans.lloyd", x, k, weights)
    sums = _prefix(values, w)
    levels, cuts = spread(sums.values, k), None
    for _ in range(iterations):
        previous, cuts = cuts, np.searchsorted(sums.values, _at_most((levels[1:] + levels[:-1]) / 2), side="right")
        if previous is not None and np.array_equal(cuts, previous):
            break
        edges = np.r_[0, cuts, sums.values.size]
        mass = sums.mass(edges)
        levels = np.where(mass > 0, np.diff(sums.first[edges]) / np.where(mass > 0, mass, 1), levels)
    return ascending(np.sort(levels).astype(np.float32))


def spread(values: np.ndarray, k: int) -> np.ndarray:
    """Where `lloyd` starts on sorted values: k levels, float64."""
    cells = 16 * k
    edges = at_shares(values, np.arange(cells + 1) / cells).astype(np.float64)
    filled = np.r_[0, np.cumsum(np.diff(edges) ** (2 / 3))]
    return np.interp((np.arange(k) + 0.5) / k * filled[-1], filled, edges)


def optimal(x: np.ndarray, k: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The k ascending float32 levels of least error; RangeError for more than 4096 distinct values."""
    values, w = _checked("kmeans.optimal", x, k, weights)
    distinct, where = np.unique(values, return_inverse=True)
    n = distinct.size
    if n > MOST:
        raise RangeError(f"kmeans.optimal: x has {n} distinct values, expected at most {MOST}; lloyd takes any number")
    if n <= k:
        return ascending(np.r_[distinct, np.repeat(distinct[-1:], k - n)])
    w = np.bincount(where.reshape(-1), w, n).astype(np.float64)
    sums = _prefix(distinct, w)
    second = _cumulated(w * distinct.astype(np.float64) ** 2)
    start, stop = np.arange(n)[:, None], np.arange(1, n + 1)[None]
    mass = np.where(start < stop, sums.weight[stop] - sums.weight[start], 0)
    moment, square = sums.first[stop] - sums.first[start], second[stop] - second[start]
    error = np.where(mass > 0, square - moment**2 / np.where(mass > 0, mass, 1), 0)  # [start, stop - 1]
    error[start >= stop] = np.inf
    cost, back = error[0], []  # cost[i]: of values 0 .. i in the clusters so far
    for _ in range(k - 1):
        total = cost[:-1, None] + error[1:]  # the last cluster starts after value m
        back.append(np.r_[0, 1 + total.argmin(axis=0)[1:]])
        cost = np.r_[np.inf, total.min(axis=0)[1:]]
    edges = [n]
    for starts in reversed(back):
        edges.append(int(starts[edges[-1] - 1]))
    edges = np.array([0, *edges[::-1]])
    mass, moment = sums.mass(edges), np.diff(sums.first[edges])
    middle = distinct[edges[:-1]]
    return ascending(np.where(mass > 0, moment / np.where(mass > 0, mass, 1), middle).astype(np.float32))


def _at_most(cuts: np.ndarray) -> np.ndarray:
    """The largest float32 that are not above `cuts`: a search for float64 would convert all values."""
    narrowed = cuts.astype(np.float32)
    return np.where(narrowed > cuts, np.nextafter(narrowed, np.float32(-np.inf)), narrowed)


def _prefix(values: np.ndarray, weights: np.ndarray | None) -> _Sums:
    if weights is None:
        ordered = np.sort(values)
        return _Sums(ordered, None, _cumulated(ordered))
    order = np.argsort(values, kind="stable")
    ordered, w = values[order], weights[order].astype(np.float64)
    return _Sums(ordered, _cumulated(w), _cumulated(w * ordered))


def _cumulated(terms: np.ndarray) -> np.ndarray:
    """0 and the running sums, float64."""
    sums = np.zeros(terms.size + 1)
    for start in range(0, terms.size, SLAB):  # a cumsum of float32 into float64 would copy all of it first
        part = terms[start : start + SLAB]
        running = sums[start + 1 : start + 1 + part.size]
        np.cumsum(part, dtype=np.float64, out=running)
        running += sums[start]
    return sums


def _checked(where: str, x: np.ndarray, k: int, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    if not 2 <= k <= 256:
        raise RangeError(f"{where}: k = {k}, expected 2 to 256 levels")
    values = as_float32(where, x).reshape(-1)
    if weights is None:
        return values, None
    w = np.asarray(weights, np.float64)
    if w.shape != np.shape(x):
        raise ShapeError(f"{where}: weights.shape = {w.shape}, expected that of x, {np.shape(x)}")
    require_finite(where, w, "weights")
    if (w < 0).any() or not w.any():
        raise RangeError(f"{where}: weights.min() = {w.min()}, weights.max() = {w.max()}, expected >= 0 and one > 0")
    return values, w.reshape(-1)
