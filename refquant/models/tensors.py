"""The tensors that a model of a given configuration needs, and whether a file has them.

    token_embd.weight (n_vocab, n_embd)          output_norm.weight (n_embd)      output.weight unless tied
    blk.N.  attn_norm  ffn_norm                                                   (n_embd)
            attn_q attn_k attn_v                 .weight (q | k | v width, n_embd)     .bias optional
            attn_output                          .weight (n_embd, o width)             .bias optional
            ffn_gate ffn_up                      .weight (n_ff, n_embd)                .bias optional
            ffn_down                             .weight (n_embd, n_ff)                .bias optional
            attn_q_norm attn_k_norm              .weight (head_dim), required by qwen3 and qwen3moe
    in place of ffn_gate, ffn_up and ffn_down, where there are experts (n of them, f wide):
            ffn_gate_inp                         .weight (n, n_embd)
            ffn_gate_exps ffn_up_exps            .weight (n, f, n_embd)                .scale optional, (n)
            ffn_down_exps                        .weight (n, n_embd, f)                .scale optional, (n)
      qwen2moe, the shared expert (s wide):
            ffn_gate_inp_shexp                   .weight (n_embd)
            ffn_gate_shexp ffn_up_shexp          .weight (s, n_embd)
            ffn_down_shexp                       .weight (n_embd, s)
    rope_freqs.weight (rope_dim / 2)             optional, divides the rope frequencies (Llama 3)

Every other matrix may come with `<name>.scale` (1), the outer scale of NVFP4: the linear is scale * (W x) + bias. A
fused `attn_qkv` (rows q | k | v) is read as three tensors that are views of its rows.

Source   llama.cpp, src/models/llama.cpp, qwen2.cpp, qwen3.cpp, qwen2moe.cpp and qwen3moe.cpp, and
         src/llama-model.cpp create_tensor_qkv.
Differs  llama.cpp refuses every tensor it does not use; here the ones that would change the computation are refused
         and the rest are named in warnings.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from refquant.errors import GGUFError
from refquant.gguf import dequantize
from refquant.models.config import HEAD_NORMS, ModelConfig
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
    """Names (without `.weight`) and shapes (out, in) of the matrices of a layer that every token is multiplied with."""
    c, blk = config, f"blk.{layer}"
    end = "" if c.mixture is None else "_shexp"
    attention = {
        f"{blk}.attn_q": (c.q_width, c.n_embd),
        f"{blk}.attn_k": (c.k_width, c.n_embd),
        f"{blk}.attn_v": (c.v_width, c.n_embd),
        f"{blk}.attn_output": (c.n_embd, c.o_width),
    }
    router = {} if c.mixture is None else {f"{blk}.ffn_gate_inp": (c.mixture.n_expert, c.n_embd)}
    if not c.n_ff_dense:
        return attention | router
    return (
        attention
        | router
        | {
            f"{blk}.ffn_gate{end}": (c.n_ff_dense, c.n_embd),
            f"{blk}.ffn_up{end}": (c.n_ff_dense, c.n_embd),
            f"{blk}.ffn_down{end}": (c.n_embd, c.n_ff_dense),
        }
    )


def expert_linears(config: ModelConfig, layer: int) -> dict[str, tuple[int, int, int]]:
    """Names (without `.weight`) and shapes (experts, out, in) of the matrices of a layer's experts, if it has any."""
    m, blk = config.mixture, f"blk.{layer}"
    if m is None:
        return {}
    return {
        f"{blk}.ffn_gate_exps": (m.n_expert, m.n_ff, config.n_embd),
        f"{blk}.ffn_up_exps": (m.n_expert, m.n_ff, config.n_embd),
        f"{blk}.ffn_down_exps": (m.n_expert, config.n_embd, m.n_ff),
    }


def expected_tensors(config: ModelConfig) -> ExpectedTensors:
    """Everything the forward pass may read, with fused attn_qkv already split."""
    required = {"token_embd.weight": (config.n_vocab, config.n_embd), "output_norm.weight": (config.n_embd,)}
    optional = {"rope_freqs.weight": (config.rope_dim // 2,)}
    matrices = {"output": (config.n_vocab, config.n_embd)}
    for layer in range(config.n_layer):
        matrices |= linears(config, layer)
        required |= {f"blk.{layer}.{norm}.weight": (config.n_embd,) for norm in ("attn_norm", "ffn_norm")}
        for name, shape in expert_linears(config, layer).items():
            required[f"{name}.weight"] = shape
            optional[f"{name}.scale"] = shape[:1]
        if config.n_ff_dense and config.mixture is not None:
            required[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = (config.n_embd,)
        head_norms = required if config.arch in HEAD_NORMS else optional
        head_norms |= {f"blk.{layer}.{norm}.weight": (config.head_dim,) for norm in ("attn_q_norm", "attn_k_norm")}
    for name, shape in matrices.items():
        required[f"{name}.weight"] = shape
        if not name.endswith(("_inp", "_shexp")):
            optional[f"{name}.bias"] = shape[:1]
            optional[f"{name}.scale"] = (1,)
    if config.tied_output:
        del required["output.weight"]
    return ExpectedTensors(required, optional)


def model_tensors(gguf: "GGUFFile", config: ModelConfig) -> dict[str, "Tensor"]:
    """The tensors of a file by name, every fused `attn_qkv` replaced by zero-copy views of its q, k and v rows.

    The gate of a shared expert, which llama.cpp's converter writes as (1, n_embd), is (n_embd).
    """
    tensors = dict(gguf.tensors)
    for layer in range(config.n_layer):
        blk = f"blk.{layer}"
        gate = tensors.get(f"{blk}.ffn_gate_inp_shexp.weight")
        if gate is not None and gate.shape == (1, config.n_embd):
            tensors[gate.name] = replace(gate, shape=gate.shape[1:])
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
