"""Low rank: a thin product of two matrices takes over what rounding does worst.

    W^ = Q(R) + up down          up (out, rank), down (rank, in), from a truncated singular value decomposition

    dialect    up down = SVD_rank of          R               source
    (none)     W, outliers and all            W - up down     SVDQuant: the rest has a smaller range
    lqer       W - Q(W), the error            W               LQER
    l2qer      (W - Q(W)) diag(a), then       W               LQER with a_j = mean |x_j|: columns that matter more
               down / a

    sweeps > 0:  up down = SVD_rank(W - Q(R)),  R = W - up down,  again and again; the pair of the least |W - W^| stays

Shapes     W (out, in), X (tokens, in) for l2qer. The factors share the singular values: each gets the square root.
Arithmetic SVD and products in float64, factors stored in float32. LAPACK may differ between machines in the last bits.
Edges      a column that was never fed has a_j = 0: it counts as the smallest a_j that is not 0. All zero: as lqer.
Source     Li et al. 2024, arXiv:2411.05007, sec. 4; Zhang et al. 2024, arXiv:2402.02446, sec. 3.
"""

import numpy as np

from refquant.awq import input_mean
from refquant.compensated import CompensatedTensor, compensate
from refquant.errors import RangeError, SchemeError
from refquant.gptq import weights
from refquant.layer_inputs import Inputs, tokens
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme, parse

DIALECTS = ("", "lqer", "l2qer")


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: Inputs | None = None,
    *,
    rank: int = 16,
    sweeps: int = 0,
    dialect: str = "",
) -> CompensatedTensor:
    """Round with a correction. Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError."""
    W, scheme = weights("low_rank.quantize", W), parse(scheme)
    if not 1 <= rank <= min(W.shape) or sweeps < 0:
        raise RangeError(f"low_rank: rank, sweeps = {rank}, {sweeps}, expected 1..{min(W.shape)} and at least 0")
    if dialect not in DIALECTS:
        raise SchemeError(f"low_rank: dialect = {dialect!r}, expected one of {DIALECTS}")
    a = np.ones(W.shape[1])
    if dialect == "l2qer":
        a = input_mean(tokens("low_rank.quantize", calibration, W.shape[1])).astype(np.float64)
        a = np.where(a > 0, a, a[a > 0].min() if a.any() else 1.0)
    up, down = truncated(W if not dialect else W - nearest(W, scheme).dequantize(), rank, a)
    best = _pair(W, W if dialect else W - up @ down, up, down, scheme)
    for _ in range(sweeps):
        up, down = truncated(W - best.without_correction().dequantize(), rank, a)
        tried = _pair(W, W - up @ down, up, down, scheme)
        if np.linalg.norm(W - tried.dequantize()) >= np.linalg.norm(W - best.dequantize()):
            break
        best = tried
    return best


def truncated(M: np.ndarray, rank: int, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(up, down) float32 with the least |(M - up down) diag(a)|, a (in,) positive."""
    left, sizes, right = np.linalg.svd(M.astype(np.float64) * a, full_matrices=False)
    roots = np.sqrt(sizes[:rank])
    return (left[:, :rank] * roots).astype(np.float32), (roots[:, None] * right[:rank] / a).astype(np.float32)


def _pair(W: np.ndarray, R: np.ndarray, up: np.ndarray, down: np.ndarray, scheme: Scheme) -> CompensatedTensor:
    return compensate(nearest(R, scheme), up=up, down=down)
