"""Matrix times vector with the matrix in blocks: what a kernel may lose, derived and not guessed."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from refquant import gguf

NOTES = {
    "Product": {
        "kind": "ordinary",
        "description": (
            "Three rows of 512 Gaussian weights times Gaussian numbers. A kernel may round x to 8 bits in blocks of b"
            " numbers with the step d = max|x| / 127, stored in float16: |x - x^| <= d / 2 + 127 d 2^-11. So |y - y^|"
            " <= sum over blocks of that times sum |w|, plus 2^-24 (n + 8) sum |w x| for float32 sums, where b is 32 or"
            " the block of the type if that is longer. `max` is the largest of the rows; `ref` is the float64 product."
        ),
        "effect": "A wrong nibble, scale or sign in a kernel: outputs are off by more than rounding explains.",
    },
    "Outlier": {
        "kind": "edge",
        "description": "One input is a hundred times as large as the others, which makes the step of its block coarse.",
        "effect": "A step for all of x instead of each block loses the other blocks.",
    },
    "ZeroInput": {
        "kind": "edge",
        "description": "Inputs of zeros: the step is 0, and the product exactly 0.",
        "effect": "0 / 0 becomes NaN and spreads over all logits.",
    },
    "BadShape": {
        "kind": "refusal",
        "description": "Inputs of another length than the rows.",
        "effect": "A kernel reads past the end.",
    },
}
ROWS, N = 3, 512
UNIT = 2.0**-24


def cases() -> Iterator[Case]:
    """Every block type times three inputs."""
    for name, form in gguf.FORMATS.items():
        if form.is_scalar and name not in ("F32", "F16", "BF16"):
            continue
        if name in ("Q8_1", "Q8_K"):  # these hold activations
            continue
        rng = np.random.default_rng(form.ggml_id + 100)
        data = _stored(rng.standard_normal((ROWS, N), np.float32), name)
        x = shared()["product-random"]
        outlier, zeros = shared()["product-outlier"], np.zeros_like(x)
        inputs = {"random": (x, "Product"), "outlier": (outlier, "Outlier"), "zeros": (zeros, "ZeroInput")}
        for label, (each, flag) in inputs.items():
            limit = bound(gguf.dequantize(data, name), each, max(32, form.values))
            flags = ("Product",) if flag == "Product" else ("Product", flag)
            both = {"bytes": data, "x": each}
            words = {"y": ("max_abs", limit)}
            yield Case(f"product.{name}", "matvec", label, "matvec", both, flags=flags, words=words)
        both = {"bytes": data, "x": x[:-1]}
        yield Case(f"product.{name}", "refuse", "shape", "matvec", both, flags=("BadShape",), result="invalid")


def shared() -> dict[str, np.ndarray]:
    """Inputs of all types, by the names of tensors in inputs.safetensors."""
    x = np.random.default_rng(100).standard_normal(N, np.float32)
    outlier = x.copy()
    outlier[77] = 100
    return {"product-random": x, "product-outlier": outlier}


def bound(W: np.ndarray, x: np.ndarray, block: int) -> float:
    """The largest error that the note explains: W (rows, n), x (n,)."""
    magnitude, x = np.abs(W.astype(np.float64)), np.abs(x.astype(np.float64))
    step = x.reshape(-1, block).max(axis=1) / 127
    lost = np.repeat(step * (0.5 + 127 * 2.0**-11), block)
    return float((magnitude @ lost + UNIT * (x.size + 8) * (magnitude @ x)).max())


def _stored(W: np.ndarray, name: str) -> np.ndarray:
    form = gguf.FORMATS[name]
    if form.is_scalar:
        dtype = {"F32": np.float32, "F16": np.float16}.get(name)
        data = W.astype(dtype) if dtype else (W.view(np.uint32) >> 16).astype(np.uint16)
        return data.view(np.uint8).reshape(len(W), -1)
    ones = np.ones(W.shape[1], np.float32)
    return gguf.quantize(W, name, imatrix=None if form.encode is not None else ones)
