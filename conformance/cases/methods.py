"""Calibrated methods on small layers: which codes, which scales, which weights go.

Codes are compared bit for bit although the methods invert a matrix. That is fair because the inputs are well
conditioned and no quotient lies near a tie: float32 and float64 give the same codes, which a test shows.
"""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case

NOTES = {
    "Layer": {
        "kind": "ordinary",
        "description": "A layer of 8 x 32 with correlated inputs; no rounding decision lies near a tie.",
        "effect": "Calibrated weights are not those of the paper: errors are compensated wrongly, or not at all.",
    },
    "Groups": {
        "kind": "ordinary",
        "description": "Two groups a row: the second scale is found after the first columns gave away their errors.",
        "effect": "Scales are those of weights that no longer exist.",
    },
    "DeadColumn": {
        "kind": "edge",
        "description": "An input that is always zero.",
        "effect": "The Hessian is singular: NaN weights, or a failure, in layers with unused inputs.",
    },
    "FewTokens": {
        "kind": "edge",
        "description": "Fewer tokens than inputs: only damping makes the Hessian definite.",
        "effect": "The factorization fails, or amplifies noise into the weights.",
    },
    "ActivationOrder": {
        "kind": "ordinary",
        "description": "Columns are visited by descending diagonal of the Hessian; g_idx says the group of each.",
        "effect": "Weights are multiplied by the scales of other groups: the layer is noise.",
    },
    "Outliers": {
        "kind": "ordinary",
        "description": "A few inputs are twenty times as large as the others.",
        "effect": "Scales that protect the channels that matter are not found, and the outliers ruin all others.",
    },
    "NoOutliers": {
        "kind": "edge",
        "description": "All inputs stay below the threshold.",
        "effect": "An empty selection is mistreated.",
    },
    "ZeroRow": {
        "kind": "edge",
        "description": "A token of zeros.",
        "effect": "127 / 0 becomes a code.",
    },
    "Pattern": {
        "kind": "ordinary",
        "description": "Two of every four weights go.",
        "effect": "Hardware with structured sparsity reads other weights, or none.",
    },
    "BadShape": {
        "kind": "refusal",
        "description": "Inputs with another number of columns than the weights.",
        "effect": "Broadcasting invents a layer.",
    },
    "NotFinite": {
        "kind": "refusal",
        "description": "A NaN among the weights.",
        "effect": "One NaN spreads over all columns to come.",
    },
}
OUTS, INS, TOKENS = 8, 32, 64
UNIT = 2.0**-24  # of a float32 rounding


def cases() -> Iterator[Case]:
    """Weights and inputs for each method."""
    yield from _compensated()
    yield from _pruned()
    yield from _scaled()
    yield from _int8()


def shared() -> dict[str, np.ndarray]:
    """Layers that many tests begin with, by the names of tensors in inputs.safetensors."""
    layers = {"layer": _layer(1), "few": _layer(300, 20), "pruned": _layer(2), "scaled": _layer(3)}
    return {f"{name}-{part}": x for name, both in layers.items() for part, x in zip("WX", both)}


def _layer(seed: int, tokens: int = TOKENS) -> tuple[np.ndarray, np.ndarray]:
    """(W (8, 32), X (tokens, 32)): neighbouring inputs are correlated."""
    rng = np.random.default_rng([2026, seed])
    W = rng.standard_normal((OUTS, INS), np.float32)
    X = rng.standard_normal((tokens, INS), np.float32)
    return W, X + np.float32(0.5) * np.roll(X, 1, axis=1)


def _compensated() -> Iterator[Case]:
    W, X = _layer(1)
    dead = X.copy()
    dead[:, 3] = 0
    few = _layer(300, 20)
    layers = {
        "layer": ("Layer", W, X, "int4-channel"),
        "groups": ("Groups", W, X, "int4-g16"),
        "asymmetric": ("Groups", W, X, "uint3-g16"),
        "dead-column": ("DeadColumn", W, dead, "int4-g16"),
        "few-tokens": ("FewTokens", *few, "int4-channel"),
    }
    for member in ("gptq", "gptq@ist", "gptq@llm-compressor", "obq", "ldlq"):
        for label, (flag, weights, inputs, scheme) in layers.items():
            if member == "ldlq" and scheme != "int4-channel":
                continue
            flags = (flag, "ActivationOrder") if member.endswith("compressor") else (flag,)
            params = {"scheme": scheme} if member == "obq" else {"scheme": scheme, "precision": "exact"}
            yield Case(f"method.{member}", "quantize", label, "quantize", {"W": weights, "X": inputs}, params, flags)
        yield from _refused(f"method.{member}", "quantize", {"scheme": "int4-channel"})
    params = {"scheme": "int4-g16", "precision": "exact", "order": "activation"}
    both = {"W": W, "X": X}
    yield Case("method.gptq", "quantize", "activation-order", "quantize", both, params, ("ActivationOrder",))


def _refused(algorithm: str, op: str, params: dict[str, object]) -> Iterator[Case]:
    W, X = _layer(1)
    broken = W.copy()
    broken[2, 5] = np.nan
    yield Case(algorithm, "refuse", "shape", op, {"W": W, "X": X[:, :-1]}, params, ("BadShape",), "invalid")
    yield Case(algorithm, "refuse", "nan", op, {"W": broken, "X": X}, params, ("NotFinite",), "invalid")


def _pruned() -> Iterator[Case]:
    W, X = _layer(2)
    both = {"W": W, "X": X}
    # what stays is a chain of at most 32 updates: bounded by the error of solving with the damped Hessian in float64
    words = {"values": ("relative", 1e-6)}
    for member in ("sparsegpt", "wanda", "magnitude"):
        fixed = {"precision": "exact"} if member == "sparsegpt" else {}
        kinds = {"half": ({"sparsity": 0.5}, "Layer"), "two-of-four": ({"pattern": [2, 4]}, "Pattern")}
        for label, (how, flag) in kinds.items():
            params = {**how, **fixed}
            yield Case(f"method.{member}", "prune", label, "prune", both, params, (flag,), words=words)
        refused = _refused(f"method.{member}", "prune", {"sparsity": 0.5})
        yield from (case for case in refused if member != "magnitude" or case.name == "nan")  # it looks at no inputs


def _scaled() -> Iterator[Case]:
    W, X = _layer(3)
    large = X.copy()
    large[:, [4, 17]] *= 20
    dead = large.copy()
    dead[:, 9] = 0
    inputs = {"layer": ("Layer", X), "outliers": ("Outliers", large), "dead-column": ("DeadColumn", dead)}
    # two powers, a quotient and for awq a normalization: each within 4 units of a library's pow
    words = {"channel_scale": ("relative", 32 * UNIT)}
    for label, (flag, x) in inputs.items():
        both = {"W": W, "X": x}
        for member in ("smoothquant", "smoothquant@llm-compressor"):
            for alpha in (0.5, 0.8):
                name, params = f"{label}-{alpha}", {"alpha": alpha}
                yield Case(f"method.{member}", "scale", name, "channel_scale", both, params, (flag,), words=words)
        for member in ("awq", "awq@llm-awq", "awq@autoawq", "awq@llm-compressor"):
            params = {"scheme": "uint4-g16"}
            yield Case(f"method.{member}", "scale", label, "channel_scale", both, params, (flag,), words=words)
    for member in ("smoothquant", "awq"):
        params = {"alpha": 0.5} if member == "smoothquant" else {"scheme": "uint4-g16"}
        yield from _refused(f"method.{member}", "channel_scale", params)


def _int8() -> Iterator[Case]:
    W, X = _layer(4, 8)
    large, zero = X.copy(), X.copy()
    large[1, 4], large[5, 17] = 25, -60
    zero[3] = 0
    inputs = {"outliers": ("Outliers", large), "plain": ("NoOutliers", X), "zero-row": ("ZeroRow", zero)}
    for member in ("llm_int8", "llm_int8@bitsandbytes-default"):
        for label, (flag, x) in inputs.items():
            params = {"threshold": 6.0}
            yield Case(f"method.{member}", "encode", label, "encode", {"x": x}, params, (flag,))
            # integer sums are exact; what is left are float32 products and, for outliers, sums of at most 32 terms
            words = {"values": ("relative", 40 * UNIT)}
            both = {"x": x, "W": W}
            yield Case(f"method.{member}", "product", label, "product", both, params, (flag,), words=words)
    broken = X.copy()
    broken[0, 0] = np.inf
    params = {"threshold": 6.0}
    yield Case("method.llm_int8", "refuse", "infinity", "encode", {"x": broken}, params, ("NotFinite",), "invalid")
