"""Weights that are points of a grid (IQ1, IQ2, IQ3): from indices to the panel of the matrix product.

A point is 8 or 4 signed bytes. Indices of 16 rows are made in a vector, points are fetched one by one, and signs are
put on in vectors again. The product of one token goes through the panel too: a second kernel that reads packed bytes
would have to fetch the same points.

    offsets(w, at, i, g)      where in the table of points point i of 16 rows begins, i32x16; `at` is the byte of the
                              super-block, g 0 or 1 for its first or second 16 rows
    finish(w, at, i, g, first, second)    the weights of columns 8i .. 8i + 3 and of the next four, each u8x64, from
    what
                              the table holds
"""

import numpy as np

from refquant.gguf.i_quants import grid
from runtime.jit import inlined
from runtime.kernels.gemm_super import M
from runtime.simd import (
    as_u8,
    count_bits,
    even_lanes,
    load_f16x16,
    load_i32,
    load_i32x16,
    load_i64,
    load_u8x16,
    minus_where,
    odd_lanes,
    store_f32x16,
    store_i32,
    store_i32x16,
    store_i64,
    store_u8x64,
)


def table(name: str, factor: int = 1) -> np.ndarray:
    """The points of a type times `factor`, signed bytes: flat uint8."""
    return (grid(name) * factor).astype(np.int8).view(np.uint8).reshape(-1)


def unpack_points(width: int, offsets, finish):
    """unpack(w, at, tables, panels, panel, u): the weights of the super-block at byte `at` of w, to byte u of
    panels."""
    points, step = 256 // width, width * 32  # of a row; bytes of a point of 32 rows

    @inlined
    def fetch(w, at, tables, panels, panel, u):
        """Points row by row, where their weights will stand; their offsets wait in M, which types like these leave
        free."""
        for first in range(0, points, 16):
            for i in range(16):
                store_i32x16(panels, panel + M + i * 128, offsets(w, at, first + i, 0))
                store_i32x16(panels, panel + M + i * 128 + 64, offsets(w, at, first + i, 1))
            for i in range(16):
                for row in range(32):
                    offset = load_i32(panels, panel + M + i * 128 + row * 4)
                    if width == 8:
                        store_i64(panels, u + (first + i) * step + row * 8, load_i64(tables, offset))
                    else:
                        store_i32(panels, u + (first + i) * step + row * 4, load_i32(tables, offset))

    @inlined
    def unpack(w, at, tables, panels, panel, u):
        fetch(w, at, tables, panels, panel, u)
        for i in range(32):
            here = u + i * 256
            a, b = load_i32x16(panels, here), load_i32x16(panels, here + 64)
            c, d = load_i32x16(panels, here + 128), load_i32x16(panels, here + 192)
            if width == 8:
                a, b, c, d = even_lanes(a, b), even_lanes(c, d), odd_lanes(a, b), odd_lanes(c, d)
            a, c = finish(w, at, i, 0, as_u8(a), as_u8(c))
            b, d = finish(w, at, i, 1, as_u8(b), as_u8(d))
            store_u8x64(panels, here, a)
            store_u8x64(panels, here + 64, b)
            store_u8x64(panels, here + 128, c)
            store_u8x64(panels, here + 192, d)

    return unpack


@inlined
def signed(first, second, signs):
    """Eight columns, minus where bit 0..7 of the row's lane of `signs` is set."""
    everywhere = signs * 0x01010101
    return minus_where(first, as_u8(everywhere & 0x08040201)), minus_where(second, as_u8(everywhere & 0x80402010))


@inlined
def with_parity(signs):
    """Seven bits and the eighth that makes their number even."""
    return signs | (count_bits(signs) & 1) << 7


@inlined
def unpack_d(w, panels, at, to, factor):
    """32 d at byte `at` of w times a power of two."""
    store_f32x16(panels, to, load_f16x16(w, at) * factor)
    store_f32x16(panels, to + 64, load_f16x16(w, at + 32) * factor)


@inlined
def unpack_scales(w, panels, at, to):
    """2 s + 1 of two sub-blocks, whose s are the low and the high halves of 32 bytes at byte `at` of w."""
    for g in range(2):
        both = load_u8x16(w, at + g * 16)
        store_i32x16(panels, to + g * 64, (both & 15) * 2 + 1)
        store_i32x16(panels, to + g * 64 + 128, (both >> 4) * 2 + 1)


def nibbles_numpy(data: np.ndarray) -> np.ndarray:
    """(..., n) bytes -> (..., 2 n): low and high halves in turn."""
    return np.stack([data & 15, data >> 4], axis=-1).reshape(*data.shape[:-1], -1)


def even_signs_numpy(pattern: np.ndarray) -> np.ndarray:
    """Patterns of seven bits (...) -> (...) of eight: the number of ones is even."""
    ones = sum(pattern >> bit & 1 for bit in range(7))
    return pattern | (ones & 1) << 7


def signs_numpy(pattern: np.ndarray) -> np.ndarray:
    """Patterns of eight bits (...) -> (..., 8): -1 where a bit is set, else 1."""
    return 1 - 2 * (pattern[..., None].astype(np.int32) >> np.arange(8) & 1)
