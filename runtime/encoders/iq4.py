"""IQ4_NL and IQ4_XS, with and without an importance matrix: the twins of `refquant.gguf.iq4_encoders`.

    1  try      inverse scales 127 / peak, then (t - 127) / peak for t = -7 .. 7: the one that lowers the error most
    2  narrow   IQ4_XS: d = -(the s of the largest |s|) / 32 and l = s / d rounded, within -32 .. 31
    3  round    the levels nearest to x / s (IQ4_XS: x / (d l))

The level nearest to y depends on floor(2 y) alone, for midpoints of levels are multiples of 1/2: two tables of 512.
"""

import numpy as np

from runtime.encoders.k_weighted import sum_of_squares, weigh
from runtime.encoders.lanes import (
    clip,
    fill_i32,
    floor,
    gather,
    load,
    nearest_int,
    put_16,
    put_32,
    store,
    take,
    where,
)
from runtime.encoders.legacy import put_nibbles
from runtime.encoders.rounding import reciprocal
from runtime.encoders.searches import ALL_ZERO, NOTHING, ONE, first_extreme
from runtime.encoders.signatures import lane_encoder
from runtime.jit import inlined
from runtime.simd import absolute, larger, narrow_f16, smaller, splat_f32, to_f32, to_i32

LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
HALF_STEPS = np.arange(-256, 256, dtype=np.float32)  # 2 y
CODES = np.searchsorted(LEVELS[1:] + LEVELS[:-1], HALF_STEPS, side="right").astype(np.float32)
NEAREST = LEVELS[CODES.astype(np.int64)]
FIRST, LAST = np.float32(-256), np.float32(255)


@inlined
def _half_steps(y):
    """Where in the tables the number y stands; a NaN stands with the largest, as ggml's bisection has it."""
    return to_i32(larger(smaller(floor(y + y), splat_f32(LAST)), splat_f32(FIRST))) + 256


@inlined
def _sums(x, w, inverse):
    """sum(w v x) and sum(w v^2), v the levels nearest to inverse x."""
    vx = vv = splat_f32(NOTHING)
    for i in range(len(x)):
        weight, value = load(x, i), take(NEAREST, _half_steps(inverse * load(x, i)))
        wv = load(w, i) * value
        vx = vx + wv * weight
        vv = vv + wv * value
    return vx, vv


@inlined
def _try(x, w):
    """The scale of a group of 32."""
    peak, zero = first_extreme(x), splat_f32(NOTHING)
    vx, vv = _sums(x, w, splat_f32(ONE) / (peak / np.float32(127)))
    s = where(vv > NOTHING, vx / vv, zero)
    gain = s * vx
    for t in range(-7, 8):
        vx, vv = _sums(x, w, splat_f32(np.float32(t - 127)) / peak)
        better = (vv > NOTHING) & (vx * vx > gain * vv)
        s = where(better, vx / vv, s)
        gain = where(better, s * vx, gain)
    return where(absolute(peak) < ALL_ZERO, zero, s)


@inlined
def _put_nearest(y, block, x, codes, inverse, at):
    for i in range(32):
        store(codes, i, to_i32(take(CODES, _half_steps(inverse * load(x, i)))))
    put_nibbles(y, block, codes, at)


@inlined
def _counts(x, counts, importance, row, factor):
    """What an error in each weight counts: x^2, or with importance as in `k_weighted`."""
    if len(importance):
        gather(importance, row, counts)
        weigh(x, counts, sum_of_squares(x) * factor)
    else:
        for i in range(len(x)):
            store(counts, i, load(x, i) * load(x, i))


@inlined
def _row(importance, block):
    return block % (len(importance) - 15) if len(importance) else 0


@lane_encoder
def encode_iq4_nl(x, y, importance, sigma2, first, reals, integers):
    """d, then the nibbles."""
    weights, counts = reals[:32], reals[256:288]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        _counts(weights, counts, importance, _row(importance, first + block), np.float32(2 / 32))
        s = _try(weights, counts)
        put_16(y, block, 0, narrow_f16(s))
        _put_nearest(y, block, weights, integers[:32], reciprocal(s), 2)
    return 0


@lane_encoder
def encode_iq4_xs(x, y, importance, sigma2, first, reals, integers):
    """d, the high bits of all l, their low bits, then the nibbles."""
    weights, counts, scale, l = reals[:256], reals[256:512], reals[512:520], integers[32:40]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        _counts(weights, counts, importance, _row(importance, first + block), np.float32(2 / 256))
        for g in range(8):
            store(scale, g, _try(weights[32 * g : 32 * g + 32], counts[32 * g : 32 * g + 32]))
        d = first_extreme(scale) / np.float32(-32)
        inverse, high = reciprocal(d), fill_i32(0)
        for g in range(8):
            integer = clip(nearest_int(inverse * load(scale, g)), -32, 31)
            _put_nearest(
                y,
                block,
                weights[32 * g : 32 * g + 32],
                integers[:32],
                reciprocal(d * to_f32(integer)),
                8 + 16 * g,
            )
            integer = integer + 32
            store(l, g, integer)
            high = high | ((integer >> 4) << (2 * g))
        put_32(y, block, 0, narrow_f16(d) | (high << 16))
        even, odd = fill_i32(0), fill_i32(0)
        for g in range(4):
            even = even | ((load(l, 2 * g) & 15) << (8 * g))
            odd = odd | ((load(l, 2 * g + 1) & 15) << (8 * g + 4))
        put_32(y, block, 4, even | odd)
    return 0
