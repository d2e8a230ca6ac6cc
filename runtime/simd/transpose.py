"""Sixteen rows by four fields, turned in registers: what packing does to every run of equal fields.

    turn_32(source, at, stride, target, to, step)     target[to + step * k + 4 * r] = source[at + stride * r + 4 * k]
                                                      for r in 0..15 and k in 0..3: fields of 4 bytes
    turn_16, turn_8                                   the same for fields of 2 bytes and of 1 byte

Four loads of a row each make one vector, so that the 4 x 4 exchange stays within groups of four lanes:

    a = rows 0 4 8 12    b = rows 1 5 9 13    c = rows 2 6 10 14    d = rows 3 7 11 15
    a0 a1 a2 a3 | ...    ab = a0 b0 a1 b1 | ...    cd = c0 d0 c1 d1 | ...    a0 b0 c0 d0 | ... = field 0 of 16 rows
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.simd import FIELDS
from runtime.simd.memory import at as pointer
from runtime.simd.memory import memory
from runtime.simd.vectors import I8, I16, I32, I64, LANES, join


def _turn(element: ir.IntType):
    size = element.width // 8
    row = ir.VectorType(element, FIELDS)

    def mix(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, lanes: tuple[int, ...]) -> ir.Value:
        """In each group of four lanes those of `left` (0..3) and `right` (4..7) that `lanes` names."""
        order = [4 * group + lane % 4 + LANES * (lane // 4) for group in range(4) for lane in lanes]
        return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, LANES), order))

    @intrinsic
    def turn(_, source, at, stride, target, to, step):
        def lower(context, builder, sig, args):
            source, at, stride, target, to, step = args
            number = lambda value: ir.Constant(I64, value)
            places = [builder.add(at, builder.mul(stride, number(r))) for r in range(LANES)]
            rows = [builder.load(pointer(builder, source, place, row, FIELDS * size), align=1) for place in places]
            a, b, c, d = (join(builder, rows[i::4]) for i in range(4))
            low, high = (0, 4, 1, 5), (2, 6, 3, 7)
            fields = []
            for half in (low, high):
                ab, cd = mix(builder, a, b, half), mix(builder, c, d, half)
                fields += [mix(builder, ab, cd, (0, 1, 4, 5)), mix(builder, ab, cd, (2, 3, 6, 7))]
            for k, field in enumerate(fields):
                place = builder.add(to, builder.mul(step, number(k)))
                builder.store(field, pointer(builder, target, place, field.type, LANES * size), align=1)
            return context.get_dummy_value()

        return types.void(memory, types.int64, types.int64, memory, types.int64, types.int64), lower

    return turn


turn_32, turn_16, turn_8 = _turn(I32), _turn(I16), _turn(I8)
