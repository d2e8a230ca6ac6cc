"""ggml's encoders on blocks whose scale is one, where codes are tied or nearly so, and on what else they find hard."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged
from refquant import gguf

NOTES = {
    "Steps": {
        "kind": "tie",
        "description": "The scale is 1, the numbers lie half way between codes, or one unit in the last place beside.",
        "effect": "A sum that is rounded, or an arithmetic of another width, shows as another code.",
    },
    "Scales": {
        "kind": "edge",
        "description": "Runs of 16 and 32 numbers whose sizes differ by powers of two, some of them zeros.",
        "effect": "The scale of one run decides the scales of its neighbours: they clip or vanish.",
    },
    "Threshold": {
        "kind": "edge",
        "description": "Numbers around 1e-15, below which ggml calls a group zero, and around the least float16.",
        "effect": "Almost empty groups get other scales, of which some are infinite.",
    },
    "HalfRange": {
        "kind": "edge",
        "description": "Scales past the largest float16, in one run of a block.",
        "effect": "An infinite scale is stored otherwise, or spoils other runs.",
    },
}


WEIGHTED = ("steps-8", "sizes", "grid", "small", "two-blocks", "half-huge", "threshold")


def cases() -> Iterator[Case]:
    """Every encoder on each input, with and without importance."""
    for name, form in gguf.FORMATS.items():
        if form.is_scalar:
            continue
        if name.endswith("FP4"):
            data = np.random.default_rng(4).integers(0, 256, (8, form.block_bytes), np.uint8)
            data[:, 0] = (0, 1, 126, 127, 128, 200, 254, 255)  # the scale of each block, or the first of four
            yield Case(
                f"gguf.{name}",
                "decode-scales",
                "ends",
                "decode",
                {"bytes": data},
                {},
                ("Scales",),
                words={"values": "exact"},
            )
        for label, (flag, x) in _inputs().items():
            ways = {"encode": {"x": x}} if form.encode is not None else {}
            if form.encode_weighted is not None and label in WEIGHTED:
                ways["weighted"] = {"x": x, "importance": _importance()}
            if label.startswith("ladder") and not name.endswith("FP4"):
                continue
            for group, given in ways.items():
                yield judged(f"gguf.{name}", f"{group}-steps", label, "encode", given, {}, flag)[0]


def shared() -> dict[str, np.ndarray]:
    """The inputs by the names of tensors in inputs.safetensors."""
    return {name: x for name, (_, x) in _inputs().items()} | {"importance-steps": _importance()}


def _importance() -> np.ndarray:
    weights = np.random.default_rng(21).uniform(0.01, 4, 256).astype(np.float32)
    weights[64:96] = 0
    weights[128:160] = np.where(np.arange(32) == 12, weights[128:160], 0)
    return weights


def _inputs() -> dict[str, tuple[str, np.ndarray]]:
    rng = np.random.default_rng(20)
    sizes = rng.standard_normal(256, np.float32) * np.repeat(np.float32(2.0) ** rng.integers(-12, 12, 16), 16).astype(
        np.float32
    )
    sizes[32:48], sizes[96:128] = 0, 0
    least = (
        np.repeat([1e-15, 2e-15, 0.9e-15, 1e-12, 1e-7, 6e-8, 3e-8, 1e-8], 32) * rng.choice([-1, 1, 0.5], 256)
    ).astype(np.float32)
    half = rng.standard_normal(256, np.float32)
    half[64:96] *= np.float32(1e7)
    grid = rng.integers(-8, 9, 256).astype(np.float32)
    ladder = np.repeat(np.float32([*range(1, 14), 458752, 471040, 471041]) / np.float32(1024 / 6), 16)
    ladder = (ladder * rng.choice(np.float32([-1, 1, 0.5, 0.25]), 256)).astype(np.float32)
    ladder[::16] = np.float32([*range(1, 14), 458752, 471040, 471041]) / np.float32(1024 / 6)
    run = (rng.integers(-7, 8, 16) / 8).astype(np.float32)
    run[0] = 1  # the extreme of the block, and of every other run; the others have its negative
    mirrored = np.concatenate([run, -run] * 8)
    beside = np.float32(
        [k + d for k in (1, 3, 7, 9, 13) for d in (-1e-3, 1e-3)] + [1 << 17, 2e5, 262143, 262144, 5e5, 1e6]
    )
    below = np.repeat(beside / np.float32(1024 / 6), 16) * rng.choice(np.float32([-1, 1, 0.5, 0.25]), 256)
    below[::16] = beside / np.float32(1024 / 6)
    small = (rng.standard_normal(256) / 1000).astype(np.float32)
    huge = rng.standard_normal(256, np.float32)
    huge[96:128] *= np.float32(1e30)
    pair = np.stack([huge * np.float32(0.01), np.roll(small, 5) ** 3 * np.float32(1e7)])
    pair[0, 96:128] = huge[:32] ** 3
    found = {f"steps-{top}": ("Steps", _steps(top)) for top in (1, 7, 8, 15, 16, 31, 63, 127)}
    return found | {
        "sizes": ("Scales", sizes[None]),
        "threshold": ("Threshold", least[None]),
        "half-range": ("HalfRange", half[None]),
        "grid": ("Steps", grid[None]),
        "ladder": ("Scales", ladder[None]),
        "ladder-beside": ("Scales", below.reshape(1, 256)),
        "small": ("Scales", small[None]),
        "two-blocks": ("Scales", pair),
        "half-huge": ("HalfRange", huge[None]),
        "mirrored": ("Scales", mirrored.reshape(1, 256)),
    }


def _steps(top: int) -> np.ndarray:
    """(1, 256): runs of 32 from -top to top, from 0 to top, and from -top to top - 1."""
    rng = np.random.default_rng(top)
    runs = []
    for low, high in ((-top, top - 1), (0, top), (-top, top), (1 - top, top)) * 2:
        ties = rng.integers(low, max(high, low + 1), 10) + 0.5
        near = np.concatenate([ties[:5], ties[:5], ties]).astype(np.float32)
        near[:5] = np.nextafter(near[:5], np.float32(-999))
        near[5:10] = np.nextafter(near[5:10], np.float32(999))
        whole = rng.integers(low, high + 1, 10).astype(np.float32)
        run = np.concatenate([np.float32([low, high]), near, whole])
        order = rng.permutation(32)
        runs.append(run[order])
    return np.concatenate(runs)[None].astype(np.float32)
