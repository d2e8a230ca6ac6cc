"""y = W x with W in IQ3_XXS or IQ3_S and x in Q8_K: four weights are a point of a grid, with signs.

    y[t, r] = sum_k float32(sum_j (2 s[j] + 1) * D[j]) * (d' * e[t,k])        d' = d / 4 (IQ3_XXS), d (IQ3_S)

k runs over the super-blocks of 256, ascending from 0; j over its 8 sub-blocks of 32, and D[j] is the sum of
point * sign * p. The integers are exact (|.| <= 256 * 31 * 62 * 127 < 2^31); d / 4 is exact, and d' * e is a float32
product, formed first.

File     IQ3_XXS  98 bytes: d float16, index[64], 8 words, whose low 28 bits are the signs of four times eight weights,
                  7 bits each, and whose high 4 bits are s. The eighth sign makes the number of minuses even.
         IQ3_S    110 bytes: d float16, low[64], high[8], signs[32], scales[4]. Index i is low[i] and bit i % 8 of
                  high[i // 8]; bit l of signs[i] is the sign of weight 8i + l; s of sub-blocks 2i and 2i + 1 are the
                  low and the high half of scales[i].
Packed   32 rows side by side, field by field: of 2, 1 and 4 bytes in that order.
Tables   the grid of the type: 256 or 512 points of 4 bytes.
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
from runtime.simd import buffer, integer, load_i32x16, load_u8x16, store_i32x16

XXS_FIELDS, S_FIELDS = ((2, 1), (1, 64), (4, 8)), ((2, 1), (1, 108))
XXS_BLOCK, S_BLOCK = 32 * 98, 32 * 110
XXS_TABLE, S_TABLE = table("IQ3_XXS"), table("IQ3_S")
INDEX, WORDS, HIGH, SIGNS, SCALES = 64, 64 + 2048, 64 + 2048, 64 + 2304, 64 + 3328  # bytes of a packed super-block


@inlined
def xxs_offsets(w, at, i, g):
    return load_u8x16(w, at + INDEX + i * 32 + g * 16) << 2


@inlined
def xxs_finish(w, at, i, g, first, second):
    signs = load_i32x16(w, at + WORDS + i // 4 * 128 + g * 64) >> i % 4 * 7 & 127
    return signed(first, second, with_parity(signs))


@inlined
def s_offsets(w, at, i, g):
    high = load_u8x16(w, at + HIGH + i // 8 * 32 + g * 16) >> i % 8 & 1
    return (load_u8x16(w, at + INDEX + i * 32 + g * 16) | high << 8) << 2


@inlined
def s_finish(w, at, i, g, first, second):
    return signed(first, second, load_u8x16(w, at + SIGNS + i * 32 + g * 16))


xxs_points, s_points = unpack_points(4, xxs_offsets, xxs_finish), unpack_points(4, s_offsets, s_finish)


@unpacker
def unpack_xxs(args, thread, group, first, count):
    """Weights of -62..62; `first` and `count` are multiples of 8."""
    w, panels, tables = buffer(args, 0), buffer(args, 5), buffer(args, 6)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * XXS_BLOCK
        unpack_d(w, panels, at, panel + D + k * 128, np.float32(0.25))
        for j in range(8):
            for g in range(0, 128, 64):
                s = load_i32x16(w, at + WORDS + j * 128 + g) >> 28
                store_i32x16(panels, panel + SC + (k * 8 + j) * 128 + g, s * 2 + 1)
        xxs_points(w, at, tables, panels, panel, panel + k * 8192)


@unpacker
def unpack_s(args, thread, group, first, count):
    """Weights of -15..15; `first` and `count` are multiples of 8."""
    w, panels, tables = buffer(args, 0), buffer(args, 5), buffer(args, 6)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * S_BLOCK
        unpack_d(w, panels, at, panel + D + k * 128, np.float32(1))
        for i in range(4):
            unpack_scales(w, panels, at + SCALES + i * 32, panel + SC + (k * 8 + i * 2) * 128)
        s_points(w, at, tables, panels, panel, panel + k * 8192)


def xxs_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of IQ3_XXS: from the bytes of the file (rows, n / 256 * 98), for all tokens."""
    blocks = w.view(FORMATS["IQ3_XXS"].layout)  # (rows, n / 256)
    points = XXS_TABLE.view(np.int8).reshape(-1, 4)[blocks["qs"]].reshape(*blocks.shape, 8, 32)
    signs = signs_numpy(even_signs_numpy(blocks["signs"][..., None] >> np.uint32([0, 7, 14, 21]) & 127))
    sc = 2 * (blocks["signs"] >> 28).astype(np.int32) + 1
    d = blocks["d"].astype(np.float32) * np.float32(0.25)
    return signed_numpy(points * signs.reshape(points.shape), sc, d, codes, e)


def s_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of IQ3_S: from the bytes of the file (rows, n / 256 * 110), for all tokens."""
    blocks = w.view(FORMATS["IQ3_S"].layout)  # (rows, n / 256)
    high = (blocks["qh"][..., None] >> np.arange(8) & 1).reshape(*blocks.shape, 64)
    points = S_TABLE.view(np.int8).reshape(-1, 4)[blocks["qs"] | high << 8].reshape(*blocks.shape, 8, 32)
    sc = 2 * nibbles_numpy(blocks["scales"]).astype(np.int32) + 1
    signs = signs_numpy(blocks["signs"]).reshape(points.shape)
    return signed_numpy(points * signs, sc, blocks["d"].astype(np.float32), codes, e)
