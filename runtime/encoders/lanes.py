"""Sixteen blocks in the sixteen lanes of a vector: an encoder is written as if for one block, and runs for sixteen.

A scalar of the algorithm is a vector of `runtime.simd.vectors`, a lane of it for each block; `if` becomes `where`.
Nothing is ever added across lanes, so that every block keeps the order of its sums, and with it ggml's bytes.

    b1x16                    sixteen truth values: what > >= < <= == != give; & | ~ combine them
    where(test, a, b)        lane by lane a or b
    load(a, i), store        row i of an array (rows, 16) of float32 or int32
    spread(x, b, c, a, i)    columns c .. c + 15 of blocks b .. b + 15 to rows i .. i + 15 of `a`: a transposition
    put_8, put_16, put_32    the low bytes of each lane to byte `at` of each of the blocks b .. b + 15 of y

In checked mode every access that would leave its array is caught as `runtime.simd.memory` does it.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from runtime.jit import inlined
from runtime.simd.memory import at
from runtime.simd.vectors import (
    I1,
    I8,
    I16,
    I32,
    I64,
    LANES,
    Vector,
    call,
    f32_bits,
    f32x16,
    i32x16,
    splat,
)

MAGIC = np.float32(1.5 * 2**23)
b1x16 = Vector("b1x16", I1, LANES)
COMPARISONS = {
    operator.gt: ">",
    operator.ge: ">=",
    operator.lt: "<",
    operator.le: "<=",
    operator.eq: "==",
    operator.ne: "!=",
}


def _define_comparison(function, sign: str) -> None:
    @infer_global(function)
    class Comparison(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and args[0] in (f32x16, i32x16):
                scalar = types.Float if args[0] is f32x16 else types.Integer
                if args[1] is args[0] or isinstance(args[1], scalar):
                    return signature(b1x16, *args)

    def lower(context, builder, sig, args):
        left, right = args
        if sig.args[1] is not sig.args[0]:
            kind = types.float32 if sig.args[0] is f32x16 else types.int32
            right = splat(builder, context.cast(builder, right, sig.args[1], kind))
        if sig.args[0] is i32x16:
            return builder.icmp_signed(sign, left, right)
        # A comparison with a NaN is false, but for !=, as in C.
        compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        return compare(sign, left, right)

    for vector, scalar in ((f32x16, types.Float), (i32x16, types.Integer)):
        lower_builtin(function, vector, vector)(lower)
        lower_builtin(function, vector, scalar)(lower)


def _define_logic(function, operation: str) -> None:
    @infer_global(function)
    class Logic(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and args[0] is b1x16 and args[1] is b1x16:
                return signature(b1x16, *args)

    lower_builtin(function, b1x16, b1x16)(
        lambda context, builder, sig, args: getattr(builder, operation)(*args),
    )


for _function, _sign in COMPARISONS.items():
    _define_comparison(_function, _sign)
for _function, _operation in ((operator.and_, "and_"), (operator.or_, "or_")):
    _define_logic(_function, _operation)


@intrinsic
def no(_, test):
    """Where `test` does not hold."""
    return b1x16(b1x16), lambda context, builder, sig, args: builder.not_(args[0])


@intrinsic
def anywhere(_, test):
    """Whether it holds in any lane."""

    def lower(context, builder, sig, args):
        bits = builder.bitcast(args[0], I16)
        return builder.icmp_unsigned("!=", bits, ir.Constant(I16, 0))

    return types.boolean(b1x16), lower


@intrinsic
def where(_, test, then, other):
    """Lane by lane `then` where the test holds, else `other`."""
    lower = lambda context, builder, sig, args: builder.select(*args)
    return then(b1x16, then, then), lower


def _two(vector: Vector, name: str):
    @intrinsic
    def function(_, a, b):
        return vector(vector, vector), lambda c, builder, sig, args: call(builder, name, vector.ir, *args)

    return function


def _one(vector: Vector, name: str):
    @intrinsic
    def function(_, v):
        return vector(vector), lambda c, builder, sig, args: call(builder, name, vector.ir, args[0])

    return function


greater_i32, lesser_i32 = _two(i32x16, "llvm.smax.v16i32"), _two(i32x16, "llvm.smin.v16i32")
root, floor = _one(f32x16, "llvm.sqrt.v16f32"), _one(f32x16, "llvm.floor.v16f32")


@intrinsic
def fill_i32(_, value):
    """An integer in every lane."""

    def lower(context, builder, sig, args):
        return splat(builder, context.cast(builder, args[0], sig.args[0], types.int32))

    return i32x16(value), lower


@inlined
def nearest_int(v):
    """float32 -> int32, half to even, as ggml reads it off the low bits of v + 1.5 * 2^23: see refquant's twin."""
    return (f32_bits(v + MAGIC) & 0x7FFFFF) - 0x400000


@inlined
def clip(v, low, high):
    """Integers within low .. high."""
    return lesser_i32(greater_i32(v, fill_i32(low)), fill_i32(high))


def _buffer(context, builder, kind, array):
    """The Buffer (address, bytes) of an array."""
    struct = context.make_array(kind)(context, builder, array)
    size = builder.mul(struct.nitems, struct.itemsize)
    empty = ir.Constant(ir.LiteralStructType([I8.as_pointer(), I64]), ir.Undefined)
    pointer = builder.bitcast(struct.data, I8.as_pointer())
    return builder.insert_value(builder.insert_value(empty, pointer, 0), size, 1)


def _vector_of(kind) -> Vector:
    return f32x16 if kind.dtype == types.float32 else i32x16


def _row(builder, i, size: int):
    return builder.mul(i, ir.Constant(I64, size))


@intrinsic
def load(_, array, i):
    """Row i of an array (rows, 16)."""
    vector = _vector_of(array)

    def lower(context, builder, sig, args):
        i = context.cast(builder, args[1], sig.args[1], types.int64)
        source = _buffer(context, builder, array, args[0])
        return builder.load(at(builder, source, _row(builder, i, 64), vector.ir, 64), align=4)

    return vector(array, i), lower


@intrinsic
def store(_, array, i, v):
    """Write row i of an array (rows, 16)."""
    vector = _vector_of(array)

    def lower(context, builder, sig, args):
        i = context.cast(builder, args[1], sig.args[1], types.int64)
        target = _buffer(context, builder, array, args[0])
        builder.store(args[2], at(builder, target, _row(builder, i, 64), vector.ir, 64), align=4)
        return context.get_dummy_value()

    return types.void(array, i, vector), lower


@intrinsic
def load_16(_, array, i):
    """Numbers i .. i + 15 of a flat float32 array."""

    def lower(context, builder, sig, args):
        i = context.cast(builder, args[1], sig.args[1], types.int64)
        source = _buffer(context, builder, array, args[0])
        return builder.load(at(builder, source, _row(builder, i, 4), f32x16.ir, 64), align=4)

    return f32x16(array, i), lower


def _interleave(builder, a, b, width: int):
    """Two vectors: runs of `width` lanes of a and b in turn, from the even runs and from the odd ones."""
    for first in (0, width):
        lanes = []
        for start in range(first, LANES, 2 * width):
            lanes += [*range(start, start + width), *range(start + LANES, start + LANES + width)]
        yield builder.shuffle_vector(a, b, ir.Constant(i32x16.ir, lanes))


@intrinsic
def spread(_, x, block, column, target, row):
    """Sixteen columns of sixteen blocks, transposed: lane k of row `row` + c is x[block + k, column + c]."""

    def lower(context, builder, sig, args):
        block, column, row = (context.cast(builder, args[i], sig.args[i], types.int64) for i in (1, 2, 4))
        source, to = _buffer(context, builder, x, args[0]), _buffer(context, builder, target, args[3])
        width = builder.extract_value(context.make_array(x)(context, builder, args[0]).shape, 1)
        rows = []
        for k in range(LANES):
            index = builder.add(builder.mul(builder.add(block, ir.Constant(I64, k)), width), column)
            rows.append(builder.load(at(builder, source, _row(builder, index, 4), f32x16.ir, 64), align=4))
        for half in (8, 4, 2, 1):  # exchanges the off-diagonal quarters of ever smaller squares
            for k in range(LANES):
                if not k & half:
                    rows[k], rows[k + half] = _interleave(builder, rows[k], rows[k + half], half)
        for c in range(LANES):
            offset = _row(builder, builder.add(row, ir.Constant(I64, c)), 64)
            builder.store(rows[c], at(builder, to, offset, f32x16.ir, 64), align=4)
        return context.get_dummy_value()

    return types.void(x, block, column, target, row), lower


def _put(kind: ir.IntType):
    @intrinsic
    def put(_, y, block, offset, v):
        def lower(context, builder, sig, args):
            block, offset = (context.cast(builder, args[i], sig.args[i], types.int64) for i in (1, 2))
            target = _buffer(context, builder, y, args[0])
            width = builder.extract_value(context.make_array(y)(context, builder, args[0]).shape, 1)
            values = args[3] if kind is I32 else builder.trunc(args[3], ir.VectorType(kind, LANES))
            for k in range(LANES):
                here = builder.add(builder.mul(builder.add(block, ir.Constant(I64, k)), width), offset)
                value = builder.extract_element(values, ir.Constant(I32, k))
                builder.store(value, at(builder, target, here, kind, kind.width // 8), align=1)
            return context.get_dummy_value()

        return types.void(y, block, offset, i32x16), lower

    return put


put_8, put_16, put_32 = _put(I8), _put(I16), _put(I32)


@intrinsic
def take(_, table, index):
    """table[index] lane by lane: a flat float32 array; every index must be inside."""

    def lower(context, builder, sig, args):
        source = _buffer(context, builder, table, args[0])
        result = ir.Constant(f32x16.ir, ir.Undefined)
        for k in range(LANES):
            i = builder.zext(builder.extract_element(args[1], ir.Constant(I32, k)), I64)
            value = builder.load(at(builder, source, _row(builder, i, 4), f32x16.element, 4))
            result = builder.insert_element(result, value, ir.Constant(I32, k))
        return result

    return f32x16(table, i32x16), lower


@inlined
def word(a, b, c, d):
    """Four bytes in each lane, a the lowest."""
    return a | (b << 8) | (c << 16) | (d << 24)


@inlined
def four(codes, i, shift, mask):
    """Rows i .. i + 3 of an int32 array as four bytes: (code >> shift) & mask."""
    return word(
        (load(codes, i) >> shift) & mask,
        (load(codes, i + 1) >> shift) & mask,
        (load(codes, i + 2) >> shift) & mask,
        (load(codes, i + 3) >> shift) & mask,
    )


@inlined
def gather(array, block, target):
    """The first len(target) columns of sixteen blocks to the rows of `target`."""
    for column in range(0, len(target), 16):
        spread(array, block, column, target, column)
