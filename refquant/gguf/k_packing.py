"""The last step of every K-quant encoder: round the weights under the scales that will be read back, and pack.

    Q2_K Q4_K Q5_K    q = nearest((x + dmin m) / (d sc))      clipped to 0 .. 3, 15, 31
    Q3_K Q6_K         q = nearest(x / (d sc)) + 4, 32         clipped to 0 .. 7, 63

d and dmin are narrowed to float16 first (as in `legacy`: infinite from 65520 on, 0 up to 2^-25). Where d sc is 0, the
codes of the scale search stay; they decode to -(dmin m), or 0.

Shapes   x (..., 256) float32; sc, m (blocks, groups) integers; d, dmin (blocks,) float32 -> (...) layout. The codes of
         the search are (n, groups) uint8, a group a column, as `scale_search` returns them.
Source   ggml/src/ggml-quants.c, the second half of quantize_row_q*_K_ref. The bytes are drawn in `k_quants`.
"""

import numpy as np

from refquant.gguf import planes
from refquant.gguf.k_quants import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, eight_scales
from refquant.gguf.scale_search import columns, nearest_int

FOUR, SIX, FIFTEEN = np.uint8(4), np.uint8(6), np.uint8(15)
Array = np.ndarray


def pack_q2_k(x: Array, sc: Array, d: Array, m: Array, dmin: Array, codes: Array) -> Array:
    """sc and m uint8, 0..15."""
    b = _blocks(x, Q2_K, d=d, dmin=dmin)
    b["scales"] = (sc | (m << FOUR)).reshape(*b.shape, 16)
    q = _round_with_minimum(x, b, b["scales"] & FIFTEEN, b["scales"] >> FOUR, codes, 3)
    b["qs"] = planes.join(q.reshape(*b.shape, 2, 4, 32), 2).reshape(*b.shape, 64)
    return b


def pack_q3_k(x: Array, sc: Array, d: Array, codes: Array) -> Array:
    """sc 0..63, which stands for sc - 32."""
    b = _blocks(x, Q3_K, d=d)
    b["scales"] = pack_sixteen_scales(sc.astype(np.uint8)).reshape(*b.shape, 12)
    q = _round_signed(x, b, sc.astype(np.float32) - np.float32(32), codes, 4)
    b["qs"] = planes.join((q & np.uint8(3)).reshape(*b.shape, 2, 4, 32), 2).reshape(*b.shape, 64)
    b["hmask"] = planes.join((q >> np.uint8(2)).reshape(*b.shape, 8, 32), 1)
    return b


def pack_q4_k(x: Array, sc: Array, d: Array, m: Array, dmin: Array, codes: Array) -> Array:
    """sc and m uint8, 0..63."""
    b = _blocks(x, Q4_K, d=d, dmin=dmin)
    b["scales"] = pack_eight_scales(sc, m).reshape(*b.shape, 12)
    q = _round_with_minimum(x, b, *eight_scales(b["scales"]), codes, 15)
    b["qs"] = planes.join(q.reshape(*b.shape, 4, 2, 32), 4).reshape(*b.shape, 128)
    return b


def pack_q5_k(x: Array, sc: Array, d: Array, m: Array, dmin: Array, codes: Array) -> Array:
    """sc and m uint8, 0..63."""
    b = _blocks(x, Q5_K, d=d, dmin=dmin)
    b["scales"] = pack_eight_scales(sc, m).reshape(*b.shape, 12)
    q = _round_with_minimum(x, b, *eight_scales(b["scales"]), codes, 31)
    b["qs"] = planes.join((q & FIFTEEN).reshape(*b.shape, 4, 2, 32), 4).reshape(*b.shape, 128)
    b["qh"] = planes.join((q >> FOUR).reshape(*b.shape, 8, 32), 1)
    return b


def pack_q6_k(x: Array, sc: Array, d: Array, codes: Array) -> Array:
    """sc int8."""
    b = _blocks(x, Q6_K, d=d)
    b["scales"] = sc.reshape(*b.shape, 16)
    q = _round_signed(x, b, sc.astype(np.float32), codes, 32)
    b["ql"] = planes.join((q & FIFTEEN).reshape(*b.shape, 2, 2, 64), 4).reshape(*b.shape, 128)
    b["qh"] = planes.join((q >> FOUR).reshape(*b.shape, 2, 4, 32), 2).reshape(*b.shape, 64)
    return b


def pack_eight_scales(sc: Array, m: Array) -> Array:
    """(blocks, 8) uint8 each, 0..63 -> (blocks, 12): the inverse of `k_quants.eight_scales`."""
    scale = sc[:, :4] | (sc[:, 4:] >> FOUR << SIX)
    minimum = m[:, :4] | (m[:, 4:] >> FOUR << SIX)
    rest = (sc[:, 4:] & FIFTEEN) | (m[:, 4:] << FOUR)
    return np.concatenate([scale, minimum, rest], axis=-1)


def pack_sixteen_scales(sc: Array) -> Array:
    """(blocks, 16) uint8, 0..63 -> (blocks, 12): the scales of Q3_K."""
    low = planes.join((sc & FIFTEEN).reshape(-1, 2, 8), 4)
    high = planes.join((sc >> FOUR).reshape(-1, 4, 4), 2)
    return np.concatenate([low, high], axis=-1)


@np.errstate(over="ignore")
def _blocks(x: Array, layout: np.dtype, **scales: Array) -> Array:
    b = np.empty(x.shape[:-1], layout)
    for field, value in scales.items():
        b[field] = value.reshape(b.shape)
    return b


@np.errstate(all="ignore")
def _round_with_minimum(x: Array, b: Array, sc: Array, m: Array, codes: Array, top: int) -> Array:
    """(blocks, 256) uint8."""
    scale = (b["d"].astype(np.float32)[..., None] * sc.astype(np.float32)).ravel()
    minimum = (b["dmin"].astype(np.float32)[..., None] * m.astype(np.float32)).ravel()
    q = np.clip(nearest_int((columns(x, len(codes)) + minimum) / scale), 0, top)
    return np.where(scale != 0, q, codes).astype(np.uint8).T.reshape(-1, 256)


@np.errstate(all="ignore")
def _round_signed(x: Array, b: Array, sc: Array, codes: Array, top: int) -> Array:
    """(blocks, 256) uint8."""
    scale = (b["d"].astype(np.float32).reshape(-1, 1) * sc).ravel()
    q = np.clip(nearest_int(columns(x, 16) / scale), -top, top - 1) + top
    return np.where(scale != 0, q, codes).astype(np.uint8).T.reshape(-1, 256)
