"""Dot products whose weights are signed bytes, and those of int16 pairs: what the products of super-blocks are made of.

x86 multiplies unsigned bytes by signed ones. The activations become the unsigned side: p + 128, which adds 128 times
the sum of the weights. That excess depends on the row and not on the token, so whoever starts the accumulators at
-EXCESS * (sum of the weights) pays for it once per row. Where signed bytes are multiplied by signed ones, it is 0.

    small   weights of -64..64: without VNNI, products are added in pairs to an int16, and 2 * 255 * 64 < 2^15
    any     weights of -128..127 and activations of -127..127

    pairs(acc, a, b)[lane] = acc[lane] + low(a) * low(b) + high(a) * high(b)       halves of the lane as int16

All integers are exact, and so the same in every tier.
"""

from llvmlite import ir

from runtime.simd.dot import NARROW, WIDE
from runtime.simd.tier import EXCESS_ANY, EXCESS_SMALL, TIER
from runtime.simd.vectors import I16, I32, call, constant, i32x16, join, part, u8x64


def _raised(builder, acc, w, p):
    return NARROW(builder, acc, p, w)


def _signed(builder, acc, w, p):
    return WIDE(builder, acc, builder.xor(w, constant(u8x64, 128)), p)


# (builder, acc, w, p) -> acc: four products of each lane of weights w and activations p, raised by the excess if any
SMALL = _raised if EXCESS_SMALL else _signed
ANY = _raised if EXCESS_ANY else _signed


def _by_instruction(name: str, lanes: int):
    kind = ir.VectorType(I32, lanes)

    def lower(builder, acc, a, b):
        parts = [[part(builder, v, i, lanes) for v in (acc, a, b)] for i in range(0, 16, lanes)]
        return join(builder, [call(builder, name, kind, *three) for three in parts])

    return lower


def _avx2(builder, acc, a, b):
    kind, pairs = ir.VectorType(I32, 8), ir.VectorType(I16, 16)
    both = lambda v, i: builder.bitcast(part(builder, v, i, 8), pairs)
    products = [call(builder, "llvm.x86.avx2.pmadd.wd", kind, both(a, i), both(b, i)) for i in (0, 8)]
    return builder.add(acc, join(builder, products))


def _generic(builder, acc, a, b):
    half = constant(i32x16, 16)
    low = [builder.ashr(builder.shl(v, half), half) for v in (a, b)]
    high = [builder.ashr(v, half) for v in (a, b)]
    return builder.add(builder.add(acc, builder.mul(*low)), builder.mul(*high))


PAIRS = {
    "avx512-vnni": _by_instruction("llvm.x86.avx512.vpdpwssd.512", 16),
    "avx-vnni": _by_instruction("llvm.x86.avx512.vpdpwssd.256", 8),
    "avx2": _avx2,
    "neon-dotprod": _generic,
    "portable": _generic,
}[TIER]
