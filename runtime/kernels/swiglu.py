"""SwiGLU: gate <- silu(gate) * up, with silu(g) = g / (1 + exp(-g)).

Shapes   gate, up (tokens, n) float32; gate is overwritten.
Source   Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202.
"""

import numpy as np
from numba import float32

from runtime.jit import kernel
from runtime.kernels.exponential import exp, exp_numpy


@kernel
def swiglu(gate, up):
    tokens, n = gate.shape
    for t in range(tokens):
        for i in range(n):
            g = gate[t, i]
            gate[t, i] = g / (float32(1) + exp(-g)) * up[t, i]


def swiglu_numpy(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The twin of `swiglu`; returns a new array."""
    return gate / (np.float32(1) + exp_numpy(-gate)) * up
