"""LDLQ: rounding with linear feedback of earlier errors; QuIP's form of GPTQ.

    H = (A + I) D (A + I)^T            A strictly upper triangular, D diagonal
    for k = 0, 1, ...:
        q_k = round(w_k + sum over j < k of (w_j - q_j) A_jk)

The errors are of the original weights; GPTQ's are of weights that were changed already. Both give the same codes, as
QuIP proves; the factor needed here is that of H itself, not of its inverse, and nothing is inverted.

Proxy loss  tr((W - Q) H (W - Q)^T) = sum over k of D_k |e_k|^2, e_k the rounding error of step k: LDLQ is optimal among
            linear feedbacks, and D is all that is left to worry about.
Groups      scales from the original weights.
Shapes      W (out, in), X (tokens, in), H (in, in). Settings as in gptq.py, natural order.
Source      Chee et al. 2023, arXiv:2307.13304 (QuIP), eq. 2, 4 and theorem 6. Its rotation is another page's business.
"""

from collections.abc import Iterable

import numpy as np

from refquant.column_grids import ColumnGrids
from refquant.errors import RangeError
from refquant.factor import subtract_product, upper_factor
from refquant.gptq import weights
from refquant.hessian import Hessian, damped, hessian_of, revive_dead
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor

BLOCK = 64  # columns whose errors are fed forward by one product


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: np.ndarray | Hessian | Iterable[np.ndarray],
    *,
    damp: float = 0.01,
    precision: str = "fast",
) -> QuantizedTensor:
    """Quantize W (out, in). Raises what gptq.quantize raises."""
    if precision not in ("fast", "exact") or not 0 <= damp < 1:
        raise RangeError(f"ldlq.quantize: precision, damp = {precision!r}, {damp}, expected 'fast' or 'exact', [0, 1)")
    exact = precision == "exact"
    W, scheme = weights("ldlq.quantize", W), parse(scheme)
    H, dead = revive_dead(hessian_of("ldlq.quantize", calibration, "sum", exact, W.shape[1]))
    W = np.where(dead, np.float32(0), W)
    grids = ColumnGrids(W, scheme, np.arange(W.shape[1]), static=True, dtype=H.dtype.type)
    A = feedback(damped(H, damp), exact)
    original = np.ascontiguousarray(W.T, dtype=H.dtype)  # (in, out)
    target, codes = original.copy(), np.empty(original.shape, np.int16)
    for first in range(0, len(target), BLOCK):
        last = min(first + BLOCK, len(target))
        errors = np.empty_like(target[first:last])
        for k in range(first, last):
            q = grids[k].codes(target[k])
            codes[k] = q
            errors[k - first] = grids[k].values(q) - original[k]
            target[k + 1 : last] -= A[k, k + 1 : last, None] * errors[k - first]
        subtract_product(target[last:], A[first:last, last:].T, errors, exact)
    return grids.tensor(codes)


def feedback(H: np.ndarray, exact: bool = False) -> np.ndarray:
    """A, strictly upper triangular, of H = (A + I) D (A + I)^T."""
    R = upper_factor(H, exact)
    return np.triu(R / np.diagonal(R), 1)
