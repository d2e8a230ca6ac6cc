"""Encoders of the K-quants without an importance matrix; `k_weighted` has those with one.

    1  search   scale (and minimum) of each group in float32
    2  narrow   the scales of a super-block to integers under one float16 d, the minima likewise under dmin, so that the
                largest (Q3_K, Q6_K: the one of the largest magnitude, sign included) gets the last integer exactly
    3  round    the weights under the scales as they will be read back: `k_packing`

            group  search               weight of x in it          integers of step 2
    Q2_K    16     scale_and_minimum    |x|, absolute error        0 .. 15 and 0 .. 15
    Q3_K    16     signed_descent       x^2                        -32 .. 31
    Q4_K    32     scale_and_minimum    |x| + rms of the group     0 .. 63 and 0 .. 63
    Q5_K    32     scale_and_minimum    |x| + rms of the group     0 .. 63 and 0 .. 63
    Q6_K    16     signed_scale         x^2                        -128 .. 127
    Q8_K    256    none: d = -extreme / 127 in float32, q = nearest(x * (-127 / extreme))

Shapes   encode (..., 256) float32 -> (...) layout.
Order    as in `scale_search`: float32, never fused, sums term by term.
Zeros    a block of zeros is all zero bytes, Q3_K's codes too, although there a code 0 stands for -4 d.
Range    weights whose cubes leave the range of float32 make the searches blind; the bytes are ggml's all the same.
Refused  NaN and infinities: NonFiniteError.
Source   ggml/src/ggml-quants.c, quantize_row_q*_K_ref.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf.k_packing import pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k, pack_q6_k
from refquant.gguf.k_quants import Q6_K, Q8_K
from refquant.gguf.scale_search import (
    ALL_ZERO,
    Grid,
    columns,
    first_extreme,
    nearest_int,
    scale_and_minimum,
    signed_descent,
    signed_scale,
    total,
)


@np.errstate(all="ignore")
def encode_q2_k(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q2_K.encode", x)
    groups = columns(x, 16)
    scale, minimum, codes = scale_and_minimum(groups, np.abs(groups), 3, Grid(-0.5, 0.1, 15), absolute=True)
    return pack_q2_k(x, *_narrow(scale, 16, 15), *_narrow(-minimum, 16, 15), codes)


@np.errstate(all="ignore")
def encode_q3_k(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q3_K.encode", x)
    scale, codes = signed_descent(columns(x, 16), 4)
    sc, d = _narrow_signed(scale, 32)
    return pack_q3_k(x, np.clip(sc, -32, 31) + 32, d, codes)


@np.errstate(all="ignore")
def encode_q4_k(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q4_K.encode", x)
    return pack_q4_k(x, *_search_32(x, 15, Grid(-1, 0.1, 20)))


@np.errstate(all="ignore")
def encode_q5_k(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q5_K.encode", x)
    return pack_q5_k(x, *_search_32(x, 31, Grid(-0.5, 0.1, 15)))


@np.errstate(all="ignore")
def encode_q6_k(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q6_K.encode", x)
    groups = columns(x, 16)
    return narrow_q6_k(x, *signed_scale(groups, groups * groups, 32))


@np.errstate(all="ignore")
def encode_q8_k(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError. ggml leaves bsums of a block of zeros as they were; here they are 0."""
    require_finite("Q8_K.encode", x)
    b = np.empty(x.shape[:-1], Q8_K)
    extreme = first_extreme(columns(x, 256)).reshape(b.shape)
    zero = extreme == 0
    iscale = np.where(zero, np.float32(0), np.float32(-127) / extreme)
    q = np.minimum(nearest_int(iscale[..., None] * x), 127).astype(np.int8)
    b["d"] = np.where(zero, np.float32(0), np.float32(1) / iscale)
    b["qs"] = q
    b["bsums"] = q.reshape(*b.shape, 16, 16).sum(axis=-1, dtype=np.int16)
    return b


@np.errstate(all="ignore")
def narrow_q6_k(x: np.ndarray, scale: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Steps 2 and 3. A block whose scales are all below 1e-15 becomes zero bytes."""
    sc, d = _narrow_signed(scale, 128)
    b = pack_q6_k(x, np.minimum(sc, 127).astype(np.int8), d, codes)
    tiny = np.abs(first_extreme(columns(scale, 16))) < ALL_ZERO
    b[tiny.reshape(b.shape)] = np.zeros((), Q6_K)
    return b


def _search_32(x: np.ndarray, top: int, grid: Grid) -> tuple[np.ndarray, ...]:
    """sc, d, m, dmin, codes of Q4_K and Q5_K."""
    groups = columns(x, 32)
    rms = np.sqrt(total(groups * groups) / np.float32(32))
    scale, minimum, codes = scale_and_minimum(groups, rms + np.abs(groups), top, grid)
    (sc, d), (m, dmin) = _narrow(scale, 8, 63), _narrow(-minimum, 8, 63)
    return np.minimum(sc, 63), d, np.minimum(m, 63), dmin, codes


def _narrow(values: np.ndarray, groups: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(blocks * groups,) -> (blocks, groups) uint8 and the value of one of their steps, (blocks,)."""
    values = values.reshape(-1, groups)
    peak = np.fmax.reduce(values, axis=-1)
    peak = np.where(peak > 0, peak, np.float32(0))
    inverse = np.where(peak > 0, np.float32(top) / peak, np.float32(0))
    return nearest_int(inverse[:, None] * values).astype(np.uint8), peak / np.float32(top)


def _narrow_signed(values: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(blocks * 16,) -> (blocks, 16) int32 and the value of one of their steps, (blocks,). Zeros give -top and 0."""
    extreme = first_extreme(columns(values, 16))
    zero = extreme == 0
    iscale = np.float32(-top) / extreme
    integers = np.where(zero[:, None], -top, nearest_int(iscale[:, None] * values.reshape(-1, 16)))
    return integers, np.where(zero, np.float32(0), np.float32(1) / iscale)
