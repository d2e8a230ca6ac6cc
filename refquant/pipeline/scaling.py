"""AWQ and SmoothQuant on a block: channels are scaled between two layers, and the block computes the same as before.

    norm -> q, k, v        gain / s,  W * s        both methods
    norm -> gate, up       the same                both, without experts
    v -> o                 rows of v / s           AWQ, where every value head serves one head only
    up -> down             rows of up / s          AWQ, without experts

AWQ also clips what is rounded afterwards, except queries and keys (awq.py has the formulas).

    pairs     which of these a modifier scales
    search    s of one pair: a task each, since no pair changes what another one looks at
    changes   what becomes of every tensor that changes
    changed   one of them: a task each

Inputs   X (tokens, in) float32 of the first layer of each pair, at most TOKENS rows, thinned evenly over the
         calibration sequences.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from refquant import awq, smoothquant
from refquant.errors import SchemeError
from refquant.models import ModelConfig
from refquant.pipeline.recipe import Modifier

TOKENS = 2048
_QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")
_CLIPPED = {  # layer -> the layer whose input is seen for it
    "self_attn.v_proj": _QKV[0],
    "self_attn.o_proj": "self_attn.o_proj",
    "mlp.gate_proj": "mlp.gate_proj",
    "mlp.up_proj": "mlp.gate_proj",
    "mlp.down_proj": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """What is divided by s, a norm or a layer, and the layers whose columns are multiplied by it; short names."""

    before: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What becomes of one tensor: w * columns, the last rows / rows, then clipped by what it is fed, `inputs`."""

    columns: np.ndarray | None = None
    rows: np.ndarray | None = None
    inputs: np.ndarray | None = None


_NORMS = (Pair("input_layernorm", _QKV), Pair("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")))
_ROWS = (Pair("self_attn.v_proj", ("self_attn.o_proj",)), Pair("mlp.up_proj", ("mlp.down_proj",)))


def pairs(modifier: Modifier, prefix: str, config: ModelConfig, names: Collection[str]) -> list[Pair]:
    """Those of a block whose tensors have the short `names`; only where the modifier matches all layers of a pair."""
    known = (*_NORMS, *_ROWS) if modifier.method == "awq" else _NORMS
    known = (p for p in known if config.n_group == 1 or not p.before.endswith("v_proj"))
    return [
        pair
        for pair in known
        if all(f"{layer}.weight" in names and modifier.matches(f"{prefix}{layer}") for layer in pair.layers)
    ]


def inputs(modifier: Modifier, prefix: str, found: Iterable[Pair], names: Collection[str]) -> frozenset[str]:
    """The layers whose inputs are looked at."""
    return frozenset(pair.layers[0] for pair in found) | {
        _CLIPPED[layer] for layer in _clipped(modifier, prefix, names)
    }


def search(modifier: Modifier, layers: list[np.ndarray], X: np.ndarray) -> np.ndarray:
    """s of a pair, float32 (in,). Raises QuantError and its kinds."""
    options = dict(modifier.options)
    if modifier.method == "smoothquant":
        return smoothquant.smooth_scale(layers, X, options.get("alpha", 0.5), options.get("dialect", ""))
    return awq.search_scale(layers, X, modifier.weights, options.get("dialect", "")).scale


def changes(
    modifier: Modifier,
    prefix: str,
    names: Collection[str],
    scales: Mapping[Pair, np.ndarray],
    X: Mapping[str, np.ndarray],
) -> dict[str, Change]:
    """{short name: what becomes of it}, by the scales of `search`."""
    columns = {layer: s for pair, s in scales.items() for layer in pair.layers}
    rows = {pair.before: s for pair, s in scales.items()}
    clipped = _clipped(modifier, prefix, names)
    found = {}
    for short in names:
        tensor, _, kind = short.rpartition(".")
        if kind == "bias" and tensor in rows:
            found[short] = Change(rows=rows[tensor])
        elif kind == "weight" and (tensor in columns or tensor in rows or tensor in clipped):
            fed, s = None, columns.get(tensor)
            if tensor in clipped:
                fed = X[_CLIPPED[tensor]]
                fed = fed if s is None else fed / s
            found[short] = Change(s, rows.get(tensor), fed)
    return found


def changed(modifier: Modifier, w: np.ndarray, change: Change) -> np.ndarray:
    """A tensor float32 with its change. Raises QuantError and its kinds."""
    if change.columns is not None:
        w = w * change.columns
    if change.rows is not None and w.ndim == 2:
        w, _ = awq.fold_rows(w, change.rows)
    elif change.rows is not None:
        others = np.ones(len(w) - len(change.rows), np.float32)
        w, _ = awq.fold_norm(w, np.concatenate([others, change.rows]))
    if change.inputs is not None:
        bound = awq.clip_bound(w, change.inputs, modifier.weights)
        w = np.clip(w, -bound, bound)
    return w


def _clipped(modifier: Modifier, prefix: str, names: Collection[str]) -> tuple[str, ...]:
    """The layers that AWQ clips."""
    options = dict(modifier.options)
    search = awq.DIALECTS.get(options.get("dialect", ""), awq.DIALECTS[""])
    if modifier.method != "awq" or not options.get("clip", search.clip):
        return ()
    if modifier.weights.granularity.kind not in ("group", "channel", "token"):
        raise SchemeError(f"awq: granularity = {modifier.weights.granularity}, expected groups within a row")
    return tuple(layer for layer in _CLIPPED if f"{layer}.weight" in names and modifier.matches(f"{prefix}{layer}"))
