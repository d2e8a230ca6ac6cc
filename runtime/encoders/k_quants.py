"""Q2_K to Q6_K and Q8_K without an importance matrix: the twins of `refquant.gguf.k_encoders`, sixteen blocks at once.

    1  search   scale (and minimum) of each group: `searches`
    2  narrow   the scales of a super-block to integers under one float16
    3  round    the weights under the scales as they will be read back, and pack: `k_packing`

`signatures` says how a function is called. Scratch: rows 0 .. 255 of `reals` are the weights of a block, 256 .. 511
what an error in each counts, then 16 rows each of scales, minima and sums; `integers` has the codes and the scales.
"""

import numpy as np

from runtime.encoders.k_packing import pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k, pack_q6_k
from runtime.encoders.lanes import (
    clip,
    fill_i32,
    four,
    gather,
    lesser_i32,
    load,
    nearest_int,
    put_16,
    put_32,
    root,
    store,
    where,
)
from runtime.encoders.searches import (
    ALL_ZERO,
    NOTHING,
    ONE,
    first_extreme,
    scale_and_minimum,
    signed_descent,
    signed_scale,
    total,
)
from runtime.encoders.signatures import lane_encoder
from runtime.jit import inlined
from runtime.simd import absolute, f32_bits, larger, splat_f32


@inlined
def narrow(values, integers, top):
    """Integers 0 .. top for values >= 0, and the value of one step."""
    peak = splat_f32(NOTHING)
    for g in range(len(values)):
        peak = larger(load(values, g), peak)
    some = peak > NOTHING
    inverse = where(some, splat_f32(np.float32(top)) / peak, splat_f32(NOTHING))
    for g in range(len(values)):
        store(integers, g, lesser_i32(nearest_int(inverse * load(values, g)) & 255, fill_i32(top)))
    return peak / np.float32(top)


@inlined
def narrow_signed(values, integers, top):
    """Integers -top .. top - 1 for values of any sign, and the value of one step. Zeros give -top and 0."""
    extreme = first_extreme(values)
    zero = extreme == NOTHING
    iscale = splat_f32(np.float32(-top)) / extreme
    for g in range(len(values)):
        integer = where(zero, fill_i32(-top), nearest_int(iscale * load(values, g)))
        store(integers, g, clip(integer, -top, top - 1))
    return where(zero, splat_f32(NOTHING), splat_f32(ONE) / iscale)


@lane_encoder
def encode_q2_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 16, weighed by |x|, with the absolute error."""
    weights, counts, scale, minimum = reals[:256], reals[256:512], reals[512:528], reals[528:544]
    codes, sc, m = integers[:256], integers[256:272], integers[272:288]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        for i in range(256):
            store(counts, i, absolute(load(weights, i)))
        for g in range(16):
            a, b = 16 * g, 16 * g + 16
            s, low = scale_and_minimum(
                weights[a:b], counts[a:b], codes[a:b], 3, np.float32(-0.5), np.float32(0.1), 15, True
            )
            store(scale, g, s)
            store(minimum, g, splat_f32(NOTHING) - low)
        d, dmin = narrow(scale, sc, 15), narrow(minimum, m, 15)
        pack_q2_k(y, block, weights, codes, sc, m, d, dmin)
    return 0


@lane_encoder
def encode_q3_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 16, weighed by x^2."""
    weights, scale = reals[:256], reals[512:528]
    codes, sc = integers[:256], integers[256:272]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        for g in range(16):
            a, b = 16 * g, 16 * g + 16
            store(scale, g, signed_descent(weights[a:b], codes[a:b], 4))
        d = narrow_signed(scale, sc, 32)
        for g in range(16):
            store(sc, g, load(sc, g) + 32)
        pack_q3_k(y, block, weights, codes, sc, d)
    return 0


@inlined
def _search_32(x, block, reals, integers, top, first, last):
    """d and dmin of Q4_K and Q5_K; groups of 32, weighed by rms + |x|."""
    weights, counts, scale, minimum = reals[:256], reals[256:512], reals[512:520], reals[528:536]
    codes, sc, m = integers[:256], integers[256:264], integers[272:280]
    gather(x, block, weights)
    for g in range(8):
        a, b = 32 * g, 32 * g + 32
        for i in range(a, b):
            store(counts, i, load(weights, i) * load(weights, i))
        rms = root(total(counts[a:b]) / np.float32(32))
        for i in range(a, b):
            store(counts, i, rms + absolute(load(weights, i)))
        s, low = scale_and_minimum(weights[a:b], counts[a:b], codes[a:b], top, first, np.float32(0.1), last, False)
        store(scale, g, s)
        store(minimum, g, splat_f32(NOTHING) - low)
    return narrow(scale, sc, 63), narrow(minimum, m, 63)


@lane_encoder
def encode_q4_k(x, y, importance, sigma2, first, reals, integers):
    """See `_search_32`."""
    for block in range(0, len(x), 16):
        d, dmin = _search_32(x, block, reals, integers, 15, np.float32(-1), 20)
        pack_q4_k(y, block, reals[:256], integers[:256], integers[256:264], integers[272:280], d, dmin)
    return 0


@lane_encoder
def encode_q5_k(x, y, importance, sigma2, first, reals, integers):
    """See `_search_32`."""
    for block in range(0, len(x), 16):
        d, dmin = _search_32(x, block, reals, integers, 31, np.float32(-0.5), 15)
        pack_q5_k(y, block, reals[:256], integers[:256], integers[256:264], integers[272:280], d, dmin)
    return 0


@inlined
def narrow_q6_k(y, block, reals, integers):
    """Steps 2 and 3; a block whose scales are all below 1e-15 becomes zero bytes."""
    scale, sc = reals[512:528], integers[256:272]
    tiny = absolute(first_extreme(scale)) < ALL_ZERO
    d = narrow_signed(scale, sc, 128)
    pack_q6_k(y, block, reals[:256], integers[:256], sc, d, tiny)


@lane_encoder
def encode_q6_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 16, weighed by x^2."""
    weights, counts, scale, codes = reals[:256], reals[256:512], reals[512:528], integers[:256]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        for i in range(256):
            store(counts, i, load(weights, i) * load(weights, i))
        for g in range(16):
            a, b = 16 * g, 16 * g + 16
            store(scale, g, signed_scale(weights[a:b], counts[a:b], codes[a:b], 32))
        narrow_q6_k(y, block, reals, integers)
    return 0


@lane_encoder
def encode_q8_k(x, y, importance, sigma2, first, reals, integers):
    """One scale, -extreme / 127 as float32, no search; then the sums of 16 codes each."""
    weights, codes = reals[:256], integers[:256]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        extreme = first_extreme(weights)
        zero = extreme == NOTHING
        iscale = where(zero, splat_f32(NOTHING), splat_f32(np.float32(-127)) / extreme)
        put_32(y, block, 0, f32_bits(where(zero, splat_f32(NOTHING), splat_f32(ONE) / iscale)))
        for i in range(256):
            store(codes, i, lesser_i32(nearest_int(iscale * load(weights, i)), fill_i32(127)))
        for i in range(0, 256, 4):
            put_32(y, block, 4 + i, four(codes, i, 0, 255))
        for g in range(16):
            bsum = fill_i32(0)
            for i in range(16 * g, 16 * g + 16):
                bsum = bsum + load(codes, i)
            put_16(y, block, 260 + 2 * g, bsum)
    return 0
