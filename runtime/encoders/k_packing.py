"""The last step of every K-quant encoder, sixteen blocks at once: the twin of `refquant.gguf.k_packing`.

    Q2_K Q4_K Q5_K    q = nearest((x + dmin m) / (d sc))      clipped to 0 .. 3, 15, 31
    Q3_K Q6_K         q = nearest(x / (d sc)) + 4, 32         clipped to 0 .. 7, 63

d and dmin are narrowed to float16 first. Where d sc is 0, the codes of the search stay. The bytes are drawn in
`refquant.gguf.k_quants`; four neighbours are written as one word.
"""

from runtime.encoders.lanes import clip, fill_i32, four, load, nearest_int, put_16, put_32, store, where
from runtime.encoders.searches import NOTHING
from runtime.jit import inlined
from runtime.simd import narrow_f16, to_f32, widen_f16


@inlined
def _round_with_minimum(x, codes, sc, m, d, dmin, n, top):
    """d and dmin are bits of float16."""
    for g in range(len(sc)):
        scale, minimum = widen_f16(d) * to_f32(load(sc, g)), widen_f16(dmin) * to_f32(load(m, g))
        found = scale != NOTHING
        for i in range(n * g, n * g + n):
            q = clip(nearest_int((load(x, i) + minimum) / scale), 0, top)
            store(codes, i, where(found, q, load(codes, i)))


@inlined
def _round_signed(x, codes, sc, d, offset, top):
    """Scales are sc - offset; groups of 16."""
    for g in range(16):
        scale = widen_f16(d) * to_f32(load(sc, g) - offset)
        found = scale != NOTHING
        for i in range(16 * g, 16 * g + 16):
            q = clip(nearest_int(load(x, i) / scale), -top, top - 1) + top
            store(codes, i, where(found, q, load(codes, i)))


@inlined
def _two_bits(y, block, codes, shift, at):
    """Two runs of 32 bytes at `at`, two bits of each code from `shift` on: byte j is DDCCBBAA, 32 weights apart."""
    for run in range(2):
        for j in range(0, 32, 4):
            i = 128 * run + j
            packed = fill_i32(0)
            for plane in range(4):
                packed = packed | (four(codes, i + 32 * plane, shift, 3) << (2 * plane))
            put_32(y, block, at + 32 * run + j, packed)


@inlined
def _one_bit(y, block, codes, bit, at):
    """32 bytes at `at`: bit p of byte j is bit `bit` of the code of weight 32 p + j."""
    for j in range(0, 32, 4):
        packed = fill_i32(0)
        for plane in range(8):
            packed = packed | (four(codes, 32 * plane + j, bit, 1) << plane)
        put_32(y, block, at + j, packed)


@inlined
def _four_bits(y, block, codes, run, at):
    """Runs of `run` bytes from `at` on, the low four bits of each code: byte j is BBBBAAAA, `run` weights apart."""
    for start in range(0, 128, run):
        for j in range(0, run, 4):
            i = 2 * start + j
            put_32(y, block, at + start + j, four(codes, i, 0, 15) | (four(codes, i + run, 0, 15) << 4))


@inlined
def _eight_scales(y, block, sc, m):
    """Twelve bytes at 4: the inverse of `k_quants.eight_scales`."""
    for j in range(4):
        s, s_far, low, low_far = load(sc, j), load(sc, j + 4), load(m, j), load(m, j + 4)
        store(sc, j, s | ((s_far >> 4) << 6))
        store(m, j, low | ((low_far >> 4) << 6))
        store(sc, j + 4, (s_far & 15) | ((low_far & 15) << 4))
    put_32(y, block, 4, four(sc, 0, 0, 255))
    put_32(y, block, 8, four(m, 0, 0, 255))
    put_32(y, block, 12, four(sc, 4, 0, 255))


@inlined
def pack_q2_k(y, block, x, codes, sc, m, d, dmin):
    """sc and m 0..15."""
    d, dmin = narrow_f16(d), narrow_f16(dmin)
    _round_with_minimum(x, codes, sc, m, d, dmin, 16, 3)
    for g in range(0, 16, 4):
        put_32(y, block, g, four(sc, g, 0, 15) | (four(m, g, 0, 15) << 4))
    _two_bits(y, block, codes, 0, 16)
    put_32(y, block, 80, d | (dmin << 16))


@inlined
def pack_q3_k(y, block, x, codes, sc, d):
    """sc 0..63, which stands for sc - 32."""
    d = narrow_f16(d)
    _round_signed(x, codes, sc, d, 32, 4)
    _one_bit(y, block, codes, 2, 0)
    _two_bits(y, block, codes, 0, 32)
    for j in range(0, 8, 4):
        put_32(y, block, 96 + j, four(sc, j, 0, 15) | (four(sc, j + 8, 0, 15) << 4))
    packed = fill_i32(0)
    for plane in range(4):
        packed = packed | (four(sc, 4 * plane, 4, 3) << (2 * plane))
    put_32(y, block, 104, packed)
    put_16(y, block, 108, d)


@inlined
def pack_q4_k(y, block, x, codes, sc, m, d, dmin):
    """sc and m 0..63."""
    d, dmin = narrow_f16(d), narrow_f16(dmin)
    _round_with_minimum(x, codes, sc, m, d, dmin, 32, 15)
    put_32(y, block, 0, d | (dmin << 16))
    _eight_scales(y, block, sc, m)
    _four_bits(y, block, codes, 32, 16)


@inlined
def pack_q5_k(y, block, x, codes, sc, m, d, dmin):
    """sc and m 0..63."""
    d, dmin = narrow_f16(d), narrow_f16(dmin)
    _round_with_minimum(x, codes, sc, m, d, dmin, 32, 31)
    put_32(y, block, 0, d | (dmin << 16))
    _eight_scales(y, block, sc, m)
    _one_bit(y, block, codes, 4, 16)
    _four_bits(y, block, codes, 32, 48)


@inlined
def pack_q6_k(y, block, x, codes, sc, d, tiny):
    """sc -128 .. 127; where `tiny` holds, all bytes are 0."""
    d = where(tiny, fill_i32(0), narrow_f16(d))
    _round_signed(x, codes, sc, d, 0, 32)
    for i in range(256):
        store(codes, i, where(tiny, fill_i32(0), load(codes, i)))
    _four_bits(y, block, codes, 64, 0)
    _two_bits(y, block, codes, 4, 128)
    for g in range(0, 16, 4):
        put_32(y, block, 192 + g, where(tiny, fill_i32(0), four(sc, g, 0, 255)))
    put_16(y, block, 208, d)
