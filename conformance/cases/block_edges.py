"""ggml's encoders on what decides between two branches: weights that are flipped, that do not count, that vanish."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged
from refquant import gguf

NOTES = {
    "Flipped": {
        "kind": "edge",
        "description": "Important weights near 0, of which a format that stores seven of eight signs flips some.",
        "effect": "The scale comes out negative and its sign is lost: the block decodes with all signs wrong.",
    },
    "Unimportant": {
        "kind": "edge",
        "description": "A block whose importance is 0 throughout, after one that counts.",
        "effect": "A division by nothing, or codes of a block that has no scale.",
    },
    "Least": {
        "kind": "edge",
        "description": "A group of the least numbers that float32 has, beside ordinary ones.",
        "effect": "Underflow makes a scale of 0 that is divided by.",
    },
    "Several": {
        "kind": "ordinary",
        "description": "Six blocks: Gaussian, heavy-tailed, uniform, of one sign, nearly constant, sparse.",
        "effect": "Sums that are rounded in another order, or in another width, show in some of them.",
    },
    "HalfCode": {
        "kind": "tie",
        "description": "Scales next below one half of the least that can be stored.",
        "effect": "A sum that is not rounded to float32 gives 0 instead of the least scale.",
    },
}


def cases() -> Iterator[Case]:
    """Every encoder, with importance and without."""
    for name, form in gguf.FORMATS.items():
        if form.is_scalar:
            continue
        for label, (flag, x, importance) in _inputs().items():
            if (label == "half-code") != (name == "NVFP4") and label == "half-code":
                continue
            ways = {}
            if form.encode is not None and label not in ("flipped", "unimportant"):
                ways["edges"] = {"x": x}
            if form.encode_weighted is not None and label != "half-code":
                ways["edges-weighted"] = {"x": x, "importance": importance}
            for group, given in ways.items():
                yield judged(f"gguf.{name}", group, label, "encode", given, {}, flag)[0]


def shared() -> dict[str, np.ndarray]:
    """The inputs by the names of tensors in inputs.safetensors."""
    made = _inputs()
    return {f"edge-{label}": x for label, (_, x, _) in made.items()} | {
        f"importance-{label}": importance for label, (_, _, importance) in made.items()
    }


def _inputs() -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Label -> (flag, x, importance)."""
    rng = np.random.default_rng(71)
    flipped = rng.standard_normal((1, 512), np.float32)
    flipped[:, ::8] *= np.float32(1e-3)
    great = np.where(np.arange(512) % 8, 2, 1e6).astype(np.float32)
    two = rng.standard_normal((1, 512), np.float32)
    none = np.where(np.arange(512) < 256, rng.uniform(0.1, 2, 512), 0).astype(np.float32)
    least = rng.standard_normal((1, 512), np.float32)
    least[0, 32:64] = rng.choice(np.float32([1e-45, -1e-45, 0]), 32)
    least[0, 256:] = rng.choice(np.float32([1e-45, -1e-45]), 256)
    half = np.nextafter(np.float32(2.0**-10), np.float32(0)) * np.float32(6)
    halves = (rng.uniform(-1, 1, (1, 256)) * half).astype(np.float32)
    halves[0, ::16] = half
    ordinary = rng.uniform(0.1, 3, 512).astype(np.float32)
    return {
        "flipped": ("Flipped", flipped, great),
        "unimportant": ("Unimportant", two, none),
        "least": ("Least", least, ordinary),
        "half-code": ("HalfCode", halves, ordinary[:256]),
        "zeros": (
            "Least",
            np.concatenate([np.zeros((1, 256)), np.eye(1, 256, 77)], axis=1).astype(np.float32),
            ordinary,
        ),
        "last-trial": ("Several", _last_trials().reshape(1, 512), ordinary),
        "vanishing": ("Least", (rng.uniform(-0.9e-15, 0.9e-15, (1, 512))).astype(np.float32), ordinary),
        "half-step": ("HalfCode", _half_steps(), ordinary[:256]),
        "several": ("Several", _several(rng), rng.gamma(0.7, 1, 1536).astype(np.float32)),
    }


def _several(rng: np.random.Generator) -> np.ndarray:
    """(1, 1536): a block of each kind."""
    shape = (1, 256)
    normal = rng.standard_normal((4, *shape))
    kinds = [
        normal[0],
        normal[1] ** 3 * 0.01,
        rng.uniform(-1, 1, shape) * 37,
        np.abs(normal[2]) + 0.1,
        0.3 + 0.01 * normal[3],
        np.where(rng.random(shape) < 0.2, rng.standard_normal(shape), 0) * 1e-3,
    ]
    return np.concatenate(kinds).astype(np.float32).reshape(1, -1)


def _half_steps() -> np.ndarray:
    """(1, 256): runs of 32 from 0 to 15 or 31, and the number next below 1/2, to which 1/2 is added."""
    below = np.nextafter(np.float32(0.5), np.float32(0))
    runs = [np.resize(np.float32([0, top, below, 1 + below, 2 + below, top - below]), 32) for top in (15, 31) * 4]
    return np.concatenate(runs)[None]


def _last_trials() -> np.ndarray:
    """Two blocks of many, for which the searches of Q5_K and of Q4_K keep the last scale that they try."""
    rng = np.random.default_rng(4)
    normal, cubes = rng.standard_normal((60, 256)), rng.standard_normal((40, 256)) ** 3
    uniform, positive = rng.uniform(-1, 1, (40, 256)), np.abs(rng.standard_normal((40, 256)))
    return np.concatenate([normal, cubes, uniform, positive]).astype(np.float32)[[147, 152]]
