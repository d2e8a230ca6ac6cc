"""QLoRA: train two thin matrices beside a frozen 4-bit one.

    y = x W^T + (alpha / r) (x A^T) B^T            W = decode(codes): nf4 with double quantization, never changed
    dx = dy W + c (dy B) A       dB = c dy^T (x A^T)       dA = c (dy B)^T x            c = alpha / r

    A (r, in) starts uniform in -+1 / sqrt(in), B (out, r) as zeros: training starts at the quantized model

Shapes     x (tokens, in), y and dy (tokens, out). float32.
Step       Adam on A and B (adam.py); nothing else has a gradient that is kept.
Models     fine_tune: next-token cross entropy of a whole model, one step a sequence; `linears` puts the adapters into
           models.backward, where each product above replaces that of the file's own matrix.
Merging    W + c B A is a plain matrix again; rounding it to 4 bits loses part of what was learned.
File       a GGUF adapter for llama.cpp: `adapter_tensors` and `adapter_metadata`, to be written by gguf.write:
           general.type "adapter", adapter.type "lora", adapter.lora.alpha; <weight>.lora_a (r, in), .lora_b (out, r).
Source     Dettmers et al. 2023, arXiv:2305.14314, eq. 5 and 6; Hu et al. 2021, arXiv:2106.09685; peft's initialization;
           llama.cpp, src/llama-adapter.cpp.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from refquant.adam import Adam
from refquant.errors import RangeError, ShapeError
from refquant.gptq import weights
from refquant.models.pullbacks import Pullback, cross_entropy
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from refquant.models.backward import DifferentiableModel

SCHEME = "nf4-dq"


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A frozen matrix in few bits and the two that are trained."""

    base: QuantizedTensor
    A: np.ndarray
    B: np.ndarray
    alpha: float

    @property
    def scale(self) -> np.float32:
        """c = alpha / r."""
        return np.float32(self.alpha / len(self.A))

    def merged(self) -> np.ndarray:
        """W + c B A, float32 (out, in)."""
        return self.base.dequantize() + self.scale * (self.B @ self.A)


def attach(
    W: np.ndarray, rng: np.random.Generator, rank: int = 8, alpha: float = 16.0, scheme: Scheme | str = SCHEME
) -> Adapter:
    """Quantize W (out, in) and put a fresh adapter beside it. Raises ShapeError, RangeError, NonFiniteError."""
    W = weights("qlora.attach", W)
    if not 1 <= rank <= min(W.shape):
        raise RangeError(f"qlora.attach: rank = {rank}, expected 1..{min(W.shape)}")
    bound = 1 / np.sqrt(W.shape[1])
    A = rng.uniform(-bound, bound, (rank, W.shape[1])).astype(np.float32)
    return Adapter(nearest(W, scheme), A, np.zeros((len(W), rank), np.float32), alpha)


def forward(adapter: Adapter, x: np.ndarray) -> np.ndarray:
    """y (tokens, out)."""
    return run(adapter, x)[0]


def backward(adapter: Adapter, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dA, dB) of a loss whose gradient in y is dy."""
    return run(adapter, x)[1](dy)


def run(
    adapter: Adapter, x: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """(y, dy -> (dx, dA, dB)); W is decoded once for both."""
    _require_columns("forward", x, adapter.A.shape[1])
    W, c, inner = adapter.base.dequantize(), adapter.scale, x @ adapter.A.T  # inner (tokens, r)

    def pull(dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _require_columns("backward", dy, len(adapter.B))
        through = dy @ adapter.B  # (tokens, r)
        return dy @ W + c * (through @ adapter.A), c * (through.T @ x), c * (dy.T @ inner)

    return x @ W.T + c * (inner @ adapter.B.T), pull


def fit(
    adapter: Adapter, x: np.ndarray, wanted: np.ndarray, steps: int = 50, lr: float = 1e-2
) -> tuple[Adapter, list[float]]:
    """Train on L = mean (y - wanted)^2; the adapter after `steps`, and L before each of them and at the end."""
    if steps < 0 or lr <= 0:
        raise RangeError(f"qlora.fit: steps, lr = {steps}, {lr}, expected at least 0 and a positive number")
    optimizers, losses = (Adam(lr), Adam(lr)), []
    for step in range(steps + 1):
        error = forward(adapter, x) - wanted
        losses.append(float(np.mean(np.square(error), dtype=np.float64)))
        if step < steps:
            _, dA, dB = backward(adapter, x, error * np.float32(2 / error.size))
            A, B = (o.step(p, g) for o, p, g in zip(optimizers, (adapter.A, adapter.B), (dA, dB)))
            adapter = replace(adapter, A=A, B=B)
    return adapter, losses


def linears(
    adapters: Mapping[str, Adapter], gradients: dict[str, tuple[np.ndarray, np.ndarray]] | None = None
) -> dict[str, Callable[[np.ndarray], tuple[np.ndarray, Pullback]]]:
    """What `DifferentiableModel.run` takes for the matrices that adapters name; (dA, dB) go into `gradients`."""

    def product(name: str, adapter: Adapter) -> Callable[[np.ndarray], tuple[np.ndarray, Pullback]]:
        def of(x: np.ndarray) -> tuple[np.ndarray, Pullback]:
            y, pull_adapter = run(adapter, x)

            def pull(dy: np.ndarray) -> np.ndarray:
                dx, *found = pull_adapter(dy)
                if gradients is not None:
                    gradients[name] = tuple(found)
                return dx

            return y, pull

        return of

    return {name: product(name, adapter) for name, adapter in adapters.items()}


def fine_tune(
    model: "DifferentiableModel", adapters: Mapping[str, Adapter], sequences: Iterable[np.ndarray], lr: float = 2e-4
) -> tuple[dict[str, Adapter], list[float]]:
    """Teach the adapters to continue texts: one Adam step for each sequence of token ids (tokens,), 2 or more of them.

    Returns the adapters and the loss of each sequence before its step. Raises RangeError, ShapeError.
    """
    if lr <= 0:
        raise RangeError(f"qlora.fine_tune: lr = {lr}, expected a positive number")
    adapters, losses = dict(adapters), []
    optimizers = {name: (Adam(lr), Adam(lr)) for name in adapters}
    for ids in sequences:
        ids, gradients = np.asarray(ids), {}
        logits, pull = model.run(ids[:-1], linears(adapters, gradients))
        loss, dlogits = cross_entropy(logits, ids[1:])
        pull(dlogits)
        losses.append(loss)
        for name, (dA, dB) in gradients.items():
            of_A, of_B = optimizers[name]
            adapter = adapters[name]
            adapters[name] = replace(adapter, A=of_A.step(adapter.A, dA), B=of_B.step(adapter.B, dB))
    return adapters, losses


def adapter_tensors(adapters: Mapping[str, Adapter]) -> dict[str, tuple[np.ndarray, str]]:
    """Tensors of a GGUF adapter from adapters by the name of their weight ("blk.0.attn_q.weight").

    Raises ShapeError for the embedding, of which llama.cpp wants A and B turned.
    """
    tensors = {}
    for name, adapter in adapters.items():
        if name == "token_embd.weight":
            raise ShapeError("qlora.adapter_tensors: token_embd.weight, expected a matrix: llama.cpp turns its A and B")
        tensors[f"{name}.lora_a"] = (adapter.A, "F32")
        tensors[f"{name}.lora_b"] = (adapter.B, "F32")
    return tensors


def adapter_metadata(architecture: str, alpha: float) -> tuple[dict[str, object], dict[str, str]]:
    """(metadata, types) of a GGUF adapter for a model of `architecture` ("llama", "qwen2", ...)."""
    metadata = {
        "general.type": "adapter",
        "general.architecture": architecture,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
    }
    return metadata, {key: "f32" if key.endswith("alpha") else "str" for key in metadata}


def _require_columns(where: str, x: np.ndarray, columns: int) -> None:
    if x.ndim != 2 or x.shape[1] != columns:
        raise ShapeError(f"qlora.{where}: shape = {x.shape}, expected (tokens, {columns})")
