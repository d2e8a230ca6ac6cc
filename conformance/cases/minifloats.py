"""Casts to small floats: every code decoded; encoded is what lies on, next to and between the values."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from refquant import minifloat
from refquant.minifloat import FORMATS, OVERFLOWS

NOTES = {
    "EveryCode": {
        "kind": "total",
        "description": "All codes there are, NaN and infinities among them.",
        "effect": "Stored weights decode to other numbers.",
    },
    "Value": {
        "kind": "ordinary",
        "description": "Every value of the format itself, both zeros among them.",
        "effect": "A cast of what was cast before changes it.",
    },
    "Midpoint": {
        "kind": "tie",
        "description": "The numbers half way between neighbours: ties go to the even code.",
        "effect": "Rounding is biased, and differs between devices.",
    },
    "NearMidpoint": {
        "kind": "edge",
        "description": "The float32 numbers next to a number half way: a double rounding takes them for ties.",
        "effect": "Rounding in two steps (by way of float16 or bfloat16) shows.",
    },
    "Beyond": {
        "kind": "edge",
        "description": "Finite numbers around and above the largest value, and infinities.",
        "effect": "Overflow becomes NaN where it should saturate, or saturates where it should be seen.",
    },
    "NaN": {
        "kind": "edge",
        "description": "NaN of either sign: the quiet NaN of the format, or a refusal where it has none.",
        "effect": "A NaN becomes a number, and hides; or its code is another one.",
    },
    "Random": {
        "kind": "ordinary",
        "description": "Random bits of a float32 that are no NaN: every magnitude there is.",
        "effect": "Ordinary numbers get other codes.",
    },
}


def cases() -> Iterator[Case]:
    """decode of all codes, encode with either way of overflow."""
    for name, fmt in FORMATS.items():
        algorithm, words = f"minifloat.{name}", {"values": "exact"}
        codes = np.arange(1 << fmt.bits, dtype=np.uint8)
        yield Case(algorithm, "decode", "all", "decode", {"codes": codes}, {}, ("EveryCode",), words=words)
        for overflow in OVERFLOWS:
            params = {"overflow": overflow}
            for label, (flag, x) in _inputs(name).items():
                refused = label == "nan" and fmt.nan is None
                result = "invalid" if refused else "valid"
                yield Case(algorithm, overflow, label, "encode", {"x": x}, params, (flag,), result)


def _inputs(name: str) -> dict[str, tuple[str, np.ndarray]]:
    fmt = FORMATS[name]
    values = minifloat.decode(np.arange(1 << fmt.bits, dtype=np.uint8), fmt)
    values = values[np.isfinite(values)]
    ladder = np.unique(values).astype(np.float64)
    middle = ((ladder[:-1] + ladder[1:]) / 2).astype(np.float32)
    top = np.float32(ladder[-1])
    step = np.float32(ladder[-1] - ladder[-2])
    largest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        around = [top + step * np.float32(k) / np.float32(8) for k in range(-4, 13)]
    beyond = np.array([*around, top * np.float32(1.5), largest, np.inf], np.float32)
    beyond = np.unique(beyond)
    signed = name != "e8m0"
    bits = np.random.default_rng(fmt.bits).integers(0, 1 << 32, 256, np.uint32)
    random = bits.view(np.float32)
    random = random[~np.isnan(random)]
    return {
        "values": ("Value", values),
        "midpoints": ("Midpoint", middle),
        "above-midpoints": ("NearMidpoint", np.nextafter(middle, np.float32(np.inf))),
        "below-midpoints": ("NearMidpoint", np.nextafter(middle, np.float32(-np.inf))),
        "beyond": ("Beyond", np.concatenate([beyond, -beyond]) if signed else beyond),
        "random": ("Random", random if signed else np.abs(random)),
        "nan": ("NaN", np.array([np.nan, -np.nan], np.float32)),
    }
