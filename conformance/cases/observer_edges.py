"""Observers where a step of a search, a bin or the sign of a zero decides; some inputs are drawn, known by number."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Found": {
        "kind": "edge",
        "description": "Few numbers, drawn at random, on which two searches part that agree on nearly all others.",
        "effect": "The range of a search is a step too wide or too narrow.",
    },
    "SignedZero": {
        "kind": "edge",
        "description": "A negative zero is the least, or the greatest, of the numbers.",
        "effect": "The end of a range is -0 here and +0 there: bytes differ where values do not.",
    },
    "Many": {
        "kind": "ordinary",
        "description": "More than 10^5 numbers, of which a few are far out on either side.",
        "effect": "A search that leaves out one in 10^5 leaves out nothing, or too much.",
    },
    "Limit": {
        "kind": "edge",
        "description": "The largest setting, the narrowest bins, the numbers whose errors overflow or vanish.",
        "effect": "A count, an index or an error does not fit into its type.",
    },
    "Beyond": {
        "kind": "refusal",
        "description": "One step past the limit, or machines that count in different ways.",
        "effect": "Memory without end, or counts that are added to those of other bins.",
    },
}
FOUND: dict[str, tuple[int, ...]] = {"histogram": (21, 325)}
SCHEMES = ("int2", "uint2", "int3", "uint3", "int4", "int4-asym")
SEARCHES = ("llm-compressor", "gptq", "torchao")


def cases() -> Iterator[Case]:
    """What was found, then what was made."""
    for member, numbers in FOUND.items():
        for number in numbers:
            yield _judged(member, "found", f"{number}", *drawn(member, number), "Found")
    for member in ("min-max", "moving-average", "mean-squared-error"):
        for label, x in {"least": [-0.0, 1, 2, 0.5], "greatest": [-1, -2, -0.0, -0.5]}.items():
            yield _judged(member, "signed-zero", label, {"scheme": "int4-asym"}, [np.float32(x)] * 2, "SignedZero")
        for other in ("int3", "int3-channel1"):
            params = {"scheme": "int3-channel", "merge": 1, "other": {"scheme": other}}
            yield _judged(member, "merge", f"rows-{other}", params, [_rows(1), _rows(2)], "Limit")
    for bins in (70000, 1 << 20, (1 << 20) + 1):
        params = {"scheme": "int4", "bins": bins, "percentile": 75.0}
        yield _judged("percentile", "settings", f"bins-{bins}", params, [np.float32([1, -0.7, 0.3, 0.1])], "Limit")
    flat = [np.full(4, 0.5, np.float32)]
    yield _judged("histogram", "settings", "most-bins", {"scheme": "int4", "bins": 1 << 20, "bits": 2}, flat, "Limit")
    params = {"scheme": "int4", "percentile": 75.0, "bins": 8}
    yield _judged("percentile", "merge", "other-bins", params | {"merge": 1, "other": {"bins": 9}}, flat * 2, "Limit")
    far = [np.float32([1, 0.5]), np.float32([2.0**21 + 0.25, -1])]  # 2^24 + 2 bins of 1/8
    yield _judged("percentile@modelopt", "settings", "too-far", params, far, "Limit")
    share = np.arange(1, 129, dtype=np.float32)  # of 128, 99.99 % is all, 98.99 % is all but one
    yield _judged("percentile", "settings", "plain-many", {"scheme": "int4"}, [share], "Limit")
    overflown = np.float32([-0.61088, -3.98615, 1.75721, -2.03777, -0.28589, 1.07391]) * np.float32(1e16)
    params = {"scheme": "int2", "search": "llm-compressor"}
    yield _judged("mean-squared-error", "scales", "four-infinite-errors", params, [overflown], "Limit")
    params = {"scheme": "uint2", "search": "llm-compressor"}  # the fifth step after the last that helped helps again
    yield _judged("mean-squared-error", "scales", "patience", params, [_rows(0)], "Limit")
    for search in SEARCHES:
        params = {"scheme": "int2", "search": search}
        yield _judged("mean-squared-error", "scales", f"{search}-tiny", params, [np.ldexp(_rows(3), -100)], "Limit")
    far_apart = np.float32([-3.4, 3.4, -3.3, 2.5, 0.5, 0.6, 0.7, -1, 0.1, 3.0, -2.2, 1.5]) * np.float32(1e38)
    for bits in (1, 2, 3):
        params = {"scheme": "int4", "bins": 32, "bits": bits}
        yield _judged("histogram", "settings", f"span-beyond-float32-{bits}", params, [far_apart], "Limit")
    body, sides = many(), np.float32([-9, 7.5, 8])
    for bits in (1, 2, 4):
        params = {"scheme": "uint4", "bins": 32, "bits": bits}
        yield _judged("histogram", "many", f"{bits}", params, [sides, *[body] * 32], "Many")
    merged = {"scheme": "int4", "bins": 8, "percentile": 75.0, "merge": 0}  # more in a bin than 16 bits count
    yield _judged("percentile", "merge", "many", merged, [body] * 16, "Many")
    yield _judged("histogram", "settings", "plain", {"scheme": "uint8"}, [body, sides], "Many")


def shared() -> dict[str, np.ndarray]:
    """The inputs by the names of tensors in inputs.safetensors."""
    return {"many": many()}


def many() -> np.ndarray:
    """4096 numbers, most of them near 0."""
    return (np.random.default_rng(17).integers(-64, 65, 4096) ** 3 / 2.0**16).astype(np.float32)


def drawn(member: str, number: int) -> tuple[dict[str, object], list[np.ndarray]]:
    """Settings and batches number `number` of an observer."""
    rng = np.random.default_rng([len(member), number])
    batches = [_batch(rng) for _ in range(rng.integers(1, 4))]
    params: dict[str, object] = {"scheme": str(rng.choice(SCHEMES))}
    if member == "histogram":
        params |= {"bins": int(rng.choice([4, 8, 12, 16, 32])), "bits": int(rng.integers(1, 4))}
    elif member == "entropy":
        params |= {"bins": int(rng.choice([17, 20, 32, 40])), "bits": int(rng.integers(2, 5))}
    elif member == "entropy@modelopt":
        params |= {"bins": int(rng.choice([130, 160])), "bits": int(rng.integers(2, 5))}
    elif member.startswith("percentile"):
        params |= {"bins": int(rng.choice([2, 8, 17])), "percentile": float(rng.choice([25, 50, 90, 100]))}
    elif member == "mean-squared-error":
        params |= {"search": str(rng.choice(SEARCHES)), "constant": 0.5}
    if len(batches) > 1 and rng.random() < 0.4:
        params["merge"] = int(rng.integers(len(batches)))
    return params, batches


def _batch(rng: np.random.Generator) -> np.ndarray:
    n, kind = int(rng.choice([1, 2, 3, 8, 16])), rng.integers(11)
    normal = rng.standard_normal(n)
    if kind == 0:
        normal = normal**3
    if kind == 1:
        normal = rng.integers(-8, 9, n) / 4
    if kind == 2:
        normal = np.abs(normal)
    if kind == 3:
        normal = np.full(n, rng.choice([0, 0.75, -0.5]))
    if kind == 4:
        normal *= 2.0 ** rng.integers(-30, 30)
    if kind == 5:
        normal = rng.integers(0, 17, n) / 16
    if kind == 6:
        normal = rng.choice([-1, 1, 0.5], n) * 3.4e38
    if kind == 7:
        normal *= 1e-40
    if kind == 8:
        normal[0] = 20
    if kind == 9:
        normal[0] = -20
    return normal.astype(np.float32)


def _rows(seed: int) -> np.ndarray:
    """(2, 8)"""
    return (np.random.default_rng(seed).integers(-24, 25, (2, 8)) / 16).astype(np.float32)


def _judged(
    member: str, group: str, label: str, params: dict[str, object], batches: list[np.ndarray], flag: str
) -> Case:
    inputs = {f"batch{i}": x for i, x in enumerate(batches)}
    return judged(f"observer.{member}", group, label, "range", inputs, params, flag, "Beyond")[0]
