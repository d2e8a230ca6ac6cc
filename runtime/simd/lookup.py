"""Sixteen bytes as a table: what four-bit codes stand for.

    lookup_16(table, codes)[i] = table[codes[i]]        table: a tuple of 16 integers 0..255; codes in 0..15

The table is a constant of the kernel: one shuffle of bytes where the CPU has it, else a choice between pairs of entries
by the lowest bit of the code, between the chosen by the next, and so on.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.simd.tier import TIER
from runtime.simd.vectors import I8, I32, call, join, part, splat, u8x64

LANES = 64


def _shuffled(name: str, lanes: int):
    """By an instruction whose table is 16 bytes of each register (of each 128 bits where that is wider)."""

    def lower(builder, table, codes):
        kind = ir.VectorType(I8, lanes)
        entries = join(builder, [table] * (lanes // 16))
        parts = [call(builder, name, kind, entries, part(builder, codes, i, lanes)) for i in range(0, LANES, lanes)]
        return join(builder, parts)

    return lower


def _chosen(builder, table, codes):
    zero = ir.Constant(u8x64.ir, [0] * LANES)
    entries = [splat(builder, builder.extract_element(table, ir.Constant(I32, i)), LANES) for i in range(16)]
    for bit in (1, 2, 4, 8):
        is_set = builder.icmp_unsigned("!=", builder.and_(codes, ir.Constant(u8x64.ir, [bit] * LANES)), zero)
        entries = [builder.select(is_set, one, none) for none, one in zip(entries[::2], entries[1::2])]
    return entries[0]


LOOKUP = {
    "avx512-vnni": _shuffled("llvm.x86.avx512.pshuf.b.512", 64),
    "avx-vnni": _shuffled("llvm.x86.avx2.pshuf.b", 32),
    "avx2": _shuffled("llvm.x86.avx2.pshuf.b", 32),
    "neon-dotprod": _shuffled("llvm.aarch64.neon.tbl1.v16i8", 16),
    "portable": _chosen,
}[TIER]


@intrinsic
def lookup_16(_, table, codes):
    """table[code] for 64 codes below 16; the table is a tuple of 16 integers."""
    if not (isinstance(table, types.UniTuple) and table.count == 16):
        return None

    def lower(context, builder, sig, args):
        entries = ir.Constant(ir.VectorType(I8, 16), ir.Undefined)
        for i in range(16):
            value = builder.trunc(builder.extract_value(args[0], i), I8)
            entries = builder.insert_element(entries, value, ir.Constant(I32, i))
        return LOOKUP(builder, entries, args[1])

    return u8x64(table, u8x64), lower
