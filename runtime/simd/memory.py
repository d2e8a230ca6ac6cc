"""Memory as kernels see it: a Buffer is an address and a length, addressed in bytes, unaligned.

    buffer(args, i)   the i-th Buffer of an operation's record: int64 pairs (address, bytes)
    integer(args, i)  the i-th int64 of the record;   number(args, i) the float64 in its place

Nothing checks an offset unless REFQUANT_CHECKED is set: then every load and store that would leave its buffer goes to a
scrap of memory instead, and is counted in the process-wide `overruns`, which whoever ran the kernel looks at.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from runtime.simd.tier import CHECKED, TIER
from runtime.simd.vectors import F16, F32, F64, I8, I16, I32, I64, LANES, call, constant, f32x16, i32x16, splat, u8x64


class Buffer(types.Type):
    """An address and the number of bytes that may be touched from there."""

    def __init__(self):
        super().__init__(name="Buffer")


@register_model(Buffer)
class _BufferModel(models.PrimitiveModel):
    def __init__(self, manager, value):
        super().__init__(manager, value, ir.LiteralStructType([I8.as_pointer(), I64]))


memory = Buffer()


def _global(builder: ir.IRBuilder, name: str, kind: ir.Type) -> ir.GlobalVariable:
    try:
        return builder.module.get_global(name)
    except KeyError:
        variable = ir.GlobalVariable(builder.module, kind, name)
        variable.linkage = "external"
        return variable


def at(builder: ir.IRBuilder, buffer: ir.Value, offset: ir.Value, pointee: ir.Type, size: int) -> ir.Value:
    """A pointer to `size` bytes at `offset` of `buffer`; in checked mode, to the scrap if they lie outside."""
    base = builder.extract_value(buffer, 0)
    pointer = builder.gep(base, [offset])
    if CHECKED:
        room = builder.sub(builder.extract_value(buffer, 1), ir.Constant(I64, size))
        inside = builder.and_(
            builder.icmp_signed(">=", offset, ir.Constant(I64, 0)), builder.icmp_signed("<=", offset, room)
        )
        counter = _global(builder, "refquant_overruns", I64)
        builder.atomic_rmw("add", counter, builder.zext(builder.not_(inside), I64), "monotonic")
        scrap = builder.bitcast(_global(builder, "refquant_scrap", ir.ArrayType(I8, 4096)), I8.as_pointer())
        pointer = builder.select(inside, pointer, scrap)
    return builder.bitcast(pointer, pointee.as_pointer())


def _argument(builder: ir.IRBuilder, args: ir.Value, index: ir.Value) -> ir.Value:
    return builder.gep(builder.inttoptr(args, I64.as_pointer()), [index])


@intrinsic
def buffer(_, args, i):
    """The Buffer whose address and length are the int64 2i and 2i + 1 of the record at address `args`."""

    def lower(context, builder, sig, values):
        args, i = values
        first = builder.mul(i, ir.Constant(I64, 2))
        address = builder.load(_argument(builder, args, first))
        length = builder.load(_argument(builder, args, builder.add(first, ir.Constant(I64, 1))))
        empty = ir.Constant(ir.LiteralStructType([I8.as_pointer(), I64]), ir.Undefined)
        pointer = builder.inttoptr(address, I8.as_pointer())
        return builder.insert_value(builder.insert_value(empty, pointer, 0), length, 1)

    return memory(types.int64, types.int64), lower


@intrinsic
def window(_, address, length):
    """The Buffer of `length` bytes at `address`."""

    def lower(context, builder, sig, values):
        empty = ir.Constant(ir.LiteralStructType([I8.as_pointer(), I64]), ir.Undefined)
        pointer = builder.inttoptr(values[0], I8.as_pointer())
        return builder.insert_value(builder.insert_value(empty, pointer, 0), values[1], 1)

    return memory(types.int64, types.int64), lower


@intrinsic
def integer(_, args, i):
    """The int64 number `i` of the record at address `args`."""
    return types.int64(types.int64, types.int64), lambda c, b, s, a: b.load(_argument(b, *a))


@intrinsic
def number(_, args, i):
    """The float64 whose bits are the int64 number `i` of the record at address `args`."""
    return types.float64(types.int64, types.int64), lambda c, b, s, a: b.bitcast(b.load(_argument(b, *a)), F64)


def _load(doc: str, result: types.Type, stored: ir.Type, size: int, widen=lambda builder, value: value):
    """An intrinsic load(buffer, offset) of `size` bytes as `stored`, turned into `result` by `widen`."""

    @intrinsic
    def load(_, source, offset):
        def lower(context, builder, sig, args):
            return widen(builder, builder.load(at(builder, *args, stored, size), align=1))

        return result(memory, types.int64), lower

    load.__doc__ = doc
    return load


def _store(doc: str, value: types.Type, stored: ir.Type, size: int, narrow=lambda builder, value: value):
    """An intrinsic store(buffer, offset, value) of `size` bytes, after `narrow` turned the value into `stored`."""

    @intrinsic
    def store(_, target, offset, v):
        def lower(context, builder, sig, args):
            builder.store(narrow(builder, args[2]), at(builder, *args[:2], stored, size), align=1)
            return context.get_dummy_value()

        return types.void(memory, types.int64, value), lower

    store.__doc__ = doc
    return store


def _of(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


def _widen_f16(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """float16 -> float32 by integer operations, where the CPU (or LLVM for it) has no instruction.

    The 15 bits below the sign, moved to a float32's place and multiplied by 2^112, are the value, subnormals included;
    an exponent of all ones (infinity, NaN) is set to all ones again.
    """
    if TIER != "portable":
        return builder.fpext(builder.bitcast(bits, _of(F16)), f32x16.ir)
    wide = builder.zext(bits, i32x16.ir)
    magnitude = builder.and_(wide, constant(i32x16, 0x7FFF))
    sign = builder.shl(builder.and_(wide, constant(i32x16, 0x8000)), constant(i32x16, 16))
    placed = builder.bitcast(builder.shl(magnitude, constant(i32x16, 13)), f32x16.ir)
    scaled = builder.bitcast(builder.fmul(placed, constant(f32x16, 2.0**112)), i32x16.ir)
    special = builder.icmp_unsigned(">=", magnitude, constant(i32x16, 0x7C00))
    scaled = builder.select(special, builder.or_(scaled, constant(i32x16, 0x7F800000)), scaled)
    return builder.bitcast(builder.or_(scaled, sign), f32x16.ir)


def _narrow_f16(builder: ir.IRBuilder, v: ir.Value) -> ir.Value:
    """float32 -> float16, to nearest, ties to even; too large gives infinity, a NaN a quiet NaN."""
    if TIER != "portable":
        return builder.bitcast(builder.fptrunc(v, _of(F16)), _of(I16))
    bits = builder.bitcast(v, i32x16.ir)
    number = lambda value: constant(i32x16, value)
    sign = builder.and_(builder.lshr(bits, number(16)), number(0x8000))
    magnitude = builder.and_(bits, number(0x7FFFFFFF))
    # Normal: the exponent moves from 127 to 15, and 0xFFF plus the last kept bit rounds half to even.
    odd = builder.and_(builder.lshr(magnitude, number(13)), number(1))
    rounded = builder.add(builder.add(builder.sub(magnitude, number(0x38000000)), number(0xFFF)), odd)
    normal = builder.lshr(rounded, number(13))
    # Subnormal: adding 0.5 puts the last bit of a float16 subnormal, 2^-24, into the last bit of a float32.
    tiny = builder.bitcast(builder.fadd(builder.bitcast(magnitude, f32x16.ir), constant(f32x16, 0.5)), i32x16.ir)
    subnormal = builder.sub(tiny, number(0x3F000000))
    half = builder.select(builder.icmp_unsigned("<", magnitude, number(0x38800000)), subnormal, normal)
    half = builder.select(builder.icmp_unsigned(">=", magnitude, number(0x477FF000)), number(0x7C00), half)
    half = builder.select(builder.icmp_unsigned(">", magnitude, number(0x7F800000)), number(0x7E00), half)
    return builder.trunc(builder.or_(half, sign), _of(I16))


@intrinsic
def round_f16(_, x):
    """The float16 nearest to x, ties to even, as a float32."""

    def lower(context, builder, sig, args):
        wide = _widen_f16(builder, _narrow_f16(builder, splat(builder, args[0])))
        return builder.extract_element(wide, ir.Constant(I32, 0))

    return types.float32(types.float32), lower


@intrinsic
def widen_f16(_, bits):
    """The float16 in the low half of each lane, as float32."""

    def lower(context, builder, sig, args):
        return _widen_f16(builder, builder.trunc(args[0], _of(I16)))

    return f32x16(i32x16), lower


@intrinsic
def narrow_f16(_, v):
    """The bits of the float16 nearest to each lane, ties to even."""

    def lower(context, builder, sig, args):
        return builder.zext(_narrow_f16(builder, args[0]), i32x16.ir)

    return i32x16(f32x16), lower


@intrinsic
def half_bits(_, x):
    """The bits of the float16 nearest to x, ties to even."""

    def lower(context, builder, sig, args):
        return builder.zext(_narrow_one(builder, args[0]), I64)

    return types.int64(types.float32), lower


def _from_bf16(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    return builder.bitcast(builder.shl(builder.zext(bits, i32x16.ir), constant(i32x16, 16)), f32x16.ir)


def _to_bf16(builder: ir.IRBuilder, v: ir.Value) -> ir.Value:
    """The upper half, rounded to nearest, ties to even; a NaN stays one."""
    bits = builder.bitcast(v, i32x16.ir)
    upper = builder.lshr(bits, constant(i32x16, 16))
    tie = builder.add(builder.and_(upper, constant(i32x16, 1)), constant(i32x16, 0x7FFF))
    rounded = builder.lshr(builder.add(bits, tie), constant(i32x16, 16))
    quiet = builder.or_(upper, constant(i32x16, 0x40))
    return builder.trunc(builder.select(builder.fcmp_unordered("uno", v, v), quiet, rounded), _of(I16))


def _four_bytes_everywhere(builder: ir.IRBuilder, word: ir.Value) -> ir.Value:
    return builder.bitcast(splat(builder, word), u8x64.ir)


load_f32x16 = _load("16 float32.", f32x16, f32x16.ir, 64)
load_f16x16 = _load("16 float16, widened.", f32x16, _of(I16), 32, _widen_f16)
load_bf16x16 = _load(
    "16 bfloat16, widened: a bfloat16 is the upper half of a float32.", f32x16, _of(I16), 32, _from_bf16
)
load_i32x16 = _load("16 int32.", i32x16, i32x16.ir, 64)
load_u16x16 = _load("16 uint16 as int32.", i32x16, _of(I16), 32, lambda b, v: b.zext(v, i32x16.ir))
load_u8x16 = _load("16 uint8 as int32.", i32x16, _of(I8), 16, lambda b, v: b.zext(v, i32x16.ir))
load_i8x16 = _load("16 int8 as int32.", i32x16, _of(I8), 16, lambda b, v: b.sext(v, i32x16.ir))
load_u8x64 = _load("64 bytes.", u8x64, u8x64.ir, 64)
broadcast_4 = _load("The 4 bytes in every lane.", u8x64, I32, 4, _four_bytes_everywhere)
broadcast_f32 = _load("A float32 in every lane.", f32x16, F32, 4, splat)
broadcast_f16 = _load("A float16 in every lane, widened.", f32x16, I16, 2, lambda b, v: _widen_f16(b, splat(b, v)))
broadcast_i32 = _load("An int32 in every lane.", i32x16, I32, 4, splat)
load_f32 = _load("A float32.", types.float32, F32, 4)
load_i32 = _load("An int32.", types.int32, I32, 4)
load_i64 = _load("An int64.", types.int64, I64, 8)
load_u8 = _load("A byte.", types.int64, I8, 1, lambda b, v: b.zext(v, I64))
load_u16 = _load("A uint16.", types.int64, I16, 2, lambda b, v: b.zext(v, I64))

store_f32x16 = _store("16 float32.", f32x16, f32x16.ir, 64)
store_f16x16 = _store("16 float32, each rounded to float16.", f32x16, _of(I16), 32, _narrow_f16)
store_bf16x16 = _store("16 float32, each rounded to bfloat16.", f32x16, _of(I16), 32, _to_bf16)
store_i32x16 = _store("16 int32.", i32x16, i32x16.ir, 64)
store_i8x16 = _store("The low bytes of 16 int32.", i32x16, _of(I8), 16, lambda b, v: b.trunc(v, _of(I8)))
store_u8x64 = _store("64 bytes.", u8x64, u8x64.ir, 64)
store_f32 = _store("A float32.", types.float32, F32, 4)
store_i32 = _store("An int32.", types.int32, I32, 4)
store_i64 = _store("An int64.", types.int64, I64, 8)
store_u16 = _store("The low two bytes of an int64.", types.int64, I16, 2, lambda b, v: b.trunc(v, I16))
store_u8 = _store("The low byte of an int64.", types.int64, I8, 1, lambda b, v: b.trunc(v, I8))


def _narrow_one(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return builder.extract_element(_narrow_f16(builder, splat(builder, x)), ir.Constant(I32, 0))


store_f16 = _store("A float32, rounded to float16.", types.float32, I16, 2, _narrow_one)


READ, WRITE = (0, 2), (1, 3)  # LLVM's numbers: what for, and how near: 2 the second cache, 3 the first


def ask(builder: ir.IRBuilder, buffer: ir.Value, offset: ir.Value, purpose: tuple[int, int]) -> None:
    """Ask for the cache line at `offset`, which may lie outside of the buffer."""
    pointer = builder.gep(builder.extract_value(buffer, 0), [offset])
    numbers = [ir.Constant(I32, value) for value in (*purpose, 1)]  # 1: data, not code
    call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, *numbers)


@intrinsic
def prefetch(_, source, offset):
    """Ask for the cache line at `offset`, which may lie outside of the buffer."""

    def lower(context, builder, sig, args):
        ask(builder, *args, READ)
        return context.get_dummy_value()

    return types.void(memory, types.int64), lower
