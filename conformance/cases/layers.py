"""The float parts of a decoder's layer: RMS norm, rotary positions, attention, the gated unit.

References are computed in float64 and stored as float32; a bound says what float32 arithmetic may lose, u = 2^-24.
"""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case

NOTES = {
    "Norm": {
        "kind": "ordinary",
        "description": (
            "A sum of n squares in float32 is off by (n + 1) u at most, its root by half of that; division and weight"
            " add 2 u: ((n + 1) / 2 + 4) u relative, in any order of the sum."
        ),
        "effect": "Every layer starts from scaled activations: a slow drift of all logits.",
    },
    "SmallNorm": {
        "kind": "edge",
        "description": "Activations near 1e-4, where eps decides.",
        "effect": "eps is added outside of the root, or forgotten: quiet tokens explode.",
    },
    "LargeNorm": {
        "kind": "edge",
        "description": "Activations near 1e15, whose squares are 1e30.",
        "effect": "Squares in half precision overflow: a token becomes zeros.",
    },
    "Positions": {
        "kind": "ordinary",
        "description": (
            "Angles pos f_i, f_i = base^(-2 i / d). Multiplying f up pair by pair in float32 loses (i + 2) u of an"
            " angle: at most pos max_i f_i (i + 2) u, plus 4 u for the rotation, times the length of a pair."
        ),
        "effect": "Pairs or signs are swapped: text is fluent at the beginning and falls apart with distance.",
    },
    "Partial": {
        "kind": "edge",
        "description": "Only the first half of each head turns.",
        "effect": "Elements that carry no position are turned as well.",
    },
    "Causal": {
        "kind": "ordinary",
        "description": (
            "Scores of d products are off by e = (d + 2) u scale sum |q k|, weights by 2 e + (T + 4) u relative, the"
            " sum over T tokens by as much again: (2 e + 2 (T + 4) u) max |v|."
        ),
        "effect": "A token sees later ones, or not itself.",
    },
    "Grouped": {
        "kind": "ordinary",
        "description": "Four query heads share each key and value head.",
        "effect": "Query heads read the keys of another group.",
    },
    "LargeScores": {
        "kind": "edge",
        "description": "Scores of some hundreds, whose exponentials overflow unless the largest is subtracted.",
        "effect": "Infinity by infinity: NaN in every later token.",
    },
    "Gate": {
        "kind": "ordinary",
        "description": "silu(g) u, an exponential, a sum, a quotient and a product: 8 u relative.",
        "effect": "Gate and up are swapped, or the activation is another one.",
    },
    "LargeGate": {
        "kind": "edge",
        "description": "Gates of -200 to 200: exp(200) is beyond float32, and silu(-200) is 0.",
        "effect": "Infinity or NaN where the answer is 0.",
    },
}
U = 2.0**-24


def cases() -> Iterator[Case]:
    """Each part on ordinary and on awkward numbers."""
    yield from _norms()
    yield from _positions()
    yield from _attention()
    yield from _gates()


def _norms() -> Iterator[Case]:
    rng = np.random.default_rng(11)
    for n in (16, 64, 100):
        x, weight = rng.standard_normal((3, n), np.float32), rng.uniform(0.5, 2, n).astype(np.float32)
        words = {"y": ("relative", ((n + 1) / 2 + 4) * U)}
        for label, flag, factor in (("random", "Norm", 1), ("small", "SmallNorm", 1e-4), ("large", "LargeNorm", 1e15)):
            given, flags = {"x": x * np.float32(factor), "weight": weight}, tuple(dict.fromkeys(("Norm", flag)))
            params = {"eps": 1e-5}
            yield Case("layer.rms_norm", f"width-{n}", label, "rms_norm", given, params, flags, words=words)


def _positions() -> Iterator[Case]:
    rng = np.random.default_rng(12)
    for style in ("norm", "neox"):
        for label, dims, base in (("base-1e4", 32, 1e4), ("base-1e6", 32, 1e6), ("partial", 16, 1e4)):
            x = rng.standard_normal((4, 2, 32), np.float32)
            positions = np.array([0, 1, 17, 1000], np.int32)
            pairs = np.arange(dims // 2)
            speed = base ** (-2 * pairs / dims)
            limit = (1000 * float((speed * (pairs + 2)).max()) + 4) * U * 2 * float(np.abs(x).max())
            params = {"style": style, "dims": dims, "base": base}
            flags = ("Positions", "Partial") if label == "partial" else ("Positions",)
            given, words = {"x": x, "positions": positions}, {"y": ("max_abs", limit)}
            yield Case("layer.rope", style, label, "rope", given, params, flags, words=words)


def _attention() -> Iterator[Case]:
    rng = np.random.default_rng(13)
    for label, flag, heads, groups, size in (
        ("one-group", "Causal", 2, 2, 1),
        ("grouped", "Grouped", 8, 2, 1),
        ("large-scores", "LargeScores", 2, 1, 12),
    ):
        for past in (0, 3):
            q = rng.standard_normal((5, heads, 16), np.float32) * np.float32(size)
            k = rng.standard_normal((5 + past, groups, 16), np.float32) * np.float32(size)
            v = rng.standard_normal((5 + past, groups, 16), np.float32)
            scale, tokens = 0.25, len(k)
            wide = np.repeat(np.abs(k.astype(np.float64)), heads // groups, axis=1)
            e = 18 * U * scale * float(np.einsum("thd,chd->htc", np.abs(q.astype(np.float64)), wide).max())
            limit = (2 * e + 2 * (tokens + 4) * U) * float(np.abs(v).max())
            given, words = {"q": q, "k": k, "v": v}, {"y": ("max_abs", limit)}
            flags, params = tuple(dict.fromkeys(("Causal", flag))), {"scale": scale}
            name = f"{label}-past-{past}"
            yield Case("layer.attention", "causal", name, "attention", given, params, flags, words=words)


def _gates() -> Iterator[Case]:
    rng = np.random.default_rng(14)
    for label, flag, reach in (("random", "Gate", 4), ("large", "LargeGate", 200)):
        gate = rng.uniform(-reach, reach, (2, 64)).astype(np.float32)
        given = {"gate": gate, "up": rng.standard_normal((2, 64), np.float32)}
        flags, words = tuple(dict.fromkeys(("Gate", flag))), {"y": ("relative", 8 * U)}
        yield Case("layer.swiglu", "gated", label, "swiglu", given, {}, flags, words=words)
