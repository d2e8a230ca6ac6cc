"""Y = W X with W in F32 or F16 and X in float32; nothing is rounded but the sums.

    y[t, r] = sum_k w[r, k] * x[t, k]        float32, k ascending from 0, each product and sum rounded once together

Rows are worked on in groups of 32, columns in slabs of 128. Those of a group become a panel of float32, which stays in
the L1 cache while all tokens pass, eight at a time; F16 is widened once for all of them. What a tile has summed so far
waits beside the panel, as in runtime.kernels.gemm. A single token needs no panel.

Packed   32 rows side by side: for each k the k-th number of 32 rows.
Panel    [column 128][row 32] float32 16 KB at 0; [token][row 32] float32 at HELD
Record   buffers 0 w, 1 x (tokens, width) float32, 4 y, 5 panels (one a thread); integers 32 n, 33 stride of y in bytes,
         36 stride of x in bytes
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.fused import fma_numpy
from runtime.kernels.gemm import PANEL, WINDOW
from runtime.simd import buffer, integer, load_f16x16, load_f32x16, store_f32x16, tile_operations

SLAB = 128
TOKENS = 8  # measured best of 6, 8, 12: with 12 the compiler keeps some accumulators in memory
HELD = SLAB * 128  # bytes
assert PANEL >= HELD + (WINDOW + TOKENS) * 128
ROW_LOADS = {"F32": (load_f32x16, 4), "F16": (load_f16x16, 2)}


def _tile(tokens: int):
    """The product of a panel with `tokens` tokens, whose x begins at byte `to`, added to what is held of y."""
    ops = tile_operations(tokens)
    zeros, load, store, fused, ask_for = ops.zeros, ops.load, ops.store, ops.fused, ops.ask_for

    @inlined
    def tile(x, y, panels, panel, held, at, stride, to, step, first, count, last):
        if last:
            ask_for(y, at, stride)
        acc = load(panels, held, 128) if first else zeros()
        for k in range(count):
            low, high = load_f32x16(panels, panel + k * 128), load_f32x16(panels, panel + k * 128 + 64)
            acc = fused(acc, low, high, x, to + k * 4, step)
        if last:
            store(y, at, stride, acc)
        else:
            store(panels, held, 128, acc)

    return tile


_many, _one = _tile(TOKENS), _tile(1)


def _products(type_name: str):
    """product(args, lo, hi) for one token, product(args, tokens, thread, lo, hi) for many."""
    (rows, size), ops = ROW_LOADS[type_name], tile_operations(1)
    zeros, store, fused = ops.zeros, ops.store, ops.fused

    @inlined
    def of_one_token(args, lo, hi):
        w, x, y, n = buffer(args, 0), buffer(args, 1), buffer(args, 4), integer(args, 32)
        for group in range(lo, hi):
            acc, here = zeros(), group * n * 32 * size
            for k in range(n):
                low, high = rows(w, here + k * 32 * size), rows(w, here + k * 32 * size + 16 * size)
                acc = fused(acc, low, high, x, k * 4, 0)
            store(y, group * 128, 0, acc)

    @inlined
    def of_many_tokens(args, tokens, thread, lo, hi):
        w, x, y, panels = buffer(args, 0), buffer(args, 1), buffer(args, 4), buffer(args, 5)
        n, stride, step, panel = integer(args, 32), integer(args, 33), integer(args, 36), thread * PANEL
        for start in range(0, tokens, WINDOW):
            end = min(start + WINDOW, tokens)
            for group in range(lo, hi):
                for first in range(0, n, SLAB):
                    count, t = min(SLAB, n - first), start
                    for k in range(count):
                        here = (group * n + first + k) * 32 * size
                        store_f32x16(panels, panel + k * 128, rows(w, here))
                        store_f32x16(panels, panel + k * 128 + 64, rows(w, here + 16 * size))
                    last = first + count == n
                    while t < end:
                        held = panel + HELD + (t - start) * 128
                        if end - t > 2 and end - start >= TOKENS:  # the last tile may overlap the one before
                            u = min(t, end - TOKENS)
                            at, to = u * stride + group * 128, u * step + first * 4
                            _many(x, y, panels, panel, held, at, stride, to, step, first, count, last)
                            t += TOKENS
                        else:
                            at, to = t * stride + group * 128, t * step + first * 4
                            _one(x, y, panels, panel, held, at, stride, to, step, first, count, last)
                            t += 1

    return of_one_token, of_many_tokens


_f32_one, _f32_many = _products("F32")
_f16_one, _f16_many = _products("F16")


@kernel
def matmul_f32(args, tokens, start, thread, lo, hi):
    """A unit is a group of 32 rows."""
    if tokens == 1:
        _f32_one(args, lo, hi)
    else:
        _f32_many(args, tokens, thread, lo, hi)


@kernel
def matmul_f16(args, tokens, start, thread, lo, hi):
    """A unit is a group of 32 rows."""
    if tokens == 1:
        _f16_one(args, lo, hi)
    else:
        _f16_many(args, tokens, thread, lo, hi)


def matmul_numpy(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The twin: w (rows, n) already as float32."""
    y = np.zeros((len(x), len(w)), np.float32)
    for k in range(w.shape[1]):
        y = fma_numpy(w[:, k], x[:, k, None], y)
    return y + np.float32(0)  # from +0 on: never -0
