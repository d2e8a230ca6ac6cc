"""From the tensors of a file to what the kernels read: bytes of matrices, float32 norms and biases."""

import logging
from dataclasses import dataclass

import numpy as np

from refquant.gguf import GGUFFile, Tensor, dequantize
from refquant.models import ModelConfig, model_tensors
from runtime.kernels import MATMUL, Matmul

log = logging.getLogger("runtime")


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x + bias."""

    name: str
    type: str  # the type that is multiplied: F32 for a tensor that went the slow path
    rows: int
    n: int
    data: np.ndarray  # (rows, bytes of a row) uint8, read-only
    bias: np.ndarray | None  # (rows,) float32

    @property
    def matmul(self) -> Matmul:
        """The kernel of this type."""
        return MATMUL[self.type]


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block; q_norm and k_norm where the architecture has them."""

    attn_norm: np.ndarray
    q: Linear
    k: Linear
    v: Linear
    q_norm: np.ndarray | None
    k_norm: np.ndarray | None
    attn_output: Linear
    ffn_norm: np.ndarray
    gate: Linear
    up: Linear
    down: Linear

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The matrices of this block."""
        return (self.q, self.k, self.v, self.attn_output, self.gate, self.up, self.down)


@dataclass(frozen=True, slots=True)
class Weights:
    """Every weight of a model, and the sentences a user should read about them."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    output_norm: np.ndarray
    output: Linear
    rope_freqs: np.ndarray | None
    notices: tuple[str, ...]

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """The rows `ids` of the embedding: (len(ids), n_embd) float32."""
        return dequantize(self.embedding.data[ids], self.embedding.type)


def load(gguf: GGUFFile, config: ModelConfig, progress=None) -> Weights:
    """The weights of a file that `check_tensors` has accepted. A type without a kernel is decoded to float32 here."""
    tensors = model_tensors(gguf, config)
    slow: dict[str, int] = {}
    done = 0

    def vector(name: str) -> np.ndarray | None:
        tensor = tensors.get(name)
        if tensor is None:
            return None
        values = np.ascontiguousarray(dequantize(tensor.data, tensor.type).reshape(-1), dtype=np.float32)
        return _read_only(values)

    def linear(name: str) -> Linear:
        nonlocal done
        tensor = tensors[f"{name}.weight"]
        scale = vector(f"{name}.scale")
        kind = tensor.type if scale is None else "scaled " + tensor.type
        if kind in MATMUL:
            data, type_name = tensor.data, tensor.type
        else:
            data, type_name = dequantize(tensor.data, tensor.type), "F32"
            if scale is not None:
                data *= scale
            slow[kind] = slow.get(kind, 0) + data.nbytes
        rows, n = tensor.shape
        done += 1
        if progress is not None:
            progress("load", done, 7 * config.n_layer + 1)
        flat = _read_only(np.ascontiguousarray(data).view(np.uint8).reshape(rows, -1))
        return Linear(f"{name}.weight", type_name, rows, n, flat, vector(f"{name}.bias"))

    def layer(i: int) -> Layer:
        p = f"blk.{i}."
        return Layer(
            attn_norm=vector(p + "attn_norm.weight"),
            q=linear(p + "attn_q"),
            k=linear(p + "attn_k"),
            v=linear(p + "attn_v"),
            q_norm=vector(p + "attn_q_norm.weight"),
            k_norm=vector(p + "attn_k_norm.weight"),
            attn_output=linear(p + "attn_output"),
            ffn_norm=vector(p + "ffn_norm.weight"),
            gate=linear(p + "ffn_gate"),
            up=linear(p + "ffn_up"),
            down=linear(p + "ffn_down"),
        )

    layers = tuple(layer(i) for i in range(config.n_layer))
    output = linear("token_embd" if config.tied_output else "output")
    notices = tuple(
        f"{kind} has no fast kernel: its tensors were decoded to float32 ({size / 1e6:.0f} MB)"
        for kind, size in sorted(slow.items())
    )
    for notice in notices:
        log.warning(notice)
    return Weights(
        embedding=tensors["token_embd.weight"],
        layers=layers,
        output_norm=vector("output_norm.weight"),
        output=output,
        rope_freqs=vector("rope_freqs.weight"),
        notices=notices,
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.view()
    array.flags.writeable = False  # one Numba type, hence one compiled kernel, for mapped and for decoded weights
    return array
