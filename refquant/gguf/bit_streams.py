"""Q1_0 and Q2_0: one or two bits a weight in plain bit order, one float16 scale, no super-block.

    Q1_0   x^ = d if the bit is 1, -d if it is 0      128 weights, 18 bytes     never zero unless d is
    Q2_0   x^ = (q - 1) * d,  q 0..3                   64 weights, 18 bytes     {-d, 0, d, 2 d}

    encode   Q1_0    d = mean of |x|      bit = x >= 0, so +0.0 and -0.0 give 1
             Q2_0    d = max|x|           q = roundf(x * (1 / d)) + 1, half away from zero: 0, 1 or 2, never 3

Shapes   decode (...) layout -> (..., 128) or (..., 64) float32; encode the inverse.
Order    encoders compute in float32, codes from d before it is narrowed to float16. The mean is a sum in the order of
         the weights, divided by 128.
Range    d narrows as in `legacy`. Below d = 2^-128, 1 / d overflows; a product that is not finite gets q = 0 on x86-64
         (in C the cast is undefined), and d is stored as 0.
Zeros    a block of zeros has d = 0; its bits are 1, its q 1. Importance is ignored, as in ggml.
Refused  NaN and infinities in x: NonFiniteError.
NaN      -d flips the sign bit of whatever d is, as in C.
Source   ggml/src/ggml-quants.c, dequantize_row_q1_0, dequantize_row_q2_0, quantize_row_q1_0_ref, quantize_row_q2_0_ref.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf import planes
from refquant.rounding import half_away

Q1_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q2_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


@np.errstate(all="ignore")
def decode_q1_0(b: np.ndarray) -> np.ndarray:
    """Byte j of qs is HGFEDCBA: A = weight 8j, B = weight 8j + 1, ..., H = weight 8j + 7."""
    d = b["d"].astype(np.float32)[..., None]
    return np.where(np.unpackbits(b["qs"], axis=-1, bitorder="little"), d, -d)


@np.errstate(all="ignore")
def decode_q2_0(b: np.ndarray) -> np.ndarray:
    """Byte j of qs is DDCCBBAA: A = weight 4j, B = weight 4j + 1, C = weight 4j + 2, D = weight 4j + 3."""
    d = b["d"].astype(np.float32)[..., None]
    q = planes.split(b["qs"][..., None], 2).reshape(*b.shape, 64)
    return (q.astype(np.float32) - np.float32(1)) * d


@np.errstate(all="ignore")
def encode_q1_0(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q1_0.encode", x)
    b = np.empty(x.shape[:-1], Q1_0)
    b["d"] = np.add.accumulate(np.abs(x), axis=-1)[..., -1] / np.float32(128)  # accumulate, not sum: sum is pairwise
    b["qs"] = np.packbits(x >= 0, axis=-1, bitorder="little")
    return b


@np.errstate(all="ignore")
def encode_q2_0(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("Q2_0.encode", x)
    b = np.empty(x.shape[:-1], Q2_0)
    d = np.abs(x).max(axis=-1)
    scaled = x * np.where(d > 0, np.float32(1) / d, np.float32(0))[..., None]
    q = np.where(np.isfinite(scaled), half_away(scaled) + np.float32(1), np.float32(0)).astype(np.uint8)
    b["d"] = d
    b["qs"] = planes.join(q.reshape(*b.shape, 16, 4, 1), 2)[..., 0]
    return b
