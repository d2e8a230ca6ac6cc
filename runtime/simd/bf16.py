"""Pairs of bfloat16: two products and two sums in one instruction, and the same where there is none.

    pair(acc, w, x)[lane] = round(round(acc + w1 * x1) + w0 * x0)       w = w0 | w1 << 16, x likewise; acc float32

A product of two bfloat16 is exact in float32, so each round() is that of one fused multiply-add, and every tier gives
the same bits. One difference remains: vdpbf16ps takes operands below 2^-126 for zeros and returns zeros for results
below it, whatever the process has set; the other tiers keep subnormal numbers.

Source   Intel SDM vol. 2, VDPBF16PS; the order of the two products was measured (the upper one comes first).
"""

from llvmlite import ir

from runtime.simd.tier import BF16_DOTS
from runtime.simd.vectors import call, constant, f32x16, fma, i32x16


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _dots(builder: ir.IRBuilder, acc: ir.Value, w: ir.Value, x: ir.Value) -> ir.Value:
    pairs = ir.VectorType(_BFloat(), 32)
    operands = (builder.bitcast(v, pairs) for v in (w, x))
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", f32x16.ir, acc, *operands)


def _fused(builder: ir.IRBuilder, acc: ir.Value, w: ir.Value, x: ir.Value) -> ir.Value:
    def upper(v: ir.Value) -> ir.Value:
        return builder.bitcast(builder.and_(v, constant(i32x16, 0xFFFF0000)), f32x16.ir)

    def lower(v: ir.Value) -> ir.Value:
        return builder.bitcast(builder.shl(v, constant(i32x16, 16)), f32x16.ir)

    return fma(builder, lower(w), lower(x), fma(builder, upper(w), upper(x), acc))


PAIR = _dots if BF16_DOTS else _fused
