"""RMS norm: y = x / sqrt(mean(x^2) + eps) * weight, the mean in float64 with x ascending.

Shapes   x, y (rows, n) float32 (may be the same array); weight (n,) float32. One row is one token, or one head of one
         token (q_norm and k_norm of Qwen3).
Source   Zhang and Sennrich 2019, arXiv:1910.07467; the order 'scale first, then weight' is that of ggml.
"""

import numpy as np
from numba import float32, float64

from runtime.jit import kernel


@kernel
def rms_norm(x, weight, eps, y):
    rows, n = x.shape
    for t in range(rows):
        total = float64(0)
        for i in range(n):
            total += float64(x[t, i]) * float64(x[t, i])
        scale = float32(float64(1) / np.sqrt(total / float64(n) + float64(eps)))
        for i in range(n):
            y[t, i] = x[t, i] * scale * weight[i]


def rms_norm_numpy(x: np.ndarray, weight: np.ndarray, eps: np.float32) -> np.ndarray:
    """The twin of `rms_norm`."""
    wide = x.astype(np.float64)
    total = np.add.accumulate(wide * wide, axis=-1)[:, -1:]
    scale = (1 / np.sqrt(total / x.shape[-1] + np.float64(eps))).astype(np.float32)
    return x * scale * weight
