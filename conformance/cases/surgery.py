"""Optimal Brain Damage and Surgeon: which weights go, what that costs, and what the others become.

Values are compared bit for bit: float64 in any order is 1e-13 off, and they are rounded to float32 in the end.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Rows": {
        "kind": "ordinary",
        "description": "A matrix of 3 x 6 with the Hessian of correlated inputs.",
        "effect": "Other weights go than those of least loss, or those that stay do not make up for them.",
    },
    "Tie": {
        "kind": "tie",
        "description": "Weights of the same loss.",
        "effect": "Another weight goes first: masks differ between machines.",
    },
    "DeadColumn": {
        "kind": "edge",
        "description": "Inputs that are always zero.",
        "effect": "A division by zero in a layer with unused inputs.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "A share that is none, a Hessian of another size or one that no inputs have.",
        "effect": "More is removed than was asked for, or noise is added to what stays.",
    },
}
SHARES = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0, -0.1, 1.1)


def cases() -> Iterator[Case]:
    """Both, on the same layers."""
    for label, (flag, W, H) in _layers().items():
        both = {"W": W, "H": H}
        for share in SHARES if label == "plain" else (0.5, 0.7):
            for scope in ("row", "layer"):
                params = {"sparsity": share, "scope": scope}
                yield _case("obd", "prune", f"{label}-{share}-{scope}", "prune", both, params, flag)
            yield _case("obs", "prune", f"{label}-{share}", "prune", both, {"sparsity": share}, flag)
        yield _case("obd", "saliency", label, "saliency", both, {}, flag)
        diagonal = {"W": W, "H": np.diagonal(H).copy()}
        yield _case("obd", "saliency", f"{label}-diagonal", "saliency", diagonal, {}, flag)
    _, W, H = _layers()["plain"]
    usual = {"W": W, "H": H}
    yield _case("obd", "prune", "usual", "prune", usual, {}, "Rows")
    yield _case("obs", "prune", "usual", "prune", usual, {}, "Rows")
    _, pairs, scales = _layers()["near"]
    yield _case("obs", "damping", "near", "prune", {"W": pairs, "H": scales}, {"sparsity": 0.1, "damp": 0.0}, "Tie")
    for damp in (0, 0.1, 0.999, 2):
        params = {"sparsity": 0.5, "damp": damp}
        yield _case("obs", "damping", str(damp), "prune", usual, params, "Rows")
    yield _case("obs", "damping", "float32", "prune", {"W": W, "H": H.astype(np.float32) / 3}, {}, "Rows")
    yield _case("obs", "damping", "float64", "prune", {"W": W.astype(np.float64) / 3, "H": H / 3}, {}, "Rows")
    inverse = np.linalg.inv(H + np.eye(6))
    for label, given in {"float64": inverse, "float32": inverse.astype(np.float32)}.items():
        yield _case("obs", "saliency", label, "saliency", {"W": W, "H_inverse": given}, {}, "Rows")
    yield _case("obs", "saliency", "thirds", "saliency", {"W": W / np.float32(3), "H_inverse": inverse}, {}, "Rows")
    yield _case(
        "obd", "saliency", "thirds", "saliency", {"W": W / np.float32(3), "H": H.astype(np.float32)}, {}, "Rows"
    )
    nan = W.copy()
    nan[1, 2] = np.nan
    for label, given in {
        "narrow": {"W": W, "H": H[:5, :5].copy()}, "oblong": {"W": W, "H": H[:5]}, "short": {"W": W, "H": H[0,
        :5].copy()},
        "vector": {"W": W[0], "H": H}, "nan": {"W": nan, "H": H}, "indefinite": {"W": W, "H": H - 20 * np.eye(6)},
    }.items():  # fmt: skip
        for member in ("obd", "obs"):
            yield _case(member, "checks", label, "prune", given, {}, "Rows")
    yield _case("obd", "checks", "scope", "prune", usual, {"scope": "column"}, "Rows")
    half = {"W": W, "H": H[:3, :3].copy()}
    yield _case("obd", "checks", "saliency", "saliency", half, {}, "Rows")


def shared() -> dict[str, np.ndarray]:
    """The layers by the names of tensors in inputs.safetensors."""
    return {f"surgery-{label}-{part}": x for label, (_, W, H) in _layers().items() for part, x in (("W", W), ("H", H))}


def _case(member: str, group: str, label: str, op: str, inputs: Mapping[str, np.ndarray], params: dict,
    flag: str) -> Case:  # fmt: skip
    return judged(f"method.{member}", group, label, op, inputs, params, flag, "Refused")[0]


def _layers() -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(95)
    W = (rng.integers(-24, 25, (3, 6)) / 8).astype(np.float32)
    X = rng.integers(-3, 4, (12, 6)).astype(np.float64)
    X[:, 1] += X[:, 0]
    H = X.T @ X / 6
    dead = H.copy()
    dead[[2, 5]], dead[:, [2, 5]] = 0, 0
    near = np.float32([[1 / 3, 0.7], [0.7, 1 / 3], [1 / 7, 0.3], [0.3, 1 / 7], [0.9, 1 / 11], [1 / 11, 0.9]])
    first, second = near.astype(np.float64).T
    pairs = np.kron(np.eye(6, dtype=np.float32), np.ones((1, 2), np.float32)) * np.tile(near, (1, 6))
    scales = np.ones(12)
    scales[1::2] = (first / second) ** 2 * (1 + 1e-12)  # the first of each pair costs less, by a 10^12th
    ties = np.where(np.arange(18).reshape(3, 6) % 4, np.float32(1), np.float32(-1))
    return {
        "plain": ("Rows", W, H),
        "dead": ("DeadColumn", W, dead),
        "ties": ("Tie", ties, np.eye(6) * 2),
        "alike": ("Tie", np.abs(W).round(), H),
        "near": ("Tie", pairs + (pairs == 0) * np.float32(100), np.diag(scales)),
        "wide": (
            "Rows",
            np.concatenate([W, W[::-1] / np.float32(3)], axis=1) - np.float32(0.25),
            np.kron(np.array([[2.0, 1], [1, 2]]), H) + np.eye(12),
        ),
    }
