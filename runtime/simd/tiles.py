"""Tiles: the accumulators of a matrix product, 32 rows (two vectors) by T tokens, as one value.

An operation of a tile emits the instructions for all of its vectors, so that the register blocking of a kernel stands
in one place. Offsets are in bytes; `stride` is the distance between the data of two tokens.

    zeros()                                 float32 zeros
    load(y, at, stride)                     a float tile from y[token, 32 rows]
    store(y, at, stride, acc)               and back
    start(sums, at, stride, bias)           int32: -bias * sums[token] in every row
    start_wide(sums, at, stride)            int32: what dot_wide wants
    outer(dots, panel, at, codes, to, stride)       dots += 4 columns: 32 rows of panel times each token
    outer_wide                                      the same for codes that stand 128 too high
    outer_small, outer_any                          the same for signed codes and what runtime.simd.signed wants of
                                                    activations
    outer_pairs                                     the same for int16: 32 rows of 2 columns; `codes` holds int32, two
                                                    of them
    scaled(acc, dots, d, at, e, to, stride)         acc += float32(dots) * (d[row] * e[token])
    lowered(acc, dots, d, at, e, to, stride)        acc -= float32(dots) * (d[row] * e[token])
    nothing()                                       int32 zeros
    weighted(total, dots, weights, at)              total += weights[row] * dots
    alike(panel, at)                        int32: the 32 numbers at `at`, for every token
    rank_one(acc, low, high, x, at, stride)         acc += rows (two f32x16) * x[token]
    fused(acc, low, high, x, at, stride)            the same, rounded once
    fused_pairs(acc, w, at, x, to, stride)          acc += two columns in bfloat16 (runtime.simd.bf16)
    ask_for(y, at, stride)                          the lines that `store` will write, asked for ahead of time
    offset(acc, m, at, e, to, stride, sums, by, step)    acc -= m[row] * (float32(sums[token]) * e[token])
"""

from types import SimpleNamespace

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.simd import bf16, dot, signed
from runtime.simd.memory import WRITE, ask, memory
from runtime.simd.memory import at as pointer
from runtime.simd.vectors import F32, I32, I64, Tile, f32x16, fma, i32x16, splat, u8x64

ROWS = 2  # vectors of 16 rows


def tile_operations(tokens: int) -> SimpleNamespace:
    """The operations above for tiles of `tokens` tokens."""
    count = ROWS * tokens
    floats, integers = Tile(f32x16, count), Tile(i32x16, count)
    size = types.int64

    def number(value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def vectors(builder, buffer, offset, kind) -> list[ir.Value]:
        """The two vectors of 16 rows at `offset`."""
        at = [builder.add(offset, number(64 * g)) for g in range(ROWS)]
        return [builder.load(pointer(builder, buffer, here, kind, 64), align=1) for here in at]

    def scalars(builder, buffer, offset, stride, kind) -> list[ir.Value]:
        """One scalar for each token."""
        at = [builder.add(offset, builder.mul(stride, number(t))) for t in range(tokens)]
        return [builder.load(pointer(builder, buffer, here, kind, 4), align=1) for here in at]

    def pack(builder, values, tile) -> ir.Value:
        result = ir.Constant(tile.ir, ir.Undefined)
        for i, value in enumerate(values):
            result = builder.insert_value(result, value, i)
        return result

    def unpack(builder, tile) -> list[ir.Value]:
        return [builder.extract_value(tile, i) for i in range(count)]

    @intrinsic
    def zeros(_):
        return floats(), lambda context, builder, sig, args: ir.Constant(floats.ir, None)

    @intrinsic
    def load(_, y, at, stride):
        def lower(context, builder, sig, args):
            y, at, stride = args
            rows = [
                vectors(builder, y, builder.add(at, builder.mul(stride, number(t))), f32x16.ir) for t in range(tokens)
            ]
            return pack(builder, [rows[i // ROWS][i % ROWS] for i in range(count)], floats)

        return floats(memory, size, size), lower

    @intrinsic
    def store(_, y, at, stride, acc):
        def lower(context, builder, sig, args):
            y, at, stride, acc = args
            for i, value in enumerate(unpack(builder, acc)):
                to = builder.add(at, builder.add(builder.mul(stride, number(i // ROWS)), number(64 * (i % ROWS))))
                builder.store(value, pointer(builder, y, to, f32x16.ir, 64), align=1)
            return context.get_dummy_value()

        return types.void(memory, size, size, floats), lower

    @intrinsic
    def start(_, sums, at, stride, bias):
        def lower(context, builder, sig, args):
            sums, at, stride, bias = args
            factor = builder.trunc(builder.neg(bias), I32)
            first = [splat(builder, builder.mul(s, factor)) for s in scalars(builder, sums, at, stride, I32)]
            return pack(builder, [first[i // ROWS] for i in range(count)], integers)

        return integers(memory, size, size, size), lower

    @intrinsic
    def start_wide(_, sums, at, stride):
        def lower(context, builder, sig, args):
            first = [dot.start_of_wide(builder, s) for s in scalars(builder, *args, I32)]
            return pack(builder, [first[i // ROWS] for i in range(count)], integers)

        return integers(memory, size, size), lower

    def outer_product(emit):
        @intrinsic
        def outer(_, dots, panel, at, codes, to, stride):
            def lower(context, builder, sig, args):
                dots, panel, at, codes, to, stride = args
                rows = vectors(builder, panel, at, u8x64.ir)
                values = unpack(builder, dots)
                for t, word in enumerate(scalars(builder, codes, to, stride, I32)):
                    four = builder.bitcast(splat(builder, word), u8x64.ir)
                    for g in range(ROWS):
                        values[t * ROWS + g] = emit(builder, values[t * ROWS + g], rows[g], four)
                return pack(builder, values, integers)

            return integers(integers, memory, size, memory, size, size), lower

        return outer

    @intrinsic
    def scaled(_, acc, dots, d, at, e, to, stride):
        def lower(context, builder, sig, args):
            acc, dots, d, at, e, to, stride = args
            rows = vectors(builder, d, at, f32x16.ir)
            scales = [splat(builder, x) for x in scalars(builder, e, to, stride, F32)]
            values = unpack(builder, acc)
            for i, whole in enumerate(unpack(builder, dots)):
                factor = builder.fmul(rows[i % ROWS], scales[i // ROWS])
                values[i] = builder.fadd(values[i], builder.fmul(builder.sitofp(whole, f32x16.ir), factor))
            return pack(builder, values, floats)

        return floats(floats, integers, memory, size, memory, size, size), lower

    @intrinsic
    def nothing(_):
        return integers(), lambda context, builder, sig, args: ir.Constant(integers.ir, None)

    @intrinsic
    def weighted(_, total, dots, weights, at):
        def lower(context, builder, sig, args):
            total, dots, weights, at = args
            rows = vectors(builder, weights, at, i32x16.ir)
            products = [builder.mul(whole, rows[i % ROWS]) for i, whole in enumerate(unpack(builder, dots))]
            return pack(builder, [builder.add(a, b) for a, b in zip(unpack(builder, total), products)], integers)

        return integers(integers, integers, memory, size), lower

    @intrinsic
    def alike(_, panel, at):
        def lower(context, builder, sig, args):
            rows = vectors(builder, *args, i32x16.ir)
            return pack(builder, [rows[i % ROWS] for i in range(count)], integers)

        return integers(memory, size), lower

    @intrinsic
    def outer_pairs(_, dots, panel, at, sums, to, stride):
        def lower(context, builder, sig, args):
            dots, panel, at, sums, to, stride = args
            rows, values = vectors(builder, panel, at, i32x16.ir), unpack(builder, dots)
            firsts = scalars(builder, sums, to, stride, I32)
            seconds = scalars(builder, sums, builder.add(to, number(4)), stride, I32)
            for t, (first, second) in enumerate(zip(firsts, seconds)):
                low = builder.and_(first, ir.Constant(I32, 0xFFFF))
                both = splat(builder, builder.or_(low, builder.shl(second, ir.Constant(I32, 16))))
                for g in range(ROWS):
                    values[t * ROWS + g] = signed.PAIRS(builder, values[t * ROWS + g], rows[g], both)
            return pack(builder, values, integers)

        return integers(integers, memory, size, memory, size, size), lower

    @intrinsic
    def lowered(_, acc, dots, d, at, e, to, stride):
        def lower(context, builder, sig, args):
            acc, dots, d, at, e, to, stride = args
            rows = vectors(builder, d, at, f32x16.ir)
            scales = [splat(builder, x) for x in scalars(builder, e, to, stride, F32)]
            values = unpack(builder, acc)
            for i, whole in enumerate(unpack(builder, dots)):
                factor = builder.fmul(rows[i % ROWS], scales[i // ROWS])
                values[i] = builder.fsub(values[i], builder.fmul(builder.sitofp(whole, f32x16.ir), factor))
            return pack(builder, values, floats)

        return floats(floats, integers, memory, size, memory, size, size), lower

    @intrinsic
    def offset(_, acc, m, at, e, to, stride, sums, by, step):
        def lower(context, builder, sig, args):
            acc, m, at, e, to, stride, sums, by, step = args
            rows = vectors(builder, m, at, f32x16.ir)
            values = unpack(builder, acc)
            totals = scalars(builder, sums, by, step, I32)
            for t, x in enumerate(scalars(builder, e, to, stride, F32)):
                factor = splat(builder, builder.fmul(builder.sitofp(totals[t], F32), x))
                for g in range(ROWS):
                    i = t * ROWS + g
                    values[i] = builder.fsub(values[i], builder.fmul(rows[g], factor))
            return pack(builder, values, floats)

        return floats(floats, memory, size, memory, size, size, memory, size, size), lower

    @intrinsic
    def rank_one(_, acc, low, high, x, at, stride):
        def lower(context, builder, sig, args):
            acc, low, high, x, at, stride = args
            values = unpack(builder, acc)
            for t, scalar in enumerate(scalars(builder, x, at, stride, F32)):
                wide = splat(builder, scalar)
                for g, rows in enumerate((low, high)):
                    values[t * ROWS + g] = builder.fadd(values[t * ROWS + g], builder.fmul(rows, wide))
            return pack(builder, values, floats)

        return floats(floats, f32x16, f32x16, memory, size, size), lower

    @intrinsic
    def fused(_, acc, low, high, x, at, stride):
        def lower(context, builder, sig, args):
            acc, low, high, x, at, stride = args
            values = unpack(builder, acc)
            for t, scalar in enumerate(scalars(builder, x, at, stride, F32)):
                wide = splat(builder, scalar)
                for g, rows in enumerate((low, high)):
                    values[t * ROWS + g] = fma(builder, rows, wide, values[t * ROWS + g])
            return pack(builder, values, floats)

        return floats(floats, f32x16, f32x16, memory, size, size), lower

    @intrinsic
    def fused_pairs(_, acc, w, at, x, to, stride):
        def lower(context, builder, sig, args):
            acc, w, at, x, to, stride = args
            rows, values = vectors(builder, w, at, i32x16.ir), unpack(builder, acc)
            for t, pair in enumerate(scalars(builder, x, to, stride, I32)):
                both = splat(builder, pair)
                for g in range(ROWS):
                    values[t * ROWS + g] = bf16.PAIR(builder, values[t * ROWS + g], rows[g], both)
            return pack(builder, values, floats)

        return floats(floats, memory, size, memory, size, size), lower

    @intrinsic
    def ask_for(_, y, at, stride):
        def lower(context, builder, sig, args):
            y, at, stride = args
            for i in range(count):
                to = builder.add(at, builder.add(builder.mul(stride, number(i // ROWS)), number(64 * (i % ROWS))))
                ask(builder, y, to, WRITE)
            return context.get_dummy_value()

        return types.void(memory, size, size), lower

    return SimpleNamespace(
        ask_for=ask_for,
        rank_one=rank_one,
        fused=fused,
        fused_pairs=fused_pairs,
        nothing=nothing,
        weighted=weighted,
        alike=alike,
        outer_pairs=outer_pairs,
        lowered=lowered,
        zeros=zeros,
        load=load,
        store=store,
        start=start,
        start_wide=start_wide,
        outer=outer_product(dot.NARROW),
        outer_wide=outer_product(dot.WIDE),
        outer_small=outer_product(signed.SMALL),
        outer_any=outer_product(signed.ANY),
        scaled=scaled,
        offset=offset,
    )
