"""How much memory a model takes, from a count of parameters or from its header: to run it, and to train it.

    10B            weights = parameters * bits / 8; the scheme's scales are counted (nf4: 4.5 bits, int4-g128: 4.25).
                   File types of GGUF mix formats: their bits are those of a model with the shapes of Llama 3 8B
    a folder,      tensor by tensor: matrices of blocks in the scheme, with a scale for each group or output, which has
    a GGUF file    the width that its layout stores; embedding, norms and output as they are. File types of GGUF: the
                   type that each tensor gets. No scheme: the bytes of the tensors as the files have them
    cache          n_layer * n_head_kv * (head_dim of k + of v) * bytes * context * batch        of a bare count unknown
    activations    batch * context * n_embd * 4 * 4 bytes: a few hidden states of one block, likewise

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

import math
import os
import re
from dataclasses import dataclass
from functools import cache

from refquant import groups, schemes
from refquant.errors import QuantError, RangeError, SchemeError
from refquant.gguf import FORMATS
from refquant.gguf.file_types import ALIASES, FILE_TYPES, Choices, Model, lookup, select
from refquant.pipeline import records, to_gguf
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.huggingface import open_checkpoint
from refquant.pipeline.spellings import explain
from refquant.schemes import Scheme

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
MEMORY_UNITS = UNITS | {"G": 10**9} | {f"{p}I": 1024**i for i, p in enumerate("KMGT", 1)}
BITS = {"FP32": 32.0, "FP16": 16.0, "BF16": 16.0, "INT8": 8.0, "INT4": 4.0, "NF4": 4.0}  # codes alone
CACHE = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
TRAINING = ("full", "lora", "qlora")
USUAL = ("FP16", "int8-channel", "Q6_K", "Q5_K_M", "Q4_K_M", "nf4", "nf4-dq", "Q3_K_M", "Q2_K")
ADAPTER_SHARE = 0.005
ADAM = 12
SPARE = 1.1  # a recommendation leaves a tenth for what is not counted


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
    """10B, 7.6B, 500M, 1234 or what a model holds. Raises RangeError."""
    if isinstance(said, Checkpoint):
        return said.parameters
    count = _number(str(said), UNITS)
    if count is None or not 1 <= count <= 10**15:
        raise RangeError(
            f"estimate: parameters = {str(said)[:80]!r}, expected a number such as 10B, 7.6B or 500M, "
            "or a folder or file that is there"
        )
    return count


def memory_size(said: str | float) -> int:
    """8GB, 8GiB, 24G, or gigabytes as a plain number. Raises RangeError."""
    text = str(said).strip().upper().removesuffix("B")
    count = _number(text if text[-1:].isalpha() else f"{text}G", MEMORY_UNITS)
    if not count or count > 10**18:
        raise RangeError(f"estimate: memory = {str(said)[:40]!r}, expected a size such as 8GB or 24GiB")
    return count


def model_of(said: str | int | os.PathLike | Checkpoint) -> str | Checkpoint:
    """A folder or a file is opened, anything else is a count."""
    if isinstance(said, Checkpoint):
        return said
    return open_checkpoint(said) if not isinstance(said, int) and os.path.exists(said) else str(said)


def estimate(
    model: str | int | os.PathLike | Checkpoint,
    scheme: str | None = None,
    *,
    context: int = 0,
    kv: str = "f16",
    batch: int = 1,
) -> Needs:
    """What running takes.

    scheme  FP32, FP16, BF16, INT8, INT4, NF4 (codes alone), a scheme with its scales, a preset, a file type of GGUF;
            None: what the files hold, FP16 of a bare count

    Raises RangeError (counts), SchemeError (no such scheme), ShapeError (groups that do not fit), QuantError (files).
    """
    if context < 0 or batch < 1 or kv not in CACHE:
        got = f"context, batch, kv = {context}, {batch}, {kv!r}"
        raise RangeError(f"estimate: {got}, expected at least 0, at least 1, and one of {', '.join(CACHE)}")
    model = model_of(model)
    if not isinstance(model, Checkpoint):
        return Needs(int(parameters(model) * bits_per_weight(scheme or "FP16") / 8))
    c = model.model
    cached = c.n_layer * c.n_head_kv * (c.head_dim + c.head_dim_v) * CACHE[kv] * context * batch
    return Needs(_weights(model, scheme), int(cached), batch * context * c.n_embd * 4 * 4)


def bits_per_weight(scheme: str) -> float:
    """Of a plain name its width, of a scheme with what its groups store, of a mixed file type the mean."""
    if (plain := _plain(scheme)) in BITS:
        return BITS[plain]
    if (name := scheme.upper()) in FILE_TYPES or name in ALIASES:
        return _typical_bits(ALIASES.get(name, name))
    return _scheme(scheme).bits_per_weight


def training(
    model: str | int | os.PathLike | Checkpoint,
    how: str = "full",
    *,
    stage: int = 0,
    devices: int = 1,
    rank: int = 16,
) -> int:
    """Bytes on each device for weights, gradients and optimizer. Raises RangeError."""
    if how not in TRAINING or stage not in range(4) or devices < 1 or rank < 1:
        got = f"how, stage, devices, rank = {how!r}, {stage}, {devices}, {rank}"
        raise RangeError(f"estimate: {got}, expected one of {', '.join(TRAINING)}, 0 to 3, and at least 1")
    model = model_of(model)
    count = parameters(model)
    if how == "full":
        return _zero(count, stage, devices)
    frozen = estimate(model, "nf4-dq" if how == "qlora" else "FP16").weights
    return (frozen // devices if stage == 3 else frozen) + _zero(_adapters(model, rank), stage, devices)


def recommend(
    model: str | int | os.PathLike | Checkpoint, memory: int, context: int = 0, kv: str = "f16", batch: int = 1
) -> str | None:
    """The widest of the usual formats whose total fits into `memory` bytes with a tenth to spare, or None."""
    model = model_of(model)
    for scheme in USUAL:
        try:
            needs = estimate(model, scheme, context=context, kv=kv, batch=batch)
        except QuantError:  # rows that its groups do not divide
            continue
        if needs.total * SPARE <= memory:
            return scheme
    return None


def _number(said: str, units: dict[str, int]) -> int | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", said.strip().upper())
    return int(float(found[1]) * units[found[2]]) if found and found[2] in units else None


def _plain(scheme: str) -> str:
    """fp16 is FP16, but nf4 and int8 are schemes with their scales, and NF4 and INT8 codes alone."""
    return scheme.upper() if BITS.get(scheme.upper(), 0) >= 16 else scheme


def _scheme(said: str) -> Scheme:
    """Of weights, by any spelling. Raises SchemeError."""
    try:
        meaning = explain(said)
        if meaning.weights:
            return schemes.parse(meaning.weights)
    except SchemeError as error:
        raise SchemeError(f"estimate: {error}, or one of {', '.join(BITS)}") from error
    raise SchemeError(f"estimate: scheme = {said!r}, expected one that quantizes weights")


def _weights(model: Checkpoint, scheme: str | None) -> int:
    """Bytes of all tensors of a model whose header is known."""
    if scheme is None:
        return sum(tensor.data.nbytes for tensor in model.tensors.values())
    if (name := scheme.upper()) in FILE_TYPES or name in ALIASES:
        return _gguf_bytes(model, ALIASES.get(name, name))
    if BITS.get(plain := _plain(scheme), 0) >= 16:
        return int(model.parameters * BITS[plain] / 8)
    matrices = _matrices(model)
    rest = sum(t.data.size * (4 if t.dtype == "F32" else 2) for n, t in model.tensors.items() if n not in matrices)
    if scheme in BITS:
        return rest + int(sum(math.prod(shape) for shape in matrices.values()) * BITS[scheme] / 8)
    layout, chosen = explain(scheme).layout, _scheme(scheme)
    total = rest
    for name, shape in matrices.items():
        fitted = records.fitted(chosen, layout, model.dtype(name))
        grouped = fitted.granularity.members is not None
        groups.scale_shape(f"estimate: {name}", shape, fitted.granularity)
        total += int(math.prod(shape) * fitted.bits_per_weight / 8) if grouped else fitted.nbytes(shape)
    return total


def _gguf_bytes(model: Checkpoint, name: str) -> int:
    """Of a file that to_gguf would write, its tensors."""
    shapes = to_gguf.tensor_shapes(model)
    values = {key: value for key, (_, value) in to_gguf.metadata(model, lookup(name), None, False).items()}
    tensors = {n: (s, "F32") for n, s in shapes.items()}
    return _typed_bytes(shapes, select(tensors, lookup(name), Model.from_metadata(values), Choices()))


def _typed_bytes(shapes: dict[str, tuple[int, ...]], types: dict[str, str]) -> int:
    total = 0
    for name, shape in shapes.items():
        fmt = FORMATS[types[name]]
        total += math.prod(shape) // fmt.values * fmt.block_bytes
    return total


@cache
def _typical_bits(name: str) -> float:
    """Bits of a weight of a file type, on the shapes of Llama 3 8B."""
    layer = {"attn_q": (4096, 4096), "attn_k": (1024, 4096), "attn_v": (1024, 4096), "attn_output": (4096, 4096)}
    layer |= {"ffn_gate": (14336, 4096), "ffn_up": (14336, 4096), "ffn_down": (4096, 14336), "ffn_norm": (4096,)}
    shapes = {"token_embd.weight": (128256, 4096), "output.weight": (128256, 4096), "output_norm.weight": (4096,)}
    shapes |= {f"blk.{i}.{part}.weight": shape for i in range(32) for part, shape in layer.items()}
    model = Model("llama", 32, 4)
    types = select({n: (s, "F32") for n, s in shapes.items()}, lookup(name), model, Choices())
    return 8 * _typed_bytes(shapes, types) / sum(map(math.prod, shapes.values()))


def _zero(count: int, stage: int, devices: int) -> int:
    share = [1, 1, 1]  # of weights, gradients, optimizer
    for part in range(stage):
        share[2 - part] = devices
    return int(count * (2 / share[0] + 2 / share[1] + ADAM / share[2]))


def _matrices(model: Checkpoint) -> dict[str, tuple[int, ...]]:
    """{name: shape} of what a recipe quantizes unless it says otherwise."""
    shapes = {n: t.data.shape for n, t in model.tensors.items() if n.startswith("model.layers.")}
    kept = ("mlp.gate.weight", "block_sparse_moe.gate.weight", "shared_expert_gate.weight")
    return {name: shape for name, shape in shapes.items() if len(shape) == 2 and not name.endswith(kept)}


def _adapters(model: str | Checkpoint, rank: int) -> int:
    if isinstance(model, Checkpoint):
        return sum(rank * (rows + columns) for rows, columns in _matrices(model).values())
    return int(parameters(model) * ADAPTER_SHARE * rank / 16)
