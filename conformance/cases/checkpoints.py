"""Whole records of other people's files: every field read, every option written, and what is damaged refused.

Where a change makes a file that still can be read, the oracle says so, and the case expects the numbers.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from conformance.arrays import TAGS
from conformance.cases import Case
from conformance.cases.judgement import judged
from refquant.errors import QuantError
from refquant.layouts import LAYOUTS, Floating, Linear, pack
from refquant.layouts.linear import middle

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
OTHER = {
    "int32": ("uint32", "int16"),
    "int64": ("int32", "int8"),
    "uint8": ("int8",),
    "int8": ("uint8",),
    "float16": ("float32",),
    "float32": ("float16",),
    "uint16": ("int16",),
    "uint32": ("int32",),
    "int16": ("int8",),
    "bool": ("uint8",),
}


def cases() -> Iterator[Case]:
    """Each layout: what it can hold and cannot, then its arrays, whole and damaged; then records that are none."""
    yield from _records()
    for name, layout in LAYOUTS.items():
        if layout.record not in (Linear, Floating):
            continue
        holdable, algorithm = [], f"checkpoint.{name}"
        for label, record in (_linears() if layout.record is Linear else _floatings()).items():
            case, arrays = judged(algorithm, "write", label, "write", *_said(record), "Record", "Unholdable")
            if arrays:
                holdable.append((label, arrays, dict(layout.told(record))))
            if arrays or label.startswith(("plain", "no-", "divided", "order", "across", "no", "e2m1-e")):
                yield case
        for label, arrays in _hand_made(name).items():
            yield judged(algorithm, "hand-made", label, "read", arrays, {}, "Record", "Damaged")[0]
        for case, arrays, told in _options(algorithm, name):
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
            for change, (parts, said) in _damages(*holdable[0][1:]).items():
                flag = "Told" if change.startswith("told") else "Damaged"
                yield judged(algorithm, "damaged", change, "read", parts, said, flag)[0]


def _hand_made(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Files that no packer here writes."""
    if name == "gptq":  # 30 outputs in the words of 32, and a row of words too many
        arrays = dict(pack(_linear(3), name))
        fewer = {part: arrays[part][:, :30] for part in ("qweight", "scales")}
        rows = np.concatenate([arrays["qweight"], arrays["qweight"][:1]])
        bare = {part: array for part, array in arrays.items() if part != "g_idx"}
        ten = {part: arrays[part][:, :10] for part in ("qweight", "scales")}
        eight = dict(pack(_linear(8), name))
        wide = {part: np.tile(eight[part], (1, 4))[:, :30] for part in ("qweight", "scales")}
        return {
            "30-outputs-of-8-bits": eight | wide | {"qzeros": np.tile(eight["qzeros"], (1, 4))},
            "10-outputs-no-order": bare | ten | {"qzeros": arrays["qzeros"][:, :1]},
            "30-outputs": arrays | fewer,
            "half-a-code": bare | {"qweight": rows},
            "10-outputs": arrays | ten | {"qzeros": arrays["qzeros"][:, :1]},
            "no-order": bare,
        }
    if name in ("gguf-MXFP4", "gguf-NVFP4"):  # scale bytes that ggml and OCP read alike, and others
        label = "e2m1-e8m0-32" if name == "gguf-MXFP4" else "e2m1-e4m3fn-16-0"
        arrays = pack(_floatings()[label], name)
        found = {}
        for byte in (0, 1, 125, 126, 127, 128, 254, 255):
            weight = arrays["weight"].copy()
            weight[1, 0] = byte
            found[f"scale-byte-{byte}"] = dict(arrays) | {"weight": weight}
        return found
    if name == "hqq":  # groups that begin in one row and end in the next
        arrays = dict(pack(_linear(4, "middle", size=32), name))
        packed, half = arrays["W_q"].reshape(2, 64), {part: arrays[part][:4] for part in ("scale", "zero")}
        return {"across-rows": arrays | half | {"W_q": packed, "group_size": np.array(64, np.int32)}}
    return {}


def _options(algorithm: str, name: str) -> Iterator[tuple[Case, Mapping[str, np.ndarray], dict[str, object]]]:
    """What a layout's own options change when it is written, and what they must be told when it is read."""
    for label, options in _WRITTEN.get(name, {}).items():
        arrays, said = _said(_linears()[label])
        for i, each in enumerate(options):
            case, made = judged(algorithm, "options", f"{label}-{i}", "write", arrays, said | {"options": each}, "Told")
            yield case, made, dict(LAYOUTS[name].told(_linears()[label]))
    if name == "float-quantized":
        for label, block in (("tile", (2, 32)), ("tile", (1, 32)), ("tile", (3, 33)), ("row", (1, 64))):
            arrays, said = dict(pack(_floatings()[f"e4m3fn-float16-{label}"], name)), {"block": block}
            case, _ = judged(algorithm, "options", f"{label}-{block[0]}-{block[1]}", "read", arrays, said, "Told")
            yield case, {}, {}
    if name not in ("gptq", "gptq_v2"):
        return
    for bits in (2, 3, 4, 8) if name == "gptq" else (4,):
        for carry in ("plain", "word", "field", "nonsense"):
            for zero in ("int", "high"):
                linear = _linear(bits)
                if zero == "high":
                    if bits != 4:
                        continue
                    linear = _with(linear, zero_point=np.full_like(linear.zero_point, 16))
                arrays, said = _said(linear)
                said["options"] = {"carry": carry}
                case, made = judged(algorithm, "options", f"{carry}-{zero}-{bits}", "write", arrays, said, "Told")
                made = {part: array for part, array in made.items() if part != "g_idx"}
                yield case, made, {"carry": carry} if bits != 4 else {"carry": carry, "bits": 4, "group_size": 16}


_TYPES = ({"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "float16"})
_WRITTEN: dict[str, dict[str, tuple[dict[str, object], ...]]] = {  # layout -> record -> options of pack
    "gptq": {"plain-4": _TYPES, "no-place-for-this-scale": _TYPES},
    "awq-gemm": {"plain-4": _TYPES},
    "awq-gemv": {"wide-32": _TYPES},
    "pack-quantized": {
        "plain-4": _TYPES,
        **{f"plain-{bits}": ({"aligned": True},) for bits in (3, 5, 6, 7)},
        "middle-4": ({"aligned": True},),
    },
    "int-quantized": {"row-8": _TYPES, "row-4": _TYPES[:1]},
    "modelopt-int4": {"middle-4": _TYPES},
    "onnx-matmulnbits": {"plain-4": _TYPES, "no-half-zero": _TYPES[:1]},
}


def _records() -> Iterator[Case]:
    """Fields that do not fit together, each alone."""
    tries: dict[str, tuple[Linear | Floating, dict[str, list[object]]]] = {
        "pack-quantized": (
            _linear(4),
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
            _floatings()["e4m3fn-float16-row"],
            {
                "element": ["e4m3", "e5m2", "e2m1"],
                "scale_dtype": ["float64", "e8m0", "bfloat16", "float32"],
                "block": [[0, 64], [1, 0], [1, 32], [4, 64]],
                "codes": [np.int8([[1]]), np.uint8([1]), np.zeros((0, 4), np.uint8), np.zeros((4, 64), np.int8)],
                "scale": [np.ones((4, 1)), np.ones((4, 2), np.float32), np.ones((4, 1), np.uint8)],
            },
        ),
        "hqq": (
            _with(_linear(4, "middle", size=32), shape=(32, 8)),
            {"shape": [[3, 5], [4, 64], [16, 16], [256, 1]], "zero_point": [np.full((8, 1), 2**14 + 1, np.int16)]},
        ),
        "mxfp6": (
            _floatings()["e2m3-e8m0-32"],
            {
                "codes": [np.full((4, 64), 63, np.uint8), np.full((4, 64), 64, np.uint8)],
                "element": ["e3m2", "e4m3fn"],
                "scale": [np.ones((4, 2), np.float32), np.ones((4, 4), np.uint8)],
                "block": [[1, 16]],
            },
        ),
    }
    for name, (record, changes) in tries.items():
        arrays, said = _said(record)
        for part, values in changes.items():
            for i, value in enumerate(values):
                both = (
                    (arrays | {part: value}, said) if isinstance(value, np.ndarray) else (arrays, said | {part: value})
                )
                yield judged(f"checkpoint.{name}", "record", f"{part}-{i}", "write", *both, "Record", "Unholdable")[0]


def shared() -> dict[str, np.ndarray]:
    """Arrays that many tests damage or begin with, by the names of tensors in inputs.safetensors."""
    found: dict[str, np.ndarray] = {}
    for name, layout in LAYOUTS.items():
        if layout.record in (Linear, Floating):
            for label, record in (_linears() if layout.record is Linear else _floatings()).items():
                try:
                    arrays = pack(record, name)
                except QuantError:
                    continue
                found |= {f"{name}-{label}-{part}": array for part, array in arrays.items() if array.nbytes >= 64}
    made = _linears() | _floatings()
    found |= {f"codes-{label}": record.codes for label, record in made.items()}
    found |= {f"scale-{label}": record.scale for label, record in made.items() if record.scale.nbytes >= 64}
    distinct = {(a.dtype.name, a.shape, a.tobytes()): n for n, a in reversed(found.items()) if a.dtype.name in TAGS}
    return {name: found[name] for name in sorted(distinct.values())}


def _said(record: Linear | Floating) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Fields that are arrays, and the others."""
    fields = {name: getattr(record, name) for name in record.__slots__}
    arrays = {k: np.asarray(v) for k, v in fields.items() if isinstance(v, np.ndarray | np.generic)}
    return arrays, {k: v for k, v in fields.items() if v is not None and k not in arrays}


def _linears() -> dict[str, Linear]:
    """Small weights of every kind."""
    made: dict[str, Linear] = {}
    for bits in (4, 8, 2, 3, 1, 5, 6, 7):
        made[f"plain-{bits}"] = _linear(bits)
    for zero in ("offset", "float", "middle"):
        made[f"{zero}-4"] = _linear(4, zero)
    made["offset-8"] = _linear(8, "offset")
    made["row-8"] = _linear(8, "middle", size=32)
    made["row-4"] = _linear(4, "middle", size=32)
    made["bfloat16"] = _linear(4, dtype="bfloat16")
    made["float32"] = _linear(4, dtype="float32")
    made["order"] = _linear(4, order=True)
    made["order-middle"] = _linear(4, "middle", order=True)
    made["divided"] = _linear(4, "offset", divide=True)
    made["divided-middle"] = _linear(4, "middle", divide=True)
    for bits in (4, 5):
        made[f"row-offset-{bits}"] = _linear(bits, "offset", size=32)
    made["group-past-row"] = _linear(4, "middle", size=48)
    made["divided-8"] = _with(_linear(8, "offset", divide=True), offset=np.ones((8, 2), np.float32))
    made["row-5"] = _linear(5, "middle", size=32)
    both = _linear(4, "offset", size=32)
    made["offset-and-zero"] = _with(both, zero_point=both.zero_point + np.int16(3))
    both = _linear(4, "offset")
    made["small-offset-and-zero"] = _with(both, zero_point=both.zero_point + np.int16(3))
    still, nothing = _linear(4, "offset", size=32), np.zeros((8, 1), np.float32)
    made["scales-of-0"] = _with(still, scale=nothing, offset=nothing)
    made["no-scale-but-an-offset"] = _with(still, scale=nothing)
    made["no-whole-groups"] = _linear(4, size=24)
    made["short-row"] = _linear(4, "middle", ins=28, size=28)
    made["ones"] = _linear(4, ins=8, size=1)
    made["no-place-for-this-scale"] = _with(_linear(4), scale=np.full((8, 2), 0.1, np.float32))
    made["no-place-for-a-large-scale"] = _with(_linear(4), scale=np.full((8, 2), 1e30, np.float32))
    made["no-divided-zero"] = _linear(4, divide=True)
    made["no-divided-offset-and-middle"] = _with(_linear(4, "middle", divide=True), offset=np.ones((8, 2), np.float32))
    made["no-divided-odd-columns"] = _linear(4, "middle", ins=33, size=33, divide=True)
    for zero in (-1, 256):
        points = _linear(8).zero_point.copy()
        points[3, 1] = zero
        made[f"no-zero-{zero}-of-8-bits"] = _with(_linear(8), zero_point=points)
    for zero in (-1, 16, 127, 128, -127, -128, 129, -129, 2**14 + 1):
        made[f"no-zero-{zero}"] = _with(_linear(4), zero_point=np.full((8, 2), zero, np.int16))
    half = _linear(4, "float")
    made["no-half-zero"] = _with(half, zero_point=np.full((8, 2), 7.5, np.float32))
    made["no-third-offset"] = _with(_linear(4, "offset"), offset=np.full((8, 2), 1 / 3, np.float32))
    made["wide-32"] = _linear(4, ins=128, size=32)
    made["wide-64"] = _linear(4, ins=128, size=64)
    made["wide-128"] = _linear(4, ins=256, size=128)
    made["no-such-many-rows"] = _with(
        _linear(4), codes=_linear(4).codes[:7], scale=_linear(4).scale[:7], zero_point=_linear(4).zero_point[:7]
    )
    made["no-such-many-columns"] = _linear(4, ins=20, size=20)
    made["no-odd-columns"] = _linear(4, "middle", ins=33, size=33)
    made["across-all"] = _with(_linear(4, "middle", size=32), shape=(32, 8))
    made["no-way-across"] = _with(_linear(4, size=16), shape=(32, 8))
    return made


def _linear(
    bits: int,
    zero: str = "int",
    ins: int = 32,
    size: int = 16,
    dtype: str = "float16",
    order: bool = False,
    divide: bool = False,
) -> Linear:
    outs = {2: 16, 3: 32}.get(bits, 8)  # whole words of zero points in GPTQ
    rng = np.random.default_rng([bits, ins, size])
    groups = -(-ins // size)
    scale = (rng.integers(1, 64, (outs, groups)) / 4096).astype(np.float32)
    points, offset = middle(bits, scale.shape), None
    if zero == "int":
        points = rng.integers(0, 1 << bits, scale.shape).astype(np.int16)
        points[0, 0], points[1, 0] = 0, (1 << bits) - 1
    elif zero == "float":
        points = rng.integers(0, 1 << bits, scale.shape).astype(np.float32)
    elif zero == "offset":
        points = np.zeros(scale.shape, np.int16)
        offset = -(rng.integers(0, 1 << bits, scale.shape) * scale).astype(np.float32) + np.float32(0)
    codes = rng.integers(0, 1 << bits, (outs, ins), dtype=np.uint8)
    g_idx = rng.permutation(np.arange(ins, dtype=np.int32) // size) if order else None
    return Linear(codes, scale, points, bits, size, dtype, offset, g_idx, divide)


def _with(linear: Linear, **changed: object) -> Linear:
    fields = {name: getattr(linear, name) for name in Linear.__slots__}
    return Linear(**fields | changed)


def _floatings() -> dict[str, Floating]:
    """Every element under every scale."""
    made: dict[str, Floating] = {}
    rng = np.random.default_rng(5)
    for element, bits in (("e2m1", 4), ("e2m3", 6), ("e3m2", 6), ("e4m3fn", 8), ("e5m2", 8)):
        codes = rng.integers(0, 1 << bits, (4, 64), dtype=np.uint8)
        for block in (16, 32):
            scale = rng.integers(1, 255, (4, 64 // block), dtype=np.uint8)
            made[f"{element}-e8m0-{block}"] = Floating(codes, element, scale, "e8m0", (1, block))
            tensor = np.float32(0.01)
            made[f"{element}-e4m3fn-{block}"] = Floating(codes, element, scale & 127, "e4m3fn", (1, block), tensor)
            made[f"{element}-e4m3fn-{block}-divided"] = Floating(
                codes, element, scale & 127, "e4m3fn", (1, block), np.float32(100), True
            )
        for dtype in ("float16", "bfloat16", "float32"):
            for label, shape in (("row", (1, 64)), ("tensor", (4, 64)), ("tile", (2, 32))):
                groups = (4 // shape[0], 64 // shape[1])
                scale = (rng.integers(1, 256, groups) / 4096).astype(np.float32)
                made[f"{element}-{dtype}-{label}"] = Floating(codes, element, scale, dtype, shape)
    for scale_dtype, block, tops in (("e8m0", 32, (0, 254, 255)), ("e4m3fn", 16, (0, 126, 127, 128))):
        plain = made[f"e2m1-{scale_dtype}-{block}"]
        odd = (codes & 15)[:, : block + 8], plain.scale[:, :2]
        made[f"e2m1-{scale_dtype}-{block}-ragged"] = Floating(odd[0], "e2m1", odd[1], scale_dtype, (1, block))
        whole = (codes & 15)[:, :block], plain.scale[:, :1]
        made[f"e2m1-{scale_dtype}-{block}-one-block"] = Floating(whole[0], "e2m1", whole[1], scale_dtype, (1, block))
        for top in tops:
            scale = np.full_like(plain.scale, 100)
            scale[1, 1] = top
            made[f"e2m1-{scale_dtype}-{block}-{top}"] = Floating(codes & 15, "e2m1", scale, scale_dtype, (1, block))
    return made


def _damages(arrays: dict[str, np.ndarray], told: dict[str, object]) -> dict[str, tuple[dict, dict]]:
    """Label -> (arrays, told): one thing is wrong in each."""
    made: dict[str, tuple[dict, dict]] = {}
    for name, array in arrays.items():
        label = name.replace(".", "-").replace("_data", "data")
        made[f"{label}-missing"] = ({k: v for k, v in arrays.items() if k != name}, told)
        for other in OTHER[array.dtype.name]:
            made[f"{label}-as-{other}"] = (arrays | {name: array.astype(other)}, told)
        for how, change in (_CUTS | (_ORDERS if name.endswith("g_idx") else {})).items():
            if (changed := change(array)) is not None:
                made[f"{label}-{how}"] = (arrays | {name: changed}, told)
    for name, value in told.items():
        made[f"told-no-{name}"] = (arrays, {k: v for k, v in told.items() if k != name})
        for wrong in _wrongs(value):
            made[f"told-{name}-{str(wrong).replace(' ', '')}"] = (arrays, told | {name: wrong})
    few = {name: array.reshape(-1)[1:2] for name, array in arrays.items() if "scale" in name or "zero" in name}
    made["everything-shared"] = (arrays | few, told)
    made["told-nonsense"] = (arrays, told | {"nonsense": 1})
    return made


_CUTS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "short": lambda array: array[:-1] if array.ndim and len(array) > 1 else None,
    "narrow": lambda array: array[:, :-1] if array.ndim > 1 and array.shape[1] > 1 else None,
    "deep": lambda array: array[None],
    "empty": lambda array: array[:0] if array.ndim else None,
    "negative": lambda array: -array if array.dtype.kind == "i" and array.size < 100 else None,
    "zero": lambda array: array * 0 if array.dtype.kind == "i" and array.size == 1 else None,
    "single": lambda array: array.reshape(-1)[1:2] if array.dtype.kind in "fi" and array.size > 1 else None,
    "alone": lambda array: array.reshape(-1)[1] if array.dtype.kind == "f" and array.size > 1 else None,
    "bfloat16": lambda array: _upper(array) if array.dtype.kind == "f" else None,
    "large": lambda array: array + array.dtype.type(1) if array.dtype.kind in "iu" and array.size < 100 else None,
}

_ORDERS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "backwards": lambda g_idx: g_idx[::-1].copy(),
    "alternating": lambda g_idx: g_idx[np.arange(len(g_idx)) % 2 * 16],
    "zeros": lambda g_idx: g_idx * 0,
    "uneven": lambda g_idx: g_idx[np.minimum(np.arange(len(g_idx)) + 4, len(g_idx) - 1)],
    "beyond": lambda g_idx: g_idx + (np.arange(len(g_idx)) == 20).astype(g_idx.dtype),
    "below": lambda g_idx: g_idx - (np.arange(len(g_idx)) == 3).astype(g_idx.dtype),
}


def _upper(array: np.ndarray) -> np.ndarray:
    """bfloat16 as its bits."""
    return (array.astype(np.float32).reshape(-1).view(np.uint32) >> 16).astype(np.uint16).reshape(array.shape)


def _wrongs(value: object) -> list[object]:
    if isinstance(value, tuple):
        return [
            (value[0] + 1, *value[1:]),
            (0, *value[1:]),
            (1, value[0] * value[1]),
            value[::-1],
            (value[0], 2 * value[1]),
        ]
    if isinstance(value, int):
        return [0, 1, value - 1, value + 1, 2 * value, value // 2, 9]
    return ["nonsense"]
