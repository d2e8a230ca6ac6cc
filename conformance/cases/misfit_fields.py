"""Records of checkpoints of which one field does not fit the others, each alone."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case, float_weights, linear_weights
from conformance.cases.judgement import judged
from conformance.cases.record_fields import fields_of
from refquant.layouts import Floating, Linear


def misfits() -> Iterator[Case]:
    """Fields that do not fit together, each alone."""
    tries: dict[str, tuple[Linear | Floating, dict[str, list[object]]]] = {
        "pack-quantized": (
            linear_weights.weight(4),
            {
                "bits": [0, 9, 3, 8],
                "dtype": ["float64", "bfloat16"],
                "group_size": [0, 1, 15, 17],
                "shape": [[4, 64], [3, 5]],
                "codes": [
                    np.int8([[1]]),
                    np.uint8([1]),
                    np.zeros((0, 4), np.uint8),
                    np.full((8, 32), 16, np.uint8),
                    np.zeros((8, 32), np.int8),
                    np.zeros((8, 32), np.uint16),
                ],
                "scale": [np.ones((8, 2)), np.ones((8, 3), np.float32), np.ones(8, np.float32)],
                "zero_point": [np.ones((8, 2), np.int8), np.ones((8, 1), np.int16), np.ones((8, 2), np.float32)],
                "offset": [np.ones((8, 2)), np.ones((8, 1), np.float32), np.zeros((8, 2), np.float32)],
                "g_idx": [
                    np.zeros(32, np.int64),
                    np.zeros(31, np.int32),
                    np.full(32, -1, np.int32),
                    np.full(32, 2, np.int32),
                    np.ones(32, np.int32),
                ],
            },
        ),
        "float-quantized": (
            float_weights.weights()["e4m3fn-float16-row"],
            {
                "element": ["e4m3", "e5m2", "e2m1"],
                "scale_dtype": ["float64", "e8m0", "bfloat16", "float32"],
                "block": [[0, 64], [1, 0], [1, 32], [4, 64]],
                "codes": [np.int8([[1]]), np.uint8([1]), np.zeros((0, 4), np.uint8), np.zeros((4, 64), np.int8)],
                "scale": [np.ones((4, 1)), np.ones((4, 2), np.float32), np.ones((4, 1), np.uint8)],
            },
        ),
        "hqq": (
            linear_weights.changed(linear_weights.weight(4, "middle", size=32), shape=(32, 8)),
            {"shape": [[3, 5], [4, 64], [16, 16], [256, 1]], "zero_point": [np.full((8, 1), 2**14 + 1, np.int16)]},
        ),
        "mxfp6": (
            float_weights.weights()["e2m3-e8m0-32"],
            {
                "codes": [np.full((4, 64), 63, np.uint8), np.full((4, 64), 64, np.uint8)],
                "element": ["e3m2", "e4m3fn"],
                "scale": [np.ones((4, 2), np.float32), np.ones((4, 4), np.uint8)],
                "block": [[1, 16]],
            },
        ),
    }
    for name, (record, changes) in tries.items():
        arrays, said = fields_of(record)
        for part, values in changes.items():
            for i, value in enumerate(values):
                both = (
                    (arrays | {part: value}, said) if isinstance(value, np.ndarray) else (arrays, said | {part: value})
                )
                yield judged(f"checkpoint.{name}", "record", f"{part}-{i}", "write", *both, "Record", "Unholdable")[0]
