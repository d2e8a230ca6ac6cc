"""Which weights to remove: masks from scores, True where a weight goes.

    least_of_rows      the int(in * sparsity) least scores of each row
    least_of_layer     the int(size * sparsity) least scores of the matrix
    least_of_pattern   n:m sparsity, the n least of every m neighbours in a row; 2:4 is what GPUs multiply faster

Ties     the lower index is removed first (a stable sort), so that a mask is the same everywhere.
Errors   RangeError for a sparsity outside 0..1 or a pattern not 0 < n < m; ShapeError where m does not divide in.
"""

import numpy as np

from refquant.errors import RangeError, require_multiple


def least_of_rows(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Mask (out, in) of the least scores in each row."""
    return _least(scores, int(scores.shape[-1] * require_sparsity(sparsity)))


def least_of_layer(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Mask (out, in) of the least scores of all."""
    count = int(scores.size * require_sparsity(sparsity))
    return _least(scores.reshape(1, -1), count).reshape(scores.shape)


def least_of_pattern(scores: np.ndarray, pattern: tuple[int, int]) -> np.ndarray:
    """Mask (out, in) of the n least scores among every m."""
    n, m = require_pattern(pattern)
    require_multiple("sparsity", "in", scores.shape[-1], m)
    return _least(scores.reshape(*scores.shape[:-1], -1, m), n).reshape(scores.shape)


def mask_of(scores: np.ndarray, sparsity: float, pattern: tuple[int, int] | None) -> np.ndarray:
    """By pattern where one is given, by rows otherwise."""
    return least_of_rows(scores, sparsity) if pattern is None else least_of_pattern(scores, pattern)


def require_sparsity(sparsity: float) -> float:
    """Raise RangeError unless 0 <= sparsity <= 1."""
    if not 0 <= sparsity <= 1:
        raise RangeError(f"sparsity: sparsity = {sparsity}, expected a share in [0, 1]")
    return sparsity


def require_pattern(pattern: tuple[int, int]) -> tuple[int, int]:
    """Raise RangeError unless 0 < n < m."""
    if len(pattern) != 2 or not 0 < pattern[0] < pattern[1]:
        raise RangeError(f"sparsity: pattern = {pattern}, expected (n, m) with 0 < n < m, such as (2, 4)")
    return pattern


def _least(scores: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, np.argsort(scores, axis=-1, kind="stable")[..., :count], True, axis=-1)
    return mask
