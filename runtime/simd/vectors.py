"""Vectors as Numba values: a kernel holds registers in ordinary variables and writes `acc += to_f32(dot) * scale`.

    f32x16  sixteen float32        i32x16  sixteen int32        u8x64  sixty-four bytes, four to a lane of i32x16

A Numba type whose data model is an LLVM vector makes a register a value. + - * / on f32x16, + - * & | ^ << >> on the
integers (>> shifts zeros in) act lane by lane; a scalar on the right is put in every lane. Everything is one of LLVM's
generic operations, so every CPU can run it; where registers are narrower LLVM splits them, and no bit changes.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

LANES = 16
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()


class Vector(types.Type):
    """`lanes` values of one LLVM scalar type in a register."""

    def __init__(self, name: str, element: ir.Type, lanes: int):
        self.ir, self.element, self.lanes = ir.VectorType(element, lanes), element, lanes
        super().__init__(name=name)


class Tile(types.Type):
    """`count` vectors in one variable: the accumulators of a matrix product."""

    def __init__(self, vector: Vector, count: int):
        self.ir, self.vector, self.count = ir.ArrayType(vector.ir, count), vector, count
        super().__init__(name=f"{vector.name}*{count}")


@register_model(Vector)
@register_model(Tile)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager, value):
        super().__init__(manager, value, value.ir)


f32x16, i32x16, u8x64 = Vector("f32x16", F32, 16), Vector("i32x16", I32, 16), Vector("u8x64", I8, 64)


def constant(vector: Vector, value: int | float) -> ir.Constant:
    """`value` in every lane."""
    return ir.Constant(vector.ir, [value] * vector.lanes)


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int = LANES) -> ir.Value:
    """LLVM's idiom for a broadcast."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def part(builder: ir.IRBuilder, v: ir.Value, first: int, count: int) -> ir.Value:
    """Lanes first .. first + count of a vector."""
    return builder.shuffle_vector(v, v, ir.Constant(ir.VectorType(I32, count), list(range(first, first + count))))


def join(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    """1, 2, 4 ... vectors side by side."""
    while len(parts) > 1:
        lanes = 2 * parts[0].type.count
        every = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        parts = [builder.shuffle_vector(low, high, every) for low, high in zip(parts[::2], parts[1::2])]
    return parts[0]


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    """Call the LLVM intrinsic or C function `name`."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c, rounded once."""
    return call(builder, "llvm.fma.v16f32", a.type, a, b, c)


FLOAT_OPERATIONS = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
INTEGER_OPERATIONS = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.and_: "and_",
    operator.or_: "or_",
    operator.xor: "xor",
    operator.lshift: "shl",
    operator.rshift: "lshr",
}
IN_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}
IN_PLACE |= {operator.iand: operator.and_, operator.ior: operator.or_, operator.ixor: operator.xor}


def _define(function, operation: str, vectors: tuple[Vector, ...], scalar: type[types.Type]) -> None:
    """Teach Numba `function` on (v, v) and (v, scalar) for each of `vectors`."""

    class Operation(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and args[0] in vectors and (args[1] is args[0] or isinstance(args[1], scalar)):
                return signature(args[0], *args)

    infer_global(function)(Operation)

    def lower(context, builder, sig, args):
        left, right = args
        if sig.args[1] is not sig.args[0]:
            element = sig.args[0].element
            kind = types.float32 if element is F32 else types.int64
            right = context.cast(builder, right, sig.args[1], kind)
            right = right if element is F32 else builder.trunc(right, element)
            right = splat(builder, right, sig.args[0].lanes)
        return getattr(builder, operation)(left, right)

    for vector in vectors:
        lower_builtin(function, vector, vector)(lower)
        lower_builtin(function, vector, scalar)(lower)


for _table, _vectors, _scalar in (
    (FLOAT_OPERATIONS, (f32x16,), types.Float),
    (INTEGER_OPERATIONS, (i32x16, u8x64), types.Integer),
):
    for _function, _operation in _table.items():
        _define(_function, _operation, _vectors, _scalar)
    for _function, _same in IN_PLACE.items():
        if _same in _table:
            _define(_function, _table[_same], _vectors, _scalar)


@intrinsic
def splat_f32(_, x):
    """x in every lane."""
    return f32x16(types.float32), lambda context, builder, sig, args: splat(builder, args[0])


@intrinsic
def splat_i32(_, x):
    """x in every lane."""
    return i32x16(types.int32), lambda context, builder, sig, args: splat(builder, args[0])


@intrinsic
def to_f32(_, v):
    """The float32 nearest to each int32, ties to even."""
    return f32x16(i32x16), lambda context, builder, sig, args: builder.sitofp(args[0], f32x16.ir)


@intrinsic
def to_i32(_, v):
    """Each float32, which must be a whole number of int32, as that number."""
    return i32x16(f32x16), lambda context, builder, sig, args: builder.fptosi(args[0], i32x16.ir)


def _reinterpret(source: Vector, target: Vector):
    @intrinsic
    def reinterpret(_, v):
        return target(source), lambda context, builder, sig, args: builder.bitcast(args[0], target.ir)

    return reinterpret


as_u8, as_i32 = _reinterpret(i32x16, u8x64), _reinterpret(u8x64, i32x16)
f32_bits, bits_f32 = _reinterpret(f32x16, i32x16), _reinterpret(i32x16, f32x16)


def _unary(name: str):
    @intrinsic
    def unary(_, v):
        return f32x16(f32x16), lambda context, builder, sig, args: call(builder, name, f32x16.ir, args[0])

    return unary


round_half_even, absolute = _unary("llvm.rint.v16f32"), _unary("llvm.fabs.v16f32")


@intrinsic
def larger(_, a, b):
    """Lane by lane a if a > b else b: the twin is np.where(a > b, a, b), so a NaN in `a` gives b."""

    def lower(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return f32x16(f32x16, f32x16), lower


@intrinsic
def smaller(_, a, b):
    """Lane by lane a if a < b else b."""

    def lower(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return f32x16(f32x16, f32x16), lower


def _reduction(combine):
    """The lanes as a tree: those 8 apart first, then 4, 2 and 1."""

    def lower(context, builder, sig, args):
        value = args[0]
        for width in (8, 4, 2, 1):
            lanes = ir.VectorType(I32, width)
            low = builder.shuffle_vector(value, value, ir.Constant(lanes, list(range(width))))
            high = builder.shuffle_vector(value, value, ir.Constant(lanes, list(range(width, 2 * width))))
            value = combine(builder, low, high)
        return builder.extract_element(value, ir.Constant(I32, 0))

    return lower


@intrinsic
def sum_lanes(_, v):
    """The sum of the lanes, as a tree: lanes 8 apart first, then 4, 2 and 1."""
    return types.float32(f32x16), _reduction(lambda builder, low, high: builder.fadd(low, high))


@intrinsic
def largest_lane(_, v):
    """The largest lane."""
    pick = lambda builder, low, high: builder.select(builder.fcmp_ordered(">", low, high), low, high)
    return types.float32(f32x16), _reduction(pick)


@intrinsic
def smallest_lane(_, v):
    """The smallest lane."""
    pick = lambda builder, low, high: builder.select(builder.fcmp_ordered("<", low, high), low, high)
    return types.float32(f32x16), _reduction(pick)


@intrinsic
def sum_lanes_i32(_, v):
    """The sum of the lanes."""
    return types.int32(i32x16), _reduction(lambda builder, low, high: builder.add(low, high))


@intrinsic
def zero_below(_, v, x, limit):
    """Lane by lane 0 where x < limit, else v."""

    def lower(context, builder, sig, args):
        v, x, limit = args
        return builder.select(builder.fcmp_ordered("<", x, splat(builder, limit)), constant(f32x16, 0.0), v)

    return f32x16(f32x16, f32x16, types.float32), lower


@intrinsic
def count_up(_, first):
    """first, first + 1, ... as float32; exact below 2^24."""

    def lower(context, builder, sig, args):
        steps = ir.Constant(i32x16.ir, list(range(LANES)))
        return builder.sitofp(builder.add(splat(builder, builder.trunc(args[0], I32)), steps), f32x16.ir)

    return f32x16(types.int64), lower


@intrinsic
def where_above(_, x, limit, then, other):
    """Lane by lane `then` where x > limit, else `other`."""

    def lower(context, builder, sig, args):
        x, limit, then, other = args
        return builder.select(builder.fcmp_ordered(">", x, splat(builder, limit)), then, other)

    return f32x16(f32x16, types.float32, f32x16, f32x16), lower


def _every_second(first: int):
    @intrinsic
    def every_second(_, a, b):
        def lower(context, builder, sig, args):
            lanes = ir.Constant(i32x16.ir, list(range(first, 2 * LANES, 2)))
            return builder.shuffle_vector(*args, lanes)

        return i32x16(i32x16, i32x16), lower

    return every_second


even_lanes, odd_lanes = _every_second(0), _every_second(1)
even_lanes.__doc__ = "Lanes 0, 2, 4 ... of a, then those of b."
odd_lanes.__doc__ = "Lanes 1, 3, 5 ... of a, then those of b."


@intrinsic
def minus_where(_, v, test):
    """Byte by byte -v where `test` is not 0, else v."""

    def lower(context, builder, sig, args):
        v, test = args
        zero = constant(u8x64, 0)
        return builder.select(builder.icmp_unsigned("!=", test, zero), builder.sub(zero, v), v)

    return u8x64(u8x64, u8x64), lower


@intrinsic
def count_bits(_, v):
    """The number of bits set in each lane."""
    return i32x16(i32x16), lambda context, builder, sig, args: call(builder, "llvm.ctpop.v16i32", i32x16.ir, args[0])
