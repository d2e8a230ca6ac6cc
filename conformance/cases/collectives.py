"""ZeRO++: what every rank ends with when weights and gradients are sent in few bits, and the bytes that went."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Ranks": {
        "kind": "ordinary",
        "description": "Ranks of one node or of several, each with numbers of its own.",
        "effect": "Ranks end with different weights, or with the sum of another chunk: training diverges.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "Arrays of different lengths; ranks that make no whole nodes, or lengths no whole chunks.",
        "effect": "A rank waits for bytes that never come, or a chunk is lost.",
    },
}


def cases() -> Iterator[Case]:
    """Gathering and reducing."""
    for label, (ranks, n, params) in {
        "usual": (2, 256, {}), "one": (1, 256, {}), "three": (3, 8, {"scheme": "int4-b4"}),
        "asymmetric": (2, 8, {"scheme": "uint3-g4"}),
    }.items():  # fmt: skip
        yield _judged("gather", label, "all_gather", _ranks(ranks, n), params)
    for label, (ranks, n, params) in {
        "usual": (2, 512, {"local": 2}), "one-node": (4, 16, {"local": 4, "scheme": "int4-b4"}),
        "two-nodes": (4, 16, {"local": 2, "scheme": "int4-b4"}), "alone": (4, 16, {"local": 1, "scheme": "int4-b4"}),
        "two-of-three": (6, 24, {"local": 3, "scheme": "int4-b2"}), "three-of-two": (6, 24, {"local": 2,
        "scheme": "int8-b4"}),
        "single": (1, 8, {"local": 1, "scheme": "int3-b4"}), "no-nodes": (4, 16, {"local": 3, "scheme": "int4-b4"}),
        "no-rank": (2, 16, {"local": 0, "scheme": "int4-b4"}), "minus": (2, 16, {"local": -1, "scheme": "int4-b4"}),
        "no-chunks": (4, 18, {"local": 2, "scheme": "int4-token"}), "many": (2, 16, {"local": 4, "scheme": "int4-b4"}),
        "by-rank": (2, 16, {"local": 2, "scheme": "uint4-token"}),
    }.items():  # fmt: skip
        yield _judged("scatter", label, "reduce_scatter", _ranks(ranks, n), params)
    good = _ranks(2, 8)
    for label, ranks in {
        "none": {}, "lengths": {**good, "rank1": good["rank1"][:4]}, "matrix": {"rank0": good["rank0"].reshape(2, 4)},
        "nan": {**good, "rank1": good["rank1"] * np.float32(np.nan)},
        "both-matrices": {name: x.reshape(2, 4) for name, x in good.items()},
    }.items():  # fmt: skip
        for op, params in (("all_gather", {}), ("reduce_scatter", {"local": 1})):
            yield _judged("checks", f"{label}-{op}", op, ranks, {**params, "scheme": "int4-b4"})


def _judged(group: str, label: str, op: str, inputs: dict[str, np.ndarray], params: dict[str, object]) -> Case:
    return judged("collective.zero_plus_plus", group, label, op, inputs, params, "Ranks", "Refused")[0]


def _ranks(ranks: int, n: int) -> dict[str, np.ndarray]:
    """Eighths, those of later ranks larger."""
    rng = np.random.default_rng([81, ranks, n])
    return {f"rank{i}": (rng.integers(-20, 21, n) * (i + 1) / 8).astype(np.float32) for i in range(ranks)}
