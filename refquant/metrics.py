"""How far a quantized array is from its original. All sums are float64; x is the original, y what came back.

    mse            mean (x - y)^2
    max_abs        max |x - y|
    sqnr_db        10 log10( sum x^2 / sum (x - y)^2 )
    cosine         sum x y / sqrt( sum x^2 * sum y^2 )
    hessian_error  tr(E H E^T) / tr(W H W^T),  E = W - W^:  the relative error of the layer's output when H = X^T X

Edges    no error at all has sqnr_db = inf; an error against an all-zero original has -inf.
         cosine is 1 for two zero arrays and 0 if only one is zero; it is clipped to -1..1.
         hessian_error is 0 without an error and inf where only the denominator vanishes.
Errors   ShapeError for shapes that differ or are empty, NonFiniteError for NaN and infinities.
Source   hessian_error: Frantar et al. 2022, GPTQ, arXiv:2210.17323, eq. 1, for H = 2 X^T X; the 2 cancels.
"""

import math

import numpy as np

from refquant.errors import ShapeError, require_finite


def mse(x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared error."""
    x, y = _pair("metrics.mse", x, y)
    return float(np.mean(np.square(x - y)))


def max_abs(x: np.ndarray, y: np.ndarray) -> float:
    """Largest absolute error."""
    x, y = _pair("metrics.max_abs", x, y)
    return float(np.max(np.abs(x - y)))


def sqnr_db(x: np.ndarray, y: np.ndarray) -> float:
    """Signal to quantization noise ratio in decibels; 6.02 dB is one bit."""
    x, y = _pair("metrics.sqnr_db", x, y)
    signal, noise = float(np.sum(np.square(x))), float(np.sum(np.square(x - y)))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """Cosine of the angle between the two arrays as vectors."""
    x, y = _pair("metrics.cosine", x, y)
    lengths = math.sqrt(float(np.sum(np.square(x)))) * math.sqrt(float(np.sum(np.square(y))))
    if lengths == 0:
        return float(not x.any() and not y.any())
    return min(1.0, max(-1.0, float(np.sum(x * y)) / lengths))


def hessian_error(W: np.ndarray, W_hat: np.ndarray, H: np.ndarray) -> float:
    """Relative output error of a linear layer: W and W_hat (out, in), H (in, in) symmetric, positive semidefinite."""
    W, W_hat = _pair("metrics.hessian_error", W, W_hat)
    if W.ndim != 2 or H.shape != (W.shape[1], W.shape[1]):
        raise ShapeError(
            f"metrics.hessian_error: W.shape = {W.shape}, H.shape = {H.shape}, expected (out, in), (in, in)"
        )
    require_finite("metrics.hessian_error", H, "H")
    E, H = W - W_hat, H.astype(np.float64)
    error, power = float(np.sum((E @ H) * E)), float(np.sum((W @ H) * W))
    if error == 0:
        return 0.0
    return error / power if power > 0 else math.inf


def _pair(where: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, after the checks."""
    if x.shape != y.shape or x.size == 0:
        raise ShapeError(f"{where}: shapes = {x.shape} and {y.shape}, expected two equal shapes that are not empty")
    require_finite(where, x, "x")
    require_finite(where, y, "y")
    return x.astype(np.float64), y.astype(np.float64)
