"""Every ggml type: encoders with and without importance, decoders on random bytes."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.arrays import NOTES as INPUTS
from conformance.cases.arrays import inputs, refused
from refquant import gguf
from refquant.errors import QuantError

NOTES = {
    **INPUTS,
    "RandomBytes": {
        "kind": "total",
        "description": "Any bytes are a block: codes, scales and exponents of every value.",
        "effect": "A file of another writer, or a damaged one, decodes differently, or crashes the reader.",
    },
    "Importance": {
        "kind": "ordinary",
        "description": "A weight for each column, as an importance matrix gives.",
        "effect": "Calibrated files differ from those of ggml.",
    },
}


def cases() -> Iterator[Case]:
    """For each type: its encoder on all inputs, its decoder on what it wrote and on random bytes."""
    for name, form in gguf.FORMATS.items():
        algorithm = f"gguf.{name}"
        rng = np.random.default_rng(form.ggml_id)
        if not form.is_scalar:
            for i in range(4):
                data = rng.integers(0, 256, (2, form.block_bytes), np.uint8)
                words = {"values": "exact"}
                yield Case(
                    algorithm, "decode", f"random-{i}", "decode", {"bytes": data}, {}, ("RandomBytes",), words=words
                )
        for label, (flag, x) in inputs(1).items():
            if form.encode is not None and not form.is_scalar and _accepted(x, name):
                yield Case(algorithm, "encode", label, "encode", {"x": x}, flags=(flag,))
            if form.encode_weighted is not None:
                weights = np.abs(rng.standard_normal(x.shape[1], np.float32)) + np.float32(0.01)
                both = {"x": x, "importance": weights}
                if not _accepted(x, name, weights):
                    continue
                yield Case(algorithm, "weighted", label, "encode", both, flags=(flag, "Importance"))
        if form.encode is not None and not form.is_scalar:
            for label, (flag, x) in refused().items():
                if label == "empty":  # no rows are no bytes
                    continue
                yield Case(algorithm, "refuse", label, "encode", {"x": x}, flags=(flag,), result="invalid")
            short = np.ones((2, form.values - 1), np.float32)
            yield Case(algorithm, "refuse", "short-row", "encode", {"x": short}, flags=("BadShape",), result="invalid")


def _accepted(x: np.ndarray, name: str, importance: np.ndarray | None = None) -> bool:
    """Whether the oracle encodes x. Some searches of ggml have no defined result where squares overflow."""
    try:
        gguf.quantize(x, name, imatrix=importance)
    except QuantError:
        return False
    return True
