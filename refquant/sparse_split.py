"""Dense and sparse: a few weights stay in float, all others are rounded by scales that no longer have to reach them.

    W^ = Q(W without S) + W on S          S: the share of all weights with the largest score, zeros in the dense part

    score         of w_ij                                              who
    magnitude     |w|                                                  SqueezeLLM's outliers
    sensitivity   H_jj w^2                                             SqueezeLLM's sensitive values: its Fisher
                                                                       information, of a squared output error
    error         (w - Q(w))^2 / (2 [H^-1]_jj)                         SpQR: the loss that OBS ascribes to rounding w

SpQR      takes all weights above a threshold, and fits Q(w) to the group without w; here Q is the plain format, and the
          share is given, so that the size is known. Its 3-bit scales of scales are a format of their own, and not here.
Dense     rounded to nearest.
Shapes    W (out, in); H = hessian.Hessian's (in, in). Stored as compensated.py says, values in float32 or float16.
Ties      the first in memory stays in float. share: floor(share * weights) of them, 0 is plain rounding.
Source    Dettmers et al. 2023, arXiv:2306.03078, sec. 3.2; Kim et al. 2023, arXiv:2306.07629, sec. 4.2.
"""

from collections.abc import Iterable

import numpy as np

from refquant.compensated import CompensatedTensor, compensate, sparse
from refquant.errors import RangeError
from refquant.factor import inverse_factor
from refquant.gptq import weights
from refquant.hessian import Hessian, damped, hessian_of, revive_dead
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme, parse

SCORES = ("error", "sensitivity", "magnitude")
Calibration = np.ndarray | Hessian | Iterable[np.ndarray] | None


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: Calibration = None,
    *,
    share: float = 0.01,
    score: str = "error",
    value_dtype: str = "float32",
) -> CompensatedTensor:
    """Split and round. Only "magnitude" works without calibration.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError.
    """
    W, scheme = weights("sparse_split.quantize", W), parse(scheme)
    if not 0 <= share <= 1 or score not in SCORES or value_dtype not in ("float32", "float16"):
        raise RangeError(
            f"sparse_split: share, score, value_dtype = {share}, {score!r}, {value_dtype!r}, "
            f"expected 0..1, one of {SCORES}, 'float32' or 'float16'"
        )
    kept = largest(scores(W, scheme, calibration, score), int(share * W.size))
    dense = nearest(np.where(kept, np.float32(0), W), scheme)
    return compensate(dense, **sparse(kept, W, np.dtype(value_dtype).type))


def scores(W: np.ndarray, scheme: Scheme, calibration: Calibration, score: str) -> np.ndarray:
    """The score of each weight, (out, in) float64."""
    if score == "magnitude":
        return np.abs(W).astype(np.float64)
    H, _ = revive_dead(hessian_of("sparse_split.quantize", calibration, "sum", False, W.shape[1]))
    if score == "sensitivity":
        return np.square(W.astype(np.float64)) * np.diagonal(H)
    U = inverse_factor(damped(H, 0.01), False).astype(np.float64)
    inverse_diagonal = np.square(U).sum(axis=0)  # of H^-1 = U^T U
    return np.square(W.astype(np.float64) - nearest(W, scheme).dequantize()) / (2 * inverse_diagonal)


def largest(score: np.ndarray, count: int) -> np.ndarray:
    """A mask of the `count` largest entries, the first of equals."""
    mask = np.zeros(score.size, bool)
    mask[np.argsort(-score, axis=None, kind="stable")[:count]] = True
    return mask.reshape(score.shape)
