"""SparseGPT: remove weights column after column, and let the columns to come make up for it; GPTQ with zeros.

    U as in GPTQ; for blocks of 128 columns
        unstructured   w_ij is removed where w_ij^2 / U_jj^2 <= the entry of rank int(size * sparsity) among all of
                       the block: OBS's saliency at the time the block begins
        n:m            at every m-th column, the n least w_ij^2 / U_jj^2 of the m columns from there, row by row
        then for each column j:  q_j = w_j, zero where removed;  e = (w_j - q_j) / U_jj;  w_k -= e U_jk for k > j

Joint       with a format, what stays is rounded to its grid before the error is taken: pruning and quantization pay for
            each other. Scales come from the original weights, dead columns zeroed; the authors take their ranges with
            the dead columns still in them (dialect ist has their ranges, of quant.py, without these). Blocks as small
            as those of nvfp4 may do better when they find their scales after pruning, for what is left (test_methods).
Rank        the entry of that rank goes too, as in the authors' code: one weight a block more than the share says.
            With sparsity 1 all weights go.
Ties        n:m: the lower column first.
Block       decides which weights compete, so it is part of the result, in exact mode too.
Shapes      W (out, in), X (tokens, in). Settings as in gptq.py, natural order only.
Source      Frantar & Alistarh 2023, arXiv:2301.00774, alg. 1; IST-DASLab sparsegpt.py; also llm-compressor, which
            goes on without any update where H is not positive definite (fallback="nearest").
"""

from collections.abc import Iterable

import numpy as np

from refquant.column_grids import ColumnGrids
from refquant.errors import RangeError, SchemeError, require_multiple
from refquant.factor import subtract_product
from refquant.gptq import Settings, damped_factor, settings_of, weights
from refquant.hessian import Hessian, hessian_of, revive_dead
from refquant.schemes import Scheme, parse
from refquant.sparsity import least_of_pattern, require_pattern, require_sparsity
from refquant.tensor import QuantizedTensor

DIALECTS = {
    "ist": {"hessian": "running", "ranges": "ist"},
    "llm-compressor": {"hessian": "running", "fallback": "nearest"},
}
Calibration = np.ndarray | Hessian | Iterable[np.ndarray]


def prune(
    W: np.ndarray,
    calibration: Calibration,
    *,
    sparsity: float = 0.5,
    pattern: tuple[int, int] | None = None,
    dialect: str = "",
    **options: object,
) -> np.ndarray:
    """W float32 with zeros, the rest adjusted. options: gptq's hessian, damp, damp_step, fallback, block, precision."""
    settings = _settings(dialect, options)
    W, _, U = _prepared(W, calibration, settings)
    columns = np.ascontiguousarray(W.T, dtype=settings.dtype)
    kept, _ = sweep(columns, U, None, sparsity, pattern, settings.block, settings.exact)
    return np.ascontiguousarray(kept.T, dtype=np.float32)


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: Calibration,
    *,
    sparsity: float = 0.5,
    pattern: tuple[int, int] | None = None,
    dialect: str = "",
    **options: object,
) -> QuantizedTensor:
    """Prune and quantize jointly. Raises SchemeError where zero is not a level of the format."""
    settings, scheme = _settings(dialect, options), parse(scheme)
    W, dtype, U = _prepared(W, calibration, settings)
    grids = ColumnGrids(
        W, scheme, np.arange(W.shape[1]), static=True, ranges=settings.ranges, search=settings.search, dtype=dtype
    )
    whole = grids.whole()
    if whole.values(whole.codes(np.zeros(whole.scale.shape, dtype))).any():
        raise SchemeError(f"sparsegpt.quantize: scheme = {scheme}, expected a format with an exact zero")
    columns = np.ascontiguousarray(W.T, dtype=dtype)
    _, codes = sweep(columns, U, grids, sparsity, pattern, settings.block, settings.exact)
    return grids.tensor(codes)


def sweep(
    columns: np.ndarray,
    U: np.ndarray,
    grids: ColumnGrids | None,
    sparsity: float,
    pattern: tuple[int, int] | None,
    block: int,
    exact: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The loop above on columns (in, out), which are changed: (values that stay, their codes), both (in, out)."""
    require_sparsity(sparsity)
    if pattern is not None:
        require_multiple("sparsegpt", "in", len(columns), require_pattern(pattern)[1])
        require_multiple("sparsegpt", "block", block, pattern[1])
    kept, codes = np.empty_like(columns), np.zeros(columns.shape, np.int16)
    for first in range(0, len(columns), block):
        last = min(first + block, len(columns))
        errors, diagonal = np.empty_like(columns[first:last]), np.diagonal(U)[first:last, None]
        removed = np.zeros(errors.shape, bool)
        if pattern is None:
            removed = _least_of_block(np.square(columns[first:last]) / np.square(diagonal), sparsity)
        for j in range(first, last):
            i = j - first
            if pattern is not None and i % pattern[1] == 0:
                next_m = slice(i, i + pattern[1])
                scores = np.square(columns[first:last][next_m]) / np.square(diagonal[next_m])
                removed[next_m] = least_of_pattern(scores.T, pattern).T
            w = columns[j]
            q = np.where(removed[i], w.dtype.type(0), w)
            if grids is not None:
                codes[j] = grids[j].codes(q)
                q = grids[j].values(codes[j].astype(w.dtype))
            kept[j] = q
            errors[i] = (w - q) / U[j, j]
            columns[j + 1 : last] -= U[j, j + 1 : last, None] * errors[i]
        subtract_product(columns[last:], U[first:last, last:].T, errors, exact)
    return kept, codes


def _least_of_block(scores: np.ndarray, sparsity: float) -> np.ndarray:
    rank = int(scores.size * sparsity)
    if rank >= scores.size:
        return np.ones(scores.shape, bool)
    return scores <= np.partition(scores, rank, axis=None)[rank]


def _settings(dialect: str, options: dict[str, object]) -> Settings:
    settings = settings_of("sparsegpt", Settings(), DIALECTS, dialect, options)
    if settings.order != "natural" or settings.block < 1:
        raise RangeError(
            f"sparsegpt: order, block = {settings.order!r}, {settings.block}, expected 'natural' and at least 1"
        )
    return settings


def _prepared(
    W: np.ndarray, calibration: Calibration, settings: Settings
) -> tuple[np.ndarray, type[np.floating], np.ndarray]:
    """W with dead columns zeroed, the dtype of the arithmetic, and U."""
    W = weights("sparsegpt", W)
    H, dead = revive_dead(hessian_of("sparsegpt", calibration, settings.hessian, settings.exact, W.shape[1]))
    return np.where(dead, np.float32(0), W), settings.dtype, damped_factor(H, settings)
