"""Whole records of other people's files: every field read, every option written, and what is damaged refused.

Where a change makes a file that still can be read, the oracle says so, and the case expects the numbers.

    linear_weights, float_weights   what is written        layout_options   by which options
    misfit_fields                   what is no weight      damaged_files, hand_made_files   what no packer here writes
"""

from collections.abc import Iterator

import numpy as np

from conformance.arrays import TAGS
from conformance.cases import Case, float_weights, linear_weights
from conformance.cases.damaged_files import damages
from conformance.cases.hand_made_files import made_by_hand
from conformance.cases.judgement import judged
from conformance.cases.layout_options import by_options
from conformance.cases.misfit_fields import misfits
from conformance.cases.record_fields import fields_of
from refquant.errors import QuantError
from refquant.layouts import LAYOUTS, Floating, Linear, pack

NOTES = {
    "Record": {
        "kind": "ordinary",
        "description": "All that a file says of a weight: codes, scales, zero points or offsets, bits, groups, order.",
        "effect": "A checkpoint is read with the right codes and the wrong groups, or in another order.",
    },
    "Told": {
        "kind": "edge",
        "description": "What the arrays do not tell is left out, or said wrongly.",
        "effect": "A guess is taken for the truth: the layer is noise, and nothing says so.",
    },
    "Damaged": {
        "kind": "refusal",
        "description": "An array is missing, has another dtype, or is cut short.",
        "effect": "A truncated download is read as a model.",
    },
    "Unholdable": {
        "kind": "refusal",
        "description": "Numbers that the layout has no place for.",
        "effect": "They are rounded or dropped: the file is not the model that was measured.",
    },
}


def cases() -> Iterator[Case]:
    """Each layout: what it can hold and cannot, then its arrays, whole and damaged; then records that are none."""
    yield from misfits()
    for name, layout in LAYOUTS.items():
        if layout.record not in (Linear, Floating):
            continue
        holdable, algorithm = [], f"checkpoint.{name}"
        for label, record in (linear_weights.weights() if layout.record is Linear else float_weights.weights()).items():
            case, arrays = judged(algorithm, "write", label, "write", *fields_of(record), "Record", "Unholdable")
            if arrays:
                holdable.append((label, arrays, dict(layout.told(record))))
            if arrays or label.startswith(("plain", "no-", "divided", "order", "across", "no", "e2m1-e")):
                yield case
        for label, arrays in made_by_hand(name).items():
            yield judged(algorithm, "hand-made", label, "read", arrays, {}, "Record", "Damaged")[0]
        for case, arrays, told in by_options(algorithm, name):
            yield case
            if arrays:
                yield judged(algorithm, "options-read", case.name, "read", arrays, told, "Record", "Told")[0]
        for label, arrays, told in holdable:
            case, found = judged(algorithm, "read", label, "read", arrays, told, "Record", "Told")
            yield case
            if told and name.startswith(("gptq", "pack", "mlx", "awq-gemv")) and "zero" not in label:
                yield judged(algorithm, "untold", label, "read", arrays, {}, "Told")[0]
            if found and (layout.record is Floating or label in ("plain-4", "offset-4", "float-4")):
                words = {"values": "exact"}
                yield Case(algorithm, "weight", label, "weight", arrays, case.params, ("Record",), words=words)
        if holdable and name != "gptq_v2":  # which is read by the same code as gptq
            for change, (parts, said) in damages(*holdable[0][1:]).items():
                flag = "Told" if change.startswith("told") else "Damaged"
                yield judged(algorithm, "damaged", change, "read", parts, said, flag)[0]


def shared() -> dict[str, np.ndarray]:
    """Arrays that many tests damage or begin with, by the names of tensors in inputs.safetensors."""
    found: dict[str, np.ndarray] = {}
    for name, layout in LAYOUTS.items():
        if layout.record in (Linear, Floating):
            kind = linear_weights if layout.record is Linear else float_weights
            for label, record in kind.weights().items():
                try:
                    arrays = pack(record, name)
                except QuantError:
                    continue
                found |= {f"{name}-{label}-{part}": array for part, array in arrays.items() if array.nbytes >= 64}
    made = linear_weights.weights() | float_weights.weights()
    found |= {f"codes-{label}": record.codes for label, record in made.items()}
    found |= {f"scale-{label}": record.scale for label, record in made.items() if record.scale.nbytes >= 64}
    distinct = {(a.dtype.name, a.shape, a.tobytes()): n for n, a in reversed(found.items()) if a.dtype.name in TAGS}
    return {name: found[name] for name in sorted(distinct.values())}
