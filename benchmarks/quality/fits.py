"""How the matrices that share an input are quantized: FITS[method](task) -> Fitted.

    Task     the matrices W (out, in) of one stage, and X (tokens, in), what calibration feeds them: the outputs of
             everything before, quantized already. X is None for a row that looks at no inputs.
    Fitted   outputs(X) -> the product of each matrix, activations rounded where the row says so; bits, all that a file
             would hold for the matrices

AWQ and SmoothQuant scale a stage where a file could fold the scales: into the norm before qkv and up, for AWQ into
up_proj before down, too. Behind attention it cannot: o_proj has more columns than v_proj has rows (grouped heads).
LLM.int8  outlier columns of W are decoded from int8, as an int8 checkpoint must; each batch of windows finds its own.
Pruned    16 bits for each weight that stays, and one bit a weight to say which (of 2:4, two bits for each that stays).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.quality.rows import Row
from refquant import awq, gguf, hadamard, llm_int8, magnitude, quantize, smoothquant, sparsegpt, wanda
from refquant.compensated import CompensatedTensor
from refquant.hessian import Hessian
from refquant.methods import METHODS
from refquant.tensor import QuantizedTensor
from refquant.weighted_rounding import importance

SEARCHED = 512  # rows of X that AWQ looks at, evenly thinned
WIDE = 16
ONLINE = ("o", "down")  # stages whose inputs a rotated model transforms while it runs
Inputs = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One stage of one block."""

    row: Row
    stage: str
    matrices: Sequence[np.ndarray]
    X: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A quantized stage."""

    outputs: Callable[[np.ndarray], list[np.ndarray]]
    bits: int


def fit(task: Task) -> Fitted:
    """Quantize a stage as its row says."""
    if not task.row.rotated or task.stage not in ONLINE:
        return FITS[task.row.method](task)
    turned = [hadamard.transform(W) for W in task.matrices]
    inner = FITS[task.row.method](
        Task(task.row, task.stage, turned, None if task.X is None else hadamard.transform(task.X))
    )
    return Fitted(lambda X: inner.outputs(hadamard.transform(X)), inner.bits)


def _float(task: Task) -> Fitted:
    return _product(task.matrices, WIDE * sum(W.size for W in task.matrices))


def _by_method(task: Task, hessian: bool = False) -> Fitted:
    calibration = task.X
    if hessian:  # one for all matrices of the stage
        calibration = Hessian()
        calibration.update(task.X)
    method, options = METHODS[task.row.method], dict(task.row.options)
    tensors = [method(W, task.row.weights, calibration, **options) for W in task.matrices]
    return _decoded(tensors, _rounded(task.row.activations))


def _awq(task: Task) -> Fitted:
    X, W = task.X[:: max(1, len(task.X) // SEARCHED)], list(task.matrices)
    s = np.ones(X.shape[1], np.float32)
    if task.stage != "o":
        s = awq.search_scale(W, X, task.row.weights).scale
    scaled = [w * s for w in W]
    for k, w in enumerate(scaled):
        if task.stage != "qkv" or k == 2:  # queries and keys are not clipped
            bound = awq.clip_bound(w, X / s, task.row.weights)
            scaled[k] = np.clip(w, -bound, bound)
    return _decoded([quantize(w, task.row.weights) for w in scaled], lambda X: X / s)


def _smoothquant(task: Task) -> Fitted:
    options = dict(task.row.options)
    s = np.ones(task.X.shape[1], np.float32)
    if task.stage in ("qkv", "up"):
        s = smoothquant.smooth_scale(task.matrices, task.X, options.get("alpha", 0.5))
    rounded = _rounded(task.row.activations, task.X / s if options.get("static") else None)
    return _decoded([quantize(W * s, task.row.weights) for W in task.matrices], lambda X: rounded(X / s))


def _static(task: Task) -> Fitted:
    tensors = [quantize(W, task.row.weights) for W in task.matrices]
    return _decoded(tensors, _rounded(task.row.activations, task.X))


def _llm_int8(task: Task) -> Fitted:
    rows = [llm_int8.encode(W) for W in task.matrices]
    return Fitted(lambda X: [llm_int8.matmul(X, W) for W in rows], 8 * sum(W.nbytes for W in rows))


def _gguf(task: Task) -> Fitted:
    from runtime import encoders

    weighted = task.X is not None
    data = [encoders.quantize(W, task.row.weights, importance(task.X) if weighted else None) for W in task.matrices]
    decoded = [gguf.dequantize(blocks, task.row.weights) for blocks in data]
    return _product(decoded, 8 * sum(blocks.nbytes for blocks in data))


def _pruned(task: Task, prune: Callable[..., np.ndarray]) -> Fitted:
    pattern = dict(task.row.options)["pattern"]
    kept = [prune(W, task.X, pattern=pattern) for W in task.matrices]
    return _product(kept, sum(WIDE * np.count_nonzero(W) + W.size for W in kept))


def _decoded(tensors: Sequence[QuantizedTensor], inputs: Inputs | None = None) -> Fitted:
    plain = [t.without_correction() if isinstance(t, CompensatedTensor) else t for t in tensors]
    return _product([t.dequantize() for t in plain], 8 * sum(t.nbytes for t in plain), inputs)


def _product(matrices: Sequence[np.ndarray], bits: int, inputs: Inputs | None = None) -> Fitted:
    transposed = [np.ascontiguousarray(W.T) for W in matrices]

    def outputs(X: np.ndarray) -> list[np.ndarray]:
        X = X if inputs is None else inputs(X)
        return [X @ W for W in transposed]

    return Fitted(outputs, int(bits))


def _rounded(scheme: str, calibration: np.ndarray | None = None) -> Inputs:
    """What rounds activations: by the scale of each call, or by the largest magnitude of calibration inputs."""
    if not scheme:
        return lambda X: X
    if calibration is None:
        return lambda X: quantize(X, scheme).dequantize()
    scale = np.float32(np.abs(calibration).max() / 127)
    return lambda X: quantize(X, scheme, scale=scale).dequantize()


FITS: dict[str, Callable[[Task], Fitted]] = {
    "float": _float,
    "nearest": _by_method,
    "hqq": _by_method,
    "gptq": partial(_by_method, hessian=True),
    "autoround": _by_method,
    "awq": _awq,
    "smoothquant": _smoothquant,
    "static": _static,
    "llm_int8": _llm_int8,
    "gguf": _gguf,
    "sparsegpt": partial(_pruned, prune=sparsegpt.prune),
    "wanda": partial(_pruned, prune=wanda.prune),
    "magnitude": partial(_pruned, prune=lambda W, X, pattern: magnitude.prune(W, pattern=pattern)),
}
