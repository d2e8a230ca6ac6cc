"""What a layout's own options change when a file is written, and what they must be told when it is read."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case, float_weights, linear_weights
from conformance.cases.judgement import judged
from conformance.cases.record_fields import fields_of
from refquant.layouts import LAYOUTS, pack

TYPES = ({"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "float16"})
WRITTEN: dict[str, dict[str, tuple[dict[str, object], ...]]] = {  # layout -> record -> options of pack
    "gptq": {"plain-4": TYPES, "no-place-for-this-scale": TYPES},
    "awq-gemm": {"plain-4": TYPES},
    "awq-gemv": {"wide-32": TYPES},
    "pack-quantized": {
        "plain-4": TYPES,
        **{f"plain-{bits}": ({"aligned": True},) for bits in (3, 5, 6, 7)},
        "middle-4": ({"aligned": True},),
    },
    "int-quantized": {"row-8": TYPES, "row-4": TYPES[:1]},
    "modelopt-int4": {"middle-4": TYPES},
    "onnx-matmulnbits": {"plain-4": TYPES, "no-half-zero": TYPES[:1]},
}


def by_options(algorithm: str, name: str) -> Iterator[tuple[Case, Mapping[str, np.ndarray], dict[str, object]]]:
    """(case, arrays that were written, what a reader is told) of each option."""
    for label, options in WRITTEN.get(name, {}).items():
        arrays, said = fields_of(linear_weights.weights()[label])
        for i, each in enumerate(options):
            case, made = judged(algorithm, "options", f"{label}-{i}", "write", arrays, said | {"options": each}, "Told")
            yield case, made, dict(LAYOUTS[name].told(linear_weights.weights()[label]))
    if name == "float-quantized":
        for label, block in (("tile", (2, 32)), ("tile", (1, 32)), ("tile", (3, 33)), ("row", (1, 64))):
            arrays, said = dict(pack(float_weights.weights()[f"e4m3fn-float16-{label}"], name)), {"block": block}
            case, _ = judged(algorithm, "options", f"{label}-{block[0]}-{block[1]}", "read", arrays, said, "Told")
            yield case, {}, {}
    if name not in ("gptq", "gptq_v2"):
        return
    for bits in (2, 3, 4, 8) if name == "gptq" else (4,):
        for carry in ("plain", "word", "field", "nonsense"):
            for zero in ("int", "high"):
                linear = linear_weights.weight(bits)
                if zero == "high":
                    if bits != 4:
                        continue
                    linear = linear_weights.changed(linear, zero_point=np.full_like(linear.zero_point, 16))
                arrays, said = fields_of(linear)
                said["options"] = {"carry": carry}
                case, made = judged(algorithm, "options", f"{carry}-{zero}-{bits}", "write", arrays, said, "Told")
                made = {part: array for part, array in made.items() if part != "g_idx"}
                yield case, made, {"carry": carry} if bits != 4 else {"carry": carry, "bits": 4, "group_size": 16}
