"""Q4_0 Q4_1 Q5_0 Q5_1 with an importance matrix: the scale is searched for, where `legacy` takes it from the extremes.

    Q4_0 Q5_0    signed_scale          x^ = d * (q - 8), d * (q - 16)
    Q4_1 Q5_1    scale_and_minimum     x^ = q * d + m, with m <= 0

    weight of x in the search    v sqrt(s + x^2)      v its importance, s the mean of x^2 over the whole row

Shapes   encode (..., blocks, 32) float32, whole rows, and importance float32 >= 0 of a shape that broadcasts to it ->
         (..., blocks) layout.
Codes    those of the search, under the scale before it is narrowed to float16.
Zeros    a block without importance (all 0) has d = 0 in Q4_0 and Q5_0 and decodes to zeros; in Q4_1 and Q5_1 it keeps
         the scale of its range. A block whose largest |x| is below 1e-15 has d = 0 and codes 0 in Q4_0 and Q5_0.
Differs  m is never positive here: a block of positive weights gives up part of its codes, which it does not without
         importance.
Order    as in `scale_search`; s is a float32 sum in the order of the row, divided by its length.
Refused  NaN and infinities: NonFiniteError.
Source   ggml/src/ggml-quants.c, quantize_row_q*_impl. Q8_0 and Q8_1 ignore importance.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf.importance import mean_square, weigh
from refquant.gguf.legacy import Q4_0, Q4_1, Q5_0, Q5_1, pack_five_bits, pack_nibbles
from refquant.gguf.scale_search import Grid, columns, scale_and_minimum, signed_scale

GRID = Grid(-0.9, 0.05, 36)


def encode_q4_0(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    b, codes = _signed("Q4_0.encode", x, importance, Q4_0, 8)
    b["qs"] = pack_nibbles(codes)
    return b


def encode_q4_1(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    b, codes = _ranged("Q4_1.encode", x, importance, Q4_1, 15)
    b["qs"] = pack_nibbles(codes)
    return b


def encode_q5_0(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    b, codes = _signed("Q5_0.encode", x, importance, Q5_0, 16)
    pack_five_bits(b, codes)
    return b


def encode_q5_1(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    b, codes = _ranged("Q5_1.encode", x, importance, Q5_1, 31)
    pack_five_bits(b, codes)
    return b


@np.errstate(all="ignore")
def _signed(
    where: str, x: np.ndarray, importance: np.ndarray, layout: np.dtype, half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks with d set, and codes (..., blocks, 32)."""
    w = _weights(where, x, importance)
    d, codes = signed_scale(columns(x, 32), columns(w, 32), half)
    b = np.empty(x.shape[:-1], layout)
    b["d"] = d.reshape(b.shape)
    return b, codes.T.reshape(x.shape)


@np.errstate(all="ignore")
def _ranged(
    where: str, x: np.ndarray, importance: np.ndarray, layout: np.dtype, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks with d and m set, and codes (..., blocks, 32)."""
    w = _weights(where, x, importance)
    d, m, codes = scale_and_minimum(columns(x, 32), columns(w, 32), top, GRID)
    b = np.empty(x.shape[:-1], layout)
    b["d"], b["m"] = d.reshape(b.shape), m.reshape(b.shape)
    return b, codes.T.reshape(x.shape)


def _weights(where: str, x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    require_finite(where, x)
    return weigh(x, importance, mean_square(x.reshape(*x.shape[:-2], -1), 1)[..., None])
