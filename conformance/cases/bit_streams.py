"""Codes of 1 to 8 bits in bytes without gaps, from the low bits up or from the high bits down."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Stream": {
        "kind": "total",
        "description": "Random codes, of which some straddle bytes; the last byte is not full.",
        "effect": "All layouts that pack so hold other weights.",
    },
    "Unfit": {
        "kind": "refusal",
        "description": "A code of more bits, bytes of another number, or no such width or order.",
        "effect": "The spare bits of a code spill into its neighbours.",
    },
}


def cases() -> Iterator[Case]:
    """pack and unpack at every width, unsigned and signed, and what does not fit."""
    for order in ("low", "high", "middle"):
        algorithm = f"bits.{order}"
        for bits in range(10):
            rng = np.random.default_rng(bits)
            width, label = min(max(bits, 1), 8), f"{bits}-bits"
            codes = rng.integers(0, 1 << width, (2, 19)).astype(np.uint8)
            codes[0, 0] = (1 << width) - 1
            signed = (rng.integers(0, 1 << width, (2, 19)) - (1 << width - 1)).astype(np.int8)
            signed[0, 0] = -(1 << width - 1)
            case, packed = judged(algorithm, "pack", label, "pack", {"codes": codes}, {"bits": bits}, "Stream", "Unfit")
            yield case
            yield judged(algorithm, "pack-signed", label, "pack", {"codes": signed}, {"bits": bits}, "Stream", "Unfit")[
                0
            ]
            data = packed.get("bytes", codes)
            for kind in (False, True):
                params = {"bits": bits, "count": 19, "signed": kind}
                name = f"{label}-signed" if kind else label
                yield judged(algorithm, "unpack", name, "unpack", {"bytes": data}, params, "Stream", "Unfit")[0]
    params = {"bits": 3}
    unfit = {
        "one-too-large": np.uint8([0, 8]),
        "largest": np.uint8([0, 7]),
        "too-low": np.int8([0, -5]),
        "lowest": np.int8([-4]),
        "signed-as-unsigned": np.int8([7]),
        "signed-too-large": np.int8([8]),
        "none": np.zeros((2, 0), np.uint8),
        "floats": np.ones(3, np.float32),
        "scalar": np.uint8(3),
        "wide": np.int64([3, 1, 2]),
        "wide-too-large": np.int64([256]),
    }
    for label, codes in unfit.items():
        yield judged("bits.low", "unfit", label, "pack", {"codes": np.asarray(codes)}, params, "Stream", "Unfit")[0]
    data = np.arange(6, dtype=np.uint8)
    for label, bytes_, count in (
        ("short", data[:5], 16),
        ("long", data, 13),
        ("dtype", data.astype(np.int8), 16),
        ("scalar", np.uint8(3), 2),
        ("exact", data, 16),
        ("spare", data, 14),
        ("none", data[:0], 0),
    ):
        given, said = {"bytes": np.asarray(bytes_)}, {"bits": 3, "count": count}
        yield judged("bits.low", "unfit", f"{label}-bytes", "unpack", given, said, "Stream", "Unfit")[0]
