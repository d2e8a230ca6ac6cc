"""AdaRound: learn for each weight whether to round it up or down, so that the layer's output changes least.

    W~ = s (clip(floor(W / s) + h(V) + zero) - zero)          h(V) = clip(1.2 sigmoid(V) - .1, 0, 1)
    min over V of   L + lambda sum(1 - |2 h(V) - 1|^beta) / weights        L = |X W^T - X W~^T|^2 / (tokens out)

    V starts where h(V) is the fraction of W / s, so that W~ = W; the second term, absent in the first 20 % of the
    steps, drives h to 0 or 1 while beta falls from 20 to 2. In the end h >= 1/2 rounds up.

Gradient    dL/dV = dL/dW~ * s * dh/dV  + lambda * d/dV;   dL/dW~ = 2 (W~ - W) G / out,  G = X^T X / tokens
            dh/dV = 1.2 sigmoid (1 - sigmoid) where h is not clipped, else 0. The slope of the outer clip is left out:
            a code past an end stays there for every h, so its V moves nothing.
Steps       Adam, lr .01, 1000 steps on all tokens at once (the authors: 1e-3, 10000 steps, batches of 32 images).
Lambda      10 times the L of plain rounding, so that nothing depends on the units of X and W (the authors: .01).
Scale       of the format, and fixed: each code is floor or floor + 1.
Shapes      W (out, in), X (tokens, in). Arithmetic float32; the loss sums in float64. Deterministic: nothing is drawn.
Edges       a weight exactly on a level starts at h = 0 (V is held at -+6, where h is clipped and has no slope): stays.
Source      Nagel et al. 2020, arXiv:2004.10568, sec. 3.3, eq. 21 to 25.
"""

import numpy as np

from refquant.adam import Adam
from refquant.errors import RangeError
from refquant.layer_inputs import Inputs, tokens
from refquant.linear_rows import gram, output_error, rows_of
from refquant.rounding import half_even
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

WARM_UP = 0.2


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: Inputs,
    *,
    steps: int = 1000,
    lr: float = 0.01,
    strength: float = 10.0,
) -> QuantizedTensor:
    """Learn the rounding. Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError."""
    if steps < 1 or lr <= 0 or strength < 0:
        raise RangeError(f"adaround: steps, lr, strength = {steps}, {lr}, {strength}, expected positive numbers")
    rows = rows_of("adaround.quantize", W, scheme)
    G = gram(tokens("adaround.quantize", calibration, rows.shape[1]))
    scale = np.where(rows.scale == 0, np.float32(1), rows.scale)
    floor = np.floor(rows.values / scale)
    V = inverse(rows.values / scale - floor)
    plain = np.clip(half_even(rows.values / scale) + rows.zero_point, rows.rule.qmin, rows.rule.qmax)
    loss, _ = output_error(rows.matrix(scale * (plain - rows.zero_point) - rows.values), G)
    optimizer, per_weight = Adam(lr), np.float32(strength * loss / rows.shape[1])
    for step in range(steps):
        h, slope = soft(V)
        code = floor + h + rows.zero_point
        W_soft = scale * (np.clip(code, rows.rule.qmin, rows.rule.qmax) - rows.zero_point)
        _, to_output = output_error(rows.matrix(W_soft - rows.values), G)
        gradient = rows.rows(to_output) * scale * slope
        progress = (step / steps - WARM_UP) / (1 - WARM_UP)
        if progress >= 0:
            gradient += per_weight * regularizer_slope(h, 20 - 18 * progress) * slope
        V = optimizer.step(V, gradient)
    codes = np.clip(floor + (soft(V)[0] >= 0.5) + rows.zero_point, rows.rule.qmin, rows.rule.qmax)
    codes = np.where(rows.scale == 0, rows.zero_point, codes)  # weights too small for a float16 scale
    return rows.tensor(codes, rows.scale, rows.zero_point)


def soft(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h, dh / dV) of any shape."""
    sigmoid = 1 / (1 + np.exp(-V))
    wide = np.float32(1.2) * sigmoid - np.float32(0.1)
    h = np.clip(wide, 0, 1)
    return h, np.where(h == wide, np.float32(1.2) * sigmoid * (1 - sigmoid), np.float32(0))


def inverse(h: np.ndarray) -> np.ndarray:
    """V with soft(V) = h in 0..1, float32, held at -+6."""
    sigmoid = (h.astype(np.float64) + 0.1) / 1.2
    return np.where(h <= 0, -6, np.where(h >= 1, 6, -np.log(1 / sigmoid - 1))).astype(np.float32)


def regularizer_slope(h: np.ndarray, beta: float) -> np.ndarray:
    """d/dh of 1 - |2h - 1|^beta."""
    centred = 2 * h - 1
    return (-2 * beta * np.sign(centred) * np.abs(centred) ** (beta - 1)).astype(np.float32)
