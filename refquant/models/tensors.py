"""The tensors that a model of a given configuration needs, and whether a file has them.

    token_embd.weight (n_vocab, n_embd)          output_norm.weight (n_embd)      output.weight unless tied
    blk.N.  attn_norm  ffn_norm                                                   (n_embd)
            attn_q attn_k attn_v                 .weight (q | k | v width, n_embd)     .bias optional
            attn_output                          .weight (n_embd, o width)             .bias optional
            ffn_gate ffn_up                      .weight (n_ff, n_embd)                .bias optional
            ffn_down                             .weight (n_embd, n_ff)                .bias optional
            attn_q_norm attn_k_norm              .weight (head_dim), required by qwen3
    rope_freqs.weight (rope_dim / 2)             optional, divides the rope frequencies (Llama 3)

Every matrix W may come with `<name>.scale` (1), the outer scale of NVFP4: the linear is scale * (W x) + bias. A fused
`attn_qkv` (rows q | k | v) is read as three tensors that are views of its rows.

Source   llama.cpp, src/models/llama.cpp, qwen2.cpp, qwen3.cpp and src/llama-model.cpp create_tensor_qkv.
Differs  llama.cpp refuses every tensor it does not use; here the ones that would change the computation are refused
         and the rest are named in warnings.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from refquant.errors import GGUFError
from refquant.gguf import dequantize
from refquant.models.config import ModelConfig
from refquant.models.unsupported import OTHER_TENSORS

if TYPE_CHECKING:
    from refquant.gguf import GGUFFile, Tensor

FLOATS = ("F32", "F16", "BF16")  # norms, biases and scales are never quantized
INTEGERS = ("I8", "I16", "I32", "I64")  # types of tables, never of weights


class ExpectedTensors(NamedTuple):
    """Shapes (NumPy order) by name: tensors a file must have, and tensors it may have."""

    required: dict[str, tuple[int, ...]]
    optional: dict[str, tuple[int, ...]]


def linears(config: ModelConfig, layer: int) -> dict[str, tuple[int, int]]:
    """Names (without `.weight`) and shapes (out, in) of the seven matrices of a layer."""
    c, blk = config, f"blk.{layer}"
    return {
        f"{blk}.attn_q": (c.q_width, c.n_embd),
        f"{blk}.attn_k": (c.k_width, c.n_embd),
        f"{blk}.attn_v": (c.v_width, c.n_embd),
        f"{blk}.attn_output": (c.n_embd, c.o_width),
        f"{blk}.ffn_gate": (c.n_ff, c.n_embd),
        f"{blk}.ffn_up": (c.n_ff, c.n_embd),
        f"{blk}.ffn_down": (c.n_embd, c.n_ff),
    }


def expected_tensors(config: ModelConfig) -> ExpectedTensors:
    """Everything the forward pass may read, with fused attn_qkv already split."""
    required = {"token_embd.weight": (config.n_vocab, config.n_embd), "output_norm.weight": (config.n_embd,)}
    optional = {"rope_freqs.weight": (config.rope_dim // 2,)}
    matrices = {"output": (config.n_vocab, config.n_embd)}
    for layer in range(config.n_layer):
        matrices |= linears(config, layer)
        required |= {f"blk.{layer}.{norm}.weight": (config.n_embd,) for norm in ("attn_norm", "ffn_norm")}
        head_norms = required if config.arch == "qwen3" else optional
        head_norms |= {f"blk.{layer}.{norm}.weight": (config.head_dim,) for norm in ("attn_q_norm", "attn_k_norm")}
    for name, shape in matrices.items():
        required[f"{name}.weight"] = shape
        optional[f"{name}.bias"] = shape[:1]
        optional[f"{name}.scale"] = (1,)
    if config.tied_output:
        del required["output.weight"]
    return ExpectedTensors(required, optional)


def model_tensors(gguf: "GGUFFile", config: ModelConfig) -> dict[str, "Tensor"]:
    """The tensors of a file by name, every fused `attn_qkv` replaced by zero-copy views of its q, k and v rows."""
    tensors = dict(gguf.tensors)
    for layer in range(config.n_layer):
        blk = f"blk.{layer}"
        for kind in ("weight", "bias", "scale"):
            fused = tensors.pop(f"{blk}.attn_qkv.{kind}", None)
            if fused is None:
                continue
            start = 0
            for part, rows in (("q", config.q_width), ("k", config.k_width), ("v", config.v_width)):
                name = f"{blk}.attn_{part}.{kind}"
                if name in tensors:
                    raise GGUFError(f"{gguf.path}: {name} is present beside {fused.name}, expected one of the two")
                tensors[name] = replace(fused, name=name) if kind == "scale" else _rows(gguf, fused, name, start, rows)
                start += rows
            if kind != "scale" and start != fused.shape[0]:
                raise GGUFError(f"{gguf.path}: {fused.name} has {fused.shape[0]} rows, expected {start} (q, k and v)")
    return tensors


def check_tensors(gguf: "GGUFFile", config: ModelConfig) -> list[str]:
    """Raise GGUFError unless every tensor is there with its shape and a type that makes sense.

    Returns warnings: one line for each tensor that the forward pass does not read.
    """
    tensors = model_tensors(gguf, config)
    required, optional = expected_tensors(config)
    for name in required:
        if name not in tensors:
            raise GGUFError(f"{gguf.path}: {name} is missing, expected shape {required[name]}")
    expected = required | optional
    warnings = []
    for name, tensor in tensors.items():
        if name in expected:
            _check(gguf, tensor, name, expected[name])
        elif OTHER_TENSORS.search(name):
            raise GGUFError(f"{gguf.path}: {name} belongs to a computation that is not supported for {config.arch}")
        else:
            warnings.append(f"{gguf.path}: {name} is not used by {config.arch}")
    if "rope_freqs.weight" in tensors:
        divisors = dequantize(tensors["rope_freqs.weight"].data, tensors["rope_freqs.weight"].type)
        if not (np.isfinite(divisors) & (divisors > 0)).all():
            raise GGUFError(f"{gguf.path}: rope_freqs.weight divides frequencies, expected finite positive numbers")
    return warnings


def _check(gguf: "GGUFFile", tensor: "Tensor", name: str, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise GGUFError(f"{gguf.path}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
    if len(shape) == 1 and tensor.type not in FLOATS:
        raise GGUFError(f"{gguf.path}: {name} is {tensor.type}, expected one of {', '.join(FLOATS)}")
    if tensor.type in INTEGERS:
        raise GGUFError(f"{gguf.path}: {name} is {tensor.type}, expected a float or block type")


def _rows(gguf: "GGUFFile", fused: "Tensor", name: str, start: int, rows: int) -> "Tensor":
    """Some rows of a tensor as a tensor. Rows are whole in every type, so no byte is copied or decoded."""
    total = fused.shape[0] if fused.shape else 0
    if start + rows > total:
        raise GGUFError(f"{gguf.path}: {fused.name} has {total} rows, expected at least {start + rows}")
    row_bytes = fused.nbytes // total
    offset = fused.offset + start * row_bytes
    return replace(fused, name=name, shape=(rows, *fused.shape[1:]), offset=offset, nbytes=rows * row_bytes)
