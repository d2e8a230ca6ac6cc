"""Tables of levels: fitted to numbers, or made of a division of bits."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Fit": {
        "kind": "ordinary",
        "description": "Few numbers, some of them equal, with and without weights.",
        "effect": "The levels are those of another clustering: each weight is a little off.",
    },
    "Division": {
        "kind": "ordinary",
        "description": "Another division of the bits into sign, exponent and fraction.",
        "effect": "Optimizer states and scales decode to other numbers.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "A number of levels or bits that there is no table for, weights that weigh nothing.",
        "effect": "A table with holes, or one that was not asked for.",
    },
}


def cases() -> Iterator[Case]:
    """k-means by both algorithms, dynamic maps."""
    for label, given in _data().items():
        for member in ("kmeans-lloyd", "kmeans-optimal"):
            for k in (2, 3, 5, 9):
                yield _judged(member, "fit", f"{label}-{k}", given, {"k": k}, "Fit")
    plain = _data()["plain"]
    for member in ("kmeans-lloyd", "kmeans-optimal"):
        for k in (0, 1, 2, 255, 256, 257):
            yield _judged(member, "sizes", str(k), plain, {"k": k}, "Fit")
        for label, weights in {
            "negative": np.full(16, -1.0), "zeros": np.zeros(16), "nan": np.full(16, np.nan), "short": np.ones(15),
            "one": np.eye(16)[3], "one-negative": np.ones(16) - 1.5 * np.eye(16)[0],
        }.items():  # fmt: skip
            yield _judged(member, "weights", label, {**plain, "weights": weights.astype(np.float32)}, {"k": 3}, "Fit")
    x = np.arange(4097, dtype=np.float32)
    yield _judged("kmeans-optimal", "sizes", "too-many-values", {"x": x}, {"k": 2}, "Fit")
    for n in (0, 1, 2, 3):
        yield _judged("kmeans-lloyd", "iterations", str(n), _data()["weighted"], {"k": 4, "iterations": n}, "Fit")
    for bits in (1, 2, 3, 5, 8, 9):
        for exponent_bits in sorted({0, 1, 2, bits - 2, bits - 1, bits}):
            for signed in (False, True):
                params = {"bits": bits, "exponent_bits": exponent_bits, "signed": signed}
                label = f"{bits}-{exponent_bits}-{'signed' if signed else 'unsigned'}"
                yield _judged("dynamic_map", "division", label, {}, params, "Division")


def _judged(member: str, group: str, label: str, inputs: dict[str, np.ndarray], params: dict, flag: str) -> Case:
    return judged(f"levels.{member}", group, label, "table", inputs, params, flag, "Refused")[0]


def _data() -> dict[str, dict[str, np.ndarray]]:
    plain = np.float32([-3, -2.75, -2.5, -1, -0.75, 0, 0, 0.25, 0.5, 0.5, 1.5, 1.75, 3, 5, 5.5, 9])
    weights = np.float32([1, 0.5, 0, 0.25, 2, 0, 0, 1, 1, 0.125, 4, 0.5, 0, 0.75, 0.25, 0.5])
    return {
        "plain": {"x": plain[[5, 3, 0, 12, 9, 1, 15, 2, 4, 6, 8, 7, 14, 10, 11, 13]]},
        "weighted": {"x": plain, "weights": weights},
        "few": {"x": np.float32([2, 1, 2, 1, -4])},
        "flat": {"x": np.float32([0.75] * 8)},
    }
