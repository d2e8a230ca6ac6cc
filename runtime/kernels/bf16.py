"""Y = W X with W and X in BF16.

    for k = 0, 2, ...:  y[t, r] = round(round(y[t, r] + w[r, k+1] * x[t, k+1]) + w[r, k] * x[t, k])

Sums are float32 from 0 on. Products of two bfloat16 are exact in float32. X is rounded from float32, to nearest, ties
to even; a NaN stays one. Numbers below 2^-126 may count as zeros (runtime.simd.bf16).

Packed   32 rows side by side: for each pair of columns the pair of 32 rows.
Record   buffers 0 w, 1 x (tokens, width) uint16, 4 y; integers 32 n, 33 stride of y in bytes, 36 stride of x in bytes
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.fused import fma_numpy
from runtime.simd import buffer, integer, load_f32x16, store_bf16x16, tile_operations

FIELDS = ((4, 1),)
SLAB = 128  # pairs: 16 KB of rows stay in the L1 cache while all tokens pass
TOKENS = 6  # measured best of 6, 8, 10, 12


@inlined
def encode_bf16(x, at, n, codes, to):
    """n float32 at byte `at` of x, rounded, to byte `to` of codes; n is a multiple of 16."""
    for i in range(0, n, 16):
        store_bf16x16(codes, to + i * 2, load_f32x16(x, at + i * 4))


def _tile(tokens: int):
    ops = tile_operations(tokens)
    zeros, load, store, fused_pairs = ops.zeros, ops.load, ops.store, ops.fused_pairs

    @inlined
    def tile(w, x, y, group, t, pairs, stride, step, first, count):
        at = t * stride + group * 128
        acc = load(y, at, stride) if first else zeros()
        here, to = (group * pairs + first) * 128, t * step + first * 4
        for k in range(count):
            acc = fused_pairs(acc, w, here + k * 128, x, to + k * 4, step)
        store(y, at, stride, acc)

    return tile


_many, _one = _tile(TOKENS), _tile(1)


@kernel
def matmul(args, tokens, start, thread, lo, hi):
    """A unit is a group of 32 rows."""
    w, x, y = buffer(args, 0), buffer(args, 1), buffer(args, 4)
    pairs, stride, step = integer(args, 32) // 2, integer(args, 33), integer(args, 36)
    for group in range(lo, hi):
        for first in range(0, pairs, SLAB):
            count, t = min(SLAB, pairs - first), 0
            while t + TOKENS <= tokens:
                _many(w, x, y, group, t, pairs, stride, step, first, count)
                t += TOKENS
            while t < tokens:
                _one(w, x, y, group, t, pairs, stride, step, first, count)
                t += 1


def encode_numpy(x: np.ndarray) -> np.ndarray:
    """The twin of `encode_bf16`: float32 -> uint16."""
    bits = x.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def matmul_numpy(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The twin: w (rows, n) as float32, x (tokens, n) as uint16."""
    wide = (x.astype(np.uint32) << 16).view(np.float32)
    y = np.zeros((len(x), len(w)), np.float32)
    for k in range(0, w.shape[1], 2):
        y = fma_numpy(w[:, k + 1], wide[:, k + 1, None], y)
        y = fma_numpy(w[:, k], wide[:, k, None], y)
    return y + np.float32(0)
