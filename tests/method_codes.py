"""Codes, scales and corrections of every method on one layer, as a file: what runs under other BLAS settings compare.

OPENBLAS_CORETYPE=Haswell python tests/method_codes.py OUT.npz        from the root of the project
"""

import sys
from pathlib import Path

import numpy as np

SCHEMES = {"hqq": "uint4-g32@hqq", "weighted": "int4-g32-signedmax"}
OPTIONS = {
    "adaround": {"steps": 40},
    "autoround": {"iterations": 50},
    "zeroquant": {"steps": 20},
    "low_rank": {"rank": 4},
}


def layer(n: int = 96, out: int = 40, tokens: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, out, tokens])
    mixed = rng.standard_normal((tokens, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
    X = mixed * np.exp(0.5 * rng.standard_normal(n))
    return rng.standard_normal((out, n)).astype(np.float32), X.astype(np.float32)


def results() -> dict[str, np.ndarray]:
    """{method, or method!precision, and the array: array}."""
    import refquant
    from refquant import methods

    W, X = layer()
    X = np.rint(X * 64) / np.float32(64)  # the same inputs, whatever BLAS mixed them
    found = {}
    for name, method in methods.METHODS.items():
        scheme, options = SCHEMES.get(name, "int4-g32"), dict(OPTIONS.get(name, {}))
        rows = 4 if name == "obq" else len(W)
        if name == "gptaq":
            options["native"] = X + np.float32(0.125) * np.roll(X, 1, axis=1)
        for precision in ("fast", "exact") if methods.takes(method, "precision") else ("",):
            said = {**options, "precision": precision} if precision else options
            q = refquant.quantize(W[:rows], scheme, method=name, calibration=X, **said)
            arrays = {"codes": q.codes, "scale": q.scale, "zero_point": q.zero_point, **q.extras}
            key = f"{name}!{precision}" if precision else name
            found |= {f"{key} {part}": a for part, a in arrays.items() if a is not None}
            found[f"{key} error"] = np.square(X.astype(np.float64) @ (W[:rows] - q.dequantize()).T).sum()
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    np.savez(sys.argv[1], **results())
