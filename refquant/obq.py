"""OBQ: Optimal Brain Surgeon with rounding in place of removal, the exact greedy order for every row.

    until all weights of the row are quantized
        q = the one with the least  (round(w_q) - w_q)^2 / [H^-1]_qq
        w -= (w_q - round(w_q)) / [H^-1]_qq * H^-1[:, q]
        H^-1 -= H^-1[:, q] H^-1[q, :] / [H^-1]_qq

GPTQ is this with one order for all rows; `order` asks for that, and both then agree to rounding (tests: 1e-10).

Outliers    a weight that its grid cannot reach, |round(w) - w| > scale / 2, gets ever worse while it waits: these
            go first, the cheapest of them (`outliers_first`; linear formats).
Against     GPTQ: less error where the inputs have much the same size. Greed takes cheap columns first and leaves the
            important ones to the end, when nothing is left to make up for them: with inputs of unequal size, as in
            trained models, GPTQ in activation order does better (tests).
Groups      scales are found from the original weights: orders differ by row, so no other moment is common to a group.
Shapes      W (out, in), X (tokens, in). Arithmetic float64 in a fixed order: the bytes are the same everywhere.
Cost        in^3 operations a row: for matrices of a few hundred columns.
Edges       dead columns as in GPTQ: W_j = 0.
Source      Frantar & Alistarh 2022, arXiv:2208.11580 (OBC), sec. 5, eq. 7 and 8.
"""

from collections.abc import Iterable

import numpy as np

from refquant import affine
from refquant.column_grids import ColumnGrids, group_size
from refquant.column_order import column_order
from refquant.errors import RangeError
from refquant.gptq import weights
from refquant.grid import Grid
from refquant.hessian import Hessian, hessian_of, revive_dead
from refquant.obs import eliminate, inverse
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: np.ndarray | Hessian | Iterable[np.ndarray],
    *,
    damp: float = 0.01,
    order: str = "greedy",
    outliers_first: bool = True,
) -> QuantizedTensor:
    """Quantize W (out, in) row by row. order: "greedy", or one of column_order.ORDERS for all rows.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, UnsupportedError, QuantError.
    """
    W, scheme = weights("obq.quantize", W), parse(scheme)
    if not 0 <= damp < 1:
        raise RangeError(f"obq.quantize: damp = {damp}, expected a number in [0, 1)")
    H, dead = revive_dead(hessian_of("obq.quantize", calibration, "sum", True, W.shape[1]))
    W = np.where(dead, np.float32(0), W)
    common = None if order == "greedy" else column_order(order, np.diagonal(H), group_size(W.shape, scheme))
    grids = ColumnGrids(W, scheme, np.arange(W.shape[1]), static=True, dtype=np.float64)
    levels, H_inverse = grids.whole(), inverse(H, damp)
    codes = np.empty(W.shape, np.int16)
    for row, w in enumerate(W.astype(np.float64)):
        grid = Grid(scheme.rule, levels.scale[:, row], levels.zero_point[:, row])
        codes[row], _ = quantize_row(w, grid, H_inverse, common, outliers_first)
    return grids.tensor(codes.T)


def quantize_row(
    w: np.ndarray, grid: Grid, H_inverse: np.ndarray, order: np.ndarray | None = None, outliers_first: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(codes, what each weight was when it was rounded), both (in,) float64. grid: a scale for each column."""
    w, H_inverse = w.copy(), H_inverse.copy()
    codes, rounded, left = np.empty_like(w), np.empty_like(w), np.ones(len(w), bool)
    for step in range(len(w)):
        q = grid.codes(w)
        error = w - grid.values(q)
        j = _cheapest(error, H_inverse, left, grid, outliers_first) if order is None else order[step]
        codes[j], rounded[j], left[j] = q[j], w[j], False
        w -= H_inverse[:, j] * (error[j] / H_inverse[j, j])
        eliminate(H_inverse, j)
    return codes, rounded


def _cheapest(error: np.ndarray, H_inverse: np.ndarray, left: np.ndarray, grid: Grid, outliers_first: bool) -> int:
    """The next weight to round: of the outliers if there are any, else of all that are left."""
    candidates = left
    if outliers_first and isinstance(grid.rule, affine.Rule):
        beyond = left & (np.abs(error) > np.abs(grid.scale) * 0.5000001)
        candidates = beyond if beyond.any() else left
    loss = np.full(len(error), np.inf)
    loss[candidates] = np.square(error[candidates]) / np.diagonal(H_inverse)[candidates]
    return int(np.argmin(loss))
