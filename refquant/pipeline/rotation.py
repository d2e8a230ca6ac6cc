"""QuaRot on a whole model: the residual stream and the values of every head are turned before anything is rounded.

rotations.py has the formulas; the model computes the same, and its outliers are spread. Parts are turned one by one.

    {"method": "quarot", "seed": 0, "values": true}        values: turn those of the heads as well

Gains of the norms go into the matrices that read them, so that a tied output matrix becomes one of its own. Q and P are
randomized Hadamard matrices: n_embd and the head dimension must have one (hadamard.py).
Result    a folder of float32 beside the unfinished result, the model of the rest of the recipe; an earlier run's parts
          are used. Refused for models of experts.
Arithmetic float64, rounded to float32 once.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from refquant import hadamard
from refquant.errors import QuantError, SchemeError, UnsupportedError
from refquant.layouts import safetensors_file
from refquant.layouts.safetensors_file import Tensor
from refquant.models import ModelConfig
from refquant.pipeline import vocabulary, work
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.executor import Executor
from refquant.pipeline.huggingface import open_checkpoint
from refquant.pipeline.part import Part
from refquant.pipeline.recipe import Modifier
from refquant.rotations import turn_columns, turn_rows

FOLDER = "rotated"
_READS = {
    "input_layernorm": tuple(f"self_attn.{part}_proj" for part in "qkv"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
_EMBEDDING, _NORM, _OUTPUT = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def rotated(
    checkpoint: Checkpoint, modifier: Modifier, parts: list[Part], folder: Path, executor: Executor
) -> Checkpoint:
    """The turned model. `parts` are those of the model, with `folder` as theirs.

    Raises UnsupportedError (experts), SchemeError (a seed that is none), ShapeError (no Hadamard matrix of a size).
    """
    options = dict(modifier.options)
    seed, values = options.get("seed", 0), options.get("values", True)
    if type(seed) is not int or seed < 0:
        raise SchemeError(f"recipe: seed of quarot = {seed!r}, expected an integer of at least 0")
    if checkpoint.model.mixture is not None:
        raise UnsupportedError(f"{checkpoint.path}: quarot: has experts, expected a dense model")
    folder.mkdir(exist_ok=True)
    missing = [part for part in parts if not part.path.is_file()]
    made = executor.map(partial(turned, seed, bool(values)), missing)
    for part in missing:
        tensors = [(name, "F32", array) for name, array in next(made).items()]
        safetensors_file.write(part.path, tensors, {"format": "pt"}, safetensors_file.room(n for n, _, _ in tensors))
    weight_map = {name: part.file for part in parts for name in safetensors_file.read(part.path).tensors}
    work.put(folder / "model.safetensors.index.json", json.dumps({"weight_map": weight_map}))
    work.put(folder / "config.json", json.dumps(dict(checkpoint.config) | {"tie_word_embeddings": False}))
    vocabulary.copy_files(checkpoint, folder)
    found = open_checkpoint(folder)
    dtypes = {name: checkpoint.tensors[name].dtype for name in checkpoint.tensors}
    dtypes.setdefault(_OUTPUT, dtypes[_EMBEDDING])
    tensors = {name: Tensor(dtypes[name], tensor.data) for name, tensor in found.tensors.items()}
    return replace(found, tensors=tensors, vocabulary=checkpoint.vocabulary)


def turned(seed: int, values: bool, part: Part) -> dict[str, np.ndarray]:
    """All tensors of a part by their full names, float32."""
    checkpoint = part.checkpoint
    W = {short: checkpoint.weight(full).astype(np.float64) for short, full in part.names.items()}
    Q, P = matrices(checkpoint.model, seed, values)
    if part.is_block:
        _turn_block(W, Q, P)
    else:
        head = W[_OUTPUT] if _OUTPUT in W else checkpoint.weight(_EMBEDDING).astype(np.float64)
        W[_OUTPUT] = (head * W[_NORM]) @ Q
        W[_EMBEDDING] = W[_EMBEDDING] @ Q
        W[_NORM] = np.ones_like(W[_NORM])
    names = dict(part.names) | ({} if part.is_block else {_OUTPUT: _OUTPUT})
    found = {names[short]: w.astype(np.float32) for short, w in W.items()}
    if not all(np.isfinite(w).all() for w in found.values()):
        raise QuantError(f"{checkpoint.path}: a turned weight of part {part.index} is beyond float32")
    return found


def matrices(model: ModelConfig, seed: int, values: bool) -> tuple[np.ndarray, np.ndarray]:
    """(Q of the residual stream, P of the values), float64. Raises ShapeError."""
    rng = np.random.default_rng(seed)
    Q = hadamard.orthogonal(model.n_embd, rng)
    return Q, hadamard.orthogonal(model.head_dim_v, rng) if values else np.eye(model.head_dim_v)


def _turn_block(W: dict[str, np.ndarray], Q: np.ndarray, P: np.ndarray) -> None:
    for norm, readers in _READS.items():
        for name in readers:
            W[f"{name}.weight"] = (W[f"{name}.weight"] * W[f"{norm}.weight"]) @ Q
        W[f"{norm}.weight"] = np.ones_like(W[f"{norm}.weight"])
    values, out = "self_attn.v_proj", "self_attn.o_proj"
    W[f"{values}.weight"] = turn_rows(W[f"{values}.weight"], P)
    W[f"{out}.weight"] = turn_columns(W[f"{out}.weight"], P)
    if f"{values}.bias" in W:
        W[f"{values}.bias"] = turn_rows(W[f"{values}.bias"][:, None], P)[:, 0]
    for name in (out, "mlp.down_proj"):
        W[f"{name}.weight"] = Q.T @ W[f"{name}.weight"]
        if f"{name}.bias" in W:
            W[f"{name}.bias"] = Q.T @ W[f"{name}.bias"]
