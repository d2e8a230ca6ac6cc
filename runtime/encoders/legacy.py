"""Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 without an importance matrix: the twins of `refquant.gguf.legacy`.

    Q4_0 Q5_0   d = (the x of the largest |x|) / -8, -16      q = trunc(x / d + 8.5), 16.5
    Q4_1 Q5_1   d = (max - min) / 15, 31; m = min             q = trunc((x - m) / d + 0.5)
    Q8_0 Q8_1   d = max|x| / 127                              q = x / d rounded half away from zero

x / d is x times the float32 reciprocal of d, before d is narrowed. `signatures` says how a function is called.
"""

import numpy as np

from runtime.encoders.lanes import fill_i32, four, gather, lesser_i32, load, put_16, put_32, store
from runtime.encoders.rounding import HALF, finite_or, half_away, reciprocal
from runtime.encoders.searches import NOTHING, first_extreme
from runtime.encoders.signatures import lane_encoder
from runtime.jit import inlined
from runtime.simd import absolute, larger, narrow_f16, smaller, splat_f32, to_f32, to_i32


@inlined
def put_nibbles(y, block, codes, at):
    """Sixteen bytes: byte j is BBBBAAAA, A = code j, B = code 16 + j."""
    for j in range(0, 16, 4):
        put_32(y, block, at + j, four(codes, j, 0, 15) | (four(codes, j + 16, 0, 15) << 4))


@inlined
def put_fifth_bits(y, block, codes, at):
    """Four bytes: bit i is the fifth bit of code i."""
    bits = fill_i32(0)
    for i in range(32):
        bits = bits | ((load(codes, i) >> 4) << i)
    put_32(y, block, at, bits)


@inlined
def _signed(x, block, weights, codes, half):
    """d; fills `codes`."""
    gather(x, block, weights)
    d = first_extreme(weights) / np.float32(-half)
    inverse = reciprocal(d)
    for i in range(32):
        scaled = finite_or(load(weights, i) * inverse + np.float32(half + 0.5), NOTHING)
        store(codes, i, lesser_i32(to_i32(scaled), fill_i32(2 * half - 1)))
    return d


@inlined
def _ranged(x, block, weights, codes, top):
    """d and m; fills `codes`."""
    gather(x, block, weights)
    low = high = load(weights, 0)
    for i in range(1, 32):
        low, high = smaller(load(weights, i), low), larger(load(weights, i), high)
    d = (high - low) / np.float32(top)
    inverse = reciprocal(d)
    for i in range(32):
        scaled = finite_or((load(weights, i) - low) * inverse + HALF, NOTHING)
        store(codes, i, lesser_i32(to_i32(scaled), fill_i32(top)))
    return d, low


@inlined
def _bytes(x, block, weights, codes):
    """d; fills `codes`."""
    gather(x, block, weights)
    peak = splat_f32(NOTHING)
    for i in range(32):
        peak = larger(absolute(load(weights, i)), peak)
    d = peak / np.float32(127)
    inverse = reciprocal(d)
    for i in range(32):
        store(codes, i, half_away(finite_or(load(weights, i) * inverse, NOTHING)))
    return d


@lane_encoder
def encode_q4_0(x, y, importance, sigma2, first, reals, integers):
    """d, then the nibbles."""
    weights, codes = reals[:32], integers[:32]
    for block in range(0, len(x), 16):
        put_16(y, block, 0, narrow_f16(_signed(x, block, weights, codes, 8)))
        put_nibbles(y, block, codes, 2)
    return 0


@lane_encoder
def encode_q4_1(x, y, importance, sigma2, first, reals, integers):
    """d, m, then the nibbles."""
    weights, codes = reals[:32], integers[:32]
    for block in range(0, len(x), 16):
        d, m = _ranged(x, block, weights, codes, 15)
        put_32(y, block, 0, narrow_f16(d) | (narrow_f16(m) << 16))
        put_nibbles(y, block, codes, 4)
    return 0


@lane_encoder
def encode_q5_0(x, y, importance, sigma2, first, reals, integers):
    """d, the fifth bits, then the nibbles."""
    weights, codes = reals[:32], integers[:32]
    for block in range(0, len(x), 16):
        put_16(y, block, 0, narrow_f16(_signed(x, block, weights, codes, 16)))
        put_fifth_bits(y, block, codes, 2)
        put_nibbles(y, block, codes, 6)
    return 0


@lane_encoder
def encode_q5_1(x, y, importance, sigma2, first, reals, integers):
    """d, m, the fifth bits, then the nibbles."""
    weights, codes = reals[:32], integers[:32]
    for block in range(0, len(x), 16):
        d, m = _ranged(x, block, weights, codes, 31)
        put_32(y, block, 0, narrow_f16(d) | (narrow_f16(m) << 16))
        put_fifth_bits(y, block, codes, 4)
        put_nibbles(y, block, codes, 8)
    return 0


@lane_encoder
def encode_q8_0(x, y, importance, sigma2, first, reals, integers):
    """d, then a byte a weight."""
    weights, codes = reals[:32], integers[:32]
    for block in range(0, len(x), 16):
        put_16(y, block, 0, narrow_f16(_bytes(x, block, weights, codes)))
        for i in range(0, 32, 4):
            put_32(y, block, 2 + i, four(codes, i, 0, 255))
    return 0


@lane_encoder
def encode_q8_1(x, y, importance, sigma2, first, reals, integers):
    """d, s = d times the sum of the codes, then a byte a weight."""
    weights, codes = reals[:32], integers[:32]
    for block in range(0, len(x), 16):
        d = _bytes(x, block, weights, codes)
        codes_sum = fill_i32(0)
        for i in range(32):
            codes_sum = codes_sum + load(codes, i)
        put_32(y, block, 0, narrow_f16(d) | (narrow_f16(to_f32(codes_sum) * d) << 16))
        for i in range(0, 32, 4):
            put_32(y, block, 4 + i, four(codes, i, 0, 255))
    return 0
