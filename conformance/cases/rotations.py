"""Hadamard matrices, and what is done with rotations: QuaRot's placement, SpinQuant's step, QuIP's incoherence."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged
from refquant import hadamard

NOTES = {
    "Order": {
        "kind": "ordinary",
        "description": "A matrix of an order that is a power of two, of one of the tabled ones, or of a product.",
        "effect": "Another Hadamard matrix of the order is as orthogonal, and does not undo the rotation of a file.",
    },
    "Whole": {
        "kind": "ordinary",
        "description": "Whole numbers, so that sums are exact and one rounding is left.",
        "effect": "What was rotated offline does not cancel with what is rotated while the model runs.",
    },
    "Model": {
        "kind": "ordinary",
        "description": "The matrices of a model of width 4, turned by rotations whose entries are halves.",
        "effect": "A tensor that was forgotten, or turned from the wrong side: the model computes something else.",
    },
    "Step": {
        "kind": "ordinary",
        "description": "A step of gradient descent on orthogonal matrices.",
        "effect": "The matrix leaves the orthogonal ones, or the loss rises.",
    },
    "Zeros": {
        "kind": "edge",
        "description": "A matrix of zeros.",
        "effect": "0 / 0.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "Orders without a construction, matrices that are not orthogonal or do not fit, experts.",
        "effect": "A model is changed beyond repair.",
    },
}
ORDERS = (1, 2, 4, 12, 20, 28, 36, 40, 24, 56)
TALL = (52, 60, 104, 108, 140, 156, 172)


def cases() -> Iterator[Case]:
    """Matrices, transforms, rotations."""
    for n in ORDERS:
        yield _case("hadamard", "matrix", str(n), "matrix", {}, {"n": n}, "Order")
    for n in TALL:
        rows = sorted({0, 1, 2, n // 4, n // 2, 3 * n // 4, n - 1})
        yield _case("hadamard", "matrix", str(n), "matrix", {}, {"n": n, "rows": rows}, "Order")
    for n in (0, -4, 3, 6, 44, 100, 78, 18):
        yield _case("hadamard", "matrix", str(n), "matrix", {}, {"n": n}, "Order")
    yield from _transforms()
    yield from _models()
    yield from _steps()
    yield from _incoherent()


def _case(member: str, group: str, label: str, op: str, inputs: Mapping[str, np.ndarray], params: dict, flag: str,
          words: object = None) -> Case:  # fmt: skip
    case, found = judged(f"rotation.{member}", group, label, op, inputs, params, flag, "Refused")
    fields = {name: getattr(case, name) for name in case.__dataclass_fields__}
    words = dict.fromkeys(found, words) if isinstance(words, tuple) else words or {}
    return Case(**{**fields, "words": words}) if found else case


def _whole(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([91, seed]).integers(-8, 9, shape).astype(np.float64)


def _transforms() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        for shape in ((3, 1), (2, 2), (4,), (2, 3, 8), (2, 12), (2, 24), (1, 48), (1, 80)):
            x = _whole(shape[-1], *shape).astype(dtype)
            label = f"{'x'.join(map(str, shape))}-{dtype}"
            yield _case("hadamard", "transform", label, "transform", {"x": x}, {}, "Whole")
        W = _whole(4, 3, 24).astype(dtype)
        yield _case("quarot", "turn", f"online-{dtype}", "turn", {"W": W}, {}, "Whole")
    x = np.ones((2, 4), np.float32)
    for label, array in {"int32": x.astype(np.int32), "float16": x.astype(np.float16), "scalar": np.float32(1),
                         "three": x[:, :3].copy()}.items():  # fmt: skip
        yield _case("hadamard", "transform", label, "transform", {"x": array}, {}, "Whole")
    yield _case("hadamard", "orthogonal", "4", "orthogonal", {}, {"n": 4}, "Order")
    yield _case("hadamard", "orthogonal", "12", "orthogonal", {}, {"n": 12}, "Order")
    yield _case("hadamard", "orthogonal", "signs", "orthogonal", {"signs": _signs(1, 8)}, {"n": 8}, "Order")
    yield _case("hadamard", "orthogonal", "3", "orthogonal", {}, {"n": 3}, "Order")


def _signs(seed: int, n: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng([92, seed]).choice(np.array([-1, 1], dtype), n)


def _models() -> Iterator[Case]:
    Q = np.diag([1.0, -1, -1, 1]) @ hadamard.matrix(4) / 2
    P = hadamard.matrix(4)[[2, 0, 3, 1]] / 2
    params = {"n_layer": 1, "n_embd": 4, "head_dim_v": 4, "tied_output": False}
    plain = _weights(1)
    narrow = {name: w.astype(np.float32) for name, w in plain.items()}
    tied = {name: w for name, w in plain.items() if name != "output.weight"}
    for label, given, change in (
        ("plain", {**narrow, "Q": Q}, {}), ("tied", {**tied, "Q": Q, "P": P}, {"tied_output": True}),
        ("two-layers", {**_weights(2), **_biases(), "Q": Q, "P": P}, {"n_layer": 2}),
        ("nearly", {**narrow, "Q": Q * (1 + 1e-10)}, {}), ("not-nearly", {**narrow, "Q": Q * (1 + 1e-8)}, {}),
        ("experts", {"Q": Q}, {"mixture": "experts"}), ("width", {"Q": Q}, {"n_embd": 8}),
        ("head-width", {"Q": Q, "P": P}, {"head_dim_v": 2}), ("stretched", {"Q": Q * 1.5}, {}),
        ("stretched-heads", {"Q": Q, "P": P * 2}, {}), ("vector", {"Q": Q[0]}, {}), ("singular", {"Q": np.ones((4,
        4))}, {}),
    ):  # fmt: skip
        words = ("max_abs", 1e-9) if label == "nearly" else None
        yield _case("quarot", "turn", label, "turn", given, {**params, **change}, "Model", words)


def _weights(layers: int) -> dict[str, np.ndarray]:
    """Layers of width 4, two heads of values, 6 inner, 5 words; whole numbers."""
    shapes = {"token_embd": (5, 4), "output_norm": (4,), "output": (5, 4)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in {
            "attn_norm": (4,), "ffn_norm": (4,), "attn_q": (8, 4), "attn_k": (4, 4), "attn_v": (8, 4),
            "attn_output": (4, 8), "ffn_gate": (6, 4), "ffn_up": (6, 4), "ffn_down": (4, 6)}.items()}  # fmt: skip
    return {f"{name}.weight": _whole(number, *shape) for number, (name, shape) in enumerate(sorted(shapes.items()))}


def _biases() -> dict[str, np.ndarray]:
    shapes = {"attn_q": 8, "attn_v": 8, "attn_output": 4, "ffn_down": 4}
    return {f"blk.{layer}.{name}.bias": _whole(70 + layer, n) for layer in range(2) for name, n in shapes.items()}


def _steps() -> Iterator[Case]:
    turn = np.eye(3)
    turn[:2, :2] = [[0.6, 0.8], [-0.8, 0.6]]
    Q = hadamard.matrix(4) / 2
    words = ("max_abs", 1e-12)  # a solution of 4 equations in float64
    for label, R, gradient, lr in (
        ("turned", turn, _whole(1, 3, 3), 0.05), ("halves", Q, _whole(2, 4, 4), 0.25), ("still", Q, _whole(2, 4, 4),
        0.0),
        ("along", Q, Q, 0.5), ("shape", Q, _whole(1, 3, 3), 0.1), ("uphill", Q, Q, -0.1), ("lying", Q * 2, Q, 0.1),
        ("float32", Q.astype(np.float32), _whole(2, 4, 4), 0.25), ("oblong", Q[:3], Q[:3], 0.1),
    ):  # fmt: skip
        yield _case("spinquant", "step", label, "step", {"R": R, "gradient": gradient}, {"lr": lr}, "Step", words)


def _incoherent() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        for rows, columns in ((4, 16), (16, 4), (1, 4), (4, 1)):
            W = _whole(rows, rows, columns).astype(dtype)
            signs = {"left": _signs(2, rows), "right": _signs(3, columns)}
            label = f"{rows}x{columns}-{dtype}"
            yield _case("quip", "incoherent", label, "incoherent", {"W": W, **signs}, {}, "Whole")
            own = {name: each.astype(dtype) for name, each in signs.items()}
            yield _case("quip", "coherent", label, "coherent", {"W": W, **own}, {}, "Whole")
    signs = {"left": _signs(2, 4), "right": _signs(3, 12)}
    words = {"values": ("max_abs", 1e-5)}  # sums of 12 rounded terms, of which the order is free
    W = _whole(3, 4, 12).astype(np.float32)
    yield _case("quip", "incoherent", "4x12", "incoherent", {"W": W, **signs}, {}, "Whole", words)
    yield _case("quip", "coherent", "4x12", "coherent", {"W": W, **signs}, {}, "Whole", words)
    for label, array in {"vector": W[0], "tensor": W[None]}.items():
        yield _case("quip", "incoherent", label, "incoherent", {"W": array, **signs}, {}, "Whole")
    for label, W in {"random": _whole(5, 3, 7), "float32": _whole(5, 3, 7).astype(np.float32) / 3,
                     "one": np.eye(4)[:1] * -3, "level": np.full((2, 2), -1.5), "large": _whole(6, 2,
                     4).astype(np.float32)
                     * np.float32(1e25)}.items():  # fmt: skip
        yield _case("quip", "incoherence", label, "incoherence", {"W": W}, {}, "Whole", {"mu": ("ulp", 4)})
    yield _case("quip", "incoherence", "zeros", "incoherence", {"W": np.zeros((2, 3))}, {}, "Zeros")
