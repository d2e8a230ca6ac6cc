"""Q1_0 Q2_0 TQ1_0 TQ2_0 MXFP4 NVFP4: the twins of `refquant.gguf.bit_streams`, `ternary` and `fp4`, which explain them.

No search, and importance is ignored. `signatures` says how a function is called.
"""

import math

import numpy as np

from runtime.encoders.lanes import fill_i32, floor, four, gather, load, put_8, put_16, put_32, store, take, where, word
from runtime.encoders.legacy import put_nibbles
from runtime.encoders.rounding import HALF, finite_or, half_away, reciprocal
from runtime.encoders.searches import NOTHING
from runtime.encoders.signatures import lane_encoder
from runtime.jit import inlined
from runtime.simd import absolute, f32_bits, larger, narrow_f16, smaller, splat_f32, to_f32, to_i32

E8M0_HALF = np.ldexp(np.float32(1), np.arange(256) - 128).astype(np.float32)
DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32)


def _ue4m3_half() -> np.ndarray:
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    values = np.where(exponent == 0, np.ldexp(mantissa / 1.0, -10), np.ldexp(1 + mantissa / 8, exponent - 8))
    values[0x7F] = 0
    return values.astype(np.float32)


UE4M3_HALF = _ue4m3_half()


@inlined
def _peak(x):
    peak = splat_f32(NOTHING)
    for i in range(len(x)):
        peak = larger(absolute(load(x, i)), peak)
    return peak


@inlined
def _consecutive(codes, i, bits, count):
    """`count` codes from i on in the lowest bits, the first lowest."""
    packed = fill_i32(0)
    for k in range(count):
        packed = packed | (load(codes, i + k) << (bits * k))
    return packed


@lane_encoder
def encode_q1_0(x, y, importance, sigma2, first, reals, integers):
    """d = mean |x|, then a bit a weight: x >= 0."""
    weights, codes = reals[:128], integers[:128]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        size = splat_f32(NOTHING)
        for i in range(128):
            size = size + absolute(load(weights, i))
            store(codes, i, where(load(weights, i) >= NOTHING, fill_i32(1), fill_i32(0)))
        put_16(y, block, 0, narrow_f16(size / np.float32(128)))
        for i in range(0, 128, 32):
            put_32(y, block, 2 + i // 8, _consecutive(codes, i, 1, 32))
    return 0


@lane_encoder
def encode_q2_0(x, y, importance, sigma2, first, reals, integers):
    """d = max |x|, then two bits a weight: x / d rounded, plus 1."""
    weights, codes = reals[:64], integers[:64]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        d = _peak(weights)
        inverse = reciprocal(d)
        for i in range(64):
            store(codes, i, half_away(finite_or(load(weights, i) * inverse, np.float32(-1))) + 1)
        put_16(y, block, 0, narrow_f16(d))
        for i in range(0, 64, 16):
            put_32(y, block, 2 + i // 4, _consecutive(codes, i, 2, 16))
    return 0


@inlined
def _ternary(x, block, weights, codes):
    """d; fills `codes` with 0, 1, 2."""
    gather(x, block, weights)
    d = _peak(weights)
    inverse = reciprocal(d)
    for i in range(256):
        store(codes, i, half_away(finite_or(load(weights, i) * inverse, NOTHING)) + 1)
    return d


@inlined
def _fraction(codes, i, step, count):
    """Digits i, i + step, ... as a byte: ceil(256 n / 243), n their number in base 3; a fifth that lacks is 0."""
    number = fill_i32(0)
    for k in range(5):
        number = number * 3
        if k < count:
            number = number + load(codes, i + step * k)
    return to_i32(floor(to_f32(number * 256 + 242) / np.float32(243)))  # exact: 1 / 243 is far more than an ulp


@inlined
def _fractions(y, block, codes, start, n, count, at):
    """n bytes for the n * count weights from `start` on."""
    for j in range(0, n, 4):
        i = start + j
        packed = word(
            _fraction(codes, i, n, count),
            _fraction(codes, i + 1, n, count),
            _fraction(codes, i + 2, n, count),
            _fraction(codes, i + 3, n, count),
        )
        put_32(y, block, at + j, packed)


@lane_encoder
def encode_tq1_0(x, y, importance, sigma2, first, reals, integers):
    """Bytes of five digits, twice; four of four digits; d."""
    weights, codes = reals[:256], integers[:256]
    for block in range(0, len(x), 16):
        d = _ternary(x, block, weights, codes)
        _fractions(y, block, codes, 0, 32, 5, 0)
        _fractions(y, block, codes, 160, 16, 5, 32)
        _fractions(y, block, codes, 240, 4, 4, 48)
        put_16(y, block, 52, narrow_f16(d))
    return 0


@lane_encoder
def encode_tq2_0(x, y, importance, sigma2, first, reals, integers):
    """Two runs of 32 bytes, DDCCBBAA with 32 weights between the letters; d."""
    weights, codes = reals[:256], integers[:256]
    for block in range(0, len(x), 16):
        d = _ternary(x, block, weights, codes)
        for start in range(0, 64, 32):
            for j in range(0, 32, 4):
                packed = fill_i32(0)
                for plane in range(4):
                    packed = packed | (four(codes, 4 * start + j + 32 * plane, 0, 3) << (2 * plane))
                put_32(y, block, start + j, packed)
        put_16(y, block, 64, narrow_f16(d))
    return 0


@inlined
def _nearest_e2m1(v, half_scale):
    """The code of the level nearest to v, the lower of equals; never -0."""
    size = absolute(v)
    least, code = size, fill_i32(0)
    for k in range(1, 8):
        off = absolute(half_scale * DOUBLED[k] - size)
        nearer = off < least
        code = where(nearer, fill_i32(k), code)
        least = smaller(off, least)
    return where((v < NOTHING) & (code > 0), code | 8, code)


@lane_encoder
def encode_mxfp4(x, y, importance, sigma2, first, reals, integers):
    """The exponent, then the nibbles. log2 is rounded to float32 before the floor, as log2f has it."""
    weights, codes, peaks, exponents = reals[:32], integers[:32], reals[32:33], integers[32:33]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        store(peaks, 0, _peak(weights))
        for lane in range(16):
            peak = peaks[0, lane]
            exponent = math.floor(np.float32(math.log2(np.float64(peak)))) + 125 if peak > NOTHING else 0
            exponents[0, lane] = exponent & 255
        e = load(exponents, 0)
        put_8(y, block, 0, e)
        half_scale = take(E8M0_HALF, e)
        for i in range(32):
            store(codes, i, _nearest_e2m1(load(weights, i), half_scale))
        put_nibbles(y, block, codes, 1)
    return 0


@inlined
def _ue4m3(v):
    """The byte nearest to v >= 0, half up, 448 at most; none lie between 240 and 448."""
    bits = f32_bits(smaller(v, splat_f32(np.float32(448))))
    normal = (bits >> 20) + ((bits >> 19) & 1) - (120 << 3)  # E and M of float32 in a row: a carry out of M enters E
    normal = where(normal < 15 << 3, normal, fill_i32(0x7E))
    units = smaller(v * np.float32(512) + HALF, splat_f32(np.float32(7)))  # of 2^-9
    return where((bits >> 23) <= 120, to_i32(units), normal)


@lane_encoder
def encode_nvfp4(x, y, importance, sigma2, first, reals, integers):
    """Four scales of sixteen weights each, then their nibbles."""
    weights, codes, scales = reals[:64], integers[:64], integers[64:68]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        for s in range(4):
            d = _ue4m3(_peak(weights[16 * s : 16 * s + 16]) / np.float32(6))
            store(scales, s, d)
            half_scale = take(UE4M3_HALF, d)
            for i in range(16 * s, 16 * s + 16):
                store(codes, i, _nearest_e2m1(load(weights, i), half_scale))
            for j in range(0, 8, 4):
                i = 16 * s + j
                put_32(y, block, 4 + 8 * s + j, four(codes, i, 0, 15) | (four(codes, i + 8, 0, 15) << 4))
        put_32(y, block, 0, four(scales, 0, 0, 255))
    return 0
