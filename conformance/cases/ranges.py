"""Observers at their edges: settings that are refused, few numbers with known answers, machines that merge."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Few": {
        "kind": "ordinary",
        "description": "Eight to 64 numbers, chosen so that the ends, the bins and the shares can be told.",
        "effect": "A bin, a step of the search or one end is off by one.",
    },
    "Merged": {
        "kind": "ordinary",
        "description": "Two observers, each with some of the batches, of which one takes over what the other saw.",
        "effect": "Machines that calibrate together do not agree with one that calibrates alone.",
    },
    "Settings": {
        "kind": "refusal",
        "description": "A setting out of range, a word that means nothing, or observers with different settings.",
        "effect": "A range from another observer than was asked for.",
    },
}
EDGES: dict[str, list[dict[str, object]]] = {
    "moving-average": [{"constant": c} for c in (0, 1, 1.5, -0.5)] + [{}],
    "percentile": [{"percentile": p} for p in (0, 0.5, 50, 100, 100.5)] + [{"bins": n} for n in (1, 2, 3)] + [{}],
    "percentile@modelopt": [{"percentile": 50}, {"percentile": 100, "bins": 2}],
    "percentile@nonsense": [{}],
    "entropy": [
        *({"bits": bits, "bins": 260} for bits in (0, 1, 2, 8, 9)),
        *({"bits": 2, "bins": bins} for bins in (3, 4, 5, 6, 16)),
        {"bits": 3, "bins": 8},
        {"bits": 3, "bins": 9},
        {"bits": 2, "signed": False, "bins": 8},
        {"bits": 9, "bins": 600},
        {},
    ],
    "entropy@modelopt": [{"bits": 2, "bins": 160}, {"bits": 7, "bins": 160}],
    "entropy@nonsense": [{}],
    "histogram": [
        *({"bins": bins, "bits": 16} for bins in (1, 2)),
        *({"bins": 16, "bits": bits} for bits in (0, 1, 16, 17)),
        {"bins": (1 << 20) + 1},
    ],
    "mean-squared-error": [
        *({"constant": c} for c in (0, 0.25, 1, 1.5)),
        *({"search": word} for word in ("gptq", "torchao", "nonsense")),
        {},
    ],
}
WIDE = ("int3", "uint3")
SEARCHED = ("three", "far-apart", "flat")  # a search has up to 10^5 steps: few of them


def cases() -> Iterator[Case]:
    """Settings on few numbers, merges, data that is hard for counts and searches."""
    for member, tries in EDGES.items():
        for settings in tries:
            label = "-".join(f"{k}-{v}" for k, v in settings.items()) or "plain"
            yield _judged(member, "settings", label, _batches()["two"], {"scheme": "int4", **settings})
    kept = {
        "min-max": {},
        "moving-average": {"constant": 0.25},
        "percentile": {"percentile": 75.0, "bins": 8},
        "percentile@modelopt": {"percentile": 75.0, "bins": 8},
        "entropy": {"bits": 2, "bins": 16},
        "entropy@modelopt": {"bits": 2, "bins": 160},
        "histogram": {"bins": 16, "bits": 2},
        "mean-squared-error": {"constant": 0.25},
    }
    other = {
        "min-max": {"scheme": "int3-channel"},
        "moving-average": {"constant": 0.5},
        "entropy": {"bits": 3},
        "percentile": {"percentile": 50.0},
        "histogram": {"bins": 17},
        "mean-squared-error": {"constant": 0.5},
    }
    for member, settings in kept.items():
        for scheme in WIDE[member in ("histogram", "entropy@modelopt") :]:
            for label, batches in _batches().items():
                if member == "histogram" and label not in SEARCHED:
                    continue
                yield _judged(member, f"few-{scheme}", label, batches, {"scheme": scheme, **settings})
        for at in (1, 3) if member == "histogram" else (0, 1, 2, 3):
            merged = {"scheme": "uint3", **settings, "merge": at}
            yield _judged(member, "merge", f"at-{at}", _batches()["three"], merged)
        merged = {"scheme": "uint3", **settings, "merge": 1}
        yield _judged(member, "merge", "narrower", _batches()["three"][::-1], merged)
        if member in other:
            yield _judged(member, "merge", "other", _batches()["three"], {**merged, "other": other[member]})
        yield _judged(member, "merge", "nothing", [], {"scheme": "uint3", **settings, "merge": 0})
    yield _judged("min-max", "settings", "shapes", [np.ones((2, 3), np.float32), np.ones((3, 3), np.float32)],
                  {"scheme": "int4-channel"})  # fmt: skip
    wide = np.float32([0.3, 1.7, -2048.5, 1000, 512.25, 3, 4, -7])  # into 2048 bins of 2, or 2049 of 1
    for member in ("entropy", "percentile"):
        yield _judged(member, "settings", "plain-wide", [wide], {"scheme": "int4"})
    params = {"scheme": "uint3", "bins": 160, "bits": 7}
    yield _judged("entropy@modelopt", "search", "pairs", [_pairs()], params)
    for scheme in ("int1", "nf4", "uint4-zmin", "uint1", "int4-zfloat-asym", "int4-stochastic"):
        for member in ("min-max", "mean-squared-error"):
            yield _judged(member, "settings", scheme, _batches()["two"], {"scheme": scheme})
    rows = [x.reshape(2, -1)[:, :4] for x in _batches()["three"]]
    for member in ("min-max", "moving-average", "mean-squared-error"):
        for scheme in ("int3-channel", "uint3-channel1", "int3-g2"):
            yield _judged(member, "rows", scheme, rows, {"scheme": scheme})
    for search in ("llm-compressor", "gptq", "torchao"):
        for label, x in _searched().items():
            for scheme in ("int2-channel", "uint2-channel", "int3", "uint3"):
                params = {"scheme": scheme, "search": search}
                yield _judged("mean-squared-error", f"search-{search}", f"{label}-{scheme}", [x], params)
    for label, x in _counted().items():
        yield _judged("histogram", "search", label, x, {"scheme": "uint3", "bins": 32, "bits": 2})
        for bits in (1, 2, 3):
            yield _judged("entropy", "search", f"{label}-{bits}", x, {"scheme": "uint3", "bins": 32, "bits": bits + 1})
        yield _judged("entropy@modelopt", "search", label, x, {"scheme": "uint3", "bins": 160, "bits": 3})
        for percentile in (25.0, 90.0, 100.0):
            for member in ("percentile", "percentile@modelopt"):
                params = {"scheme": "uint3", "bins": 32, "percentile": percentile}
                yield _judged(member, "search", f"{label}-{percentile:g}", x, params)


def _judged(member: str, group: str, label: str, batches: list[np.ndarray], params: dict[str, object]) -> Case:
    flag = {"merge": "Merged"}.get(group, "Few")
    inputs = {f"batch{i}": x for i, x in enumerate(batches)}
    return judged(f"observer.{member}", group, label, "range", inputs, params, flag, "Settings")[0]


def _batches() -> dict[str, list[np.ndarray]]:
    """Eight numbers each, the second batch wider than the first and the third narrower."""
    first = np.float32([-0.75, 0.5, 0.25, -0.125, 1, 0.625, -0.25, 0.375])
    second = np.float32([3, -2.5, 0.5, 0.25, -0.75, 1.25, 2.0, -0.0])
    third = np.float32([0.5, 0.25, 0.125, 0.75, -0.25, 0.0, 0.375, 0.0625])
    return {
        "one": [second],
        "two": [first, second],
        "three": [first, second, third],
        "positive": [np.abs(first), np.abs(second)],
        "negative": [-np.abs(first)],
        "flat-then-wide": [np.full(8, 0.75, np.float32), second],
        "zeros-then-wide": [np.zeros(8, np.float32), second],
        "far-apart": [first * np.float32(2.0**-140), first, first * np.float32(2.0**100)],
        "huge": [first * np.float32(3.4e38)],
        "flat": [np.full(8, -0.75, np.float32)],
    }


def _searched() -> dict[str, np.ndarray]:
    """(2, 16): rows whose best ranges differ, with outliers that a search cuts off."""
    rng = np.random.default_rng(31)
    x = (rng.integers(-24, 25, (2, 16)) / 16).astype(np.float32)
    outliers, sided = x.copy(), np.abs(x)
    outliers[0, 3], outliers[1, 7] = 4, -2.5
    sided[1] *= -2
    zeros = x.copy()
    zeros[1] = 0
    return {"even": x, "outliers": outliers, "sided": sided, "zeros": zeros}


def _counted() -> dict[str, list[np.ndarray]]:
    """64 numbers in uneven heaps: searches over bins have to choose."""
    rng = np.random.default_rng(33)
    heavy = (rng.standard_normal(64) ** 3).astype(np.float32)
    heaps = np.repeat(np.float32([0.1, 0.2, 0.45, 0.7, 1.5, -0.3, -0.9, 3.1]), [20, 12, 10, 8, 6, 4, 3, 1])
    rising = (np.arange(1, 65) ** 2 / 64).astype(np.float32)
    return {"heavy": [heavy], "heaps": [heaps], "rising": [rising], "both": [heaps, heavy, rising[:40] - 9]}


def _pairs() -> np.ndarray:
    """Pairs of bins of 1/16 with equal counts, up to bin 127, and one number in bin 160: 128 bins suit best."""
    counts = np.repeat(np.arange(64) % 3 + 1, 2)
    return np.append((np.repeat(np.arange(128), counts) + 0.5) / 16, -10).astype(np.float32)
