"""The encoders of IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S: one search with five sets of parameters.

A group of 16 or 32 weights shares a scale. Signs are stored apart, so the search is for magnitudes x, and for odd
numbers q = 2 code + 1 in place of the decoder's levels, which are about 8 (IQ2), 4 (IQ3_XXS) or 1 (IQ3_S) times as
large. It looks for a scale s and points q of the grid that minimize

    sum_i w_i (x_i - s q_i)^2

1  weigh    w = v sqrt(m + x^2) (IQ2_XXS, IQ2_XS) or v sqrt(2 m + x^2), v the importance, m the mean of x^2 over the
            block; without importance x^2 (IQ3) or m / 2 + x^2 (IQ2_S); IQ2_XXS and IQ2_XS need importance
2  fold     where eight weights have seven stored signs, the number of minuses must be even: if it is odd, the weight
            of the least w x^2 changes its sign, and its magnitude becomes -|x|
3  try      id = (q_max + step t) / max x for t = -tries .. tries; codes = (id x - 1) / 2 rounded, within 0 .. top; a
            run of codes off the grid takes its cheapest neighbour, by sqrt(w) under the scale 1 / id. For given q the
            best s is sum(w x q) / sum(w q^2), and lowers the error by s sum(w x q): the trial that lowers it most
            is kept, the first of equals
4  again    the same once more at id = 1 / s: for the runs that had been off the grid (IQ2_XS, IQ2_S, IQ3_XXS), for
            groups with such a run (IQ3_S), for all (IQ2_XXS). Then s is fitted to the new q
5  narrow   d = max s / 31 over the block, l = (s / d - 1) / 2 rounded, within 0 .. 15; then d times `fudge` as float16

IQ2_XXS takes 3 s0 for max x in step 3, s0 the best scale of x = s0 code with free codes 0 .. 4 (`positive_scale`).

Shapes   x (..., 256) float32; importance float32 >= 0 of a shape that broadcasts to x, or None -> (...) layout. Some
         500 bytes a weight are in use: `formats.quantize` goes slab by slab.
Order    as in `scale_search`: float32, never fused, sums from the first weight of a group to the last.
Zeros    a group whose max x is below `floor` has s = 0, codes 0 and no minus. If no s is above 0, so are d and all l,
         and where seven signs are stored, all points and signs.
Defect   of ggml, kept: an IQ3_S block with a group of zeros before others decodes wrongly, see `encode_iq3_s`.
Negative s comes from a flipped weight of great importance; it is stored as -s with all signs of its group changed.
Refused  NaN and infinities: NonFiniteError. Weights (from about 10^12 on) or importances so large that all errors
         overflow, for which ggml aborts: RangeError.
Source   ggml/src/ggml-quants.c, quantize_row_iq2_xxs_impl, _iq2_xs_, _iq2_s_, _iq3_xxs_, _iq3_s_.
"""

from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError, require_finite
from refquant.gguf import i_quants
from refquant.gguf.fields import join_fields
from refquant.gguf.i_neighbours import Lattice, cheapest, lattice
from refquant.gguf.importance import mean_square, weigh
from refquant.gguf.scale_search import columns, nearest_int, positive_scale, total


@dataclass(frozen=True, slots=True)
class Search:
    """What tells the five types apart."""

    name: str
    group: int  # weights under one scale
    seven_signs: bool
    tries: int
    step: float
    floor: float
    again: str  # runs that were "off" the grid, "groups" with such a run, "all"
    fudge: float


IQ2_XXS = Search("IQ2_XXS", 32, True, 6, 0.1, 1e-15, "all", 1.0)
IQ2_XS = Search("IQ2_XS", 16, True, 9, 0.1, 1e-15, "off", 1.0)
IQ2_S = Search("IQ2_S", 16, False, 9, 0.1, 1e-8, "off", 0.9875)
IQ3_XXS = Search("IQ3_XXS", 32, True, 15, 0.2, 1e-8, "off", 1.0125)
IQ3_S = Search("IQ3_S", 32, False, 9, 0.2, 1e-45, "groups", 1.033)  # the least float32: only zeros are below


@np.errstate(all="ignore")
def encode_iq2_xxs(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError, RangeError."""
    d, l, points, signs = _encode(IQ2_XXS, x, weigh(x, importance, mean_square(x, 1)))
    b = np.empty(d.shape, i_quants.IQ2_XXS)
    b["d"] = d
    b["qs"][..., 0] = join_fields(points.reshape(*d.shape, 8, 4), 8)
    b["qs"][..., 1] = join_fields(signs.reshape(*d.shape, 8, 4) & 127, 7) | l << 28
    return b


@np.errstate(all="ignore")
def encode_iq2_xs(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError, RangeError."""
    d, l, points, signs = _encode(IQ2_XS, x, weigh(x, importance, mean_square(x, 1)))
    b = np.empty(d.shape, i_quants.IQ2_XS)
    b["d"] = d
    b["qs"] = points | (signs & 127) << 9
    b["scales"] = join_fields(l.reshape(*d.shape, 8, 2), 4)
    return b


@np.errstate(all="ignore")
def encode_iq2_s(x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Return blocks. Raises NonFiniteError, RangeError."""
    mean = mean_square(x, 2)
    w = np.float32(0.25) * mean + x * x if importance is None else weigh(x, importance, mean)
    d, l, points, signs = _encode(IQ2_S, x, w)
    b = np.empty(d.shape, i_quants.IQ2_S)
    b["d"], b["qs"], b["signs"] = d, points & 255, signs
    b["qh"] = join_fields(points.reshape(*d.shape, 8, 4) >> 8, 2)
    b["scales"] = join_fields(l.reshape(*d.shape, 8, 2), 4)
    return b


@np.errstate(all="ignore")
def encode_iq3_xxs(x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Return blocks. Raises NonFiniteError, RangeError."""
    d, l, points, signs = _encode(IQ3_XXS, x, weigh(x, importance, mean_square(x, 2)))
    b = np.empty(d.shape, i_quants.IQ3_XXS)
    b["d"], b["qs"] = d, points
    b["signs"] = join_fields(signs.reshape(*d.shape, 8, 4) & 127, 7) | l << 28
    return b


@np.errstate(all="ignore")
def encode_iq3_s(x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Return blocks. Raises NonFiniteError, RangeError.

    A block with a group of zeros before a group of other weights decodes to other weights: ggml does not step over
    the zeros in qs and signs, so that what follows lies one group too early there, while qh and scales are in their
    places. The bytes are the contract, so it is the same here.
    """
    d, l, points, signs = _encode(IQ3_S, x, weigh(x, importance, mean_square(x, 2)))
    b = np.empty(d.shape, i_quants.IQ3_S)
    zeros_last = np.argsort(~x.reshape(*d.shape, 8, 32).any(axis=-1), axis=-1, kind="stable")[..., None]
    b["d"] = d
    b["qs"] = np.take_along_axis(points.reshape(*d.shape, 8, 8) & 255, zeros_last, axis=-2).reshape(*d.shape, 64)
    b["qh"] = join_fields(points.reshape(*d.shape, 8, 8) >> 8, 1)
    b["signs"] = np.take_along_axis(signs.reshape(*d.shape, 8, 4), zeros_last, axis=-2).reshape(*d.shape, 32)
    b["scales"] = join_fields(l.reshape(*d.shape, 4, 2), 4)
    return b


def _encode(kind: Search, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, w (..., 256) -> d (...) float32, and integers l (..., groups), points (..., runs), signs (..., 32)."""
    where, table, shape = f"{kind.name}.encode", lattice(kind.name), x.shape[:-1]
    require_finite(where, x)
    magnitudes, signs = _fold(x, w, kind.seven_signs)
    groups = (x.size // kind.group, kind.group // table.width, table.width)
    s, points, live = _search(kind, table, magnitudes.reshape(groups), w.reshape(groups))
    if np.isnan(s).any():
        raise RangeError(f"{where}: max|x| = {np.abs(x).max()}, expected weights whose errors stay within float32")
    signs = np.where(live[:, None], signs.reshape(len(s), kind.group // 8) ^ np.where(s < 0, 255, 0)[:, None], 0)
    s = np.abs(s).reshape(*shape, 256 // kind.group)
    points, signs = points.T.reshape(*shape, 256 // table.width), signs.reshape(*shape, 32)
    most = s.max(axis=-1)
    d = most / np.float32(31)
    l = nearest_int(np.float32(0.5) * ((np.float32(1) / d)[..., None] * s - np.float32(1)))
    l = np.where(most[..., None] > 0, l.clip(0, 15), 0).astype(np.int64)
    if kind.seven_signs:
        points[most == 0] = signs[most == 0] = 0
    return d * np.float32(kind.fudge), l, points, signs


def _fold(x: np.ndarray, w: np.ndarray, even: bool) -> tuple[np.ndarray, np.ndarray]:
    """Step 2: magnitudes (runs of 8, 8), and their signs as a byte, the first in bit 0."""
    x = x.reshape(-1, 8)
    minus = x < 0
    if even:
        cost = w.reshape(-1, 8) * x * x
        first, least = np.zeros(len(x), np.intp), cost[:, 0]
        for k in range(1, 8):  # not argmin, for which a NaN is the least
            less = cost[:, k] < least
            first, least = np.where(less, k, first), np.where(less, cost[:, k], least)
        odd = np.flatnonzero(np.logical_xor.reduce(minus, axis=1))
        minus[odd, first[odd]] ^= True
    return np.where(minus, -x, x), np.packbits(minus, axis=1, bitorder="little")


def _search(kind: Search, table: Lattice, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps 3 and 4: x, w (groups, runs, width) -> s (groups,), points (runs, groups), which groups were searched."""
    reach = x.max(axis=(1, 2))
    start, live = reach / np.float32(2 * table.top + 1), reach >= np.float32(kind.floor)
    if kind is IQ2_XXS:
        start, _ = positive_scale(columns(x, kind.group), columns(w, kind.group), table.top + 2)
        reach = start * np.float32(table.top + 1)
        live = ~(reach <= 0)
    s, points = np.zeros(len(x), np.float32), np.zeros((x.shape[1], len(x)), np.intp)
    x, w = x[live], w[live]
    found, its_points, off = _try(kind, table, x, w, reach[live], start[live])
    some = np.flatnonzero((found > 0) & (off.any(axis=0) | (kind.again == "all")))
    chosen = off[:, some] | (kind.again != "off")
    found[some], its_points[:, some] = _again(table, x[some], w[some], found[some], its_points[:, some], chosen)
    s[live], points[:, live] = found, its_points
    return s, points, live


def _try(
    kind: Search, table: Lattice, x: np.ndarray, w: np.ndarray, reach: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step 3: s (groups,), points and which of them were off the grid (runs, groups)."""
    t = np.arange(-kind.tries, kind.tries + 1, dtype=np.float32)[:, None]
    inverse = (np.float32(2 * table.top + 1) + t * np.float32(kind.step)) / reach  # (trials, groups)
    points, off = _snap(table, x, w, inverse, np.float32(1) / inverse)
    gain, kept = np.zeros_like(s), np.full(s.shape, -1)
    w, wx = columns(w, kind.group), columns(w * x, kind.group)
    for trial in range(len(points)):
        xq, qq = _sums(table, points[trial], w, wx)
        better = np.flatnonzero((qq > 0) & (xq * xq > gain * qq))
        s[better] = xq[better] / qq[better]
        gain[better] = s[better] * xq[better]
        kept[better] = trial
    group = np.arange(len(s))
    # Where no trial lowers the error, the codes are 0, and the runs count as on the grid, except in IQ3_S.
    points = np.where(kept < 0, 0, points[kept, :, group].T)
    off = np.where(kept < 0, kind.again == "groups", off[kept, :, group].T)
    return s, points, off


def _again(
    table: Lattice, x: np.ndarray, w: np.ndarray, s: np.ndarray, points: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Step 4 for the `chosen` runs (runs, groups): s and points."""
    moved, _ = _snap(table, x, w, np.float32(1) / s[None], s[None], chosen)
    points = np.where(chosen, moved[0], points)
    n = x.shape[1] * x.shape[2]
    xq, qq = _sums(table, points, columns(w, n), columns(w * x, n))
    return np.where(qq > 0, xq / qq, s), points


def _snap(
    table: Lattice, x: np.ndarray, w: np.ndarray, inverse: np.ndarray, s: np.ndarray, chosen: np.ndarray | bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Points at inverse, s (trials, groups), and which were off the grid: (trials, runs, groups).

    Only runs that are `chosen` (runs, groups) are given a neighbour, others keep -1.
    """
    groups, runs, width = x.shape
    lanes = columns(x, runs * width)
    packed = np.empty((len(inverse), runs, groups), np.int32)
    for trial, one in enumerate(inverse):
        codes = nearest_int(np.float32(0.5) * (one * lanes - np.float32(1))).clip(0, table.top)
        packed[trial] = table.pack(codes.reshape(runs, width, groups))
    points = table.point[packed]
    off = points < 0
    case = trial, run, group = np.nonzero(off & chosen)
    x, root = x.reshape(-1, width), np.sqrt(w).reshape(-1, width)
    points[case] = cheapest(table, table.odd, packed[case], s[trial, group], group * runs + run, x, root)
    return points, off


def _sums(table: Lattice, points: np.ndarray, w: np.ndarray, wx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sum(w x q) and sum(w q^2) of every group: points (runs, groups), w and wx (n, groups)."""
    q = np.concatenate([table.odd.T.take(run, axis=1) for run in points])  # (n, groups)
    return total(wx * q), total(w * q * q)
