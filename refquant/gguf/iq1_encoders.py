"""The encoders of IQ1_S and IQ1_M: levels v = code - 1 + delta, code 0 1 2 and delta +-1/8, and a scale.

A group of 32 (IQ1_S) or 16 weights (IQ1_M) shares a scale; all its runs of 8 share a delta in IQ1_S, each has its own
in IQ1_M. The encoders look for the scale s, the deltas and the codes that minimize

    sum_i w_i (x_i - s v_i)^2       w = u sqrt(2 m + x^2), u the importance, m the mean of x^2 over the block; IQ1_M
                                    without importance: w = x^2; IQ1_S needs importance

1  split    Under one delta the best codes ascend with x. So the weights are sorted, the first i1 take code 0, those up
            to i2 code 1 and the rest code 2, and all 0 <= i1 <= i2 <= n are tried with all deltas. The best s is
            sum(w v x) / sum(w v^2), and lowers the error by s sum(w v x): the trial that lowers it most is kept, the
            first of equals. It is the optimum, but for runs of IQ1_M with different deltas
2  turn     a negative s changes its sign, and with it all code - 1 and all deltas
3  snap     a run of codes off the grid takes its cheapest neighbour, by w under s; then s is fitted to the new codes,
            unless sum(w v x) is not positive
4  narrow   d = max s / 15 over the block, l = (s / d - 1) / 2 rounded, within 0 .. 7. IQ1_S stores 1.125 d. IQ1_M fits
            d again, sum(w y x) / sum(w y^2) over the block with y = v (2 l + 1), and stores 1.1125 d. Both as float16

The trials run through i1, for each through i2, for each through the deltas: + - in IQ1_S, ++ +- -+ -- in IQ1_M.

Shapes   x (..., 256) float32; importance float32 >= 0 of a shape that broadcasts to x, or None -> (...) layout.
Order    as in `scale_search`: float32, never fused; running sums in the order of sorting, others from the first weight
         to the last; (w v) x, (w v) v. What a trial adds up is in `_trials_s` and `_trials_m`.
Ties     equal x, +0 and -0 among them, keep their order: glibc's qsort, with which ggml sorts, is a merge sort.
Zeros    a group with max|x| < 1e-12 (IQ1_M 1e-7), or without importance, has s = 0, point 0 and positive deltas. If no
         s is above 0, all scales are 0 and all deltas positive, and the points stay.
Refused  NaN and infinities: NonFiniteError. Importances or weights so large that all errors overflow, for which ggml
         aborts, or reads beyond the block first: RangeError.
Source   ggml/src/ggml-quants.c, quantize_row_iq1_s_impl, quantize_row_iq1_m_impl.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from refquant.errors import RangeError, require_finite
from refquant.gguf.fields import join_fields
from refquant.gguf.i_neighbours import cheapest, lattice
from refquant.gguf.i_quants import DELTA, IQ1_M, IQ1_S
from refquant.gguf.importance import mean_square, weigh
from refquant.gguf.scale_search import columns, nearest_int, total

LEVELS = np.array([-1, 0, 1], np.float32)
DELTAS = (DELTA, -DELTA)
# The deltas of the runs of a group, as indices of DELTAS, in the order of the trials.
IQ1_S_SIGNS = np.array([[0] * 4, [1] * 4], bool)
IQ1_M_SIGNS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], bool)

Sums = tuple[np.ndarray, np.ndarray]  # sum(w v x) and sum(w v^2) of every group


@np.errstate(all="ignore")
def encode_iq1_s(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError, RangeError."""
    require_finite("IQ1_S.encode", x)
    s, points, minus = _search("IQ1_S.encode", x, weigh(x, importance, mean_square(x, 2)), IQ1_S_SIGNS, 1e-12)
    d, l = _narrow(s)
    high = join_fields(points.reshape(*s.shape, 4) >> 8, 3)
    scales = (l | minus[..., ::4] << 3) << 12
    b = np.empty(d.shape, IQ1_S)
    b["d"] = d * np.float32(1.125)
    b["qs"] = points & 255
    b["qh"] = high | np.where(s.any(axis=-1, keepdims=True), scales, 0)
    return b


@np.errstate(all="ignore")
def encode_iq1_m(x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Return blocks. Raises NonFiniteError, RangeError."""
    require_finite("IQ1_M.encode", x)
    w = weigh(x, importance, mean_square(x, 2))
    s, points, minus = _search("IQ1_M.encode", x, w, IQ1_M_SIGNS, 1e-7)
    d, l = _narrow(s)
    d = _fit_block(d, l, points, minus, x, w)
    some = s.any(axis=-1, keepdims=True)
    d_bits = (d * np.float32(1.1125)).astype(np.float16).view(np.uint16)
    parts = (d_bits[..., None] >> np.arange(0, 16, 4, dtype=np.uint16)).astype(np.int32) & 15
    scales = join_fields(l.reshape(*d.shape, 4, 4), 3) | parts << 12
    b = np.empty(d.shape, IQ1_M)
    b["qs"] = points & 255
    b["qh"] = join_fields((points >> 8 | np.where(some, minus << 3, 0)).reshape(*s.shape, 2), 4)
    b["scales"] = np.where(some, scales, 0)
    return b


def _narrow(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step 4: s (..., groups) -> d (...) before its constant, l (..., groups)."""
    d = s.max(axis=-1) / np.float32(15)
    return d, nearest_int(np.float32(0.5) * ((np.float32(1) / d)[..., None] * s - np.float32(1))).clip(0, 7)


def _fit_block(
    d: np.ndarray, l: np.ndarray, points: np.ndarray, minus: np.ndarray, x: np.ndarray, w: np.ndarray
) -> np.ndarray:
    """The d of IQ1_M: l (..., 16), points and minus (..., 32), x and w (..., 256) -> (...)."""
    y = _levels(points, minus).reshape(*l.shape, 16) * (2 * l + 1).astype(np.float32)[..., None]
    y, x, w = columns(y, 256), columns(x, 256), columns(w, 256)
    yx, yy = total(w * y * x), total(w * y * y)
    return np.where(yy > 0, yx / yy, d.reshape(-1)).reshape(d.shape)


def _levels(points: np.ndarray, minus: np.ndarray) -> np.ndarray:
    """v of the weights of runs: (...) -> (..., 8)."""
    return LEVELS[lattice("IQ1_S").codes[points]] + np.where(minus, DELTAS[1], DELTAS[0])[..., None]


def _search(
    where: str, x: np.ndarray, w: np.ndarray, signs: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps 1 to 3: x, w (..., 256) -> s (..., groups), points (..., 32), and 1 where their delta is -1/8 (..., 32)."""
    shape, runs = x.shape[:-1], signs.shape[1]
    x, w = x.reshape(-1, runs, 8), w.reshape(-1, runs, 8)
    s, points = np.zeros(len(x), np.float32), np.zeros((len(x), runs), np.intp)
    minus = np.zeros(points.shape, np.intp)
    live = np.flatnonzero(np.abs(x).max(axis=(1, 2)) >= np.float32(floor))
    its_s, codes, its_minus, found = _split(x[live], w[live], signs)
    live, its_s, codes, its_minus = live[found], its_s[found], codes[found], its_minus[found]
    s[live], points[live] = _snap(x[live], w[live], its_s, codes, its_minus)
    minus[live] = its_minus
    if np.isnan(s).any():
        raise RangeError(f"{where}: max|x| = {np.abs(x).max()}, expected weights whose errors stay within float32")
    return s.reshape(*shape, 32 // runs), points.reshape(*shape, 32), minus.reshape(*shape, 32)


def _split(x: np.ndarray, w: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps 1 and 2: x, w (groups, runs, 8) -> s (groups,), codes as x, minus (groups, runs), whether any w counts."""
    shape, n = x.shape, x.shape[1] * 8
    x, w = x.reshape(-1, n), w.reshape(-1, n)
    order = np.argsort(x, axis=1, kind="stable")
    ascending = [columns(np.take_along_axis(a, order, axis=1), n) for a in (x, w)]
    trials = _trials_s(*ascending) if n == 32 else _trials_m(*ascending, order.T < 8)
    s, gain = np.zeros(len(x), np.float32), np.full(len(x), -np.finfo(np.float32).max)
    kept = np.full(len(x), -1)
    for number, (vx, vv) in enumerate(trials):
        better = np.flatnonzero((vv > 0) & (vx * vx > gain * vv))
        s[better] = vx[better] / vv[better]
        gain[better] = s[better] * vx[better]
        kept[better] = number
    cut, deltas = np.divmod(kept, len(signs))  # of the last trial where none counts
    i1, i2 = (bound[cut][:, None] for bound in np.triu_indices(n + 1))
    rank, codes = np.arange(n), np.empty(x.shape, np.uint8)
    np.put_along_axis(codes, order, (rank >= i1).astype(np.uint8) + (rank >= i2), axis=1)
    turned = (s < 0)[:, None]
    return np.abs(s), np.where(turned, 2 - codes, codes).reshape(shape), signs[deltas] ^ turned, kept >= 0


def _trials_s(x: np.ndarray, w: np.ndarray) -> Iterator[Sums]:
    """Step 1 of IQ1_S, x (32, groups) ascending. With the running sums X and W of w x and w,

    sum(w v x) = (X[i1] v0 + (X[i2] - X[i1]) v1) + (X[n] - X[i2]) v2
    sum(w v^2) = ((W[i1] v0) v0 + ((W[i2] - W[i1]) v1) v1) + ((W[n] - W[i2]) v2) v2
    """
    X, W = _running(w * x), _running(w)
    parts = []
    for delta in DELTAS:
        v0, v1, v2 = LEVELS + delta
        parts.append((v1, X * v0, W * v0 * v0, (X[-1] - X) * v2, (W[-1] - W) * v2 * v2))
    for i1, i2 in zip(*np.triu_indices(len(X))):
        X1, W1 = X[i2] - X[i1], W[i2] - W[i1]
        for v1, X0, W0, X2, W2 in parts:
            yield X0[i1] + X1 * v1 + X2[i2], W0[i1] + W1 * v1 * v1 + W2[i2]


def _trials_m(x: np.ndarray, w: np.ndarray, first: np.ndarray) -> Iterator[Sums]:
    """Step 1 of IQ1_M, x (16, groups) ascending, `first` where a weight is of the first run.

    Each run has running sums X and W of its own w x and w over the whole order. As v2 - v1 = v1 - v0 = 1, it adds

    sum(w v x) = X[n] v2 - (X[i1] + X[i2])
    sum(w v^2) = ((W[n] v2) v2 + W[i1] (v0^2 - v1^2)) + W[i2] (v1^2 - v2^2)
    """
    runs = []
    for own in (first, ~first):
        X, W = (_running(np.where(own, terms, np.float32(0))) for terms in (w * x, w))
        parts = []
        for delta in DELTAS:
            v0, v1, v2 = LEVELS + delta
            parts.append((X[-1] * v2, W[-1] * v2 * v2, W * (v0 * v0 - v1 * v1), W * (v1 * v1 - v2 * v2)))
        runs.append((X, parts))
    for i1, i2 in zip(*np.triu_indices(len(x) + 1)):
        sums = []
        for X, parts in runs:
            below = X[i1] + X[i2]
            sums.append([(all_x - below, all_w + W1[i1] + W2[i2]) for all_x, all_w, W1, W2 in parts])
        for (vx, vv), (vx_second, vv_second) in product(*sums):
            yield vx + vx_second, vv + vv_second


def _running(terms: np.ndarray) -> np.ndarray:
    """(n, groups) -> (n + 1, groups): the sums of the first 0, 1, ..., n."""
    return np.add.accumulate(np.concatenate([np.zeros_like(terms[:1]), terms]), axis=0)


def _snap(
    x: np.ndarray, w: np.ndarray, s: np.ndarray, codes: np.ndarray, minus: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Step 3: x, w, codes (groups, runs, 8), s (groups,), minus (groups, runs) -> s, points as minus."""
    table, runs = lattice("IQ1_S"), minus.shape[1]
    packed = table.pack(codes.reshape(-1, 8).T).reshape(minus.shape)
    points = table.point[packed]
    off = points < 0
    for sign, delta in enumerate(DELTAS):
        case = group, run = np.nonzero(off & (minus == sign))
        levels = LEVELS[table.codes] + delta
        points[case] = cheapest(
            table, levels, packed[case], s[group], group * runs + run, x.reshape(-1, 8), w.reshape(-1, 8)
        )
    v, x, w = (columns(a, 8 * runs) for a in (_levels(points, minus), x, w))
    vx, vv = total(w * v * x), total(w * v * v)
    return np.where(off.any(axis=1) & (vx > 0) & (vv > 0), vx / vv, s), points
