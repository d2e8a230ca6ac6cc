"""Q4_0 Q4_1 Q5_0 Q5_1 with an importance matrix: the twins of `refquant.gguf.legacy_weighted`.

    Q4_0 Q5_0    signed_scale          Q4_1 Q5_1    scale_and_minimum

weight of x in the search    v sqrt(sigma2 + x^2)      v its importance, sigma2 the mean of x^2 over the whole row
"""

import numpy as np
from numba import types

from runtime.encoders.k_weighted import weigh
from runtime.encoders.lanes import gather, load_16, put_16, put_32
from runtime.encoders.legacy import put_fifth_bits, put_nibbles
from runtime.encoders.searches import scale_and_minimum, signed_scale
from runtime.encoders.signatures import FLOAT_ROW, FLOATS, lane_encoder
from runtime.jit import array_entry, inlined
from runtime.simd import narrow_f16


@array_entry(types.int64(FLOATS, FLOAT_ROW))
def mean_squares(rows, out):
    """The mean of x^2 of each row, a sum in the order of the row divided by its length."""
    for r in range(len(rows)):
        result = np.float32(0)
        for i in range(rows.shape[1]):
            result += rows[r, i] * rows[r, i]
        out[r] = result / np.float32(rows.shape[1])
    return len(rows)


@inlined
def _gather_weighed(x, importance, sigma2, block, first, weights, counts):
    gather(x, block, weights)
    gather(importance, (first + block) % (len(importance) - 15), counts)
    weigh(weights, counts, load_16(sigma2, block))


@inlined
def _signed(x, importance, sigma2, block, first, reals, codes, half):
    """d; fills `codes`."""
    _gather_weighed(x, importance, sigma2, block, first, reals[:32], reals[32:64])
    return signed_scale(reals[:32], reals[32:64], codes, half)


@inlined
def _ranged(x, importance, sigma2, block, first, reals, codes, top):
    """Both scales as they are stored; fills `codes`."""
    _gather_weighed(x, importance, sigma2, block, first, reals[:32], reals[32:64])
    d, m = scale_and_minimum(reals[:32], reals[32:64], codes, top, np.float32(-0.9), np.float32(0.05), 36, False)
    return narrow_f16(d) | (narrow_f16(m) << 16)


@lane_encoder
def encode_q4_0(x, y, importance, sigma2, first, reals, integers):
    """d, then the nibbles."""
    codes = integers[:32]
    for block in range(0, len(x), 16):
        put_16(y, block, 0, narrow_f16(_signed(x, importance, sigma2, block, first, reals, codes, 8)))
        put_nibbles(y, block, codes, 2)
    return 0


@lane_encoder
def encode_q4_1(x, y, importance, sigma2, first, reals, integers):
    """d, m, then the nibbles."""
    codes = integers[:32]
    for block in range(0, len(x), 16):
        put_32(y, block, 0, _ranged(x, importance, sigma2, block, first, reals, codes, 15))
        put_nibbles(y, block, codes, 4)
    return 0


@lane_encoder
def encode_q5_0(x, y, importance, sigma2, first, reals, integers):
    """d, the fifth bits, then the nibbles."""
    codes = integers[:32]
    for block in range(0, len(x), 16):
        put_16(y, block, 0, narrow_f16(_signed(x, importance, sigma2, block, first, reals, codes, 16)))
        put_fifth_bits(y, block, codes, 2)
        put_nibbles(y, block, codes, 6)
    return 0


@lane_encoder
def encode_q5_1(x, y, importance, sigma2, first, reals, integers):
    """d, m, the fifth bits, then the nibbles."""
    codes = integers[:32]
    for block in range(0, len(x), 16):
        put_32(y, block, 0, _ranged(x, importance, sigma2, block, first, reals, codes, 31))
        put_fifth_bits(y, block, codes, 4)
        put_nibbles(y, block, codes, 8)
    return 0
