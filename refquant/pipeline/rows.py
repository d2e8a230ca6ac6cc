"""The rows of q and k of a llama, whose order differs between Hugging Face and GGUF.

Hugging Face rotates element i of a head with i + d/2, ggml's "norm" rope 2i with 2i + 1: a head's rows 0, d/2, 1,
d/2 + 1 ... come after each other in GGUF.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from refquant.layouts.linear import Linear
from refquant.models import ModelConfig


def heads_to_permute(name: str, config: ModelConfig) -> int:
    """How many heads the rows of a tensor of GGUF belong to where they change places, else 0."""
    part = name.split(".")[-2]
    return {"attn_q": config.n_head, "attn_k": config.n_head_kv}.get(part, 0) if config.rope_style == "norm" else 0


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows (heads * d, ...) of Hugging Face in the order of ggml: of every head 0, d/2, 1, d/2 + 1, ..."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def restored(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `permuted`."""
    pairs = rows.reshape(heads, len(rows) // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def reordered(record: Linear, heads: int, order: Callable[[np.ndarray, int], np.ndarray] = permuted) -> Linear:
    """A record with its rows in another order."""
    rows = {name: getattr(record, name) for name in ("codes", "scale", "zero_point", "offset")}
    changed = {name: order(values, heads) for name, values in rows.items() if values is not None}
    return dataclasses.replace(record, **changed)
