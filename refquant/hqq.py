"""HQQ: find zero points that make the error sparse, without any data.

    min over z of  | W - decode(W) |_p^p,  p = .7,  split in two halves (half-quadratic splitting):

    q  = clip(round(W m + z))                 m = 1 / scale stays, z is a float (groups, 1)
    W^ = (q - z) / m
    e  = shrink(W - W^),  shrink(x) = sign(x) relu(|x| - |x|^(p-1) / beta)      what is left as outliers
    z  = mean over the group of  q - (W - e) m                                  beta *= kappa

    up to 20 times, while the mean of |W - W^| over all weights falls

    dialect   kappa   which z                                      source
    (none)    1.01    the one of the least mean |W - W^|           Badri & Shaji 2023, mobiusml.github.io/hqq_blog
    last      1       the one of the last step taken, also if      hqq 0.2.8 optimize_weights_proximal_legacy, the
                      that step is the one that made it worse      default of the package
    best      1.01    the best, when a step made it worse; the     hqq 0.2.8 optimize_weights_proximal_v2, which no
                      untried last, when the steps ran out         default calls

Start       m = (1 / (max - min)) (2^bits - 1), at most 2e4; 1 for a range of at most 1e-4; z = -min m, rounded to an
            integer with round_zero (the package's choice at 4 bits).
Shapes      W (out, in) in groups; scale = 1 / m and z float32, one for each group.
Arithmetic  float32, ties to even; |x|^(p-1) at x = 0 is infinite, and the relu makes it 0. Means of z in float32, means
            of errors in float64. The package computes in float16 on a GPU: other codes there.
Formats     unsigned asymmetric with a float zero that is added before rounding: uint4-g64@hqq and its like.
"""

from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError, SchemeError
from refquant.linear_rows import LinearRows, rows_of
from refquant.rounding import half_even
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor


@dataclass(frozen=True, slots=True)
class Settings:
    """The constants of the solver."""

    keep: str = "least"
    kappa: float = 1.01
    beta: float = 10.0
    norm: float = 0.7
    iterations: int = 20


DIALECTS = {"": Settings(), "last": Settings("last", kappa=1.0), "best": Settings("best")}


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: object = None,
    *,
    dialect: str = "",
    round_zero: bool = False,
    settings: Settings | None = None,
) -> QuantizedTensor:
    """Codes, scales and float zero points; calibration is not looked at.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError.
    """
    if dialect not in DIALECTS:
        raise SchemeError(f"hqq: dialect = {dialect!r}, expected one of {list(DIALECTS)}")
    settings = DIALECTS[dialect] if settings is None else settings
    if not 0 < settings.norm <= 1 or settings.beta <= 0 or settings.kappa < 1 or settings.iterations < 1:
        raise RangeError(f"hqq: settings = {settings}, expected norm in (0, 1], beta > 0, kappa >= 1, 1 iteration")
    rows = rows_of("hqq.quantize", W, scheme, ("float",))
    if rows.rule.signed or rows.rule.symmetric or rows.rule.zero_added != "before":
        raise SchemeError(
            f"hqq.quantize: scheme = {rows.scheme}, expected unsigned codes and a float zero: uint4-g64@hqq"
        )
    m, zero = start(rows, round_zero)
    zero = solve(rows.values, m, zero, rows.rule.qmax, settings)
    return rows.tensor(_codes(rows.values, m, zero, rows.rule.qmax), np.float32(1) / m, zero)


def start(rows: LinearRows, round_zero: bool) -> tuple[np.ndarray, np.ndarray]:
    """(m, z) of plain rounding, float32 (groups, 1)."""
    lo, hi = rows.values.min(axis=1, keepdims=True), rows.values.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        m = (np.float32(1) / (hi - lo)) * np.float32(rows.rule.qmax)
    m = np.minimum(np.where(hi - lo <= np.float32(1e-4), np.float32(1), m), np.float32(2e4))
    zero = -lo * m
    return m, half_even(zero) if round_zero else zero


def solve(W: np.ndarray, m: np.ndarray, zero: np.ndarray, qmax: int, settings: Settings) -> np.ndarray:
    """The zero points (groups, 1) for W (groups, members)."""
    beta, power = settings.beta, np.float32(settings.norm - 1)
    least, best = np.inf, zero
    for _ in range(settings.iterations):
        q = _codes(W, m, zero, qmax)
        W_hat = (q - zero) / m
        error = float(np.mean(np.abs(W - W_hat), dtype=np.float64))
        falls = error < least
        if falls:
            least, best = error, zero
        elif settings.keep != "last":
            return best
        zero = np.mean(q - (W - shrink(W - W_hat, beta, power)) * m, axis=1, keepdims=True)
        beta *= settings.kappa
        if not falls:
            return zero
    if settings.keep != "least":
        return zero
    error = float(np.mean(np.abs(W - (_codes(W, m, zero, qmax) - zero) / m), dtype=np.float64))
    return zero if error < least else best


def shrink(x: np.ndarray, beta: float, power: np.float32) -> np.ndarray:
    """sign(x) relu(|x| - |x|^power / beta), the proximal operator; power = p - 1."""
    size = np.abs(x)
    with np.errstate(divide="ignore"):
        left = np.maximum(size - np.float32(1 / beta) * size**power, np.float32(0))
    return np.sign(x) * left


def _codes(W: np.ndarray, m: np.ndarray, zero: np.ndarray, qmax: int) -> np.ndarray:
    return np.clip(half_even(W * m + zero), 0, qmax)
