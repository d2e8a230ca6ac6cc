"""ZeroQuant: groups for the weights, tokens for the activations, and each layer taught by its own original.

    Y^ = Q_token(X) Q_group(W)^T                                weights e.g. int8-g64 or int4-g64, inputs int8-token
    distillation, layer by layer:   L = mean (X W_0^T - Y^)^2,  W starts as W_0 and is trained through the rounding:
        dL/dW = dL/dQ(W) = 2 (Y^ - X W_0^T)^T Q(X) / (tokens out)         the straight-through estimator
        W = Adam(W, dL/dW)                                      the W of the least L is kept

Inputs     are rounded as they will be when the model runs, so W learns to make up for that, too.
Shapes     W (out, in), X (tokens, in). Any format for weights and inputs.
Steps      Adam, lr 1e-3 of the root mean square of W, 100 steps on all tokens (the authors: lr 5e-6, batches, epochs).
Arithmetic float32; L sums in float64. Deterministic. steps=0 is plain rounding.
Source     Yao et al. 2022, arXiv:2206.01861, sec. 4.1 to 4.3.
"""

import numpy as np

from refquant.adam import Adam
from refquant.errors import RangeError
from refquant.gptq import weights
from refquant.layer_inputs import Inputs, tokens
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor

INPUTS = "int8-token-restricted"


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: Inputs,
    *,
    inputs: Scheme | str | None = INPUTS,
    steps: int = 100,
    lr: float = 1e-3,
) -> QuantizedTensor:
    """Distill, then round to nearest. inputs=None leaves the inputs in float.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError.
    """
    W, scheme = weights("zeroquant.quantize", W), parse(scheme)
    X = tokens("zeroquant.quantize", calibration, W.shape[1])
    if steps < 0 or lr <= 0:
        raise RangeError(f"zeroquant: steps, lr = {steps}, {lr}, expected at least 0 and a positive number")
    wanted, Xq = X @ W.T, X if inputs is None else nearest(X, inputs).dequantize()
    optimizer = Adam(lr * float(np.sqrt(np.mean(np.square(W), dtype=np.float64))))
    best, least, learned = None, np.inf, W
    for step in range(steps + 1):
        q = nearest(learned, scheme)
        error = Xq @ q.dequantize().T - wanted
        loss = float(np.mean(np.square(error), dtype=np.float64))
        if loss < least:
            best, least = q, loss
        if step < steps:
            learned = optimizer.step(learned, (error.T @ Xq) * np.float32(2 / error.size))
    return best


def matmul(X: np.ndarray, W: np.ndarray, scheme: Scheme | str, inputs: Scheme | str | None = INPUTS) -> np.ndarray:
    """Y^ of the first line, float32 (tokens, out)."""
    W = weights("zeroquant.matmul", W)
    X = tokens("zeroquant.matmul", X, W.shape[1])
    X = X if inputs is None else nearest(X, inputs).dequantize()
    return X @ nearest(W, scheme).dequantize().T
