"""IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S: the twins of `refquant.gguf.i_encoders`, which explains their one search.

One block after the other, scalar by scalar: the work lies in look-ups, which lanes would not speed up. Scalars are
float32 throughout; a product with an integer goes through np.float32. `lattices` says how a function is called.
"""

import numpy as np

from runtime.encoders.lattices import block_encoder, cheapest, nearest_int
from runtime.encoders.qp_search import positive_scale
from runtime.jit import inlined_as_c
from runtime.simd import half_bits

HALF, ONE, NOTHING = np.float32(0.5), np.float32(1), np.float32(0)
OFF, GROUPS, ALL = 0, 1, 2  # which runs the second search takes: those off the grid, groups with one, all


@inlined_as_c
def _weigh(x, importance, row, factor, share, w):
    """w of each weight: v sqrt(factor m + x^2), m the mean of x^2; without importance x^2, or share m + x^2."""
    mean = NOTHING
    for i in range(256):
        mean += x[i] * x[i]
    mean = np.float32(factor) * mean / np.float32(256)
    for i in range(256):
        if len(importance):
            w[i] = importance[row, i] * np.sqrt(mean + x[i] * x[i])
        else:
            w[i] = share * mean + x[i] * x[i] if share > 0 else x[i] * x[i]


@inlined_as_c
def _fold(x, w, even, size, signs):
    """Magnitudes, and the signs of each run of eight as a byte. `even`: one sign is changed where minuses are odd."""
    for run in range(32):
        byte = minuses = 0
        for k in range(8):
            if x[8 * run + k] < 0:
                byte |= 1 << k
                minuses += 1
        if even and minuses % 2:
            least, cheap = w[8 * run] * x[8 * run] * x[8 * run], 0
            for k in range(1, 8):
                cost = w[8 * run + k] * x[8 * run + k] * x[8 * run + k]
                if cost < least:
                    least, cheap = cost, k
            byte ^= 1 << cheap
        signs[run] = byte
        for k in range(8):
            v = x[8 * run + k]
            size[8 * run + k] = -v if byte >> k & 1 else v


@inlined_as_c
def _snap(x, w_root, inverse, scale, top, width, grid, chosen, points, off):
    """The points at `inverse` of the `chosen` runs of a group, and which were off the grid. False: ggml aborts."""
    levels, point, start, count, neighbours = grid
    for run in range(len(x) // width):
        packed = 0
        for k in range(width):
            code = nearest_int(HALF * (inverse * x[width * run + k] - ONE))
            packed |= max(0, min(top, code)) << ((2 if top == 2 else 3) * k)
        if not chosen[run]:
            continue
        points[run] = point[packed]
        off[run] = point[packed] < 0
        if off[run]:
            near = neighbours[start[packed] : start[packed] + count[packed]]
            a, b = width * run, width * run + width
            points[run] = cheapest(levels, NOTHING, near, scale, x[a:b], w_root[a:b])
            if points[run] < 0:
                return False
    return True


@inlined_as_c
def _sums(x, w, width, levels, points):
    """sum(w x q) and sum(w q^2)."""
    xq = qq = NOTHING
    for i in range(len(x)):
        q = levels[points[i // width], i % width]
        xq += w[i] * x[i] * q
        qq += w[i] * q * q
    return xq, qq


@inlined_as_c
def _search_group(x, w, w_root, kind, grid, points, trial_points, off, trial_off, chosen):
    """The scale of a group and whether it was searched; fills its `points`. A NaN scale: ggml aborts."""
    group, width, top, tries, step, floor, again = kind
    levels, runs = grid[0], len(points)
    reach = x[0]
    for i in range(1, group):
        reach = max(reach, x[i])
    points[:] = 0
    s, live = reach / np.float32(2 * top + 1), reach >= floor
    if again == ALL:
        s = positive_scale(x, w, top + 2)
        reach = s * np.float32(top + 1)
        live = not reach <= 0
    if not live:
        return NOTHING, False
    gain = NOTHING
    off[:] = again == GROUPS
    chosen[:] = True
    for t in range(-tries, tries + 1):
        inverse = (np.float32(2 * top + 1) + np.float32(t) * step) / reach
        if not _snap(x, w_root, inverse, ONE / inverse, top, width, grid, chosen, trial_points, trial_off):
            return np.float32(np.nan), True
        xq, qq = _sums(x, w, width, levels, trial_points)
        if qq > 0 and xq * xq > gain * qq:
            s = xq / qq
            gain = s * xq
            for run in range(runs):
                points[run], off[run] = trial_points[run], trial_off[run]
    some = False
    for run in range(runs):
        some |= off[run]
        chosen[run] = off[run] or again != OFF
    if s > 0 and (some or again == ALL):
        if not _snap(x, w_root, ONE / s, s, top, width, grid, chosen, points, trial_off):
            return np.float32(np.nan), True
        xq, qq = _sums(x, w, width, levels, points)
        if qq > 0:
            s = xq / qq
    return s, True


@inlined_as_c
def _encode_block(x, kind, even, grid, w, w_root, size, scale, l, points, signs, trial_points, off, trial_off, chosen):
    """d before its constant; fills l, points and signs. A NaN: ggml aborts. `w` is given."""
    group, runs = kind[0], kind[0] // kind[1]
    _fold(x, w, even, size, signs)
    for i in range(256):
        w_root[i] = np.sqrt(w[i])
    most = NOTHING
    for g in range(256 // group):
        a, b = group * g, group * g + group
        s, live = _search_group(
            size[a:b],
            w[a:b],
            w_root[a:b],
            kind,
            grid,
            points[runs * g : runs * g + runs],
            trial_points[:runs],
            off[:runs],
            trial_off[:runs],
            chosen[:runs],
        )
        if np.isnan(s):
            return s
        for run in range(a // 8, b // 8):
            signs[run] = (signs[run] ^ (255 if s < 0 else 0)) if live else 0
        scale[g] = abs(s)
        most = max(most, scale[g])
    d = most / np.float32(31)
    for g in range(256 // group):
        code = nearest_int(HALF * (ONE / d * scale[g] - ONE)) if most > 0 else 0
        l[g] = max(0, min(15, code))
    if even and not most > 0:
        points[:] = 0
        signs[:] = 0
    return d


@inlined_as_c
def put(y, at, value, size):
    """`size` bytes of an integer, the lowest first."""
    for k in range(size):
        y[at + k] = value >> (8 * k) & 255


@inlined_as_c
def _seven_signs(signs, g, l):
    """The word of a group of 32: seven signs of each of four runs, and l in the top four bits."""
    bits = l[g] << 28
    for k in range(4):
        bits |= (signs[4 * g + k] & 127) << (7 * k)
    return bits


@inlined_as_c
def _nibbles(y, at, l, count):
    for k in range(count):
        y[at + k] = l[2 * k] | l[2 * k + 1] << 4


@inlined_as_c
def _pack_iq2_xxs(x, y, d, l, points, signs):
    put(y, 0, half_bits(d), 2)
    for g in range(8):
        for k in range(4):
            y[2 + 8 * g + k] = points[4 * g + k]
        put(y, 6 + 8 * g, _seven_signs(signs, g, l), 4)


@inlined_as_c
def _pack_iq2_xs(x, y, d, l, points, signs):
    put(y, 0, half_bits(d), 2)
    for run in range(32):
        put(y, 2 + 2 * run, points[run] | (signs[run] & 127) << 9, 2)
    _nibbles(y, 66, l, 8)


@inlined_as_c
def _pack_iq2_s(x, y, d, l, points, signs):
    put(y, 0, half_bits(d * np.float32(0.9875)), 2)
    for run in range(32):
        y[2 + run] = points[run] & 255
        y[34 + run] = signs[run]
    for g in range(8):
        high = 0
        for k in range(4):
            high |= points[4 * g + k] >> 8 << (2 * k)
        y[66 + g] = high
    _nibbles(y, 74, l, 8)


@inlined_as_c
def _pack_iq3_xxs(x, y, d, l, points, signs):
    put(y, 0, half_bits(d * np.float32(1.0125)), 2)
    for run in range(64):
        y[2 + run] = points[run]
    for g in range(8):
        put(y, 66 + 4 * g, _seven_signs(signs, g, l), 4)


@inlined_as_c
def _pack_iq3_s(x, y, d, l, points, signs):
    """Groups of zeros go last in qs and signs, and stay in their places in qh and scales: a defect of ggml."""
    put(y, 0, half_bits(d * np.float32(1.033)), 2)
    to = 0
    for zeros in range(2):
        for g in range(8):
            if (not np.any(x[32 * g : 32 * g + 32])) == zeros:
                for k in range(8):
                    y[2 + 8 * to + k] = points[8 * g + k] & 255
                for k in range(4):
                    y[74 + 4 * to + k] = signs[4 * g + k]
                to += 1
    for g in range(8):
        high = 0
        for k in range(8):
            high |= points[8 * g + k] >> 8 << k
        y[66 + g] = high
    _nibbles(y, 106, l, 4)


def _encoder(kind, even, factor, share, pack):
    """Encoding of all blocks of a type, with `pack` to write one."""

    @inlined_as_c
    def encode(x, y, importance, first, grid):
        w, w_root = np.empty(256, np.float32), np.empty(256, np.float32)
        size, scale = np.empty(256, np.float32), np.empty(16, np.float32)
        l, points, signs = np.empty(16, np.int64), np.empty(256 // kind[1], np.int64), np.empty(32, np.int64)
        trial_points, off = np.empty(8, np.int64), np.empty(8, np.bool_)
        trial_off, chosen = np.empty(8, np.bool_), np.empty(8, np.bool_)
        for b in range(len(x)):
            row = (first + b) % len(importance) if len(importance) else 0
            _weigh(x[b], importance, row, factor, share, w)
            d = _encode_block(
                x[b], kind, even, grid, w, w_root, size, scale, l, points, signs, trial_points, off, trial_off, chosen
            )
            if np.isnan(d):
                return b + 1
            pack(x[b], y[b], d, l, points, signs)
        return 0

    return encode


_iq2_xxs = _encoder((32, 8, 2, 6, np.float32(0.1), np.float32(1e-15), ALL), True, 1, NOTHING, _pack_iq2_xxs)
_iq2_xs = _encoder((16, 8, 2, 9, np.float32(0.1), np.float32(1e-15), OFF), True, 1, NOTHING, _pack_iq2_xs)
_iq2_s = _encoder((16, 8, 2, 9, np.float32(0.1), np.float32(1e-8), OFF), False, 2, np.float32(0.25), _pack_iq2_s)
_iq3_xxs = _encoder((32, 4, 7, 15, np.float32(0.2), np.float32(1e-8), OFF), True, 2, NOTHING, _pack_iq3_xxs)
_iq3_s = _encoder((32, 4, 7, 9, np.float32(0.2), np.float32(1e-45), GROUPS), False, 2, NOTHING, _pack_iq3_s)


@block_encoder
def encode_iq2_xxs(x, y, importance, first, levels, point, start, count, neighbours):
    """Groups of 32; the search starts from the best free scale."""
    return _iq2_xxs(x, y, importance, first, (levels, point, start, count, neighbours))


@block_encoder
def encode_iq2_xs(x, y, importance, first, levels, point, start, count, neighbours):
    """Groups of 16."""
    return _iq2_xs(x, y, importance, first, (levels, point, start, count, neighbours))


@block_encoder
def encode_iq2_s(x, y, importance, first, levels, point, start, count, neighbours):
    """Groups of 16; eight signs are stored."""
    return _iq2_s(x, y, importance, first, (levels, point, start, count, neighbours))


@block_encoder
def encode_iq3_xxs(x, y, importance, first, levels, point, start, count, neighbours):
    """Groups of 32, points of four."""
    return _iq3_xxs(x, y, importance, first, (levels, point, start, count, neighbours))


@block_encoder
def encode_iq3_s(x, y, importance, first, levels, point, start, count, neighbours):
    """Groups of 32, points of four; eight signs are stored."""
    return _iq3_s(x, y, importance, first, (levels, point, start, count, neighbours))
