"""EasyQuant: keep the few outlier weights as they are, and learn the range of all others. No data.

    outliers   |w - mean| > n deviation  of the row (n = 3: below 1 % of a Gaussian row)          kept in float, sparse
    the rest   s of each group by gradient descent on  L(s) = sum (w - Q(w))^2,  Q(w) = s clip(round(w / s))
               dL/ds = 2 sum (Q(w) - w) clip(round(w / s))           the codes taken as constants
               s -= lr s_0 sign(dL/ds) (1 - t / steps),  t = 0 .. steps-1;   the s of the least L wins

Start      s_0: the scale that the format gives to the rest. Outliers count as 0 in it, and in L not at all.
Shapes     W (out, in). Result: codes and extras sparse_start, sparse_columns, sparse_values (compensated.py).
Formats    linear and symmetric.
Arithmetic float32; mean, deviation and L in float64. Deterministic.
Edges      a constant row has deviation 0 and no outlier: nothing exceeds 0 there.
Differs    the paper takes plain gradient steps; the sign, with a falling rate, needs no tuning to the layer.
Source     Tang et al. 2024, arXiv:2403.02775, sec. 3, alg. 1.
"""

import numpy as np

from refquant import affine
from refquant.compensated import CompensatedTensor, compensate, sparse
from refquant.errors import RangeError, SchemeError
from refquant.linear_rows import rows_of
from refquant.rounding import half_even, narrow
from refquant.schemes import Scheme


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: object = None,
    *,
    deviations: float = 3.0,
    steps: int = 100,
    lr: float = 0.01,
) -> CompensatedTensor:
    """Split and learn. calibration is not looked at. Raises ShapeError, NonFiniteError, RangeError, SchemeError."""
    if deviations <= 0 or steps < 0 or lr <= 0:
        raise RangeError(f"easyquant: deviations, steps, lr = {deviations}, {steps}, {lr}, expected positive numbers")
    rows = rows_of("easyquant.quantize", W, scheme)
    if not rows.rule.symmetric:
        raise SchemeError(f"easyquant.quantize: scheme = {rows.scheme}, expected a symmetric format")
    whole = rows.matrix(rows.values)
    outlier = outliers(whole, deviations)
    rest = rows_of("easyquant.quantize", np.where(outlier, np.float32(0), whole), rows.scheme)
    scale = learn(rest.values, rows.rows(~outlier), rest.scale, rest.zero_point, rest.rule, steps, lr)
    return compensate(
        rest.tensor(codes(rest.values, scale, rest.zero_point, rest.rule), scale, rest.zero_point),
        **sparse(outlier, whole),
    )


def outliers(W: np.ndarray, deviations: float) -> np.ndarray:
    """Which weights of (out, in) lie further from the mean of their row than so many standard deviations."""
    centred = W - W.mean(axis=1, keepdims=True, dtype=np.float64)
    return np.abs(centred) > deviations * W.std(axis=1, keepdims=True, dtype=np.float64)


def learn(
    w: np.ndarray, kept: np.ndarray, scale: np.ndarray, zero: np.ndarray, rule: affine.Rule, steps: int, lr: float
) -> np.ndarray:
    """The scales (groups, 1), as stored, for w (groups, members) where `kept`."""
    first, best, least = scale, scale, np.full(scale.shape, np.inf)
    for t in range(steps + 1):
        stored = narrow(scale, rule.scale_dtype)
        levels = codes(w, stored, zero, rule) - zero
        error = np.where(kept, stored * levels - w, np.float32(0))
        loss = np.sum(np.square(error), axis=1, keepdims=True, dtype=np.float64)
        best, least = np.where(loss < least, stored, best), np.minimum(loss, least)
        slope = np.sum(error * levels, axis=1, keepdims=True)
        scale = scale - np.float32(lr * (1 - t / max(steps, 1))) * first * np.sign(slope)
    return best


def codes(w: np.ndarray, scale: np.ndarray, zero: np.ndarray, rule: affine.Rule) -> np.ndarray:
    """clip(round(w / scale) + zero), float32; the code of 0 where the scale is 0."""
    divisor = np.where(scale == 0, np.float32(np.inf), scale)
    return np.clip(half_even(w / divisor) + zero, rule.qmin, rule.qmax)
