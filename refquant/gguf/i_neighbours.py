"""The grids of the I-quants as their encoders see them: codes, and the neighbours of what is not on the grid.

An encoder rounds each weight of a run of `width` to a code 0 .. top. Only some combinations of codes are points of the
grid. Any other takes the cheapest of its neighbours, which depend on the codes alone and therefore lie in a table:

    neighbours    the points at the `rings` least distances |point - codes|^2 that occur, by ascending distance, then
                  by ascending number of the point
    cheapest      argmin over them of sum_k w[k] (scale * level[point, k] - x[k])^2, the first of equals

A combination is spelled as one number, packed = sum_k codes[k] << (bits * k).

Order    (w * gap) * gap with gap = scale * level - x in float32, summed with k ascending.
Source   ggml/src/ggml-quants.c, iq2xs_init_impl, iq3xs_init_impl, iq2_find_best_neighbour, iq3_find_best_neighbour,
         iq1_find_best_neighbour2.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from refquant.errors import RangeError
from refquant.gguf.i_grids import GRIDS
from refquant.gguf.i_quants import grid

RINGS = {"IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ3_XXS": 2, "IQ3_S": 3, "IQ1_S": 3}
PART = 4096  # cases at a time, so that their arrays stay within the caches


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """One grid with its neighbours. The arrays of combinations are indexed by `packed`."""

    bits: int  # of a code in a packed combination: 2 for three levels, 3 for eight
    top: int  # the greatest code
    codes: np.ndarray  # (points, width) uint8
    point: np.ndarray  # (combinations,) the number of the point, -1 where there is none
    start: np.ndarray  # (combinations,) where its neighbours begin in `neighbours`
    count: np.ndarray  # (combinations,) int16, how many they are
    neighbours: np.ndarray  # numbers of points

    @property
    def width(self) -> int:
        return self.codes.shape[1]

    @property
    def odd(self) -> np.ndarray:
        """2 code + 1: (points, width) float32."""
        return 2 * self.codes.astype(np.float32) + 1

    def pack(self, codes: np.ndarray) -> np.ndarray:
        """(..., width, groups) codes -> (..., groups) packed."""
        shifts = self.bits * np.arange(codes.shape[-2], dtype=np.int32)[:, None]
        return np.bitwise_or.reduce(codes.astype(np.int32) << shifts, axis=-2)


@cache
def lattice(name: str) -> Lattice:
    """The grid of that name in `i_grids`, with its neighbours: built on first use, in up to half a second."""
    levels, width, _ = GRIDS[name]
    bits = 2 if len(levels) == 3 else 3
    shifts = bits * np.arange(width)
    codes = np.searchsorted(np.array(levels, np.float32), grid(name))  # (points, width)
    point = np.full(1 << (bits * width), -1, np.intp)
    point[(codes << shifts).sum(axis=1)] = np.arange(len(codes))
    combinations = np.indices((len(levels),) * width).reshape(width, -1).T
    packed = (combinations << shifts).sum(axis=1)
    missing = np.flatnonzero(point[packed] < 0)
    start, count = np.zeros_like(point), np.zeros(point.shape, np.int16)
    lists, length = [], 0
    for part in np.array_split(missing, 16):  # a few megabytes at a time
        row, near = _nearest(combinations[part], codes, RINGS[name])
        start[packed[part]] = length + np.searchsorted(row, np.arange(len(part)))
        count[packed[part]] = np.bincount(row)
        length += len(near)
        lists.append(near)
    return Lattice(bits, len(levels) - 1, codes.astype(np.uint8), point, start, count, np.concatenate(lists))


def _nearest(combinations: np.ndarray, codes: np.ndarray, rings: int) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours of all `combinations` (rows, width), one after the other: the row of each, and its number."""
    squares = (combinations**2).sum(axis=1)[:, None] + (codes**2).sum(axis=1)
    distance = squares - 2 * (combinations @ codes.T)  # (rows, points), integers
    ranked = np.sort(distance * len(codes) + np.arange(len(codes)), axis=1)
    distance, number = np.divmod(ranked, len(codes))
    ring = np.cumsum(np.diff(distance, axis=1, prepend=distance[:, :1]) > 0, axis=1)
    row, rank = np.nonzero(ring < rings)
    return row, number[row, rank]


def cheapest(
    table: Lattice,
    levels: np.ndarray,
    packed: np.ndarray,
    scale: np.ndarray,
    run: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
) -> np.ndarray:
    """The number of the cheapest neighbour of each case.

    A case has the codes packed[j], a scale[j], and the weights x[run[j]] with their w[run[j]]: packed, scale and run
    are (cases,), x and w (runs, width), `levels` (points, width), floats in float32.

    Raises RangeError where no cost is below the largest float32, for which ggml aborts.
    """
    found = np.empty(len(packed), np.intp)
    # The most neighbours first: in each part, the cases that have a j-th neighbour then come first.
    order = np.argsort(-table.count[packed], kind="stable")
    for part in np.split(order, range(PART, len(order), PART)):
        some = run[part]
        found[part] = _cheapest(table, levels, packed[part], scale[part], x.take(some, axis=0), w.take(some, axis=0))
    if (found < 0).any():
        peak = np.abs(x[run[found < 0]]).max()
        raise RangeError(f"i_neighbours.cheapest: |x| = {peak}, expected weights whose errors stay within float32")
    return found


def _cheapest(
    table: Lattice, levels: np.ndarray, packed: np.ndarray, scale: np.ndarray, x: np.ndarray, w: np.ndarray
) -> np.ndarray:
    start, count = table.start[packed], table.count[packed]
    scale = scale[:, None].repeat(x.shape[1], axis=1)
    least = np.full(len(packed), np.finfo(np.float32).max)
    best = np.full(len(packed), -1, np.intp)
    for j in range(count.max(initial=0)):
        m = np.count_nonzero(count > j)
        number = table.neighbours[start[:m] + j]
        gap = levels.take(number, axis=0)  # (m, width)
        gap *= scale[:m]
        gap -= x[:m]
        terms = w[:m] * gap
        terms *= gap
        cost = terms[:, 0].copy()
        for k in range(1, terms.shape[1]):
            cost += terms[:, k]
        better = cost < least[:m]
        np.copyto(least[:m], cost, where=better)
        np.copyto(best[:m], number, where=better)
    return best
