"""RMS normalization and the SiLU gate: the two element-wise functions of a layer.

    rms_norm(x)_i = x_i / sqrt(mean_j x_j^2 + eps) * weight_i        over the last axis
    silu(x)       = x / (1 + exp(-x))

Shapes   any; the result has the shape and dtype of x.
Source   Zhang and Sennrich 2019, arXiv:1910.07467; Shazeer 2020, GLU variants, arXiv:2002.05202.
Differs  llama.cpp sums the squares of a float32 row in float64; NumPy sums pairwise in x's dtype.
"""

import numpy as np


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x over its root mean square, times weight (x.shape[-1],)."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * weight


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x); where exp(-x) overflows the quotient is -0, its limit."""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))
