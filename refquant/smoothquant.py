"""SmoothQuant: move the outlier channels of the activations into the weights, so that both can be 8-bit.

    (X / s) (W * s)^T = X W^T              X (tokens, in), W (out, in), s (in,); then quantize both factors

    a_j = max over tokens of |X_ij|        w_j = max over the rows of all layers that share X of |W_ij|
    s_j = a_j^alpha / w_j^(1 - alpha)      alpha .5: OPT, BLOOM; .75: GLM; .8 to .9: Llama

    dialect          a_j                     w_j               s_j                        source
    (none)           max |X_j|               at least 1e-5     at least 1e-5              the authors' smooth.py
    llm-compressor   max X_j - min X_j       2 max |W_j|       at least 1e-5; a_j where   llm-compressor 0.14
                                                               w_j = 0                    smoothquant/base.py

For symmetric inputs the second is the first with both ranges doubled: s grows by 2^(2 alpha - 1) in all channels.

Kindred scales, which leave the weights out or shift as well:

    log_equalization      s_j = a_j / log2(2 + a_j)                                            Li et al. 2023, eq. 4
    gamma migration       the gain of the norm before goes into the weights: s = gain          Outlier Suppression
    channel_shift         z_j = (max X_j + min X_j) / 2;  W X + b = W (X - z) + (b + W z)      Outlier Suppression+
    outlier_scale         s_j = max(1, max|X_j - z_j| / t), t searched for the least           Outlier Suppression+
                          |X W^T - Q(X / s) Q(W s)^T|^2

Shapes     W (out, in); a, s, z (in,) float32.
Arithmetic float32; the search sums its losses in float64, t = amax * i / steps for i = steps .. 1, the first of equals.
Dead       a column of zeros has a_j = 0: s_j = 1e-5 there, in log_equalization too; outlier_scale gives 1.
Result     quantize: the codes of W s, weights only, and extras["channel_scale"] = s (compensated.py, awq.fold_norm).
Source     Xiao et al. 2023, arXiv:2211.10438, eq. 4; Li et al. 2023, arXiv:2308.15987; Wei et al. 2022,
           arXiv:2209.13325; Wei et al. 2023, arXiv:2304.09145, sec. 4.
"""

from collections.abc import Callable, Sequence

import numpy as np

from refquant.compensated import CompensatedTensor, compensate
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.gptq import weights
from refquant.inputs import as_float32
from refquant.layer_inputs import Inputs, tokens
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme, parse

DIALECTS = ("", "llm-compressor")
LEAST = np.float32(1e-5)


def quantize(
    W: np.ndarray, scheme: Scheme | str, calibration: Inputs, *, alpha: float = 0.5, dialect: str = ""
) -> CompensatedTensor:
    """Scale by s and round to nearest. The gain comes with inputs that are rounded too: X / s.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError.
    """
    W = weights("smoothquant.quantize", W)
    s = smooth_scale([W], tokens("smoothquant.quantize", calibration, W.shape[1]), alpha, dialect)
    return compensate(nearest(W * s, scheme), channel_scale=s)


def smooth_scale(layers: Sequence[np.ndarray], X: np.ndarray, alpha: float = 0.5, dialect: str = "") -> np.ndarray:
    """s for matrices (out_k, in) that share the input X (tokens, in). Raises RangeError unless 0 <= alpha <= 1."""
    if not 0 <= alpha <= 1:
        raise RangeError(f"smoothquant: alpha = {alpha}, expected a number in 0..1")
    if dialect not in DIALECTS:
        raise SchemeError(f"smoothquant: dialect = {dialect!r}, expected one of {DIALECTS}")
    layers = [weights("smoothquant.smooth_scale", W) for W in layers]
    if not layers or len({W.shape[1] for W in layers}) > 1:
        raise ShapeError(f"smoothquant: layers = {[W.shape for W in layers]}, expected matrices (out_k, in)")
    X = tokens("smoothquant.smooth_scale", X, layers[0].shape[1])
    w = np.max([np.abs(W).max(axis=0) for W in layers], axis=0)
    alpha, rest = np.float32(alpha), np.float32(1 - alpha)
    if dialect == "llm-compressor":
        a, w = X.max(axis=0) - X.min(axis=0), np.float32(2) * w
        s = np.where(w > 0, a**alpha / np.where(w > 0, w, np.float32(1)) ** rest, a)
    else:
        s = np.abs(X).max(axis=0) ** alpha / np.maximum(w, LEAST) ** rest
    return np.maximum(s, LEAST)


def log_equalization(a: np.ndarray) -> np.ndarray:
    """s of the ranges a (in,), which must not be negative."""
    a = as_float32("smoothquant.log_equalization", a, "a")
    if (a < 0).any():
        raise RangeError(f"smoothquant.log_equalization: min a = {a.min()}, expected ranges, at least 0")
    return np.maximum(a / np.log2(np.float32(2) + a), LEAST)


def migrate_gain(gain: np.ndarray, layers: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(ones, W * gain): a norm without a gain, whose outputs have fewer outliers, before the same function."""
    gain = as_float32("smoothquant.migrate_gain", gain, "gain")
    layers = [weights("smoothquant.migrate_gain", W) for W in layers]
    if any(gain.shape != W.shape[1:] for W in layers):
        raise ShapeError(f"smoothquant.migrate_gain: gain.shape = {gain.shape}, expected (in,) of all layers")
    return np.ones_like(gain), [W * gain for W in layers]


def channel_shift(X: np.ndarray, W: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(z (in,), the bias (out,) that makes up for it): X W^T + bias = (X - z) W^T + returned bias."""
    W = weights("smoothquant.channel_shift", W)
    X = tokens("smoothquant.channel_shift", X, W.shape[1])
    z = X.max(axis=0) / np.float32(2) + X.min(axis=0) / np.float32(2)
    moved = W @ z
    return z, moved if bias is None else moved + as_float32("smoothquant.channel_shift", bias, "bias")


def outlier_scale(
    W: np.ndarray,
    X: np.ndarray,
    weight_scheme: Scheme | str,
    input_scheme: Scheme | str,
    steps: int = 100,
    seen: Callable[[float, float], None] | None = None,
) -> np.ndarray:
    """s for inputs X that were shifted already; `seen` is told every (t, loss)."""
    W = weights("smoothquant.outlier_scale", W)
    X = tokens("smoothquant.outlier_scale", X, W.shape[1])
    if steps < 1:
        raise RangeError(f"smoothquant.outlier_scale: steps = {steps}, expected at least 1")
    weight_scheme, input_scheme = parse(weight_scheme), parse(input_scheme)
    amax, wanted = np.abs(X).max(axis=0), X @ W.T
    best, least = np.ones_like(amax), np.inf
    if not amax.any():
        return best
    for i in range(steps, 0, -1):
        t = amax.max() * np.float32(i / steps)
        s = np.maximum(np.float32(1), amax / t)
        got = nearest(X / s, input_scheme).dequantize() @ nearest(W * s, weight_scheme).dequantize().T
        loss = float(np.mean(np.square((wanted - got).astype(np.float64))))
        if seen is not None:
            seen(float(t), loss)
        if loss < least:
            best, least = s, loss
    return best
