"""Blocks on which ggml's searches hang by a thread: each was found by trying many until one fault of the oracle showed.

A block is drawn from its number alone: runs of 8 to 256 weights, each run of one kind and of one scale, or all of the
same scale; importance likewise. The kinds are what searches find hard: few distinct values, ties, one far outlier,
all weights next to equal, subnormals, zeros.
"""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged
from refquant import gguf

NOTES = {
    "Found": {
        "kind": "edge",
        "description": "A block, drawn at random, on which two searches part that agree on nearly all others.",
        "effect": "The search stops a step too early or late, or takes the later of equals: another scale and codes.",
    },
    "Half": {
        "kind": "tie",
        "description": "Half a step, and its two neighbours in float32, above the least weight.",
        "effect": "One half is added in float64: the float32 next below one half is rounded down, not up.",
    },
    "Least": {
        "kind": "edge",
        "description": "The only scale of a block is the least that counts as one; or no weight counts at all.",
        "effect": "A block that should be zero bytes is not, or the other way round.",
    },
    "Unmeasurable": {
        "kind": "refusal",
        "description": "Weights, or importances, so large that every error overflows. ggml aborts.",
        "effect": "A scale of NaN is stored.",
    },
}
FOUND: dict[str, tuple[int, ...]] = {
    "IQ1_M": (
        2006,
        4005,
    ),
    "IQ4_XS": (
        2010,
        2070,
    ),
    "Q3_K": (
        401015,
        459083,
    ),
    "Q4_K": (
        2018,
        3087,
    ),
    "Q5_K": (2155,),
    "Q8_1": (4118,),
    "Q8_K": (2116,),
}  # type -> numbers of blocks
FOUND_WEIGHTED: dict[str, tuple[int, ...]] = {
    "IQ2_XXS": (
        2021,
        301025,
        301036,
        309045,
    ),
    "IQ4_XS": (2004,),
    "Q4_K": (301013,),
    "Q5_K": (2280,),
    "IQ1_S": (51111,),
}
SCALES = (*[1.0] * 8, 1e-3, 1e3, 1e-7, 1e-15, 3e-15, 1e-16, 1e-20, 1e-13, 1e-9, 1e-38, 1e-45, 1e4, 1e10, 1e19, 1e38)


def cases() -> Iterator[Case]:
    """A test for each number."""
    for found, weighted in ((FOUND, False), (FOUND_WEIGHTED, True)):
        for name, numbers in found.items():
            for number in numbers:
                x, importance = drawn(gguf.FORMATS[name].values, number)
                given = {"x": x, "importance": importance} if weighted else {"x": x}
                group = "searches-weighted" if weighted else "searches"
                yield judged(f"gguf.{name}", group, f"{number}", "encode", given, {}, "Found", "Unmeasurable")[0]
    for name, top in (("Q4_1", 15), ("Q5_1", 31)):
        x = np.zeros((1, 32), np.float32)
        x[0, :4] = top, 0.5, *np.nextafter(np.float32(0.5), np.float32([0, 1]))
        yield Case(f"gguf.{name}", "searches", "half", "encode", {"x": x}, flags=("Half",))
    least = np.zeros((1, 256), np.float32)
    least[0, :2] = np.float32(1e-15) * np.float32([-32, 1])  # the only scale is 1e-15
    given = {"x": least, "importance": np.ones(256, np.float32)}
    yield Case("gguf.Q6_K", "searches-weighted", "least-scale", "encode", given, flags=("Least",))
    unimportant = {"x": np.linspace(-1, 1, 256, dtype=np.float32)[None], "importance": np.zeros(256, np.float32)}
    yield Case("gguf.IQ2_XS", "searches-weighted", "unimportant", "encode", unimportant, flags=("Least",))


def drawn(values: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Block `number` of so many weights, (1, values), and the importance of its columns, (values,)."""
    rng = np.random.default_rng([values, number])
    size = min(int(rng.choice([8, 16, 32, 256])), values)
    alike = rng.integers(3) > 0
    scale = rng.choice(SCALES)
    runs = [_run(rng, size) * (scale if alike else rng.choice((*SCALES, 0))) for _ in range(values // size)]
    largest = float(np.finfo(np.float32).max)
    x = np.clip(np.concatenate(runs), -largest, largest).astype(np.float32)
    return x[None], _importance(rng, x)


def _run(rng: np.random.Generator, n: int) -> np.ndarray:
    normal, kind = rng.standard_normal(n), rng.integers(17)
    if kind == 0:
        return normal**3
    if kind == 1:
        return np.abs(normal) * rng.choice([-1, 1])
    if kind == 2:
        return rng.integers(-4, 5, n) / 4
    if kind == 3:
        return rng.integers(-31, 32, n) / 2
    if kind == 4:
        return (np.arange(n) == rng.integers(n)) * rng.uniform(-4, 4)
    if kind == 5:
        return np.full(n, rng.uniform(-2, 2))
    if kind == 6:
        return rng.choice([-1.0, 1.0], n) * rng.uniform(0.1, 2)
    if kind == 7:
        return np.where(np.arange(n) == rng.integers(n), rng.uniform(-8, 8), normal * 0.01)
    if kind == 8:
        return np.zeros(n)
    if kind == 9:
        return rng.choice([0.0, 1.0, -1.0], n)
    if kind == 10:
        return rng.integers(0, 16, n) * 1.0
    if kind == 11:
        return rng.permutation(np.linspace(-1, 1, n))
    if kind == 12:
        return rng.choice([0, 0.5, 1, 2, 3.5, -1.5], n)
    if kind == 13:
        return -rng.uniform(0.5, 4) * (1 + rng.integers(-3, 4, n) * 2.0**-23)
    if kind == 14:
        return np.where(rng.random(n) < 0.5, normal, rng.choice([-1, 1], n) * 10.0 ** -rng.integers(36, 45))
    if kind == 15:
        return rng.integers(-2, 3, n) * rng.uniform(0.1, 2) + normal * 1e-6
    return normal


def _importance(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    share, kind = rng.random(x.size), rng.integers(12)
    if kind == 0:
        return np.ones(x.size, np.float32)
    if kind == 1:
        return (share < rng.choice([0.1, 0.5])).astype(np.float32)
    if kind == 2:  # some runs do not count
        share *= np.repeat(rng.random(x.size // 8) < 0.6, 8)
    if kind == 3:
        share *= rng.choice([1e-38, 1e-30, 1e-20, 1e10, 1e20, 1e30, 1e38])
    if kind == 4:
        share = 10 ** rng.uniform(-6, 6, x.size)
    if kind == 5:
        share = (np.arange(x.size) == rng.integers(x.size)) * 1.0
    if kind == 6:
        share *= 0
    if kind in (7, 8):  # only the least weights count
        share = (np.abs(x) < np.abs(x).max() * rng.choice([1e-30, 1e-3, 0.5])) * rng.choice([1, 1, 1e-30, 1e20])
    return share.astype(np.float32)
