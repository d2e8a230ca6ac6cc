"""y = W x with W in IQ1_S or IQ1_M and x in Q8_K: eight weights are a point of a grid of -1, 0, 1, moved by an eighth.

    y[t, r] = sum_k float32(sum_j (2 s[j] + 1) * D[j]) * (d / 8 * e[t,k])

k runs over the super-blocks of 256, ascending from 0; j over its sub-blocks of 32 (IQ1_S) or 16 (IQ1_M), and D[j] is
the sum of (8 * point + 1 or - 1) * p. The integers are exact (|.| <= 256 * 15 * 9 * 127 < 2^31); d / 8 is exact, and
its product with e is a float32 product, formed first.

File     IQ1_S  50 bytes: d float16, low[32], 8 words of 16 bits, one for each sub-block: bits 3i, 3i + 1, 3i + 2 are
                bits 8..10 of the index of its point i, whose bits 0..7 are a byte of low; bits 12..14 are s; bit 15 is
                set where all its points are moved down.
         IQ1_M  56 bytes: low[32], high[16], 4 words of 16 bits. Half i % 2 of high[i // 2] belongs to point i: three
                bits of the index as above, then the one of moving down. s of sub-block j are bits 3 (j % 4) and on of
                word j // 4, and bits 12..15 of the four words, first the lowest, are d float16.
Packed   32 rows side by side, field by field.
Tables   the grid of both times 8: 2048 points of 8 bytes.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import SC, D, signed_numpy
from runtime.kernels.grids import nibbles_numpy, table, unpack_d, unpack_points
from runtime.simd import (
    as_u8,
    buffer,
    integer,
    load_u8x16,
    load_u16x16,
    splat_i32,
    store_f32x16,
    store_i32x16,
    widen_f16,
)

S_FIELDS, M_FIELDS = ((2, 1), (1, 32), (2, 8)), ((1, 48), (2, 4))
S_BLOCK, M_BLOCK = 32 * 50, 32 * 56
TABLE = table("IQ1_S", 8)
S_WORDS, M_HIGH, M_WORDS = 64 + 1024, 1024, 1024 + 512  # bytes of a packed super-block


@inlined
def moved(first, second, down):
    """Eight columns + 1, or - 1 where the row's lane of `down` is 1 and not 0."""
    step = as_u8((splat_i32(np.int32(0)) - down) | 0x01010101)
    return first + step, second + step


@inlined
def s_offsets(w, at, i, g):
    high = load_u16x16(w, at + S_WORDS + i // 4 * 64 + g * 32) >> i % 4 * 3 & 7
    return (load_u8x16(w, at + 64 + i * 32 + g * 16) | high << 8) << 3


@inlined
def s_finish(w, at, i, g, first, second):
    return moved(first, second, load_u16x16(w, at + S_WORDS + i // 4 * 64 + g * 32) >> 15)


@inlined
def m_high(w, at, i, g):
    return load_u8x16(w, at + M_HIGH + i // 2 * 32 + g * 16) >> i % 2 * 4 & 15


@inlined
def m_offsets(w, at, i, g):
    return (load_u8x16(w, at + i * 32 + g * 16) | (m_high(w, at, i, g) & 7) << 8) << 3


@inlined
def m_finish(w, at, i, g, first, second):
    return moved(first, second, m_high(w, at, i, g) >> 3)


s_points, m_points = unpack_points(8, s_offsets, s_finish), unpack_points(8, m_offsets, m_finish)


@unpacker
def unpack_s(args, thread, group, first, count):
    """Weights of -9..9; `first` and `count` are multiples of 8."""
    w, panels, tables = buffer(args, 0), buffer(args, 5), buffer(args, 6)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * S_BLOCK
        unpack_d(w, panels, at, panel + D + k * 128, np.float32(0.125))
        for j in range(8):
            for g in range(2):
                s = load_u16x16(w, at + S_WORDS + j * 64 + g * 32) >> 12 & 7
                store_i32x16(panels, panel + SC + (k * 8 + j) * 128 + g * 64, s * 2 + 1)
        s_points(w, at, tables, panels, panel, panel + k * 8192)


@unpacker
def unpack_m(args, thread, group, first, count):
    """Weights of -9..9; `first` and `count` are multiples of 8."""
    w, panels, tables = buffer(args, 0), buffer(args, 5), buffer(args, 6)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * M_BLOCK
        for g in range(2):
            d = splat_i32(np.int32(0))
            for i in range(4):
                word = load_u16x16(w, at + M_WORDS + i * 64 + g * 32)
                d = d | (word >> 12) << 4 * i
                for j in range(4):
                    here = panel + SC + (k * 16 + i * 4 + j) * 128 + g * 64
                    store_i32x16(panels, here, (word >> 3 * j & 7) * 2 + 1)
            store_f32x16(panels, panel + D + k * 128 + g * 64, widen_f16(d) * np.float32(0.125))
        m_points(w, at, tables, panels, panel, panel + k * 8192)


def _product_numpy(index, down, s, d, codes, e) -> np.ndarray:
    """index and down (rows, super-blocks, 32), s (rows, super-blocks, sub-blocks), d float16 (rows, super-blocks)."""
    points = TABLE.view(np.int8).reshape(-1, 8)[index] + (1 - 2 * down.astype(np.int32))[..., None]
    sc = 2 * s.astype(np.int32) + 1
    return signed_numpy(points.reshape(*s.shape, -1), sc, d.astype(np.float32) * np.float32(0.125), codes, e)


def s_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of IQ1_S: from the bytes of the file (rows, n / 256 * 50), for all tokens."""
    blocks = w.view(FORMATS["IQ1_S"].layout)  # (rows, n / 256)
    word = blocks["qh"].astype(np.int32)
    high = (word[..., None] >> np.array([0, 3, 6, 9]) & 7).reshape(*blocks.shape, 32)
    down = (word >> 15).repeat(4, axis=-1)
    return _product_numpy(blocks["qs"] | high << 8, down, word >> 12 & 7, blocks["d"], codes, e)


def m_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of IQ1_M: from the bytes of the file (rows, n / 256 * 56), for all tokens."""
    blocks = w.view(FORMATS["IQ1_M"].layout)  # (rows, n / 256)
    high, word = nibbles_numpy(blocks["qh"]).astype(np.int32), blocks["scales"].astype(np.int32)
    s = (word[..., None] >> np.array([0, 3, 6, 9]) & 7).reshape(*blocks.shape, 16)
    d = (word >> 12 << np.array([0, 4, 8, 12])).sum(axis=-1).astype(np.uint16).view(np.float16)
    return _product_numpy(blocks["qs"] | (high & 7) << 8, high >> 3, s, d, codes, e)
