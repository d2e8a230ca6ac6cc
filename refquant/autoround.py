"""AutoRound: learn an offset for each weight and a shrinking of each range by the sign of the gradient.

    W^ = s (clip(round(W / s + v) + zero) - zero)        |v| <= 1/2, and a, b in 0..1 that shrink the ends lo <= 0 <= hi
    asymmetric            s = (b hi - a lo) / (2^bits - 1)             zero = round(-a lo / s)
    symmetric, signedmax  s = -a lo / h  or  -b hi / h, whose size is greater; the peak gets the code -h and s a sign
    other symmetric       s = b s_0                                    s_0: the format's scale

    for t = 0 .. iterations-1:   p -= lr (1 - t / iterations) sign(dL / dp)      p: v, a and b
    the parameters of the least loss win

Gradient   L = mean (X W^T - X W^T^)^2; rounding passes gradients straight through, clipping where it does not:
           dW^/dv = s inside          dW^/ds = (code - zero) - W / s inside,  (bound - zero) - s dzero/ds  outside
           zero = -a lo / s there:    dzero/ds = a lo / s^2,  dzero/da = -lo / s
Defaults   200 iterations, lr = 1 / iterations; 2 / iterations for at most 3 bits and at least 1000 iterations.
Steps      v moves by at most lr sum(1 - t/n), about 1/2: the paper's bound, enforced here and not in the authors' code.
Differs    auto-round minimizes the error of a whole block, over batches of 8 sequences drawn at random, in bfloat16 or
           float16 scales; here one layer, all tokens at once, and nothing is drawn. Its rounding is `qdq` below.
Shapes     W (out, in), X (tokens, in); v like W, a and b one for each group.
Arithmetic float32. |s| is at least 1e-5, rounded to scale_dtype first; the loss sums in float64.
Source     Cheng et al. 2023, arXiv:2309.05516, alg. 1; auto-round 0.15 data_type/int.py, sign_sgd.py.
"""

from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError
from refquant.layer_inputs import Inputs, tokens
from refquant.linear_rows import LinearRows, gram, output_error, rows_of
from refquant.rounding import half_even, narrow
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

LEAST = np.float32(1e-5)


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """One forward pass: codes (groups, members), scale and zero (groups, 1), and the slopes of s in a and b."""

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    inside: np.ndarray
    by_a: np.ndarray
    by_b: np.ndarray


def quantize(
    W: np.ndarray, scheme: Scheme | str, calibration: Inputs, *, iterations: int = 200, lr: float | None = None
) -> QuantizedTensor:
    """Learn v, a and b. Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError."""
    rows = rows_of("autoround.quantize", W, scheme)
    if iterations < 1 or (lr is not None and lr <= 0):
        raise RangeError(f"autoround: iterations, lr = {iterations}, {lr}, expected at least 1 and a positive number")
    if lr is None:
        lr = (2 if rows.rule.bits <= 3 and iterations >= 1000 else 1) / iterations
    G = gram(tokens("autoround.quantize", calibration, rows.shape[1]))
    v, a = np.zeros_like(rows.values), np.ones_like(rows.scale)
    b = np.ones_like(rows.scale)
    best, least = None, np.inf
    for t in range(iterations + 1):
        now = qdq(rows, v, a, b)
        E = now.scale * (now.codes - now.zero) - rows.values
        loss, to_output = output_error(rows.matrix(E), G)
        if loss < least:
            best, least = now, loss
        if t == iterations:
            break
        by_v, by_a, by_b = gradients(rows, now, rows.rows(to_output), a)
        rate = np.float32(lr * (1 - t / iterations))
        v = np.clip(v - rate * np.sign(by_v), np.float32(-0.5), np.float32(0.5))
        a, b = (np.clip(p - rate * np.sign(g), np.float32(0), np.float32(1)) for p, g in ((a, by_a), (b, by_b)))
    return rows.tensor(best.codes, best.scale, best.zero)


def qdq(rows: LinearRows, v: np.ndarray, a: np.ndarray, b: np.ndarray) -> Rounded:
    """Codes and scales of all groups for v (groups, members), a and b (groups, 1)."""
    rule = rows.rule
    lo = np.minimum(rows.values.min(axis=1, keepdims=True), 0)
    hi = np.maximum(rows.values.max(axis=1, keepdims=True), 0)
    if not rule.symmetric:
        steps = np.float32(rule.qmax - rule.qmin)
        scale, by_a, by_b = (hi * b - lo * a) / steps, -lo / steps, hi / steps
    elif rule.range_mode == "signedmax":
        half, negative = np.float32(1 << (rule.bits - 1)), hi * b < -(lo * a)
        scale = np.where(negative, -(lo * a), -(hi * b)) / half
        by_a, by_b = np.where(negative, -lo / half, 0), np.where(negative, 0, -hi / half)
    else:
        scale, by_a, by_b = rows.scale * b, np.zeros_like(rows.scale), rows.scale
    scale = narrow(scale.astype(np.float32), rule.scale_dtype)
    scale = np.where(scale < 0, np.minimum(scale, -LEAST), np.maximum(scale, LEAST))
    zero = (
        rows.zero_point if rule.symmetric else np.clip(rule.qmin + half_even(-(lo * a) / scale), rule.qmin, rule.qmax)
    )
    wanted = half_even(rows.values / scale + v) + zero
    codes = np.clip(wanted, rule.qmin, rule.qmax)
    return Rounded(codes, scale, zero, codes == wanted, by_a, by_b)


def gradients(
    rows: LinearRows, now: Rounded, to_weight: np.ndarray, a: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dL/dv (groups, members), dL/da and dL/db (groups, 1), from dL/dW^."""
    by_v = to_weight * now.scale * now.inside
    by_s = now.codes - now.zero - np.where(now.inside, rows.values / now.scale, 0)
    by_zero = np.zeros_like(now.scale)
    if not rows.rule.symmetric:
        lo = np.minimum(rows.values.min(axis=1, keepdims=True), 0)
        by_s = by_s - np.where(now.inside, 0, a * lo / now.scale)  # s * dzero/ds
        by_zero = np.sum(to_weight * ~now.inside, axis=1, keepdims=True) * lo  # -s * dzero/da = lo
    to_scale = np.sum(to_weight * by_s, axis=1, keepdims=True)
    return by_v, to_scale * now.by_a + by_zero, to_scale * now.by_b
