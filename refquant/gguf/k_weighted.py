"""Encoders of the K-quants with an importance matrix: the steps of `k_encoders`, every step a weighted search.

            group  search               weight w of x in it     search of the scales of a super-block
    Q2_K    16     scale_and_minimum    v sqrt(s + x^2)         positive_scale 0 .. 15, scales and minima apart
    Q3_K    16     signed_scale         v sqrt(2 s + x^2)       signed_scale -32 .. 31
    Q4_K    32     scale_and_minimum    v sqrt(2 s + x^2)       positive_scale 0 .. 63, scales and minima apart
    Q5_K    32     scale_and_minimum    v sqrt(2 s + x^2)       positive_scale 0 .. 63, scales and minima apart
    Q6_K    16     signed_scale         v                       none: as without importance

    v    importance of the column of x               s    mean of x^2 over the super-block

A group weighs the sum of its w in the search of the scales. Q8_K ignores importance.

Shapes   encode (..., 256) float32, and importance float32 >= 0 of a shape that broadcasts to it -> (...) layout.
Order    as in `scale_search`: float32, never fused, sums term by term.
Zeros    where all v of a group are 0, signed_scale gives it a scale of 0, scale_and_minimum that of its range, and the
         search of the scales is free to ignore it.
Refused  NaN and infinities: NonFiniteError.
Source   ggml/src/ggml-quants.c, quantize_row_q*_K_impl.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf.importance import mean_square, weigh
from refquant.gguf.k_encoders import narrow_q6_k
from refquant.gguf.k_packing import pack_q2_k, pack_q3_k, pack_q4_k, pack_q5_k
from refquant.gguf.scale_search import Grid, columns, positive_scale, scale_and_minimum, signed_scale, total

GRID = Grid(-0.9, 0.05, 36)


@np.errstate(all="ignore")
def encode_q2_k(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q2_K.encode", x)
    return pack_q2_k(x, *_search(x, columns(weigh(x, importance, mean_square(x, 1)), 16), 3, 15))


@np.errstate(all="ignore")
def encode_q3_k(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q3_K.encode", x)
    w = columns(weigh(x, importance, mean_square(x, 2)), 16)
    scale, codes = signed_scale(columns(x, 16), w, 4)
    d, sc = signed_scale(columns(scale, 16), columns(total(w), 16), 32)
    return pack_q3_k(x, sc.T, d, codes)


@np.errstate(all="ignore")
def encode_q4_k(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q4_K.encode", x)
    return pack_q4_k(x, *_search(x, columns(weigh(x, importance, mean_square(x, 2)), 32), 15, 63))


@np.errstate(all="ignore")
def encode_q5_k(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q5_K.encode", x)
    sc, d, m, dmin, codes = _search(x, columns(weigh(x, importance, mean_square(x, 2)), 32), 31, 63)
    return pack_q5_k(x, np.minimum(sc, 63), d, np.minimum(m, 63), dmin, codes)


@np.errstate(all="ignore")
def encode_q6_k(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q6_K.encode", x)
    return narrow_q6_k(x, *signed_scale(columns(x, 16), columns(np.broadcast_to(importance, x.shape), 16), 32))


def _search(x: np.ndarray, w: np.ndarray, top: int, scale_top: int) -> tuple[np.ndarray, ...]:
    """sc, d, m, dmin, codes for the groups that are the columns of w."""
    n, groups = len(w), 256 // len(w)
    scale, minimum, codes = scale_and_minimum(columns(x, n), w, top, GRID)
    sum_w = columns(total(w), groups)
    d, sc = positive_scale(columns(scale, groups), sum_w, scale_top)
    dmin, m = positive_scale(columns(-minimum, groups), sum_w, scale_top)
    return sc.T, d, m.T, dmin, codes
