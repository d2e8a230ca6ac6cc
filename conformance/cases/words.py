"""Codes in 32-bit words, dense, aligned and in planes, and in ONNX tensors of 2 and 4 bits."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Words": {
        "kind": "total",
        "description": "Random codes of every width; the last word is not full where it need not be.",
        "effect": "Weights come back in another order, or mixed with their neighbours.",
    },
    "Misfit": {
        "kind": "refusal",
        "description": "A code of more bits, words of another number or dtype, or no such width.",
        "effect": "The spare bits of a code spill into its neighbours, or rows of another length are read.",
    },
}
COUNTS = {"dense": (35, 32), "aligned": (35, 32), "planar": (64, 33)}


def cases() -> Iterator[Case]:
    """pack and unpack of each kind, then what does not fit."""
    yield from _tensors()
    for member, counts in COUNTS.items():
        algorithm = f"words.{member}"
        for bits in range(1, 9):
            for n in counts:
                codes = np.random.default_rng(bits).integers(0, 1 << bits, (2, n), dtype=np.uint8)
                codes[0, 0], name = (1 << bits) - 1, f"{bits}-bits-{n}"
                case, made = judged(
                    algorithm, "pack", name, "pack", {"codes": codes}, {"bits": bits}, "Words", "Misfit"
                )
                yield case
                if made:
                    yield _unpacked(algorithm, "unpack", name, made["words"], bits, n)
        yield from _misfits(algorithm)


def _misfits(algorithm: str) -> Iterator[Case]:
    for bits in (3, 4):
        for label, codes in (("one-bit-more", 1 << bits), ("largest", (1 << bits) - 1)):
            given = {"codes": np.full((1, 32), codes, np.uint8)}
            yield judged(algorithm, "misfit", f"{label}-{bits}", "pack", given, {"bits": bits}, "Words", "Misfit")[0]
    yield judged(algorithm, "misfit", "no-codes", "pack", {"codes": np.zeros((2, 0), np.uint8)}, {"bits": 4}, "Words")[
        0
    ]
    words = np.arange(-3, 9, dtype=np.int32).reshape(3, 4) * np.int32(0x1234567)
    for label, given, count in (
        ("whole", words, 32),
        ("unsigned", words.view(np.uint32), 32),
        ("short", words[:, :3], 32),
        ("long", words, 24),
        ("spare", words, 31),
        ("one-row", words[0], 32),
        ("scalar", words[0, 0], 8),
        ("int64", words.astype(np.int64), 32),
        ("floats", words.astype(np.float32), 32),
        ("columns", np.asfortranarray(words), 32),
        ("deep", words[None], 32),
    ):
        yield _unpacked(algorithm, "misfit", label, np.asarray(given), 4, count)


def _unpacked(algorithm: str, group: str, name: str, words: np.ndarray, bits: int, count: int) -> Case:
    return judged(
        algorithm, group, name, "unpack", {"words": words}, {"bits": bits, "count": count}, "Words", "Misfit"
    )[0]


def _tensors() -> Iterator[Case]:
    codes = np.random.default_rng(9).integers(0, 16, 15, dtype=np.uint8)
    for label, values, params in (
        ("4-bits", codes, {"bits": 4}),
        ("2-bits", codes & 3, {"bits": 2}),
        ("4-bits-said-by-none", codes, {}),
        ("matrix", codes.reshape(3, 5), {"bits": 4}),
        ("signed", (codes - 8).astype(np.int8), {"bits": 4}),
        ("too-large", codes + np.uint8(1), {"bits": 4}),
    ):
        case, made = judged("tensor.onnx", "pack", label, "pack", {"codes": values}, params, "Words", "Misfit")
        yield case
        for signed in (False, True) if made else ():
            said = params | {"shape": list(values.shape), "signed": signed}
            name = f"{label}-as-signed" if signed else label
            yield judged("tensor.onnx", "unpack", name, "unpack", {"bytes": made["bytes"]}, said, "Words", "Misfit")[0]
    data = np.arange(8, dtype=np.uint8)
    for label, given, said in (
        ("unsaid-sign", data, {"shape": [16]}),
        ("short", data[:7], {"shape": [3, 5]}),
        ("long", data, {"shape": [2, 7]}),
        ("int8", data.view(np.int8), {"shape": [16]}),
        ("3-bits", data[:6], {"shape": [16], "bits": 3}),
        ("5-bits", np.tile(data, 2)[:10], {"shape": [16], "bits": 5}),
        ("8-bits", data, {"shape": [8], "bits": 8}),
        ("2-bits", data[:4], {"shape": [16], "bits": 2}),
        ("negative", data, {"shape": [-4, -4]}),
        ("one-negative", data[:0], {"shape": [-1, 0]}),
        ("none", data[:0], {"shape": [0, 4]}),
        ("scalar", data[:1], {"shape": []}),
        ("matrix-of-bytes", data.reshape(2, 4), {"shape": [16]}),
    ):
        yield judged("tensor.onnx", "misfit", label, "unpack", {"bytes": given}, said, "Words", "Misfit")[0]
