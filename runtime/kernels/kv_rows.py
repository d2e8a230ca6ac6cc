"""How keys and values lie in the KV cache, and how attention reads them: float32, float16, or codes of 8 bits.

Positions are cut at multiples of 256. Of one kv head a cut holds

    keys     8 tiles of 32 positions:            element 0 of the 32 positions, element 1 of them, ... head_dim - 1
    values   head_dim_v / 32 tiles of 32 columns:   the columns of position 0, of position 1, ... of position 255

so that attention reads each tile from its first byte to its last, 32 numbers at a time. What 32 numbers take:

    f32, f16    128 or 64 bytes
    q8_0        32 codes (int8); ahead of the codes a scale (float16) for each 32 elements of a position's key or value:
                keys      [32 scales, one a position][32 elements: 32 codes, one a position]   for each 32 elements
                values    [256 scales, one a position][256 positions: 32 codes]                for each tile

q8_0      x ~ d * code      d = max|x| / 127, narrowed to float16 after the codes are made
                            code = x * (1 / d) rounded to nearest, half away from zero
          d * code is exact in float32, so attention computes with exactly the numbers that the cache stands for. The
          blocks of a head begin at its first element; a last one of fewer than 32 is shorter.
Edges     a block of zeros has scale and codes 0, and so has one with max|x| below 2^-121, whose 1 / d overflows and
          whose float16 is 0 anyway. A block with an infinity or NaN has scale NaN, so that it shows in the result.
Source    ggml/src/ggml-quants.c quantize_row_q8_0_ref.
Differs   llama.cpp multiplies by 127 / max|x| and rounds half to even where the CPU has vectors; it turns keys and
          values by a Hadamard matrix before, where a head has a multiple of 64 elements, and rounds queries too.
"""

from dataclasses import dataclass

import numpy as np

from runtime.jit import inlined
from runtime.simd import (
    broadcast_f16,
    load_f16x16,
    load_f32,
    load_f32x16,
    load_i8x16,
    splat_f32,
    store_f16,
    store_f32,
    store_u8,
    to_f32,
)

CUT, TILE = 256, 32  # positions of a cut; positions or columns of a tile
F32, F16, Q8_0 = 0, 1, 2
SMALLEST = np.float32(2.0**-121)
KEY_SCALES, VALUE_SCALES = TILE * 2, CUT * 2  # bytes
KEY_BLOCK = KEY_SCALES + TILE * TILE  # bytes of 32 elements of 32 positions in Q8_0


@dataclass(frozen=True, slots=True)
class Rows:
    """One type of keys and values."""

    name: str
    kind: int  # what `store_key` and `store_value` are told
    number: int  # bytes of one number without its scale

    def key_tile(self, head_dim: int) -> int:
        """Bytes of a tile of keys."""
        if self.kind == Q8_0:
            return -(-head_dim // TILE) * KEY_BLOCK
        return head_dim * TILE * self.number

    @property
    def value_tile(self) -> int:
        """Bytes of a tile of values."""
        return CUT * TILE * self.number + (VALUE_SCALES if self.kind == Q8_0 else 0)

    def key_cut(self, head_dim: int) -> int:
        """Bytes of the keys of a cut of one kv head."""
        return CUT // TILE * self.key_tile(head_dim)

    def value_cut(self, head_dim_v: int) -> int:
        """Bytes of the values of a cut of one kv head."""
        return -(-head_dim_v // TILE) * self.value_tile


ROWS = {rows.name: rows for rows in (Rows("f16", F16, 2), Rows("f32", F32, 4), Rows("q8_0", Q8_0, 1))}


def reader(name: str):
    """Four functions for kernels, of which each returns 16 numbers, those of `half` 0 or 1:

    key_scale(keys, at, half), key(keys, at, i, half, scale)           element i of the 32 whose run begins at byte `at`
    value_scale(values, at, j), value(values, at, j, half, scale)      position j of the tile that begins at byte `at`
    """
    number = ROWS[name].number
    load = {"f32": load_f32x16, "f16": load_f16x16, "q8_0": load_i8x16}[name]

    @inlined
    def no_scale(memory, at, which):
        return splat_f32(np.float32(1))

    @inlined
    def plain(memory, at, i, half, scale):
        return load(memory, at + (i * TILE + half * 16) * number)

    @inlined
    def key_scale(keys, at, half):
        return load_f16x16(keys, at + half * 32)

    @inlined
    def value_scale(values, at, j):
        return broadcast_f16(values, at + j * 2)

    @inlined
    def key(keys, at, i, half, scale):
        return to_f32(load(keys, at + KEY_SCALES + i * TILE + half * 16)) * scale

    @inlined
    def value(values, at, j, half, scale):
        return to_f32(load(values, at + VALUE_SCALES + j * TILE + half * 16)) * scale

    return (key_scale, key, value_scale, value) if name == "q8_0" else (no_scale, plain, no_scale, plain)


@inlined
def block_scale(x, at, count):
    """max|x| / 127 of `count` float32 at byte `at`: 0 where that is too small for an inverse, NaN with an infinity."""
    top, test = np.float32(0), np.float32(0)
    for i in range(0, count * 4, 4):
        v = load_f32(x, at + i)
        top = max(top, abs(v))
        test += v * np.float32(0)  # infinity and NaN times 0 are NaN
    if test != np.float32(0):
        return np.float32(np.nan)
    return np.float32(top / np.float32(127)) if top >= SMALLEST else np.float32(0)


@inlined
def code_of(x, inverse):
    """x * inverse to the nearest integer, half away from zero; |x * inverse| < 2^30."""
    scaled = np.float32(x * inverse)
    whole = np.int64(scaled)  # toward zero
    rest = np.float32(scaled - np.float32(whole))  # exact, and so is its double
    return whole + np.int64(np.float32(rest + rest))


@inlined
def inverse_of(d):
    """1 / d; 0 for 0 and NaN, whose codes are 0."""
    return np.float32(np.float32(1) / d) if d > np.float32(0) else np.float32(0)


@inlined
def store_key(keys, kind, cut, tile_bytes, j, x, at, dim):
    """`dim` float32 at byte `at` of x as the key of position j of the cut that begins at byte `cut`."""
    tile, lane = cut + j // TILE * tile_bytes, j % TILE
    if kind == Q8_0:
        for first in range(0, dim, TILE):
            to, count = tile + first // TILE * KEY_BLOCK, min(TILE, dim - first)
            d = block_scale(x, at + first * 4, count)
            inverse = inverse_of(d)
            store_f16(keys, to + lane * 2, d)
            for i in range(count):
                v = load_f32(x, at + (first + i) * 4) if inverse > np.float32(0) else np.float32(0)
                store_u8(keys, to + KEY_SCALES + i * TILE + lane, code_of(v, inverse))
    else:
        for i in range(dim):
            if kind == F16:
                store_f16(keys, tile + (i * TILE + lane) * 2, load_f32(x, at + i * 4))
            else:
                store_f32(keys, tile + (i * TILE + lane) * 4, load_f32(x, at + i * 4))


@inlined
def store_value(values, kind, cut, tile_bytes, j, x, at, dim_v):
    """`dim_v` float32 at byte `at` of x as the value of position j of the cut that begins at byte `cut`."""
    for first in range(0, dim_v, TILE):
        tile, count = cut + first // TILE * tile_bytes, min(TILE, dim_v - first)
        if kind == Q8_0:
            d = block_scale(x, at + first * 4, count)
            inverse = inverse_of(d)
            store_f16(values, tile + j * 2, d)
            for i in range(count):
                v = load_f32(x, at + (first + i) * 4) if inverse > np.float32(0) else np.float32(0)
                store_u8(values, tile + VALUE_SCALES + j * TILE + i, code_of(v, inverse))
        else:
            for i in range(count):
                v = load_f32(x, at + (first + i) * 4)
                if kind == F16:
                    store_f16(values, tile + (j * TILE + i) * 2, v)
                else:
                    store_f32(values, tile + (j * TILE + i) * 4, v)


def stored_numpy(x: np.ndarray, name: str) -> np.ndarray:
    """The twin of storing and reading back: what the cache makes of x (..., head_dim) float32, as float32."""
    if name == "f32":
        return x
    if name == "f16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    dim = x.shape[-1]
    blocks = np.zeros((*x.shape[:-1], -(-dim // TILE) * TILE), np.float32)
    blocks[..., :dim] = x
    blocks = blocks.reshape(*x.shape[:-1], -1, TILE)
    finite = np.isfinite(blocks).all(axis=-1, keepdims=True)
    top = np.abs(np.where(finite, blocks, np.float32(0))).max(axis=-1, keepdims=True)
    usable = finite & (top >= SMALLEST)
    d = np.where(usable, top / np.float32(127), np.float32(1))
    scaled = np.where(usable, blocks, np.float32(0)) * (np.float32(1) / d)
    codes = np.sign(scaled) * np.floor(np.abs(scaled).astype(np.float64) + 0.5)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.where(usable, d, np.float32(0)).astype(np.float16).astype(np.float32)
        narrow = np.where(finite, narrow, np.float32(np.nan))
        return (narrow * codes.astype(np.float32)).reshape(*x.shape[:-1], -1)[..., :dim]
