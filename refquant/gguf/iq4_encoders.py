"""The encoders of IQ4_NL and IQ4_XS: sixteen uneven levels v[code], and a scale for 32 weights.

They look for the scale s and the codes that minimize

    sum_i w_i (x_i - s v_i)^2       w = u sqrt(2 m + x^2), u the importance, m the mean of x^2 over the block (IQ4_NL 32
                                    weights, IQ4_XS 256); without importance w = x^2

1  try      inverse scales 127 / peak, then (t - 127) / peak for t = -7 .. 7, peak the x of the largest |x|; codes are
            the nearest levels. For given v the best s is sum(w v x) / sum(w v^2), and lowers the error by s sum(w v x):
            the trial that lowers it most is kept, the first of equals
2  narrow   IQ4_NL stores s. IQ4_XS stores d = -(the s of the largest |s|) / 32 and l = s / d rounded, within -32 .. 31
3  round    the levels nearest to x / s (IQ4_XS: x / (d l)), all in float32: before d is narrowed to float16

Shapes   x (..., 32) or (..., 256) float32; importance float32 >= 0 of a shape that broadcasts to x, or None ->
         (...) layout.
Order    as in `scale_search`: float32, never fused, sums from the first weight of a group to the last: (w v) x and
         (w v) v.
Ties     half-way between two levels: the greater one. The first of equal peaks, and of equal |s|.
Zeros    a group with max|x| < 1e-15, or without importance, has s = 0. A scale of 0 in step 3 gives all codes the 8.
Range    sums that overflow leave an infinite or NaN scale, as in ggml.
Refused  NaN and infinities: NonFiniteError.
Source   ggml/src/ggml-quants.c, quantize_row_iq4_nl_impl with ntry = 7, best_index_int8.
Differs  ggml's quantize_row_iq4_nl_ref, which writes no files, tries peak / -127 alone.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf.fields import join_fields
from refquant.gguf.i_quants import IQ4_NL, IQ4_XS, LEVELS
from refquant.gguf.importance import sum_of_squares, weigh
from refquant.gguf.legacy import pack_nibbles
from refquant.gguf.scale_search import ALL_ZERO, columns, first_extreme, nearest_int, total

# Midpoints of levels are multiples of 1/2, so floor(2 y) tells the level nearest to y: codes for y = -128 .. 127.5.
_MIDPOINTS = (LEVELS[1:] + LEVELS[:-1]) / np.float32(2)
_NEAREST = np.searchsorted(_MIDPOINTS, np.arange(-256, 256) / 2, side="right").astype(np.uint8)


@np.errstate(all="ignore")
def encode_iq4_nl(x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("IQ4_NL.encode", x)
    w = weigh(x, importance, sum_of_squares(x) * np.float32(2 / 32))
    s = _try(columns(x, 32), columns(w, 32)).reshape(x.shape[:-1])
    b = np.empty(s.shape, IQ4_NL)
    b["d"] = s
    b["qs"] = pack_nibbles(_nearest(_reciprocal(s)[..., None] * x))
    return b


@np.errstate(all="ignore")
def encode_iq4_xs(x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("IQ4_XS.encode", x)
    w = weigh(x, importance, sum_of_squares(x) * np.float32(2 / 256))
    s = _try(columns(x, 32), columns(w, 32)).reshape(*x.shape[:-1], 8)
    d = first_extreme(columns(s, 8)).reshape(s.shape[:-1]) / np.float32(-32)
    l = nearest_int(_reciprocal(d)[..., None] * s).clip(-32, 31)
    inverse = _reciprocal(d[..., None] * l.astype(np.float32))
    codes = _nearest(inverse[..., None] * x.reshape(*s.shape, 32))
    b = np.empty(d.shape, IQ4_XS)
    b["d"] = d
    b["scales_l"] = join_fields(((l + 32) & 15).reshape(*d.shape, 4, 2), 4)
    b["scales_h"] = join_fields((l + 32) >> 4, 2)
    b["qs"] = pack_nibbles(codes).reshape(*d.shape, 128)
    return b


def _try(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Step 1: x, w (32, groups) -> s (groups,)."""
    peak = first_extreme(x)

    def sums(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v = LEVELS[_nearest(inverse * x)]
        wv = w * v
        return total(wv * x), total(wv * v)

    vx, vv = sums(np.float32(1) / (peak / np.float32(127)))
    s = np.where(vv > 0, vx / vv, np.float32(0))
    gain = s * vx
    for t in range(-7, 8):
        vx, vv = sums(np.float32(t - 127) / peak)
        better = (vv > 0) & (vx * vx > gain * vv)
        s = np.where(better, vx / vv, s)
        gain = np.where(better, s * vx, gain)
    return np.where(np.abs(peak) < ALL_ZERO, np.float32(0), s)


def _nearest(y: np.ndarray) -> np.ndarray:
    """Codes of the nearest levels. A NaN takes the last one (fmin prefers a number), where ggml's bisection ends."""
    half_steps = np.fmax(np.fmin(np.floor(y + y), np.float32(255)), np.float32(-256))
    return _NEAREST[half_steps.astype(np.intp) + 256]


def _reciprocal(d: np.ndarray) -> np.ndarray:
    return np.where(d == 0, np.float32(0), np.float32(1) / d)
