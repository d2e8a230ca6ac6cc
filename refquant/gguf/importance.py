"""How much an error in each weight counts in the searches that take an importance matrix.

    w = v sqrt(sigma2 + x^2)     v the importance of the column, sigma2 the mean of x^2 over the block or twice that
                                 (Q4_0 to Q5_1: over the row)

Without importance most types take w = x^2. Either way a large weight matters more than a small one.

Shapes   x (..., values) float32; importance float32 >= 0 of a shape that broadcasts to x, or None; sigma2 (..., 1).
Order    float32; sums from the first weight to the last.
Source   ggml/src/ggml-quants.c, `sigma2` and `weight` in quantize_row_*_impl.
"""

import numpy as np


def weigh(x: np.ndarray, importance: np.ndarray | None, sigma2: np.ndarray) -> np.ndarray:
    """w of every weight."""
    square = x * x
    return square if importance is None else importance * np.sqrt(sigma2 + square)


def mean_square(x: np.ndarray, factor: int) -> np.ndarray:
    """sigma2 as (factor * sum) / values: (..., values) -> (..., 1)."""
    return np.float32(factor) * sum_of_squares(x) / np.float32(x.shape[-1])


def sum_of_squares(x: np.ndarray) -> np.ndarray:
    """(..., values) -> (..., 1)."""
    return np.add.accumulate(x * x, axis=-1)[..., -1:]  # accumulate, not sum: sum is pairwise
