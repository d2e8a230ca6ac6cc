"""Y = W X with W in F32 or F16 and X in float32; nothing is rounded but the sums.

    y[t, r] = sum_k w[r, k] * x[t, k]        float32, k ascending from 0, each product and sum rounded once together

Packed   32 rows side by side: for each k the k-th number of 32 rows.
Record   buffers 0 w, 1 x (tokens, width) float32, 4 y; integers 32 n, 33 stride of y in bytes, 36 stride of x in bytes
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.fused import fma_numpy
from runtime.simd.memory import buffer, integer, load_f16x16, load_f32x16
from runtime.simd.tiles import tile_operations

SLAB = 256  # columns: 32 KB of float32 rows stay in the L1 and L2 caches while all tokens pass
TOKENS = 8  # the conversion of F16 is shared by as many; measured best of 6, 8, 10, 12
ROW_LOADS = {"F32": (load_f32x16, 4), "F16": (load_f16x16, 2)}


def _tile(tokens: int, rows, size: int):
    ops = tile_operations(tokens)
    zeros, load, store, fused = ops.zeros, ops.load, ops.store, ops.fused

    @inlined
    def tile(w, x, y, group, t, n, stride, step, first, count):
        at = t * stride + group * 128
        acc = load(y, at, stride) if first else zeros()
        here, to = (group * n + first) * 32 * size, t * step + first * 4
        for k in range(count):
            low, high = rows(w, here + k * 32 * size), rows(w, here + k * 32 * size + 16 * size)
            acc = fused(acc, low, high, x, to + k * 4, step)
        store(y, at, stride, acc)

    return tile


def _product(type_name: str):
    rows, size = ROW_LOADS[type_name]
    many, one = _tile(TOKENS, rows, size), _tile(1, rows, size)

    @inlined
    def product(args, tokens, lo, hi):
        w, x, y = buffer(args, 0), buffer(args, 1), buffer(args, 4)
        n, stride, step = integer(args, 32), integer(args, 33), integer(args, 36)
        for group in range(lo, hi):
            for first in range(0, n, SLAB):
                count, t = min(SLAB, n - first), 0
                while t + TOKENS <= tokens:
                    many(w, x, y, group, t, n, stride, step, first, count)
                    t += TOKENS
                while t < tokens:
                    one(w, x, y, group, t, n, stride, step, first, count)
                    t += 1

    return product


_f32, _f16 = _product("F32"), _product("F16")


@kernel
def matmul_f32(args, tokens, start, thread, lo, hi):
    """A unit is a group of 32 rows."""
    _f32(args, tokens, lo, hi)


@kernel
def matmul_f16(args, tokens, start, thread, lo, hi):
    """A unit is a group of 32 rows."""
    _f16(args, tokens, lo, hi)


def matmul_numpy(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The twin: w (rows, n) already as float32."""
    y = np.zeros((len(x), len(w)), np.float32)
    for k in range(w.shape[1]):
        y = fma_numpy(w[:, k], x[:, k, None], y)
    return y + np.float32(0)  # from +0 on: never -0
