"""Optimal Brain Damage: the loss that removing one weight causes, when nothing else may change.

    saliency_q = w_q^2 H_qq / 2        second-order Taylor term; the gradient vanishes at a minimum, and OBD drops the
                                       off-diagonal terms of H
    prune: the weights of least saliency become 0, the others stay

Shapes   W (out, in), H (in, in) or only its diagonal (in,). Saliency float64.
Ties     the lower index first. int(count * sparsity) weights go, in each row or in the whole layer.
Edges    a dead column has saliency 0 and goes first.
Source   LeCun, Denker & Solla 1989, Optimal Brain Damage, eq. 5. Wanda (wanda.py) is its square root, row by row.
"""

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.gptq import weights
from refquant.sparsity import least_of_layer, least_of_rows


def saliency(W: np.ndarray, H: np.ndarray) -> np.ndarray:
    """w^2 H_qq / 2 for every weight, float64. Raises ShapeError."""
    W = weights("obd.saliency", W).astype(np.float64)
    diagonal = np.diagonal(H) if H.ndim == 2 else H
    if diagonal.shape != (W.shape[1],):
        raise ShapeError(f"obd.saliency: H.shape = {H.shape}, expected ({W.shape[1]}, {W.shape[1]}) or its diagonal")
    return np.square(W) * diagonal.astype(np.float64) / 2


def prune(W: np.ndarray, H: np.ndarray, sparsity: float = 0.5, scope: str = "row") -> np.ndarray:
    """W with the least salient weights of each row (scope "row"), or of the whole layer ("layer"), set to zero."""
    if scope not in ("row", "layer"):
        raise RangeError(f"obd.prune: scope = {scope!r}, expected 'row' or 'layer'")
    scores = saliency(W, H)
    mask = least_of_layer(scores, sparsity) if scope == "layer" else least_of_rows(scores, sparsity)
    return np.where(mask, np.float32(0), W).astype(np.float32)
