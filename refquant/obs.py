"""Optimal Brain Surgeon: remove the weight that costs least, and let all others make up for it.

    loss of removing w_q      L_q = w_q^2 / (2 [H^-1]_qq)
    what the others do        w -= w_q / [H^-1]_qq * H^-1[:, q]              this makes w_q = 0
    the problem without q     H^-1 -= H^-1[:, q] H^-1[q, :] / [H^-1]_qq      Gaussian elimination of row and column q

A row of W is pruned by itself: all rows have the same H and, after different removals, different inverses. That is
"ExactOBS"; a row of n weights costs n eliminations of an n x n matrix.

Shapes      W (out, in), H (in, in). Arithmetic float64, in a fixed order (factor.py).
Ties        the lower index first.
Damping     as in hessian.py. A dead column (H_jj = 0) counts as H_jj = 1: its weights go by their size.
Source      Hassibi & Stork 1993, Second order derivatives for network pruning: Optimal Brain Surgeon, eq. 5;
            Frantar & Alistarh 2022, arXiv:2208.11580 (OBC), sec. 4.1.
"""

import numpy as np

from refquant.errors import ShapeError
from refquant.factor import gram, inverse_factor
from refquant.gptq import weights
from refquant.hessian import damped, revive_dead
from refquant.sparsity import require_sparsity


def saliency(w: np.ndarray, H_inverse: np.ndarray) -> np.ndarray:
    """w^2 / (2 [H^-1]_qq), float64; w (..., in)."""
    return np.square(w.astype(np.float64)) / (2 * np.diagonal(H_inverse).astype(np.float64))


def prune(W: np.ndarray, H: np.ndarray, sparsity: float = 0.5, damp: float = 0.01) -> np.ndarray:
    """W with int(in * sparsity) weights of each row removed one by one, the rest adjusted; float32.

    Raises ShapeError, NonFiniteError, RangeError.
    """
    W = weights("obs.prune", W)
    if H.shape != (W.shape[1], W.shape[1]):
        raise ShapeError(f"obs.prune: H.shape = {H.shape}, expected ({W.shape[1]}, {W.shape[1]})")
    count, H_inverse = int(W.shape[1] * require_sparsity(sparsity)), inverse(H, damp)
    return np.stack([_prune_row(w.astype(np.float64), H_inverse, count) for w in W]).astype(np.float32)


def inverse(H: np.ndarray, damp: float) -> np.ndarray:
    """(H + damping)^-1 in float64, its operations in a fixed order. Raises RangeError where it is not definite."""
    revived, _ = revive_dead(H.astype(np.float64))
    return gram(inverse_factor(damped(revived, damp), exact=True), exact=True)


def eliminate(H_inverse: np.ndarray, q: int) -> None:
    """Take row and column q out of the problem, in place; both become zero."""
    H_inverse -= H_inverse[:, q, None] * (H_inverse[q] / H_inverse[q, q])
    H_inverse[q] = H_inverse[:, q] = 0


def _prune_row(w: np.ndarray, H_inverse: np.ndarray, count: int) -> np.ndarray:
    H_inverse, left = H_inverse.copy(), np.ones(len(w), bool)
    for _ in range(count):
        loss = np.full(len(w), np.inf)
        loss[left] = np.square(w[left]) / np.diagonal(H_inverse)[left]
        q = int(np.argmin(loss))
        w = w - H_inverse[:, q] * (w[q] / H_inverse[q, q])
        w[q], left[q] = 0, False
        eliminate(H_inverse, q)
    return w
