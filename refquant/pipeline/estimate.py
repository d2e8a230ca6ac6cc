"""How much memory a model takes, from a count of parameters or from a folder: to run it, and to train it.

    weights       parameters * bits / 8; the scheme's scales are counted (nf4: 4.5 bits, int4-g128: 4.25). With a folder
                  only the matrices of blocks are quantized, and embedding, norms and output keep 16 bits
    cache         2 * n_layer * n_head_kv * head_dim * bytes * context * batch        a folder, else it is not known
    activations   batch * context * n_embd * 4 * bytes: a few hidden states of one block

Training, bytes a parameter, over N devices (ZeRO; Rajbhandari et al. 2020, arXiv:1910.02054, sec. 3, mixed precision):

    weights 2, gradients 2, Adam 12 (float32 copy, two moments)
    stage 0   16                          1   4 + 12 / N
    stage 2   2 + 14 / N                  3   16 / N
    LoRA      weights at 16 bits, and 16 bytes for every parameter of the adapters
    QLoRA     weights at NF4 with double quantization, and the same for the adapters
    adapters  rank * (in + out) of every matrix of a block; of a bare count 0.5 % of the parameters

Activations of training are not in it: they depend on the checkpointing of the trainer.
Units     bytes; gigabytes are 10^9 in the classic table (10B: 20 GB in FP16).
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from refquant import schemes
from refquant.errors import RangeError, SchemeError
from refquant.pipeline.huggingface import Checkpoint, open_checkpoint

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
BITS = {"FP32": 32.0, "FP16": 16.0, "BF16": 16.0, "INT8": 8.0, "INT4": 4.0, "NF4": 4.0}  # codes alone
CACHE = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
TRAINING = ("full", "lora", "qlora")
ADAPTER_SHARE = 0.005
ADAM = 12


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes."""

    weights: int
    cache: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.activations


def parameters(said: str | int | Checkpoint) -> int:
    """10B, 7.6B, 500M, 1234 or what a folder holds. Raises RangeError."""
    if isinstance(said, Checkpoint):
        return said.parameters
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMBT]?)", str(said).strip().upper())
    count = int(float(found[1]) * UNITS[found[2]]) if found else 0
    if not 1 <= count <= 10**15:
        raise RangeError(f"estimate: parameters = {str(said)[:40]!r}, expected a number such as 10B, 7.6B or 500M")
    return count


def model_of(said: str | os.PathLike) -> str | Checkpoint:
    """A folder is opened, anything else is a count."""
    return open_checkpoint(said) if os.path.isdir(said) else str(said)


def estimate(
    model: str | int | Checkpoint, scheme: str = "FP16", *, context: int = 0, kv: str = "f16", batch: int = 1
) -> Needs:
    """What running takes. scheme: FP32, FP16, BF16, INT8, INT4, NF4 (codes alone), or one of schemes.py with scales.

    Raises RangeError (counts), SchemeError.
    """
    if context < 0 or batch < 1 or kv not in CACHE:
        got = f"context, batch, kv = {context}, {batch}, {kv!r}"
        raise RangeError(f"estimate: {got}, expected at least 0, at least 1, and one of {', '.join(CACHE)}")
    bits = bits_per_weight(scheme)
    if not isinstance(model, Checkpoint):
        return Needs(int(parameters(model) * bits / 8))
    quantized = _block_weights(model) if bits < 16 else model.parameters
    c = model.model
    cache = c.n_layer * c.n_head_kv * (c.head_dim + c.head_dim_v) * CACHE[kv] * context * batch
    activations = batch * context * c.n_embd * 4 * 4
    return Needs(int(quantized * bits / 8 + (model.parameters - quantized) * 2), int(cache), activations)


def bits_per_weight(scheme: str) -> float:
    """Of a plain name its width, of a scheme with what its groups store."""
    if scheme.upper() in BITS and scheme.isupper():
        return BITS[scheme]
    try:
        return schemes.parse(scheme).bits_per_weight
    except SchemeError as error:
        raise SchemeError(f"estimate: {error}, or one of {', '.join(BITS)}") from error


def training(
    model: str | int | Checkpoint, how: str = "full", *, stage: int = 0, devices: int = 1, rank: int = 16
) -> int:
    """Bytes on each device for weights, gradients and optimizer. Raises RangeError."""
    if how not in TRAINING or stage not in range(4) or devices < 1 or rank < 1:
        got = f"how, stage, devices, rank = {how!r}, {stage}, {devices}, {rank}"
        raise RangeError(f"estimate: {got}, expected one of {', '.join(TRAINING)}, 0 to 3, and at least 1")
    count = parameters(model)
    if how == "full":
        return _zero(count, stage, devices)
    scheme = "nf4-dq" if how == "qlora" else "FP16"
    frozen = estimate(model, scheme).weights
    return (frozen // devices if stage == 3 else frozen) + _zero(_adapters(model, rank), stage, devices)


def recommend(model: str | int | Checkpoint, memory: int, context: int = 0) -> str | None:
    """The widest of the usual formats whose total fits into `memory` bytes with a tenth to spare, or None."""
    usual: Iterable[str] = ("FP16", "int8-channel", "Q6_K", "Q5_K", "Q4_K", "nf4", "nf4-dq", "Q3_K", "Q2_K")
    return next((s for s in usual if estimate(model, s, context=context).total * 1.1 <= memory), None)


def _zero(count: int, stage: int, devices: int) -> int:
    share = [1, 1, 1]  # of weights, gradients, optimizer
    for part in range(stage):
        share[2 - part] = devices
    return int(count * (2 / share[0] + 2 / share[1] + ADAM / share[2]))


def _matrices(model: Checkpoint) -> list[tuple[int, ...]]:
    shapes = {n: t.data.shape for n, t in model.tensors.items() if n.startswith("model.layers.")}
    kept = ("mlp.gate.weight", "block_sparse_moe.gate.weight", "shared_expert_gate.weight")
    return [shape for name, shape in shapes.items() if len(shape) == 2 and not name.endswith(kept)]


def _block_weights(model: Checkpoint) -> int:
    return sum(rows * columns for rows, columns in _matrices(model))


def _adapters(model: str | int | Checkpoint, rank: int) -> int:
    if isinstance(model, Checkpoint):
        return sum(rank * (rows + columns) for rows, columns in _matrices(model))
    return int(parameters(model) * ADAPTER_SHARE * rank / 16)
