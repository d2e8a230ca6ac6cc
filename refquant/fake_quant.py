"""Fake quantization: quantize and dequantize in one differentiable step, for quantization-aware training.

    name                 x^                                        d x^ / d x          d x^ / d parameter
    fake_quantize        (clip(round(x/s) + z) - z) s              1 inside, else 0    -
    lsq                  clip(round(x/s)) s                        1 inside, else 0    s: round(v) - v | qmin | qmax
    lsq_plus             clip(round((x-b)/s)) s + b                1 inside, else 0    s: as lsq;  b: 0 inside, else 1
    pact                 round(clip(x, 0, a) n/a) a/n, n=2^bits-1  1 for 0 < x < a     a: 1 for x >= a, else 0

v is the quotient that is rounded. The derivative of `round` is 0 almost everywhere, so training takes it to be 1: the
straight-through estimator. The gradients above are then exact derivatives of x^ with the residue round(v) - v held
fixed, which is what the tests differentiate numerically; outside the range they are exact as they stand.

    forward      x^ = f(x, parameters)             every function `f` returns the value ...
    backward     f_backward(dy, x, parameters)     ... and every `f_backward` the gradients of sum(dy * x^)

Inside       qmin <= round(v) + z <= qmax: decided after rounding. LSQ as printed decides before, qmin < v < qmax:
             the half step beyond each end differs (there `round(v) - v` is the smaller jump). `inside="unrounded"`.
Scaling      LSQ multiplies ds by g = 1 / sqrt(count * qmax), count = weights under one scale: `gradient_scale`.
Shapes       x any; s, z, b broadcast against x. The gradient of a parameter has its shape: a sum over what it was
             broadcast to. dy like x.
Arithmetic   in the dtype of x, float32 or float64; division, ties to even; sums in float64.
Clipping     of gradients follows the range of x, not of the loss; NaN passes through.
Source       Jacob et al. 2018, arXiv:1712.05877; Bengio et al. 2013, arXiv:1308.3432; Esser et al. 2020,
             arXiv:1902.08153 (LSQ, eq. 1-3, sec. 2.2); Bhalgat et al. 2020, arXiv:2004.09576 (LSQ+, eq. 2-7);
             Choi et al. 2018, arXiv:1805.06085 (PACT, eq. 1-3).
Differs      torch.fake_quantize multiplies by 1/s: a quotient next to a tie may take the other code. torch's learnable
             version rounds and clips z first, and its gradient of z is -s outside: lsq_plus with b = -z s is the same.
"""

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.rounding import half_even

Array = np.ndarray


def fake_quantize(x: Array, scale: Array | float, zero_point: Array | float, qmin: int, qmax: int) -> Array:
    """(clip(round(x / scale) + zero_point, qmin, qmax) - zero_point) * scale. scale > 0."""
    s, z = _parameters("fake_quantize", x, scale, zero_point)
    return (np.clip(half_even(x / s) + z, qmin, qmax) - z) * s


def fake_quantize_backward(
    dy: Array, x: Array, scale: Array | float, zero_point: Array | float, qmin: int, qmax: int
) -> Array:
    """dx: dy where the code was not clipped, 0 elsewhere."""
    s, z = _parameters("fake_quantize_backward", x, scale, zero_point)
    q = half_even(x / s) + z
    return dy * ((q >= qmin) & (q <= qmax))


def lsq(x: Array, scale: Array | float, qmin: int, qmax: int) -> Array:
    """LSQ: the symmetric case, with a scale that is learned. For unsigned activations qmin = 0."""
    return lsq_plus(x, scale, 0.0, qmin, qmax)


def lsq_backward(
    dy: Array,
    x: Array,
    scale: Array | float,
    qmin: int,
    qmax: int,
    gradient_scale: float = 1.0,
    inside: str = "rounded",
) -> tuple[Array, Array]:
    """(dx, ds); ds is multiplied by gradient_scale. `lsq_gradient_scale` is the paper's."""
    dx, ds, _ = lsq_plus_backward(dy, x, scale, 0.0, qmin, qmax, gradient_scale, inside)
    return dx, ds


def lsq_plus(x: Array, scale: Array | float, offset: Array | float, qmin: int, qmax: int) -> Array:
    """LSQ+: scale and offset are learned; the offset is in the units of x."""
    s, b = _parameters("lsq_plus", x, scale, offset)
    return np.clip(half_even((x - b) / s), qmin, qmax) * s + b


def lsq_plus_backward(
    dy: Array,
    x: Array,
    scale: Array | float,
    offset: Array | float,
    qmin: int,
    qmax: int,
    gradient_scale: float = 1.0,
    inside: str = "rounded",
) -> tuple[Array, Array, Array]:
    """(dx, ds, db); ds and db are multiplied by gradient_scale."""
    if inside not in ("rounded", "unrounded"):
        raise RangeError(f"lsq_plus_backward: inside = {inside!r}, expected 'rounded' or 'unrounded'")
    s, b = _parameters("lsq_plus_backward", x, scale, offset)
    v = (x - b) / s
    q = half_even(v)
    within = (q >= qmin) & (q <= qmax) if inside == "rounded" else (v > qmin) & (v < qmax)
    by_scale = np.where(within, q - v, np.clip(q, qmin, qmax))
    ds = _summed(dy * by_scale, np.shape(scale)) * gradient_scale
    db = _summed(dy * ~within, np.shape(offset)) * gradient_scale
    return dy * within, ds, db


def lsq_gradient_scale(count: int, qmax: int) -> float:
    """1 / sqrt(count * qmax): makes the step of a scale, relative to its size, like that of a weight (sec. 2.2)."""
    return 1.0 / float(np.sqrt(float(count) * qmax))


def lsq_scale(x: Array, qmax: int, axis: int | tuple[int, ...] | None = None) -> Array:
    """LSQ's first scale: 2 mean|x| / sqrt(qmax), over `axis` (kept) or everything; sums in float64."""
    mean = np.abs(x).mean(axis=axis, dtype=np.float64, keepdims=axis is not None)
    return np.asarray(2 * mean / np.sqrt(qmax)).astype(x.dtype)


def lsq_plus_scale(x: Array, bits: int) -> Array:
    """LSQ+'s first scale of weights: max |mean -+ 3 sigma| / 2^(bits-1), (); float64 sums (eq. 8)."""
    mean, sigma = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    return np.asarray((abs(mean) + 3 * sigma) / (1 << (bits - 1))).astype(x.dtype)


def pact(x: Array, alpha: Array | float, bits: int) -> Array:
    """PACT: clip to 0..alpha, round to 2^bits - 1 steps. alpha > 0."""
    (a,) = _parameters("pact", x, alpha)
    n = x.dtype.type((1 << bits) - 1)
    return half_even(np.clip(x, 0, a) * (n / a)) * (a / n)


def pact_backward(dy: Array, x: Array, alpha: Array | float) -> tuple[Array, Array]:
    """(dx, dalpha). The paper adds lambda * alpha, an L2 penalty, to dalpha: the trainer's business."""
    (a,) = _parameters("pact_backward", x, alpha)
    return dy * ((x > 0) & (x < a)), _summed(dy * (x >= a), np.shape(alpha))


def _parameters(where: str, x: Array, scale: Array | float, *others: Array | float) -> tuple[Array, ...]:
    """All in the dtype of x. Raises RangeError for a scale that is not positive, ShapeError for another shape."""
    if x.dtype not in (np.float32, np.float64):
        raise RangeError(f"fake_quant.{where}: x.dtype = {x.dtype}, expected float32 or float64")
    arrays = tuple(np.asarray(a, x.dtype) for a in (scale, *others))
    if not (arrays[0] > 0).all():
        raise RangeError(f"fake_quant.{where}: smallest scale = {arrays[0].min()}, expected a positive one")
    for array in arrays:
        if array.ndim > x.ndim or any(n not in (1, m) for n, m in zip(array.shape[::-1], x.shape[::-1])):
            raise ShapeError(f"fake_quant.{where}: shape of a parameter = {array.shape}, expected one within {x.shape}")
    return arrays


def _summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which a parameter of `shape` was broadcast."""
    padded = (1,) * (gradient.ndim - len(shape)) + tuple(shape)
    axes = tuple(axis for axis, n in enumerate(padded) if n == 1)
    return gradient.sum(axis=axes, dtype=np.float64).reshape(shape).astype(gradient.dtype)
