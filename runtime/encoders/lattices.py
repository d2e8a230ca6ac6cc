"""The grids of the I-quants as compiled encoders read them, and what each of them needs: one block at a time, no lanes.

    Tables     a lattice of `refquant.gguf.i_neighbours` as arrays, the facts of a grid and of its neighbours
    f(x, y, importance, first, levels, point, start, count, neighbours)     `block_encoder` compiles it

x (blocks, values) float32, y (blocks, bytes) uint8, importance (blocks of a row, values) float32 or empty, `first` the
number of block 0 in its matrix. It returns 0, or 1 + the number of a block for which ggml aborts.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import types

from refquant.gguf.i_neighbours import lattice
from runtime.encoders.signatures import FLOATS, matrix
from runtime.jit import array_entry, inlined_as_c

INTEGERS = types.Array(types.int32, 1, "C")
block_encoder = array_entry(
    types.int64(FLOATS, matrix(types.uint8), FLOATS, types.int64, FLOATS, INTEGERS, INTEGERS, INTEGERS, INTEGERS)
)
MAGIC = np.float32(1.5 * 2**23)
LARGEST = np.finfo(np.float32).max


class Tables(NamedTuple):
    """A grid: `packed` combinations of codes index point, start and count."""

    levels: np.ndarray  # (points, width) float32: 2 code + 1, or code - 1 for IQ1
    point: np.ndarray  # the number of the point, -1 where there is none
    start: np.ndarray
    count: np.ndarray
    neighbours: np.ndarray


@cache
def tables(name: str) -> Tables:
    """The tables of a grid, built on first use in up to half a second."""
    found = lattice(name)
    codes = found.codes.astype(np.float32)
    levels = codes - np.float32(1) if name == "IQ1_S" else 2 * codes + np.float32(1)
    lists = (found.point, found.start, found.count, found.neighbours)
    return Tables(levels, *(np.ascontiguousarray(a, np.int32) for a in lists))


@inlined_as_c
def nearest_int(v):
    """float32 -> int64, half to even, as ggml reads it off the low bits of v + 1.5 * 2^23."""
    return np.int64(np.float32(v + MAGIC).view(np.int32) & np.int32(0x7FFFFF)) - 0x400000


@inlined_as_c
def cheapest(levels, delta, near, scale, x, w):
    """The first neighbour of the least sum w (scale (level + delta) - x)^2; -1 where none is below the largest float.

    near: numbers of points; x, w: as many as a point has levels.
    """
    least, best = LARGEST, -1
    for j in range(len(near)):
        cost = np.float32(0)
        for k in range(len(x)):
            gap = scale * (levels[near[j], k] + delta) - x[k]
            cost += w[k] * gap * gap
        if cost < least:
            least, best = cost, near[j]
    return best
