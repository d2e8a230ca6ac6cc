"""AWQ and SmoothQuant on a block: channels are scaled between two layers, and the block computes the same as before.

    norm -> q, k, v        gain / s,  W * s        both methods
    norm -> gate, up       the same                both, without experts
    v -> o                 rows of v / s           AWQ, where every value head serves one head only
    up -> down             rows of up / s          AWQ, without experts

AWQ also clips what is rounded afterwards, except queries and keys (awq.py has the formulas).
Inputs   of each group, at most TOKENS rows, thinned evenly over the calibration sequences.
"""

from collections.abc import Mapping

import numpy as np

from refquant import awq, smoothquant
from refquant.errors import SchemeError
from refquant.models import ModelConfig
from refquant.pipeline.recipe import Modifier

TOKENS = 2048
_QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")
_NORMS = (("input_layernorm", _QKV), ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")))
_ROWS = (("self_attn.v_proj", ("self_attn.o_proj",)), ("mlp.up_proj", ("mlp.down_proj",)))


def scaled_inputs(weights: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The layers whose inputs `scale` wants to see: the first of every group."""
    return tuple(layers[0] for _, layers in (*_NORMS, *_ROWS) if f"{layers[0]}.weight" in weights)


def scale(
    modifier: Modifier, prefix: str, config: ModelConfig, weights: Mapping[str, np.ndarray], X: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors of the block that change, float32. X: inputs (tokens, in) by the names of `scaled_inputs`.

    A group is left alone unless the modifier matches all of its layers. Raises QuantError and its kinds.
    """
    W, options = dict(weights), dict(modifier.options)
    rows = _ROWS if modifier.method == "awq" else ()
    for before, layers in (*_NORMS, *rows):
        names = [f"{layer}.weight" for layer in layers]
        fits = all(name in W and modifier.matches(f"{prefix}{layer}") for name, layer in zip(names, layers))
        if not fits or (before.endswith("v_proj") and config.n_group != 1):
            continue
        inputs = X[layers[0]]
        s = _search(modifier, options, [W[name] for name in names], inputs)
        for name in names:
            W[name] = W[name] * s
        X = {**X, layers[0]: inputs / s}
        if before.endswith("norm"):
            W[f"{before}.weight"], _ = awq.fold_norm(W[f"{before}.weight"], s)
        else:
            bias = W.get(f"{before}.bias")
            W[f"{before}.weight"], bias = awq.fold_rows(W[f"{before}.weight"], s, bias)
            W |= {} if bias is None else {f"{before}.bias": bias}
    if modifier.method == "awq" and options.get("clip", True):
        W |= _clipped(modifier, prefix, W, X)
    return {name: w for name, w in W.items() if w is not weights[name]}


def _search(modifier: Modifier, options: dict, layers: list[np.ndarray], X: np.ndarray) -> np.ndarray:
    if modifier.method == "smoothquant":
        return smoothquant.smooth_scale(layers, X, options.get("alpha", 0.5), options.get("dialect", ""))
    return awq.search_scale(layers, X, modifier.weights, options.get("dialect", "")).scale


def _clipped(modifier: Modifier, prefix: str, W: Mapping[str, np.ndarray], X: Mapping[str, np.ndarray]) -> dict:
    """Weights within the bounds that AWQ finds."""
    if modifier.weights.granularity.kind not in ("group", "channel", "token"):
        raise SchemeError(f"awq: granularity = {modifier.weights.granularity}, expected groups within a row")
    found = {}
    shared = {"self_attn.v_proj": _QKV[0], "mlp.up_proj": "mlp.gate_proj"}
    for layer in ("self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        name = f"{layer}.weight"
        if name in W and modifier.matches(f"{prefix}{layer}"):
            bound = awq.clip_bound(W[name], X[shared.get(layer, layer)], modifier.weights)
            found[name] = np.clip(W[name], -bound, bound)
    return found
