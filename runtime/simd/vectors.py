"""f32x16: sixteen float32 in a register, in LLVM's generic vector operations, so that every CPU can run them.

A Numba type whose data model is an LLVM vector lets `@intrinsic` functions pass registers around as values. Arrays are
addressed by byte offset, unaligned; nothing here checks bounds, so every offset is validated before a kernel runs.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
I8, I16, I32, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()


class Vector(types.Type):
    """`lanes` values of one LLVM scalar type in a register."""

    def __init__(self, name: str, element: ir.Type, lanes: int):
        self.ir, self.lanes = ir.VectorType(element, lanes), lanes
        super().__init__(name=name)


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A Vector is its LLVM vector, in registers and in memory."""

    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.ir)


f32x16 = Vector("f32x16", F32, LANES)
_u16x16, _u32x16 = ir.VectorType(I16, LANES), ir.VectorType(I32, LANES)


def _at(context, builder, array_type, array, byte_offset, pointee):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(builder.bitcast(data, I8.as_pointer()), [byte_offset]), pointee.as_pointer())


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_u32x16, [value] * LANES)


@intrinsic
def load_f32(_, array, byte_offset):
    """16 float32 at `byte_offset` of `array`."""

    def lower(context, builder, sig, args):
        return builder.load(_at(context, builder, sig.args[0], *args, f32x16.ir), align=1)

    return f32x16(array, types.intp), lower


@intrinsic
def load_bf16(_, array, byte_offset):
    """16 bfloat16 at `byte_offset`, widened: a bfloat16 is the upper half of a float32."""

    def lower(context, builder, sig, args):
        bits = builder.zext(builder.load(_at(context, builder, sig.args[0], *args, _u16x16), align=1), _u32x16)
        return builder.bitcast(builder.shl(bits, _constant(16)), f32x16.ir)

    return f32x16(array, types.intp), lower


@intrinsic
def load_f16(_, array, byte_offset):
    """16 float16 at `byte_offset`, widened by integer operations (LLVM's own widening is a library call on old CPUs).

    The 15 bits below the sign, moved to a float32's place and multiplied by 2^112, are the value, subnormals included;
    an exponent of all ones (infinity, NaN) keeps its meaning by being set to all ones again.
    """

    def lower(context, builder, sig, args):
        bits = builder.zext(builder.load(_at(context, builder, sig.args[0], *args, _u16x16), align=1), _u32x16)
        magnitude = builder.and_(bits, _constant(0x7FFF))
        sign = builder.shl(builder.and_(bits, _constant(0x8000)), _constant(16))
        placed = builder.bitcast(builder.shl(magnitude, _constant(13)), f32x16.ir)
        scaled = builder.bitcast(builder.fmul(placed, ir.Constant(f32x16.ir, [2.0**112] * LANES)), _u32x16)
        special = builder.icmp_unsigned(">=", magnitude, _constant(0x7C00))
        scaled = builder.select(special, builder.or_(scaled, _constant(0x7F800000)), scaled)
        return builder.bitcast(builder.or_(scaled, sign), f32x16.ir)

    return f32x16(array, types.intp), lower


@intrinsic
def store_f32(_, array, byte_offset, v):
    """Write 16 float32 at `byte_offset`."""

    def lower(context, builder, sig, args):
        builder.store(args[2], _at(context, builder, sig.args[0], args[0], args[1], f32x16.ir), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, f32x16), lower


@intrinsic
def splat(_, x):
    """`x` in every lane."""

    def lower(context, builder, sig, args):
        undefined = ir.Constant(f32x16.ir, ir.Undefined)
        first = builder.insert_element(undefined, args[0], ir.Constant(I32, 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(_u32x16, [0] * LANES))

    return f32x16(types.float32), lower


@intrinsic
def add(_, a, b):
    """Lane by lane a + b."""
    return f32x16(f32x16, f32x16), lambda context, builder, sig, args: builder.fadd(*args)


@intrinsic
def mul(_, a, b):
    """Lane by lane a * b."""
    return f32x16(f32x16, f32x16), lambda context, builder, sig, args: builder.fmul(*args)


@intrinsic
def reduce_add(_, v):
    """The sum of the lanes as a tree: lanes 8 apart first, then 4, 2 and 1."""

    def lower(context, builder, sig, args):
        value = args[0]
        for width in (8, 4, 2, 1):
            low = ir.Constant(ir.VectorType(I32, width), list(range(width)))
            high = ir.Constant(ir.VectorType(I32, width), list(range(width, 2 * width)))
            value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        return builder.extract_element(value, ir.Constant(I32, 0))

    return types.float32(f32x16), lower


@intrinsic
def float_bits(_, x):
    """The 32 bits of a float32 as uint32."""
    return types.uint32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], I32)


@intrinsic
def bits_float(_, x):
    """The float32 with these 32 bits."""
    return types.float32(types.uint32), lambda context, builder, sig, args: builder.bitcast(args[0], F32)


@intrinsic
def load_u16(_, array, byte_offset):
    """The little-endian uint16 at `byte_offset`."""

    def lower(context, builder, sig, args):
        return builder.load(_at(context, builder, sig.args[0], *args, I16), align=1)

    return types.uint16(array, types.intp), lower


def _dot(lanes: int):
    """int32 sum of `lanes` products of int8 at two byte offsets; integers, so the order does not matter."""
    narrow, wide = ir.VectorType(I8, lanes), ir.VectorType(I32, lanes)

    @intrinsic
    def dot(_, a, a_offset, b, b_offset):
        def lower(context, builder, sig, args):
            a_type, _, b_type, _ = sig.args
            first = builder.load(_at(context, builder, a_type, args[0], args[1], narrow), align=1)
            second = builder.load(_at(context, builder, b_type, args[2], args[3], narrow), align=1)
            products = builder.mul(builder.sext(first, wide), builder.sext(second, wide))
            kind = ir.FunctionType(I32, [wide])
            name = f"llvm.vector.reduce.add.v{lanes}i32"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [products])

        return types.int32(a, types.intp, b, types.intp), lower

    return dot


dot_16, dot_32 = _dot(16), _dot(32)
