"""From the tensors of a file to what the kernels read: packed matrices, float32 norms and biases."""

import logging
from dataclasses import dataclass

import numpy as np

from refquant.gguf import FORMATS, GGUFFile, Tensor, dequantize
from refquant.models import ModelConfig, model_tensors
from runtime.kernels import PRODUCTS, Product
from runtime.kernels.pack import GROUP
from runtime.packing import Packing

log = logging.getLogger("runtime")
WIDTH = 32  # rows of activations are multiples of this many columns
GATHERED = 32  # rows of the embedding between two releases of its pages


def padded(n: int) -> int:
    """n rounded up to a multiple of 32."""
    return -(-n // WIDTH) * WIDTH


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x + bias, or one such matrix for each of some experts."""

    name: str
    type: str  # the type that is multiplied: F32 for a tensor that went the slow path
    rows: int
    n: int
    packed: np.ndarray  # uint8, rows side by side (runtime.kernels.pack)
    bias: np.ndarray | None  # (padded rows,) float32
    experts: int = 1  # matrices of (rows, n), packed one after the other

    @property
    def product(self) -> Product:
        """The kernels of this type."""
        return PRODUCTS[self.type]

    @property
    def groups(self) -> int:
        """Groups of 32 rows of one matrix."""
        return padded(self.rows) // GROUP


@dataclass(frozen=True, slots=True)
class Experts:
    """Experts of one block, the router that chooses among them, and the gate of the shared expert if there is one."""

    router: Linear
    gate: Linear
    up: Linear
    down: Linear
    shared_gate: Linear | None

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All of them."""
        own = (self.router, self.gate, self.up, self.down)
        return own if self.shared_gate is None else (*own, self.shared_gate)


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block; q_norm and k_norm where the architecture has them. Beside experts, gate, up and down
    are those of the shared expert, or None."""

    attn_norm: np.ndarray
    q: Linear
    k: Linear
    v: Linear
    q_norm: np.ndarray | None
    k_norm: np.ndarray | None
    attn_output: Linear
    ffn_norm: np.ndarray
    gate: Linear | None
    up: Linear | None
    down: Linear | None
    experts: Experts | None = None

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The matrices of this block."""
        own = (self.q, self.k, self.v, self.attn_output, self.gate, self.up, self.down)
        return tuple(x for x in own if x is not None) + (() if self.experts is None else self.experts.linears)

    @property
    def read_together(self) -> list[Linear]:
        """The matrices that the normalized input of the feed-forward part is multiplied with."""
        dense = [self.gate, self.up] if self.gate is not None else []
        return dense + [x for x in (() if self.experts is None else self.experts.linears) if x is not self.experts.down]


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
        data, count = self.embedding.data, len(ids)
        rows = np.empty((count, *data.shape[1:]), data.dtype)
        for first in range(0, count, GATHERED):
            rows[first : first + GATHERED] = data[ids[first : first + GATHERED]]
            if count > 1:
                self.embedding.release()  # many pages are mapped around each: those of a prompt would be most of it
        return dequantize(rows, self.embedding.type)

    @property
    def linears(self) -> list[Linear]:
        """Every matrix that is multiplied."""
        return [linear for layer in self.layers for linear in layer.linears] + [self.output]

    @property
    def nbytes(self) -> int:
        """Bytes of packed matrices."""
        return sum(linear.packed.nbytes for linear in self.linears)


def row_bytes(type_name: str, n: int) -> int:
    """Bytes of n weights."""
    fmt = FORMATS[type_name]
    return n // fmt.values * fmt.block_bytes


def filled_up(data: np.ndarray) -> np.ndarray:
    """(experts, rows, bytes) uint8 with rows of zeros up to whole groups."""
    experts, rows, size = data.shape
    out = np.zeros((experts, padded(rows), size), np.uint8)
    out[:, :rows] = data
    return out


def load(gguf: GGUFFile, config: ModelConfig, packing: Packing) -> Weights:
    """The weights of a file that `check_tensors` has accepted; `packing.run` fills the matrices.

    A type without a kernel is decoded to float32 here.
    """
    tensors = model_tensors(gguf, config)
    slow: dict[str, int] = {}

    def vector(name: str) -> np.ndarray | None:
        """A norm or bias as float32, with zeros up to a multiple of 32."""
        tensor = tensors.get(name)
        if tensor is None:
            return None
        values = dequantize(tensor.data, tensor.type).reshape(-1)
        out = np.zeros(padded(len(values)), np.float32)
        out[: len(values)] = values
        return out

    def linear(name: str) -> Linear:
        tensor = tensors[f"{name}.weight"]
        count, rows, n = (1, 1, *tensor.shape)[-3:]
        scale = vector(f"{name}.scale")
        kind = tensor.type if scale is None else "scaled " + tensor.type
        if kind in PRODUCTS and not (kind == "BF16" and n % 2):  # columns are multiplied in pairs
            type_name, data, whole = tensor.type, tensor.data.view(np.uint8), tensor
        else:
            data, type_name, whole = dequantize(tensor.data, tensor.type), "F32", None
            tensor.release()
            if scale is not None:
                data = data.reshape(count, -1)
                data *= scale[:count, None]
            slow[kind] = slow.get(kind, 0) + data.nbytes
            data = data.view(np.uint8)
        if count > 1 and rows % GROUP:  # an expert begins a group
            data, whole = filled_up(data.reshape(count, rows, -1)), None
        packed = packing.add(data.reshape(-1, row_bytes(type_name, n)), type_name, whole)
        return Linear(f"{name}.weight", type_name, rows, n, packed, vector(f"{name}.bias"), count)

    def experts(p: str) -> Experts:
        return Experts(
            router=linear(p + "ffn_gate_inp"),
            gate=linear(p + "ffn_gate_exps"),
            up=linear(p + "ffn_up_exps"),
            down=linear(p + "ffn_down_exps"),
            shared_gate=linear(p + "ffn_gate_inp_shexp") if config.n_ff_dense else None,
        )

    def layer(i: int) -> Layer:
        p = f"blk.{i}."
        end = "" if config.mixture is None else "_shexp"
        gated = {part: linear(f"{p}ffn_{part}{end}") if config.n_ff_dense else None for part in ("gate", "up", "down")}
        return Layer(
            attn_norm=vector(p + "attn_norm.weight"),
            q=linear(p + "attn_q"),
            k=linear(p + "attn_k"),
            v=linear(p + "attn_v"),
            q_norm=vector(p + "attn_q_norm.weight"),
            k_norm=vector(p + "attn_k_norm.weight"),
            attn_output=linear(p + "attn_output"),
            ffn_norm=vector(p + "ffn_norm.weight"),
            **gated,
            experts=None if config.mixture is None else experts(p),
        )

    layers = tuple(layer(i) for i in range(config.n_layer))
    output = linear("token_embd" if config.tied_output else "output")
    notices = tuple(
        f"{kind} has no fast kernel: its tensors were decoded to float32 ({size / 1e6:.0f} MB)"
        for kind, size in sorted(slow.items())
    )
    for notice in notices:
        log.warning(notice)
    freqs = tensors.get("rope_freqs.weight")
    return Weights(
        embedding=tensors["token_embd.weight"],
        layers=layers,
        output_norm=vector("output_norm.weight"),
        output=output,
        rope_freqs=None if freqs is None else dequantize(freqs.data, freqs.type).reshape(-1),
        notices=notices,
    )
