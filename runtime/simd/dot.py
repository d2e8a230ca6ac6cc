"""Dot products of bytes, four to a lane: the operations that differ between tiers.

    dot_narrow(acc, u, s)[lane] = acc[lane] + sum_j u[4 lane + j] * s[4 lane + j]              u in 0..127
    dot_wide(acc, u, s)[lane]   = the same with u - 128 for u, u in 0..255, if acc began as start_wide(sum of all s)

With VNNI, u enters as it is and start_wide(sum) is -128 * sum; without it, products are added in pairs to an int16,
which holds two of 128 * 127 and not two of 255 * 127, so u - 128 is multiplied and start_wide is 0. Either way the
integers are exact, and so the same in every tier.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.simd.tier import TIER, VNNI
from runtime.simd.vectors import I1, I8, I16, I32, call, i32x16, join, part, splat, u8x64


def _in_parts(builder, acc, u, s, lanes: int, emit) -> ir.Value:
    """`emit` on registers of `lanes` int32."""
    return join(
        builder,
        [
            emit(part(builder, acc, i, lanes), part(builder, u, 4 * i, 4 * lanes), part(builder, s, 4 * i, 4 * lanes))
            for i in range(0, 16, lanes)
        ],
    )


def _avx512(builder, acc, u, s):
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", i32x16.ir, acc, u, s)


def _avx_vnni(builder, acc, u, s):
    kind = ir.VectorType(I32, 8)
    emit = lambda a, x, y: call(builder, "llvm.x86.avx512.vpdpbusd.256", kind, a, x, y)
    return _in_parts(builder, acc, u, s, 8, emit)


def _avx2(builder, acc, u, s):
    wide, pairs = ir.VectorType(I32, 8), ir.VectorType(I16, 16)
    ones = ir.Constant(pairs, [1] * 16)

    def emit(a, x, y):
        products = call(builder, "llvm.x86.avx2.pmadd.ub.sw", pairs, x, y)
        return builder.add(a, call(builder, "llvm.x86.avx2.pmadd.wd", wide, products, ones))

    return _in_parts(builder, acc, u, s, 8, emit)


def _neon(builder, acc, u, s):
    kind = ir.VectorType(I32, 4)
    # Below 128 an unsigned byte is a signed one, and sdot takes two signed operands.
    emit = lambda a, x, y: call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", kind, a, x, y)
    return _in_parts(builder, acc, u, s, 4, emit)


def _portable(widen_u: str):
    def lower(builder, acc, u, s):
        """Bytes j of all lanes as vectors of 16, which shifts sign- or zero-extend in place."""
        u, s = builder.bitcast(u, i32x16.ir), builder.bitcast(s, i32x16.ir)
        number = lambda value: ir.Constant(i32x16.ir, [value] * 16)
        for shift in (24, 16, 8, 0):
            left = getattr(builder, widen_u)(builder.shl(u, number(shift)), number(24))
            right = builder.ashr(builder.shl(s, number(shift)), number(24))
            acc = builder.add(acc, builder.mul(left, right))
        return acc

    return lower


_portable_unsigned, _portable_signed = _portable("lshr"), _portable("ashr")


def _signed_avx2(builder, acc, u, s):
    """|w| * (s with the sign of w): a product of an unsigned and a signed byte again."""
    wide, pairs, bytes_ = ir.VectorType(I32, 8), ir.VectorType(I16, 16), ir.VectorType(I8, 32)
    ones, middle = ir.Constant(pairs, [1] * 16), ir.Constant(bytes_, [128] * 32)

    def emit(a, x, y):
        w = builder.xor(x, middle)
        size = call(builder, "llvm.abs.v32i8", bytes_, w, ir.Constant(I1, 0))  # 128 for -128: unsigned from here on
        turned = call(builder, "llvm.x86.avx2.psign.b", bytes_, y, w)
        products = call(builder, "llvm.x86.avx2.pmadd.ub.sw", pairs, size, turned)
        return builder.add(a, call(builder, "llvm.x86.avx2.pmadd.wd", wide, products, ones))

    return _in_parts(builder, acc, u, s, 8, emit)


def _signed(emit):
    """u - 128 as a signed byte, for tiers that multiply signed bytes."""

    def lower(builder, acc, u, s):
        return emit(builder, acc, builder.xor(u, ir.Constant(u8x64.ir, [128] * 64)), s)

    return lower


NARROW, WIDE = {
    "avx512-vnni": (_avx512, _avx512),
    "avx-vnni": (_avx_vnni, _avx_vnni),
    "avx2": (_avx2, _signed_avx2),
    "neon-dotprod": (_neon, _signed(_neon)),
    "portable": (_portable_unsigned, _signed(_portable_signed)),
}[TIER]


@intrinsic
def dot_narrow(_, acc, u, s):
    """acc + the four products of each lane; every byte of u below 128."""
    return i32x16(i32x16, u8x64, u8x64), lambda context, builder, sig, args: NARROW(builder, *args)


@intrinsic
def dot_wide(_, acc, u, s):
    """acc + the four products of each lane of u - 128 and s, where acc began as start_wide(sum of all s)."""
    return i32x16(i32x16, u8x64, u8x64), lambda context, builder, sig, args: WIDE(builder, *args)


def start_of_wide(builder: ir.IRBuilder, total: ir.Value) -> ir.Value:
    """What an accumulator of dot_wide begins with, given the sum of the signed operand."""
    if not VNNI:
        return ir.Constant(i32x16.ir, [0] * 16)
    return splat(builder, builder.mul(total, ir.Constant(I32, -128)))


@intrinsic
def start_wide(_, total):
    """What an accumulator of dot_wide begins with, given the sum of the signed operand."""
    return i32x16(types.int32), lambda context, builder, sig, args: start_of_wide(builder, args[0])
