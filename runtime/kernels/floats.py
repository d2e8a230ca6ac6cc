"""y = W x with W in F32, F16 or BF16 and x in float32; nothing is rounded but the sums.

Order    16 partial sums, lane l over the columns l, l + 16, ...; then the lanes as a tree (8 apart, 4, 2, 1); then the
         n % 16 last columns one by one. Product, then sum.
Shapes   w (rows, bytes of a row) uint8, the bytes of the file; x (tokens, n) float32; y (tokens, rows) float32;
         lo, hi the rows to compute.
"""

import numpy as np
from numba import float32, uint16, uint32

from runtime.jit import kernel
from runtime.kernels.half import widen
from runtime.simd import add, bits_float, load_bf16, load_f16, load_f32, load_u16, mul, reduce_add, splat


@kernel
def matmul_f32(w, x, y, lo, hi):
    tokens, n = x.shape
    whole = n // 16 * 16
    for r in range(lo, hi):
        row = r * n * 4
        for t in range(tokens):
            acc = splat(float32(0))
            for i in range(0, whole, 16):
                acc = add(acc, mul(load_f32(w, row + i * 4), load_f32(x, (t * n + i) * 4)))
            total = reduce_add(acc)
            for i in range(whole, n):
                low, high = load_u16(w, row + i * 4), load_u16(w, row + i * 4 + 2)
                total += bits_float(uint32(uint32(low) | uint32(high) << uint32(16))) * x[t, i]
            y[t, r] = total


def matmul_f32_numpy(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The twin of `matmul_f32`."""
    return _dot(w.view(np.float32), x)


@kernel
def matmul_f16(w, x, y, lo, hi):
    tokens, n = x.shape
    whole = n // 16 * 16
    for r in range(lo, hi):
        row = r * n * 2
        for t in range(tokens):
            acc = splat(float32(0))
            for i in range(0, whole, 16):
                acc = add(acc, mul(load_f16(w, row + i * 2), load_f32(x, (t * n + i) * 4)))
            total = reduce_add(acc)
            for i in range(whole, n):
                total += widen(load_u16(w, row + i * 2)) * x[t, i]
            y[t, r] = total


def matmul_f16_numpy(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The twin of `matmul_f16`."""
    return _dot(w.view(np.float16).astype(np.float32), x)


@kernel
def matmul_bf16(w, x, y, lo, hi):
    tokens, n = x.shape
    whole = n // 16 * 16
    for r in range(lo, hi):
        row = r * n * 2
        for t in range(tokens):
            acc = splat(float32(0))
            for i in range(0, whole, 16):
                acc = add(acc, mul(load_bf16(w, row + i * 2), load_f32(x, (t * n + i) * 4)))
            total = reduce_add(acc)
            for i in range(whole, n):
                total += bits_float(uint32(uint32(uint16(load_u16(w, row + i * 2))) << uint32(16))) * x[t, i]
            y[t, r] = total


def matmul_bf16_numpy(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The twin of `matmul_bf16`."""
    return _dot((w.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32), x)


def _dot(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(rows, n) and (tokens, n) -> (tokens, rows) in the order of the module's docstring."""
    whole = w.shape[1] // 16 * 16
    y = np.empty((len(x), len(w)), np.float32)
    for t in range(len(x)):
        terms = (w[:, :whole] * x[t, :whole]).reshape(len(w), -1, 16)
        zero = np.zeros((len(w), 1, 16), np.float32)
        lanes = np.add.accumulate(np.concatenate([zero, terms], axis=1), axis=1)[:, -1]
        for width in (8, 4, 2, 1):
            lanes = lanes[:, :width] + lanes[:, width:]
        total = lanes[:, 0]
        for i in range(whole, w.shape[1]):
            total = total + w[:, i] * x[t, i]
        y[t] = total
    return y
