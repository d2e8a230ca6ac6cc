"""Q2_K to Q6_K with an importance matrix: the twins of `refquant.gguf.k_weighted`, which says what is searched where.

    weight of x in the search    v sqrt(factor m + x^2), v its importance, m the mean of x^2 over the block; Q6_K: v

Scratch as in `k_quants`; rows 544 .. 559 of `reals` hold what the groups weigh in the search of their scales.
"""

import numpy as np

from runtime.encoders.k_packing import pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k
from runtime.encoders.k_quants import narrow_q6_k
from runtime.encoders.lanes import fill_i32, gather, lesser_i32, load, root, store
from runtime.encoders.searches import NOTHING, positive_scale, scale_and_minimum, signed_scale, total
from runtime.encoders.signatures import lane_encoder
from runtime.jit import inlined
from runtime.simd import splat_f32


@inlined
def weigh(x, counts, sigma2):
    """`counts` holds importances, and then v sqrt(sigma2 + x^2)."""
    for i in range(len(x)):
        v = load(x, i)
        store(counts, i, load(counts, i) * root(sigma2 + v * v))


@inlined
def sum_of_squares(x):
    """x[0]^2 + x[1]^2 + ..., in this order."""
    result = splat_f32(NOTHING)
    for i in range(len(x)):
        result = result + load(x, i) * load(x, i)
    return result


@inlined
def _gather_weighed(x, importance, block, first, weights, counts, factor):
    gather(x, block, weights)
    gather(importance, (first + block) % (len(importance) - 15), counts)
    weigh(weights, counts, sum_of_squares(weights) * np.float32(factor) / np.float32(256))


@inlined
def _search(x, importance, block, first, reals, integers, n, factor, top, scale_top):
    """d and dmin of the types with a minimum, and the codes of everything."""
    groups = 256 // n
    weights, counts, codes = reals[:256], reals[256:512], integers[:256]
    scale, minimum, sums = reals[512 : 512 + groups], reals[528 : 528 + groups], reals[544 : 544 + groups]
    _gather_weighed(x, importance, block, first, weights, counts, factor)
    for g in range(groups):
        a, b = n * g, n * g + n
        s, low = scale_and_minimum(
            weights[a:b], counts[a:b], codes[a:b], top, np.float32(-0.9), np.float32(0.05), 36, False
        )
        store(scale, g, s)
        store(minimum, g, splat_f32(NOTHING) - low)
        store(sums, g, total(counts[a:b]))
    d = positive_scale(scale, sums, integers[256 : 256 + groups], scale_top)
    return d, positive_scale(minimum, sums, integers[272 : 272 + groups], scale_top)


@lane_encoder
def encode_q2_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 16."""
    for block in range(0, len(x), 16):
        d, dmin = _search(x, importance, block, first, reals, integers, 16, 1, 3, 15)
        pack_q2_k(y, block, reals[:256], integers[:256], integers[256:272], integers[272:288], d, dmin)
    return 0


@lane_encoder
def encode_q3_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 16; the scales are searched as the weights are."""
    weights, counts, scale, sums = reals[:256], reals[256:512], reals[512:528], reals[544:560]
    codes, sc = integers[:256], integers[256:272]
    for block in range(0, len(x), 16):
        _gather_weighed(x, importance, block, first, weights, counts, 2)
        for g in range(16):
            a, b = 16 * g, 16 * g + 16
            store(scale, g, signed_scale(weights[a:b], counts[a:b], codes[a:b], 4))
            store(sums, g, total(counts[a:b]))
        d = signed_scale(scale, sums, sc, 32)
        pack_q3_k(y, block, weights, codes, sc, d)
    return 0


@lane_encoder
def encode_q4_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 32."""
    for block in range(0, len(x), 16):
        d, dmin = _search(x, importance, block, first, reals, integers, 32, 2, 15, 63)
        pack_q4_k(y, block, reals[:256], integers[:256], integers[256:264], integers[272:280], d, dmin)
    return 0


@lane_encoder
def encode_q5_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 32."""
    sc, m = integers[256:264], integers[272:280]
    for block in range(0, len(x), 16):
        d, dmin = _search(x, importance, block, first, reals, integers, 32, 2, 31, 63)
        for g in range(8):
            store(sc, g, lesser_i32(load(sc, g), fill_i32(63)))
            store(m, g, lesser_i32(load(m, g), fill_i32(63)))
        pack_q5_k(y, block, reals[:256], integers[:256], sc, m, d, dmin)
    return 0


@lane_encoder
def encode_q6_k(x, y, importance, sigma2, first, reals, integers):
    """Groups of 16."""
    weights, counts, scale, codes = reals[:256], reals[256:512], reals[512:528], integers[:256]
    for block in range(0, len(x), 16):
        gather(x, block, weights)
        gather(importance, (first + block) % (len(importance) - 15), counts)
        for g in range(16):
            a, b = 16 * g, 16 * g + 16
            store(scale, g, signed_scale(weights[a:b], counts[a:b], codes[a:b], 32))
        narrow_q6_k(y, block, reals, integers)
    return 0
