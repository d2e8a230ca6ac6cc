"""IQ1_S and IQ1_M: the twins of `refquant.gguf.iq1_encoders`, which explains the search.

One group after the other, scalar by scalar, in float32. `lattices` says how a function is called.
"""

import numpy as np

from runtime.encoders.i_quants import put
from runtime.encoders.lattices import LARGEST, block_encoder, cheapest, nearest_int
from runtime.jit import inlined_as_c
from runtime.simd import half_bits

HALF, ONE, NOTHING, DELTA = np.float32(0.5), np.float32(1), np.float32(0), np.float32(0.125)


@inlined_as_c
def _delta(minus):
    return -DELTA if minus else DELTA


@inlined_as_c
def _level(code, minus):
    """v of a code."""
    return np.float32(code - 1) + _delta(minus)


@inlined_as_c
def _weigh(x, importance, row, w):
    """v sqrt(2 m + x^2), m the mean of x^2, or x^2 without importance."""
    mean = NOTHING
    for i in range(256):
        mean += x[i] * x[i]
    mean = np.float32(2) * mean / np.float32(256)
    for i in range(256):
        w[i] = importance[row, i] * np.sqrt(mean + x[i] * x[i]) if len(importance) else x[i] * x[i]


@inlined_as_c
def _sort(x, order):
    """The numbers of x in ascending order; equals keep theirs."""
    for i in range(len(x)):
        j = i
        while j > 0 and x[order[j - 1]] > x[i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i


@inlined_as_c
def _split_s(x, w, order, X, W):
    """The best scale, where the codes change, and whether delta is -1/8. Scale 0 and i1 = -1 where nothing counts."""
    n = len(x)
    X[0, 0] = W[0, 0] = NOTHING
    for i in range(n):
        j = order[i]
        X[0, i + 1] = X[0, i] + w[j] * x[j]
        W[0, i + 1] = W[0, i] + w[j]
    s, gain, best_1, best_2, best_minus = NOTHING, -LARGEST, -1, -1, 0
    for i1 in range(n + 1):
        for i2 in range(i1, n + 1):
            X1, W1 = X[0, i2] - X[0, i1], W[0, i2] - W[0, i1]
            for minus in range(2):
                v0, v1, v2 = _level(0, minus), _level(1, minus), _level(2, minus)
                vx = X[0, i1] * v0 + X1 * v1 + (X[0, n] - X[0, i2]) * v2
                vv = W[0, i1] * v0 * v0 + W1 * v1 * v1 + (W[0, n] - W[0, i2]) * v2 * v2
                if vv > 0 and vx * vx > gain * vv:
                    s = vx / vv
                    gain = s * vx
                    best_1, best_2, best_minus = i1, i2, minus
    return s, best_1, best_2, best_minus


@inlined_as_c
def _run_sums(X, W, run, i1, i2, minus):
    """What a run adds to both sums of a trial of IQ1_M."""
    n = 16
    v0, v1, v2 = _level(0, minus), _level(1, minus), _level(2, minus)
    vx = X[run, n] * v2 - (X[run, i1] + X[run, i2])
    vv = W[run, n] * v2 * v2 + W[run, i1] * (v0 * v0 - v1 * v1) + W[run, i2] * (v1 * v1 - v2 * v2)
    return vx, vv


@inlined_as_c
def _split_m(x, w, order, X, W):
    """As `_split_s`; bit 1 and bit 0 of the last number say where the first and the second run have -1/8."""
    n = len(x)
    for run in range(2):
        X[run, 0] = W[run, 0] = NOTHING
        for i in range(n):
            j = order[i]
            own = j // 8 == run
            X[run, i + 1] = X[run, i] + (w[j] * x[j] if own else NOTHING)
            W[run, i + 1] = W[run, i] + (w[j] if own else NOTHING)
    s, gain, best_1, best_2, best_minus = NOTHING, -LARGEST, -1, -1, 0
    for i1 in range(n + 1):
        for i2 in range(i1, n + 1):
            for minus in range(4):
                vx, vv = _run_sums(X, W, 0, i1, i2, minus >> 1)
                vx_second, vv_second = _run_sums(X, W, 1, i1, i2, minus & 1)
                vx += vx_second
                vv += vv_second
                if vv > 0 and vx * vx > gain * vv:
                    s = vx / vv
                    gain = s * vx
                    best_1, best_2, best_minus = i1, i2, minus
    return s, best_1, best_2, best_minus


@inlined_as_c
def _snap(x, w, s, codes, minus, grid, points):
    """Points for the codes, and the scale fitted to them where a run was off the grid. NaN: ggml aborts."""
    levels, point, start, count, neighbours = grid
    off = False
    for run in range(len(points)):
        packed = 0
        for k in range(8):
            packed |= codes[8 * run + k] << (2 * k)
        points[run] = point[packed]
        if points[run] < 0:
            off = True
            near = neighbours[start[packed] : start[packed] + count[packed]]
            a, b = 8 * run, 8 * run + 8
            points[run] = cheapest(levels, _delta(minus[run]), near, s, x[a:b], w[a:b])
            if points[run] < 0:
                return np.float32(np.nan)
    if not off:
        return s
    vx = vv = NOTHING
    for i in range(len(x)):
        v = levels[points[i // 8], i % 8] + _delta(minus[i // 8])
        vx += w[i] * v * x[i]
        vv += w[i] * v * v
    return vx / vv if vx > 0 and vv > 0 else s


@inlined_as_c
def _search_group(x, w, grid, floor, order, X, W, codes, points, minus):
    """The scale of a group; fills points and minus of its runs. NaN: ggml aborts."""
    n, runs = len(x), len(points)
    points[:] = 0
    minus[:] = 0
    peak = NOTHING
    for i in range(n):
        peak = max(peak, abs(x[i]))
    if not peak >= floor:
        return NOTHING
    _sort(x, order)
    s, i1, i2, signs = _split_s(x, w, order, X, W) if runs == 4 else _split_m(x, w, order, X, W)
    if i1 < 0:
        return NOTHING
    turned = 1 if s < 0 else 0
    for rank in range(n):
        code = (1 if rank >= i1 else 0) + (1 if rank >= i2 else 0)
        codes[order[rank]] = 2 - code if turned else code
    for run in range(runs):
        sign = signs if runs == 4 else signs >> (1 - run) & 1
        minus[run] = sign ^ turned
    return _snap(x, w, abs(s), codes, minus, grid, points)


@inlined_as_c
def _any(values, count):
    found = False
    for i in range(count):
        found |= values[i] != 0
    return found


@inlined_as_c
def _pack_iq1_s(x, w, y, d, scale, l, points, minus, levels):
    put(y, 0, half_bits(d * np.float32(1.125)), 2)
    some = _any(scale, 8)
    for run in range(32):
        y[2 + run] = points[run] & 255
    for g in range(8):
        high = (l[g] | minus[4 * g] << 3) << 12 if some else 0
        for k in range(4):
            high |= points[4 * g + k] >> 8 << (3 * k)
        put(y, 34 + 2 * g, high, 2)


@inlined_as_c
def _fit_block(d, l, points, minus, levels, x, w):
    """The d with the least error for everything else of the block."""
    yx = yy = NOTHING
    for i in range(256):
        v = levels[points[i // 8], i % 8] + _delta(minus[i // 8])
        v *= np.float32(2 * l[i // 16] + 1)
        yx += w[i] * v * x[i]
        yy += w[i] * v * v
    return yx / yy if yy > 0 else d


@inlined_as_c
def _pack_iq1_m(x, w, y, d, scale, l, points, minus, levels):
    bits = half_bits(_fit_block(d, l, points, minus, levels, x, w) * np.float32(1.1125))
    some = _any(scale, 16)
    for run in range(32):
        y[run] = points[run] & 255
    for k in range(16):
        low, high = points[2 * k] >> 8, points[2 * k + 1] >> 8
        if some:
            low, high = low | minus[2 * k] << 3, high | minus[2 * k + 1] << 3
        y[32 + k] = low | high << 4
    for k in range(4):
        scales = (bits >> (4 * k) & 15) << 12
        for g in range(4):
            scales |= l[4 * k + g] << (3 * g)
        put(y, 48 + 2 * k, scales if some else 0, 2)


def _encoder(n, floor, pack):
    """Encoding of all blocks in groups of n, with `pack` to write one."""
    runs = n // 8

    @inlined_as_c
    def encode(x, y, importance, first, grid):
        w, scale, l = np.empty(256, np.float32), np.empty(16, np.float32), np.empty(16, np.int64)
        points, minus = np.empty(32, np.int64), np.empty(32, np.int64)
        order, codes = np.empty(n, np.int64), np.empty(n, np.int64)
        X, W = np.empty((2, n + 1), np.float32), np.empty((2, n + 1), np.float32)
        for b in range(len(x)):
            _weigh(x[b], importance, (first + b) % len(importance) if len(importance) else 0, w)
            most = NOTHING
            for g in range(256 // n):
                a, end = n * g, n * g + n
                its_points, its_minus = points[runs * g : runs * g + runs], minus[runs * g : runs * g + runs]
                s = _search_group(x[b, a:end], w[a:end], grid, floor, order, X, W, codes, its_points, its_minus)
                if np.isnan(s):
                    return b + 1
                scale[g] = s
                most = max(most, s)
            d = most / np.float32(15)
            for g in range(256 // n):
                l[g] = max(0, min(7, nearest_int(HALF * (ONE / d * scale[g] - ONE))))
            pack(x[b], w, y[b], d, scale, l, points, minus, grid[0])
        return 0

    return encode


_iq1_s = _encoder(32, np.float32(1e-12), _pack_iq1_s)
_iq1_m = _encoder(16, np.float32(1e-7), _pack_iq1_m)


@block_encoder
def encode_iq1_s(x, y, importance, first, levels, point, start, count, neighbours):
    """Groups of 32 with one delta."""
    return _iq1_s(x, y, importance, first, (levels, point, start, count, neighbours))


@block_encoder
def encode_iq1_m(x, y, importance, first, levels, point, start, count, neighbours):
    """Groups of 16, a delta for each of their two runs."""
    return _iq1_m(x, y, importance, first, (levels, point, start, count, neighbours))
