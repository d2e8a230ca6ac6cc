"""y = W x with W in IQ2_XXS, IQ2_XS or IQ2_S and x in Q8_K: eight weights are a point of a grid, with signs.

    y[t, r] = sum_k float32(sum_j (2 s[j] + 1) * D[j]) * (d / 8 * e[t,k])

k runs over the super-blocks of 256, ascending from 0; j over its sub-blocks of 32 (IQ2_XXS) or 16, and D[j] is the sum
of point * sign * p. The integers are exact (|.| <= 256 * 31 * 43 * 127 < 2^31); d / 8 is exact, and its product with e
is a float32 product, formed first.

File     IQ2_XXS  66 bytes: d float16, then for each sub-block 4 indices of a byte and a word, whose low 28 bits are the
                  signs of the four points, 7 bits each, and whose high 4 bits are s.
         IQ2_XS   74 bytes: d float16, 32 words of 16 bits: an index of 9 bits, signs of 7; scales[8], s of sub-blocks
                  2i and 2i + 1 in the low and the high half of scales[i].
         IQ2_S    82 bytes: d float16, low[32], signs[32], high[8], scales[8]. Index i is low[i] and bits 2 (i % 4) and
                  on of high[i // 4]; its signs are signs[i], all eight; scales as in IQ2_XS.
         Bit i of the signs is that of weight i, 1 for minus. Of seven, the eighth makes the number of minuses even.
Packed   32 rows side by side, field by field: of 2, 1 and 4 bytes in that order.
Tables   the grid of the type: 256, 512 or 1024 points of 8 bytes.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import SC, D, signed_numpy
from runtime.kernels.grids import (
    even_signs_numpy,
    nibbles_numpy,
    signed,
    signs_numpy,
    table,
    unpack_d,
    unpack_points,
    unpack_scales,
    with_parity,
)
from runtime.simd import buffer, integer, load_i32x16, load_u8x16, load_u16x16, store_i32x16

XXS_FIELDS, XS_FIELDS, S_FIELDS = ((2, 1), *((1, 4), (4, 1)) * 8), ((2, 33), (1, 8)), ((2, 1), (1, 80))
XXS_BLOCK, XS_BLOCK, S_BLOCK = 32 * 66, 32 * 74, 32 * 82
XXS_TABLE, XS_TABLE, S_TABLE = table("IQ2_XXS"), table("IQ2_XS"), table("IQ2_S")


@inlined
def xxs_offsets(w, at, i, g):
    return load_u8x16(w, at + 64 + i // 4 * 256 + i % 4 * 32 + g * 16) << 3


@inlined
def xxs_finish(w, at, i, g, first, second):
    signs = load_i32x16(w, at + 64 + i // 4 * 256 + 128 + g * 64) >> i % 4 * 7 & 127
    return signed(first, second, with_parity(signs))


@inlined
def xs_offsets(w, at, i, g):
    return (load_u16x16(w, at + 64 + i * 64 + g * 32) & 511) << 3


@inlined
def xs_finish(w, at, i, g, first, second):
    return signed(first, second, with_parity(load_u16x16(w, at + 64 + i * 64 + g * 32) >> 9))


@inlined
def s_offsets(w, at, i, g):
    high = load_u8x16(w, at + 64 + (64 + i // 4) * 32 + g * 16) >> i % 4 * 2 & 3
    return (load_u8x16(w, at + 64 + i * 32 + g * 16) | high << 8) << 3


@inlined
def s_finish(w, at, i, g, first, second):
    return signed(first, second, load_u8x16(w, at + 64 + (32 + i) * 32 + g * 16))


xxs_points = unpack_points(8, xxs_offsets, xxs_finish)
xs_points, s_points = unpack_points(8, xs_offsets, xs_finish), unpack_points(8, s_offsets, s_finish)


@unpacker
def unpack_xxs(args, thread, group, first, count):
    """Weights of -43..43; `first` and `count` are multiples of 8."""
    w, panels, tables = buffer(args, 0), buffer(args, 5), buffer(args, 6)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * XXS_BLOCK
        unpack_d(w, panels, at, panel + D + k * 128, np.float32(0.125))
        for j in range(8):
            for g in range(0, 128, 64):
                s = load_i32x16(w, at + 64 + j * 256 + 128 + g) >> 28
                store_i32x16(panels, panel + SC + (k * 8 + j) * 128 + g, s * 2 + 1)
        xxs_points(w, at, tables, panels, panel, panel + k * 8192)


@unpacker
def unpack_xs(args, thread, group, first, count):
    """Weights of -43..43; `first` and `count` are multiples of 8."""
    w, panels, tables = buffer(args, 0), buffer(args, 5), buffer(args, 6)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * XS_BLOCK
        unpack_d(w, panels, at, panel + D + k * 128, np.float32(0.125))
        for i in range(8):
            unpack_scales(w, panels, at + 64 * 33 + i * 32, panel + SC + (k * 16 + i * 2) * 128)
        xs_points(w, at, tables, panels, panel, panel + k * 8192)


@unpacker
def unpack_s(args, thread, group, first, count):
    """Weights of -43..43; `first` and `count` are multiples of 8."""
    w, panels, tables = buffer(args, 0), buffer(args, 5), buffer(args, 6)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * S_BLOCK
        unpack_d(w, panels, at, panel + D + k * 128, np.float32(0.125))
        for i in range(8):
            unpack_scales(w, panels, at + 64 + (72 + i) * 32, panel + SC + (k * 16 + i * 2) * 128)
        s_points(w, at, tables, panels, panel, panel + k * 8192)


def _product_numpy(blocks, points, index, signs, s, codes, e) -> np.ndarray:
    """index and signs (rows, super-blocks, 32), s (rows, super-blocks, sub-blocks)."""
    weights = points.view(np.int8).reshape(-1, 8)[index] * signs_numpy(signs)
    d = blocks["d"].astype(np.float32) * np.float32(0.125)
    return signed_numpy(weights.reshape(*s.shape, -1), 2 * s.astype(np.int32) + 1, d, codes, e)


def xxs_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of IQ2_XXS: from the bytes of the file (rows, n / 256 * 66), for all tokens."""
    blocks = w.view(FORMATS["IQ2_XXS"].layout)  # (rows, n / 256)
    low, high = blocks["qs"][..., 0, None], blocks["qs"][..., 1, None]
    index = (low >> np.uint32([0, 8, 16, 24]) & 255).reshape(*blocks.shape, 32)
    signs = even_signs_numpy(high >> np.uint32([0, 7, 14, 21]) & 127).reshape(*blocks.shape, 32)
    return _product_numpy(blocks, XXS_TABLE, index, signs, high[..., 0] >> np.uint32(28), codes, e)


def xs_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of IQ2_XS: from the bytes of the file (rows, n / 256 * 74), for all tokens."""
    blocks = w.view(FORMATS["IQ2_XS"].layout)  # (rows, n / 256)
    index, signs = blocks["qs"] & 511, even_signs_numpy(blocks["qs"] >> 9)
    return _product_numpy(blocks, XS_TABLE, index, signs, nibbles_numpy(blocks["scales"]), codes, e)


def s_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of IQ2_S: from the bytes of the file (rows, n / 256 * 82), for all tokens."""
    blocks = w.view(FORMATS["IQ2_S"].layout)  # (rows, n / 256)
    high = np.stack([blocks["qh"] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1).reshape(*blocks.shape, 32)
    index = blocks["qs"].astype(np.int32) | high.astype(np.int32) << 8
    return _product_numpy(blocks, S_TABLE, index, blocks["signs"], nibbles_numpy(blocks["scales"]), codes, e)
