"""What threads need from each other and from the system: atomics, calls by address, a pause and a yield."""

import mmap
import sys

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.simd.memory import at, memory
from runtime.simd.tier import TIER
from runtime.simd.vectors import I8, I32, I64, call


@intrinsic
def atomic_add(_, array, offset, v):
    """Add v to the int64 at `offset` and return what was there before."""

    def lower(context, builder, sig, args):
        return builder.atomic_rmw("add", at(builder, *args[:2], I64, 8), args[2], "seq_cst")

    return types.int64(memory, types.int64, types.int64), lower


@intrinsic
def atomic_load(_, array, offset):
    """The int64 at `offset`; what other threads wrote before it is seen too."""
    lower = lambda context, builder, sig, args: builder.load_atomic(at(builder, *args, I64, 8), "acquire", 8)
    return types.int64(memory, types.int64), lower


@intrinsic
def atomic_store(_, array, offset, v):
    """Write the int64 at `offset`, after everything written before."""

    def lower(context, builder, sig, args):
        builder.store_atomic(args[2], at(builder, *args[:2], I64, 8), "release", 8)
        return context.get_dummy_value()

    return types.void(memory, types.int64, types.int64), lower


@intrinsic
def compare_and_swap(_, array, offset, old, new):
    """Write `new` to the int64 at `offset` if it is `old`; whether it was."""

    def lower(context, builder, sig, args):
        pointer = at(builder, *args[:2], I64, 8)
        return builder.extract_value(builder.cmpxchg(pointer, args[2], args[3], "acq_rel", "acquire"), 1)

    return types.boolean(memory, types.int64, types.int64, types.int64), lower


@intrinsic
def spin_pause(_):
    """Tell the CPU that this thread is waiting."""

    def lower(context, builder, sig, args):
        if TIER == "neon-dotprod":
            call(builder, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))
        elif TIER != "portable":
            call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), lower


@intrinsic
def give_way(_):
    """Let another thread have this core, if one wants it."""

    def lower(context, builder, sig, args):
        call(builder, "SwitchToThread" if sys.platform == "win32" else "sched_yield", I32)
        return context.get_dummy_value()

    return types.void(), lower


@intrinsic
def let_go(_, address, length):
    """Give pages of a mapped file back to the system, which reads them again if need be. Nothing where it cannot."""

    def lower(context, builder, sig, args):
        if hasattr(mmap, "MADV_DONTNEED"):
            pages = builder.inttoptr(args[0], I8.as_pointer())
            call(builder, "madvise", I32, pages, args[1], ir.Constant(I32, mmap.MADV_DONTNEED))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), lower


KERNEL = ir.FunctionType(ir.VoidType(), [I64] * 6)


@intrinsic
def call_kernel(_, address, args, tokens, start, thread, lo, hi):
    """Call the compiled kernel at `address`."""

    def lower(context, builder, sig, values):
        builder.call(builder.inttoptr(values[0], KERNEL.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), lower


UNPACK = ir.FunctionType(ir.VoidType(), [I64] * 5)


@intrinsic
def call_unpack(_, address, args, thread, group, first, blocks):
    """Call the compiled unpacker at `address` (runtime.kernels.gemm says what it does)."""

    def lower(context, builder, sig, values):
        builder.call(builder.inttoptr(values[0], UNPACK.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), lower
