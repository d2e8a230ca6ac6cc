"""From the tensors of a file to what the kernels read: packed matrices, float32 norms and biases."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from refquant.gguf import FORMATS, GGUFFile, Tensor, dequantize
from refquant.models import ModelConfig, model_tensors
from runtime.kernels import PRODUCTS, Product
from runtime.kernels.pack import GROUP, interleave, plan

log = logging.getLogger("runtime")
WIDTH = 32  # rows of activations are multiples of this many columns


def padded(n: int) -> int:
    """n rounded up to a multiple of 32."""
    return -(-n // WIDTH) * WIDTH


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x + bias."""

    name: str
    type: str  # the type that is multiplied: F32 for a tensor that went the slow path
    rows: int
    n: int
    packed: np.ndarray  # uint8, rows side by side (runtime.kernels.pack)
    bias: np.ndarray | None  # (padded rows,) float32

    @property
    def product(self) -> Product:
        """The kernels of this type."""
        return PRODUCTS[self.type]

    @property
    def groups(self) -> int:
        """Groups of 32 rows."""
        return padded(self.rows) // GROUP


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

    @property
    def linears(self) -> list[Linear]:
        """Every matrix that is multiplied."""
        return [linear for layer in self.layers for linear in layer.linears] + [self.output]

    @property
    def nbytes(self) -> int:
        """Bytes of packed matrices."""
        return sum(linear.packed.nbytes for linear in self.linears)


def pack(data: np.ndarray, type_name: str, pool: ThreadPoolExecutor, parts: int) -> np.ndarray:
    """The packed form of (rows, row bytes) uint8."""
    rows, row_bytes = data.shape
    groups = padded(rows) // GROUP
    out = np.zeros(groups * GROUP * row_bytes, np.uint8)
    steps = plan(PRODUCTS[type_name].fields)
    block_bytes = FORMATS[type_name].block_bytes

    def work(lo: int, hi: int) -> None:
        interleave(
            data.ctypes.data, rows, row_bytes, block_bytes, steps.ctypes.data, len(steps), out.ctypes.data, lo, hi
        )

    parts = min(parts, groups)
    done = [pool.submit(work, groups * i // parts, groups * (i + 1) // parts) for i in range(parts)]
    for part in done:
        part.result()
    return out


def load(gguf: GGUFFile, config: ModelConfig, threads: int, progress: Callable | None = None) -> Weights:
    """The weights of a file that `check_tensors` has accepted. A type without a kernel is decoded to float32 here."""
    tensors = model_tensors(gguf, config)
    slow: dict[str, int] = {}
    done = 0

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
        nonlocal done
        tensor = tensors[f"{name}.weight"]
        scale = vector(f"{name}.scale")
        kind = tensor.type if scale is None else "scaled " + tensor.type
        if kind in PRODUCTS:
            data, type_name = tensor.data, tensor.type
        else:
            data, type_name = dequantize(tensor.data, tensor.type), "F32"
            if scale is not None:
                data *= scale[0]
            slow[kind] = slow.get(kind, 0) + data.nbytes
        rows, n = tensor.shape
        packed = pack(np.ascontiguousarray(data).view(np.uint8).reshape(rows, -1), type_name, pool, threads)
        del data
        tensor.release()
        done += 1
        if progress is not None:
            progress("load", done, 7 * config.n_layer + 1)
        return Linear(f"{name}.weight", type_name, rows, n, packed, vector(f"{name}.bias"))

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

    with ThreadPoolExecutor(threads) as pool:
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
