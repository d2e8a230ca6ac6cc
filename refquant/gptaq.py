"""GPTAQ (GPTQ v2): GPTQ that also makes up for the errors in its own input.

A layer is fed X, the output of layers already quantized; it was trained on X~, the output of the original ones. GPTQ
matches X W^ to X W; this one matches X W^ to X~ W.

    D = (2/n) (X~ - X)^T X                    how far the input is off, seen through X
    P = alpha * triu(D U^T, 1) U              strictly upper triangular; U as in GPTQ, H^-1 = U^T U
    for j in order:
        q_j = round(w_j)
        e   = (w_j - q_j) / U_jj
        w_k -= e U_jk - w_j P_jk              for all k after j

Shapes      W (out, in), X and X~ (tokens, in) with the same tokens, D, P (in, in).
alpha       0.25 is the authors' default for large models, 1 is the derivation; 0, or X~ = X, is GPTQ.
carried     which w_j the product after a block takes: "weights", as they were when rounded, as inside a block, or
            "quantized", after the rounding, as the authors' code and gptqmodel have it: their result depends on the
            size of the block, and this is dialect "gptqmodel".
Settings    as in gptq.py; damping, groups, orders, precision mean what they mean there.
Source      Li et al. 2025, arXiv:2504.02692, alg. 1 and eq. 12; Intelligent-Computing-Lab-Yale/GPTAQ; gptqmodel.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from refquant.column_grids import ColumnGrids, group_size
from refquant.column_order import column_order
from refquant.errors import RangeError, ShapeError
from refquant.factor import subtract_product
from refquant.gptq import DIALECTS as GPTQ_DIALECTS
from refquant.gptq import Settings as GPTQSettings
from refquant.gptq import damped_factor, settings_of, weights
from refquant.hessian import hessian_of, revive_dead
from refquant.inputs import as_float32
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor


@dataclass(frozen=True, slots=True)
class Settings(GPTQSettings):
    """Those of GPTQ, and two more."""

    alpha: float = 0.25
    carried: str = "weights"


DIALECTS = {
    "gptqmodel": {**GPTQ_DIALECTS["gptqmodel"], "hessian": "running", "order": "natural", "carried": "quantized"},
}


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: np.ndarray,
    *,
    native: np.ndarray | None = None,
    dialect: str = "",
    **options: object,
) -> QuantizedTensor:
    """Quantize W (out, in). calibration: X, native: X~, both needed, (tokens, in) or (batch, tokens, in).

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, UnsupportedError, QuantError.
    """
    settings = settings_of("gptaq", Settings(), DIALECTS, dialect, options)
    if settings.carried not in ("weights", "quantized"):
        raise RangeError(f"gptaq.quantize: carried = {settings.carried!r}, expected 'weights' or 'quantized'")
    W, scheme = weights("gptaq.quantize", W), parse(scheme)
    X, native = as_float32("gptaq.quantize", calibration, "calibration"), as_float32("gptaq.quantize", native, "native")
    if X.shape != native.shape:
        raise ShapeError(f"gptaq.quantize: native.shape = {native.shape}, expected {X.shape}, that of calibration")
    H, dead = revive_dead(hessian_of("gptaq.quantize", X, settings.hessian, settings.exact, W.shape[1]))
    order = column_order(settings.order, np.diagonal(H), group_size(W.shape, scheme))
    W, D = np.where(dead, np.float32(0), W), input_shift(X, native, settings)
    D[:, dead] = 0
    grids = ColumnGrids(
        W,
        scheme,
        order,
        static=settings.static_groups,
        ranges=settings.ranges,
        search=settings.search,
        dtype=settings.dtype,
    )
    U = damped_factor(H[order][:, order], settings)
    P = settings.dtype(settings.alpha) * carry(D[order][:, order], U, settings.exact)
    columns = np.ascontiguousarray(W.T[order], dtype=settings.dtype)
    return grids.tensor(_sweep(columns, U, P, grids, settings))


def input_shift(X: np.ndarray, native: np.ndarray, settings: Settings) -> np.ndarray:
    """D (in, in) = 2 / n (X~ - X)^T X, n counted as in the Hessian rule."""
    n = len(X) if X.ndim == 3 else 1
    X, native = (a.reshape(-1, a.shape[-1]).astype(settings.dtype) for a in (X, native))
    n = len(X) if settings.hessian == "sum" else n
    D = np.zeros((X.shape[1], X.shape[1]), settings.dtype)
    subtract_product(D, (X - native).T, X, settings.exact)
    return D * settings.dtype(2 / n)


def carry(D: np.ndarray, U: np.ndarray, exact: bool) -> np.ndarray:
    """triu(D U^T, 1) U."""
    across, P = np.zeros_like(U), np.zeros_like(U)
    subtract_product(across, -D, U.T, exact)
    subtract_product(P, -np.triu(across, 1), U, exact)
    return P


def _sweep(columns: np.ndarray, U: np.ndarray, P: np.ndarray, grids: ColumnGrids, settings: Settings) -> np.ndarray:
    codes = np.empty(columns.shape, np.int16)
    for first, last in pairwise(grids.edges(settings.block, settings.statistics)):
        grids.enter(first, last, columns)
        errors, carried = np.empty_like(columns[first:last]), np.empty_like(columns[first:last])
        for j in range(first, last):
            w, grid = columns[j].copy(), grids[j]
            q = grid.codes(w)
            codes[j] = q
            e = (w - grid.values(q)) / U[j, j]
            columns[j + 1 : last] -= U[j, j + 1 : last, None] * e - P[j, j + 1 : last, None] * w
            errors[j - first] = e
            carried[j - first] = w if settings.carried == "weights" else grid.values(q)
        subtract_product(columns[last:], U[first:last, last:].T, errors, settings.exact)
        subtract_product(columns[last:], -P[first:last, last:].T, carried, settings.exact)
    return codes
