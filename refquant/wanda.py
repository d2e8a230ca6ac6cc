"""Wanda: pruning by weights and activations, without any update of the weights that stay.

    score_ij = |W_ij| * |X_j|         |X_j| = sqrt(mean over tokens of x_j^2), the norm of an input up to a constant
    in each row the least scores go: int(in * sparsity) of them, or n of every m

Shapes      W (out, in), X (tokens, in).
Arithmetic  squares of float32 inputs summed in float64, tokens in order, so that batches do not matter; float64 scores.
Ties        the lower column first.
Edges       columns that were never fed have score 0 and go first.
Joint       `quantize` prunes, then rounds to nearest.
Source      Sun et al. 2023, arXiv:2306.11695, eq. 1 and alg. 1.
Differs     the authors and llm-compressor hold the norms in float32: near-ties may fall otherwise.
"""

from collections.abc import Iterable

import numpy as np

from refquant.errors import QuantError, ShapeError
from refquant.gptq import weights
from refquant.hessian import Hessian
from refquant.inputs import as_float32
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme
from refquant.sparsity import mask_of
from refquant.tensor import QuantizedTensor

Calibration = np.ndarray | Hessian | Iterable[np.ndarray] | None


def prune(
    W: np.ndarray, calibration: Calibration, sparsity: float = 0.5, pattern: tuple[int, int] | None = None
) -> np.ndarray:
    """W float32 with zeros. Raises ShapeError, NonFiniteError, RangeError, QuantError."""
    W = weights("wanda.prune", W)
    norms = input_norms(calibration)
    if norms.shape != (W.shape[1],):
        raise ShapeError(f"wanda.prune: calibration has {len(norms)} columns, expected {W.shape[1]}, as many as W")
    return np.where(mask_of(np.abs(W) * norms, sparsity, pattern), np.float32(0), W)


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: Calibration,
    *,
    sparsity: float = 0.5,
    pattern: tuple[int, int] | None = None,
) -> QuantizedTensor:
    """Prune, then round to nearest."""
    return nearest(prune(W, calibration, sparsity, pattern), scheme)


def input_norms(calibration: Calibration) -> np.ndarray:
    """sqrt(mean x_j^2) float64 (in,), from inputs, batches of inputs, or the diagonal of a Hessian."""
    if isinstance(calibration, Hessian):
        return np.sqrt(np.diagonal(calibration.matrix).astype(np.float64) / 2)
    if calibration is None:
        raise QuantError("wanda: calibration = None, expected inputs X (tokens, in), batches of them, or a Hessian")
    total, count = np.zeros(1), 0
    for batch in [calibration] if isinstance(calibration, np.ndarray) else calibration:
        X = as_float32("wanda", batch, "X")
        if X.ndim not in (2, 3) or total.shape not in ((1,), X.shape[-1:]):
            raise ShapeError(f"wanda: X.shape = {X.shape}, expected (tokens, in) or (batch, tokens, in), in as before")
        X = X.reshape(-1, X.shape[-1])
        with_earlier = np.concatenate([np.broadcast_to(total, (1, X.shape[1])), np.square(X.astype(np.float64))])
        total, count = np.add.accumulate(with_earlier)[-1], count + len(X)
    if not count:
        raise QuantError("wanda: batches = 0, expected at least one")
    return np.sqrt(total / count)
