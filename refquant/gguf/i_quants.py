"""I-quants: groups of 4 or 8 weights are points of a fixed grid; signs and scales are stored apart.

              grid          signs          per      scale                       bits/weight
    IQ2_XXS   256 x 8       7 of 8 bits    32       (d (0.5 + s)) / 4           2.0625
    IQ2_XS    512 x 8       7 of 8 bits    16       (d (0.5 + s)) / 4           2.3125
    IQ2_S     1024 x 8      8 of 8 bits    16       (d (0.5 + s)) / 4           2.5625
    IQ3_XXS   256 x 4       7 of 8 bits    32       (d (0.5 + s)) / 2           3.0625
    IQ3_S     512 x 4       8 of 8 bits    32       d (1 + 2 s)                 3.4375
    IQ1_S     2048 x 8      in the grid    32       d (2 s + 1)                 1.5625
    IQ1_M     2048 x 8      in the grid    16       d (2 s + 1)                 1.75
    IQ4_NL    16 levels     in the levels  32       d                           4.5
    IQ4_XS    16 levels     in the levels  32       d (s - 32)                  4.25

    x^ = (scale * point) * sign         IQ2, IQ3       s 4 bits
    x^ = scale * (point + delta)        IQ1            s 3 bits; delta = +-1/8 for a whole group
    x^ = scale * LEVELS[code]           IQ4            s 6 bits

"7 of 8": the eighth sign is not stored, it makes the number of minus signs even. In all bit strings below the first
sign or index sits in the lowest bits.

Shapes   decode (...) layout -> (..., 256) float32; IQ4_NL (..., 32).
Order    all arithmetic is float32; brackets say the order, one rounding each, never fused. d is float16.
Total    any bytes decode: every index has a point. An infinite d times a zero is NaN, as in C.
Source   ggml/src/ggml-quants.c, dequantize_row_iq*; ggml-common.h for layouts, ksigns_iq2xs, kvalues_iq4nl.
"""

import base64
import zlib
from functools import cache

import numpy as np

from refquant.gguf import planes
from refquant.gguf.i_grids import GRIDS
from refquant.gguf.legacy import nibbles

IQ2_XXS = np.dtype([("d", "<f2"), ("qs", "<u4", (8, 2))])
IQ2_XS = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
IQ2_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)])
IQ3_XXS = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("signs", "<u4", 8)])
IQ3_S = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)])
IQ1_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
IQ1_M = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])
IQ4_NL = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
IQ4_XS = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])

LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
DELTA = np.float32(0.125)

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
SIGNS = np.where(_BITS, np.float32(-1), np.float32(1))  # (256, 8): bit k of the row number is the sign of weight k
_ODD = np.bitwise_xor.reduce(_BITS[:128], axis=1)  # 1 where seven bits hold an odd number of minuses
EVEN_SIGNS = SIGNS[np.arange(128) | (_ODD.astype(np.int64) << 7)]  # (128, 8)


@cache
def grid(name: str) -> np.ndarray:
    """The points of one grid of `i_grids`: (points, width) float32, read-only."""
    levels, width, text = GRIDS[name]
    gaps = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8).reshape(2, -1).astype(np.int64)
    rows = np.cumsum(gaps[0] + 256 * gaps[1])
    bits = 2 if len(levels) == 3 else 3
    codes = (rows[:, None] >> (bits * np.arange(width))) & ((1 << bits) - 1)
    points = np.array(levels, np.float32)[codes]
    points.flags.writeable = False
    return points


@np.errstate(all="ignore")
def decode_iq2_xxs(b: np.ndarray) -> np.ndarray:
    """Two little-endian words a group of 32 weights, as four points of 8.

    word 0   DDDDDDDD CCCCCCCC BBBBBBBB AAAAAAAA     index of each point
    word 1   SSSSddddd ddcccccc cbbbbbbb aaaaaaa     signs of each point (7 bits), s in the top four bits
    """
    index = (b["qs"][..., 0, None] >> np.arange(0, 32, 8, dtype=np.uint32)) & np.uint32(255)  # (..., 8, 4)
    signs, s = _seven_signs(b["qs"][..., 1])
    return _signed(_quarter_steps(b, s), grid("IQ2_XXS")[index], signs)


@np.errstate(all="ignore")
def decode_iq2_xs(b: np.ndarray) -> np.ndarray:
    """One word a point of 8: sssssssi iiiiiiii, i the index, s seven signs; scales BBBBAAAA, one for two points."""
    index = b["qs"] & np.uint16(511)
    signs = EVEN_SIGNS[b["qs"] >> np.uint16(9)]
    return _signed(_quarter_steps(b, _low_high(b["scales"])), grid("IQ2_XS")[index], signs)


@np.errstate(all="ignore")
def decode_iq2_s(b: np.ndarray) -> np.ndarray:
    """One byte of qs and one of signs a point of 8; scales BBBBAAAA, one for two points.

    qh[g] = DDCCBBAA: bits 8 and 9 of the indices of points 4g .. 4g + 3
    """
    high = _pairs(b["qh"]).reshape(*b.shape, 32).astype(np.uint16)
    index = b["qs"] | (high << np.uint16(8))
    return _signed(_quarter_steps(b, _low_high(b["scales"])), grid("IQ2_S")[index], SIGNS[b["signs"]])


@np.errstate(all="ignore")
def decode_iq3_xxs(b: np.ndarray) -> np.ndarray:
    """One byte of qs a point of 4; a word of signs for 32 weights: word 1 of IQ2_XXS."""
    signs, s = _seven_signs(b["signs"])
    scale = b["d"].astype(np.float32)[..., None] * (np.float32(0.5) + s) * np.float32(0.5)
    return _signed(scale, grid("IQ3_XXS")[b["qs"]], signs)


@np.errstate(all="ignore")
def decode_iq3_s(b: np.ndarray) -> np.ndarray:
    """One byte of qs a point of 4, one byte of signs for 8 weights; scales BBBBAAAA, one for 32 weights.

    qh[g] = HGFEDCBA: bit 8 of the indices of points 8g .. 8g + 7
    """
    high = np.unpackbits(b["qh"], axis=-1, bitorder="little").astype(np.uint16)
    index = b["qs"] | (high << np.uint16(8))
    scale = b["d"].astype(np.float32)[..., None] * (np.float32(1) + np.float32(2) * _low_high(b["scales"]))
    return _signed(scale, grid("IQ3_S")[index], SIGNS[b["signs"]])


@np.errstate(all="ignore")
def decode_iq1_s(b: np.ndarray) -> np.ndarray:
    """One byte of qs a point of 8, one word of qh for 32 weights: NSSSDDDC CCBBBAAA.

    A..D bits 8..10 of the four indices, S the scale s, N = 1: delta is -1/8
    """
    high = (b["qh"][..., None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)  # (..., 8, 4)
    index = b["qs"] | (high.reshape(*b.shape, 32) << np.uint16(8))
    s = (b["qh"] >> np.uint16(12)) & np.uint16(7)
    delta = np.where(b["qh"] >> np.uint16(15), -DELTA, DELTA)[..., None].repeat(4, axis=-1)
    return _shifted(b["d"].astype(np.float32), s, grid("IQ1_S")[index], delta)


@np.errstate(all="ignore")
def decode_iq1_m(b: np.ndarray) -> np.ndarray:
    """One byte of qs and half a byte of qh a point of 8; four words of scales for the block.

    qh[j] = NBBBMAAA: A, B bits 8..10 of the indices of points 2j, 2j + 1; M, N = 1: its delta is -1/8
    scales[j] = FFFFDDDC CCBBBAAA: A..D the scales s of groups 4j .. 4j + 3 of 16; F the bits 4j .. 4j + 3 of d
    """
    half = np.stack([b["qh"] & np.uint8(15), b["qh"] >> np.uint8(4)], axis=-1).reshape(*b.shape, 32)
    index = b["qs"] | ((half & np.uint8(7)).astype(np.uint16) << np.uint16(8))
    delta = np.where(half >> np.uint8(3), -DELTA, DELTA)
    fields = (b["scales"] >> np.uint16(12)) << np.arange(0, 16, 4, dtype=np.uint16)
    d = np.bitwise_or.reduce(fields, axis=-1).view(np.float16).astype(np.float32)
    s = (b["scales"][..., None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)
    return _shifted(d, s.reshape(*b.shape, 16), grid("IQ1_S")[index], delta)


@np.errstate(all="ignore")
def decode_iq4_nl(b: np.ndarray) -> np.ndarray:
    """Byte j of qs is BBBBAAAA: A = code of weight j, B = code of weight 16 + j."""
    return b["d"].astype(np.float32)[..., None] * LEVELS[nibbles(b["qs"])]


@np.errstate(all="ignore")
def decode_iq4_xs(b: np.ndarray) -> np.ndarray:
    """Eight groups of 32 with 16 bytes of qs each, packed as in IQ4_NL.

    scales_l[j] = BBBBAAAA              low four bits of s of groups 2j, 2j + 1
    scales_h    = HHGGFFEE DDCCBBAA     high two bits of s of groups 0..7
    """
    high = (b["scales_h"][..., None] >> np.arange(0, 16, 2, dtype=np.uint16)) & np.uint16(3)  # (..., 8)
    s = _low_high(b["scales_l"]) + np.float32(16) * high.astype(np.float32)
    scale = b["d"].astype(np.float32)[..., None] * (s - np.float32(32))
    codes = nibbles(b["qs"].reshape(*b.shape, 8, 16))
    return (scale[..., None] * LEVELS[codes]).reshape(*b.shape, 256)


def _seven_signs(word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words of IQ2_XXS and IQ3_XXS (..., 8) -> signs (..., 8, 4, 8) and s (..., 8), float32."""
    index = (word[..., None] >> np.arange(0, 28, 7, dtype=np.uint32)) & np.uint32(127)
    return EVEN_SIGNS[index], (word >> np.uint32(28)).astype(np.float32)


def _low_high(data: np.ndarray) -> np.ndarray:
    """(..., n) bytes BBBBAAAA -> (..., 2 n) float32 in the order A0 B0 A1 B1 ..."""
    both = np.stack([data & np.uint8(15), data >> np.uint8(4)], axis=-1)
    return both.reshape(*data.shape[:-1], 2 * data.shape[-1]).astype(np.float32)


def _pairs(data: np.ndarray) -> np.ndarray:
    """(..., n) bytes DDCCBBAA -> (..., n, 4) in the order A B C D."""
    return planes.split(data[..., None], 2)[..., 0]


def _quarter_steps(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """(d (0.5 + s)) / 4 of the IQ2 family: s (..., groups) float32 -> the same shape."""
    return b["d"].astype(np.float32)[..., None] * (np.float32(0.5) + s) * np.float32(0.25)


def _signed(scale: np.ndarray, points: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """(scale * point) * sign: scale (..., groups), points and signs 256 values a block in weight order."""
    grouped = (*scale.shape, 256 // scale.shape[-1])
    weights = scale[..., None] * points.reshape(grouped) * signs.reshape(grouped)
    return weights.reshape(*scale.shape[:-1], 256)


def _shifted(d: np.ndarray, s: np.ndarray, points: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """(d (2 s + 1)) (point + delta): d (...), s (..., groups), points (..., 32, 8), delta 32 values a block."""
    scale = d[..., None] * (np.float32(2) * s.astype(np.float32) + np.float32(1))
    shifted = (points + delta.reshape(*d.shape, 32, 1)).reshape(*s.shape, 256 // s.shape[-1])
    return (scale[..., None] * shifted).reshape(*d.shape, 256)
