"""The claims about one layer (layer_claims.py) on layers of the test models, and how many tokens GPTQ wants.

    ratios      {"less < more": less / more of each layer}, of rows ROWS of BLOCKS x MATRICES; their inputs are those of
                the float model on 16 calibration windows
    appetite    output error of GPTQ on TOKENS calibration tokens, on these tokens and on the judged ones, beside RTN

Inputs are never those of quantized layers here: one layer is looked at, not a model.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import layer_claims, network, text
from benchmarks.quality.layer_claims import CLAIMS, OPEN, Layer
from benchmarks.quality.network import STAGES, Network
from refquant import quantize

BLOCKS, ROWS, CALIBRATED = (1, 4), 128, 4
MATRICES = {"qkv": 1, "o": 0, "up": 1, "down": 0}  # stage -> which of its matrices
TOKENS = (1024, 4096, 16384, 65536)
WATCHED, BITS = ("qkv", "down"), (4, 2)


class _Seen(Exception):
    """All inputs that are wanted have been seen."""


def measure(model: Path, source: Path) -> dict[str, Any]:
    """Ratios and appetite of a model, ready for JSON."""
    loaded, read = network.open_network(model), text.read_text(model, source)
    layers = capture(loaded, read.calibration[::CALIBRATED], BLOCKS)
    found = {f"{c.less} < {c.more}": layer_claims.ratios(c, layers).tolist() for c in (*CLAIMS, *OPEN)}
    return {"ratios": found, "appetite": appetite(loaded, model, source, read.judged)}


def capture(loaded: Network, ids: np.ndarray, blocks: tuple[int, ...]) -> list[Layer]:
    """Layers with what windows of ids feed them."""
    exact, found, keys = network.exact(loaded), [], {}

    def products(i: int, stage: str, X: np.ndarray) -> list[np.ndarray]:
        outputs = exact(i, stage, X)
        if stage == "qkv":
            keys[i] = outputs[1].reshape(len(X), loaded.config.n_head_kv, -1)
        if i in blocks:
            which = MATRICES[stage]
            W = loaded.matrices(i, stage)[which][:ROWS]
            found.append(Layer(f"block {i} {STAGES[stage][which]}", W, X.copy(), keys[i]))
        if i == blocks[-1] and stage == "down":
            raise _Seen
        return outputs

    try:
        network.hidden_states(loaded, ids, products)
    except _Seen:
        return found
    raise AssertionError(f"layers.capture: blocks = {blocks}, expected blocks of the model")


def appetite(loaded: Network, model: Path, source: Path, judged: np.ndarray) -> list[dict[str, Any]]:
    """One line for each layer, width and number of tokens; `seen` and `held_out` are output errors."""
    ids = text.token_ids(model, source.read_text(encoding="utf-8"))
    windows = text.spread(ids[len(ids) // 2 :], TOKENS[-1] // text.TOKENS, text.TOKENS, text.first_token(model))
    most = {layer.name: layer for layer in capture(loaded, windows, BLOCKS[:1])}
    lines = []
    for other in capture(loaded, judged, BLOCKS[:1]):
        if not any(STAGES[stage][MATRICES[stage]] in other.name for stage in WATCHED):
            continue
        X = most[other.name].X
        for bits in BITS:
            scheme = f"uint{bits}-g64-f16"
            rtn = layer_claims.output_error(other, quantize(other.W, scheme).dequantize())
            for tokens in TOKENS:
                seen = Layer(other.name, other.W, X[:: len(X) // tokens], other.keys)
                W_hat = quantize(other.W, scheme, method="gptq", calibration=seen.X).dequantize()
                errors = {
                    name: layer_claims.output_error(layer, W_hat)
                    for name, layer in (("seen", seen), ("held_out", other))
                }
                lines.append({"layer": other.name, "bits": bits, "tokens": tokens, "rtn": rtn, **errors})
    return lines
