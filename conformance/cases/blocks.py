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


SCALARS = np.array(
    [
        0x0,
        0x80000000,
        0x3F800000,
        0xBF808000,
        0x3F818000,
        0x3F818001,
        0x3F817FFF,
        0x3F7FFFFF,
        0x7F7FFFFF,
        0xFF7F7FFF,
        0x7F7F8000,
        0x477FE000,
        0x477FEFFF,
        0x477FF000,
        0x33800000,
        0x33000000,
        0x33000001,
        0x33C00000,
        0x387FC000,
        0x387FE000,
        0x80000001,
        0x00008000,
        0x00018000,
        0x3F801000,
        0x3F803000,
        0xC2F6E979,
    ],
    np.uint32,
).view(np.float32)  # ties of float16 and bfloat16 and their neighbours, the largest and the least of each


def cases() -> Iterator[Case]:
    """For each type: its encoder on all inputs, its decoder on what it wrote and on random bytes."""
    yield from _scalars()
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


def _scalars() -> Iterator[Case]:
    """Types of one value: every exponent decoded, ties encoded, and of integers the lowest and the highest."""
    for name, form in gguf.FORMATS.items():
        if not form.is_scalar:
            continue
        algorithm, rng = f"gguf.{name}", np.random.default_rng(form.ggml_id)
        least, most = (
            np.uint8([[0] * (form.block_bytes - 1) + [0x80]]),
            np.uint8([[255] * (form.block_bytes - 1) + [127]]),
        )
        data = {"random": rng.integers(0, 256, (2, 8 * form.block_bytes), np.uint8), "limits": np.hstack([least, most])}
        if name in ("F16", "BF16"):
            high = np.arange(256, dtype=np.uint16) << np.uint16(8)
            data["exponents"] = (high + np.uint16([[1], [0]])).view(np.uint8)
        if name in ("I64", "F64"):  # ties of float32
            ties = np.array([2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**53 + 2**29, 3], np.int64)
            ties = ties.astype(np.float64) if name == "F64" else ties
            data["ties"] = ties.view(np.uint8)[None]
        words = {"values": "exact"}
        for label, each in data.items():
            yield Case(algorithm, "decode", label, "decode", {"bytes": each}, {}, ("RandomBytes",), words=words)
        if form.encode is not None:
            yield Case(algorithm, "encode", "ties", "encode", {"x": SCALARS.reshape(2, -1)}, {}, ("Tie",))
            for label, (flag, x) in refused().items():
                if label != "empty":
                    yield Case(algorithm, "refuse", label, "encode", {"x": x}, flags=(flag,), result="invalid")


def _accepted(x: np.ndarray, name: str, importance: np.ndarray | None = None) -> bool:
    """Whether the oracle encodes x. Some searches of ggml have no defined result where squares overflow."""
    try:
        gguf.quantize(x, name, imatrix=importance)
    except QuantError:
        return False
    return True
