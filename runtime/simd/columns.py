"""Codes of activations in the order in which a packed word holds its columns.

A word of one- or two-bit codes gives four of them in place, `(word >> i) & 0x01010101`, but those of columns i, i + 8,
i + 16, i + 24 (i, i + 4, ... for two bits). So the codes that they are multiplied with are brought in that order:

    columns_by_8(codes, at)     32 bytes at `at`; lane i: bytes i, i + 8, i + 16, i + 24            i in 0..7
    columns_by_4(codes, at)     lanes i and i + 4: bytes i, i + 4, i + 8, i + 12 of the first 16 bytes and of the second
    lane(v, i)                  lane i in every lane
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.simd.memory import at, memory
from runtime.simd.vectors import I8, I32, i32x16, splat, u8x64


def _columns(stride: int):
    """Each 4 * stride bytes as a matrix of 4 rows, transposed; the upper half of the vector repeats the lower."""
    first = [i // (4 * stride) * 4 * stride for i in range(32)]
    order = [first[i] + i % 4 * stride + i % (4 * stride) // 4 for i in range(32)]

    @intrinsic
    def columns(_, source, offset):
        def lower(context, builder, sig, args):
            half = builder.load(at(builder, *args, ir.VectorType(I8, 32), 32), align=1)
            return builder.shuffle_vector(half, half, ir.Constant(ir.VectorType(I32, 64), order * 2))

        return u8x64(memory, types.int64), lower

    return columns


columns_by_4, columns_by_8 = _columns(4), _columns(8)


@intrinsic
def lane(_, v, i):
    """The four bytes of lane i in every lane."""

    def lower(context, builder, sig, args):
        words = builder.bitcast(args[0], i32x16.ir)
        return builder.bitcast(splat(builder, builder.extract_element(words, builder.trunc(args[1], I32))), u8x64.ir)

    return u8x64(u8x64, types.int64), lower
