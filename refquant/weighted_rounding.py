"""Weighted rounding: the scale of each group that makes the squared error least where the inputs are large.

    min over s of  sum_i q_i (w_i - s clip(round(w_i / s)))^2           q_j = mean over tokens of x_j^2; 1 without data

    Tried are 1 / s = -(h - t) / peak,  h = 2^(bits-1), peak the w_i of the largest |w_i|; then, with `refit`, for the
    codes l_i that it gives, the best s of all:  s = sum q w l / sum q l^2.  The first of equals wins, t = 0 before all.

    dialect       t                                              refit   source
    (none)        -.1 k, k = -9 .. 9                             yes     ggml make_qx_quants, rmse_type 1, in its grid
    auto-round    k * .0075 h, k = -100 .. 100; 2 bits:          no      auto-round 0.15 search_scales (iters=0)
                  .01 k, k = -90 .. 90

Shapes      W (out, in), groups within a row; q (in,). Scale float32, negative where the peak is positive.
Arithmetic  float32 codes and products, losses summed in float64; ties to even. For ggml's own bytes see gguf/.
Formats     linear, symmetric, -signedmax (int4-g32-signedmax): the code -h is the peak's and s has a sign.
Edges       a group of zeros has scale 0; a group whose inputs are all zero counts as if q = 1. The scale is rounded to
            scale_dtype in the end, and codes are taken with what is stored. auto-round holds |s| at 1e-5.
"""

import numpy as np

from refquant.errors import SchemeError
from refquant.layer_inputs import Inputs, tokens
from refquant.linear_rows import rows_of
from refquant.rounding import half_even, narrow
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

DIALECTS = ("", "auto-round")


def quantize(
    W: np.ndarray, scheme: Scheme | str, calibration: Inputs | None = None, *, dialect: str = ""
) -> QuantizedTensor:
    """Search the scales. calibration None weighs all columns alike.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError.
    """
    if dialect not in DIALECTS:
        raise SchemeError(f"weighted_rounding: dialect = {dialect!r}, expected one of {DIALECTS}")
    rows = rows_of("weighted_rounding.quantize", W, scheme)
    if rows.rule.range_mode != "signedmax" or not rows.rule.signed:
        raise SchemeError(f"weighted_rounding: scheme = {rows.scheme}, expected signed codes, -signedmax")
    q = np.ones(rows.shape[1], np.float32)
    if calibration is not None:
        q = importance(tokens("weighted_rounding.quantize", calibration, rows.shape[1]))
    q = rows.rows(np.ascontiguousarray(np.broadcast_to(q, rows.shape)))
    q = np.where(q.any(axis=1, keepdims=True), q, np.float32(1))
    half = np.float32(1 << (rows.rule.bits - 1))
    scale = search(rows.values, q, half, shifts_of(dialect, rows.rule.bits), refit=not dialect)
    if dialect == "auto-round":
        least = np.float32(1e-5)
        scale = np.where(scale < 0, np.minimum(scale, -least), np.maximum(scale, least))
    scale = narrow(scale, rows.rule.scale_dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(scale == 0, 0, np.clip(half_even(rows.values / scale), -half, half - 1))
    return rows.tensor(codes, scale, rows.zero_point)


def importance(X: np.ndarray) -> np.ndarray:
    """mean over tokens of x_j^2, float32 (in,): a row of llama.cpp's importance matrix."""
    return np.mean(np.square(X.astype(np.float64)), axis=0).astype(np.float32)


def search(w: np.ndarray, q: np.ndarray, half: np.float32, shifts: list[float], refit: bool) -> np.ndarray:
    """s float32 (groups, 1) for w and q (groups, members)."""
    peak = np.take_along_axis(w, np.abs(w).argmax(axis=1)[:, None], axis=1)
    inverse_peak = np.divide(np.float32(1), peak, out=np.zeros_like(peak), where=peak != 0)
    best, least = np.zeros_like(peak), np.full(peak.shape, np.inf)
    for shift in shifts:
        inverse = -(half - np.float32(shift)) * inverse_peak
        codes = np.clip(half_even(inverse * w), -half, half - 1)
        if refit:
            against, power = (np.sum(q * x * codes, axis=1, keepdims=True, dtype=np.float64) for x in (w, codes))
            s = np.divide(against, power, out=np.zeros_like(power), where=power > 0).astype(np.float32)
        else:
            s = np.divide(np.float32(1), inverse, out=np.zeros_like(inverse), where=inverse != 0)
        loss = np.sum(q * np.square(s * codes - w), axis=1, keepdims=True, dtype=np.float64)
        best, least = np.where(loss < least, s, best), np.minimum(loss, least)
    return best


def shifts_of(dialect: str, bits: int) -> list[float]:
    """t in the order of trial, 0 first."""
    if not dialect:
        return [0.0, *(-0.1 * k for k in range(-9, 10) if k)]
    step, count = (0.01, 90) if bits == 2 else (2 ** (bits - 1) * 0.75 / 100, 100)
    return [0.0, *(step * k for k in range(-count, count + 1) if k)]
