"""bitsandbytes checkpoints: NF4 and FP4 with their quant_state, nested and not, and int8 rows."""

import json
from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged
from refquant.layouts.bitsandbytes import STATE

NOTES = {
    "Record": {
        "kind": "ordinary",
        "description": "All that a file says of a weight: codes, block maxima, maps, types, sizes.",
        "effect": "A checkpoint is read under other scales, or in another shape.",
    },
    "Damaged": {
        "kind": "refusal",
        "description": "An array is missing, of another dtype or cut short, or the JSON says what cannot be.",
        "effect": "A truncated download is read as a model.",
    },
}
WORDS = {"values": "exact"}
MAP = (np.arange(16, dtype=np.float32) - 7) / 8
INNER = (np.arange(256, dtype=np.float32) - 100) / 256


def cases() -> Iterator[Case]:
    """Each kind written, read and decoded; then what fits nothing."""
    for kind in ("nf4", "fp4"):
        algorithm = f"checkpoint.bitsandbytes-{kind}"
        for label, (inputs, params) in _fourbit(kind).items():
            case, arrays = judged(algorithm, "write", label, "write", inputs, params, "Record", "Damaged")
            yield case
            if arrays:
                yield from _read(algorithm, "read", label, arrays)
                for name in ("uint16", "float16", "float32") if label == "plain" else ():
                    if arrays["weight"].size % np.dtype(name).itemsize == 0:
                        viewed = arrays | {"weight": arrays["weight"].reshape(-1).view(name)}
                        yield from _read(algorithm, "viewed", f"{label}-{name}", viewed, decoded=False)
            if arrays and label == "nested-all":
                said = json.loads(arrays[STATE + kind].tobytes())
                del said["nested_blocksize"]
                unsaid = arrays | {STATE + kind: _bytes(json.dumps(said))}
                yield from _read(algorithm, "read", "nested-unsaid", unsaid, decoded=False)
            if arrays and kind == "nf4" and label in ("plain", "nested"):
                for change, parts in _damages(arrays).items():
                    yield from _read(algorithm, "damaged", f"{label}-{change}", parts, decoded=False)
        for label, (inputs, params) in _misfits(kind).items() if kind == "nf4" else ():
            yield judged(algorithm, "record", label, "write", inputs, params, "Record", "Damaged")[0]
    yield from _rows()


def shared() -> dict[str, np.ndarray]:
    """Tables that many tests hold."""
    return {"bitsandbytes-map": MAP, "bitsandbytes-nested-map": INNER}


def _read(algorithm: str, group: str, label: str, arrays: Mapping[str, np.ndarray], decoded: bool = True):
    case, found = judged(algorithm, group, label, "read", arrays, {}, "Record", "Damaged")
    yield case
    if found and decoded:
        yield Case(algorithm, "weight", label, "weight", arrays, {}, ("Record",), words=WORDS)


def _fourbit(kind: str) -> dict[str, tuple[dict, dict]]:
    """Label -> (arrays, settings): 15 or 16 weights in blocks of 4 or 5, of which some cross a row."""
    rng = np.random.default_rng(7)
    made = {}
    for label, shape, size in (
        ("plain", (2, 8), 4),
        ("odd", (3, 5), 4),
        ("one-axis", (16,), 16),
        ("deep", (2, 2, 4), 5),
    ):
        n = int(np.prod(shape))
        blocks = -(-n // size)
        parts = {
            "codes": rng.integers(0, 16, n, dtype=np.uint8),
            "absmax": (rng.integers(1, 64, blocks) / 32).astype(np.float32),
            "quant_map": MAP,
        }
        said = {"quant_type": kind, "blocksize": size, "shape": list(shape)}
        made[label] = parts, said | ({"dtype": "bfloat16"} if label == "odd" else {})
    single = {"codes": np.uint8([3, 15, 0]), "absmax": np.float32([1, 0.3, 2]), "quant_map": MAP}
    made["blocks-of-1"] = single, {"quant_type": kind, "blocksize": 1, "shape": [1, 3]}
    parts, said = made["plain"]
    for label, inner in (("nested", 2), ("nested-uneven", 3), ("nested-all", None)):
        count = 1 if inner is None else -(-4 // inner)
        nested = {
            "nested_codes": np.uint8([0, 255, 100, 7]),
            "nested_absmax": np.float32([0.5, 3])[:count],
            "nested_quant_map": INNER,
        }
        sizes = {} if inner is None else {"nested_blocksize": inner}
        plain = {name: array for name, array in parts.items() if name != "absmax"}
        made[label] = plain | nested, said | sizes | {"nested_offset": 0.1}
    largest = np.float32([np.inf, np.nan, 3e38, 0])
    if kind == "fp4":  # the rest is the same
        return {label: made[label] for label in ("plain", "odd", "nested")}
    made["infinite"] = parts | {"absmax": largest, "quant_map": MAP * np.float32(4)}, said
    return made


def _misfits(kind: str) -> dict[str, tuple[dict, dict]]:
    """Records of which one field does not fit."""
    (plain, said), (nested, inner) = (_fourbit(kind)[name] for name in ("plain", "nested"))
    fields = {
        "codes": [
            plain["codes"][:15],
            plain["codes"].astype(np.int16),
            np.full(16, 16, np.uint8),
            plain["codes"][None],
        ],
        "absmax": [plain["absmax"][:3], np.ones(5, np.float32)],
        "quant_map": [MAP[:15], np.append(MAP, MAP)],
        "quant_type": ["nf3", "int8"],
        "blocksize": [0, 3, 5, 6, -4],
        "shape": [[2, 7], [16], [0, 8], []],
    }
    of_nested = {
        "nested_codes": [np.uint8([1, 2, 3]), np.int8([1, 2, 3, 4]), np.uint8([[1], [2], [3], [4]])],
        "nested_absmax": [np.ones(1, np.float32), np.ones(3, np.float32), np.ones((2, 1), np.float32)],
        "nested_quant_map": [INNER[:255]],
        "nested_blocksize": [0, 1, 4, -2],
    }
    made = {}
    for (parts, params), tries in (((plain, said), fields), ((nested, inner), of_nested)):
        for name, values in tries.items():
            for i, value in enumerate(values):
                array = isinstance(value, np.ndarray)
                made[f"{name}-{i}"] = (parts | {name: value}, params) if array else (parts, params | {name: value})
    return made


def _damages(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Label -> arrays with one thing wrong, or only unusual."""
    state = STATE + "nf4"
    said = json.loads(arrays[state].tobytes())
    made = {}
    for name, array in arrays.items():
        label = "state" if name == state else name.replace(".", "-")
        made[f"{label}-missing"] = {key: value for key, value in arrays.items() if key != name}
        made[f"{label}-short"] = dict(arrays) | {name: array[:-1]}
        made[f"{label}-deep"] = dict(arrays) | {name: array[None]}
        made[f"{label}-int64"] = dict(arrays) | {name: array.astype(np.int64)}
    made["both-states"] = dict(arrays) | {STATE + "fp4": arrays[state]}
    absmax = arrays["weight.absmax"]
    other = np.float32 if absmax.dtype == np.uint8 else np.uint8
    made["absmax-of-the-other-kind"] = dict(arrays) | {"weight.absmax": absmax.astype(other)}
    if "nested_offset" in said:
        told: dict[str, object] = {"nested_blocksize": [1, 3, 4, 0, True], "nested_offset": [1, "1", None, True]}
    else:
        told = {
            "blocksize": [0, -1, 1, 3, 5, 1 << 20, (1 << 20) + 1, 4.0, "4", None, True],
            "shape": [[4, 4], [16], [1] * 7 + [16], [1] * 8 + [16], [], [2, 0, 8], [-2, -8], [2.0, 8], [True, 16], 16,
                      [2, 7], [2, 9], [3, 5], [1 << 21, 1 << 20], None],
            "dtype": ["bfloat16", 5, "x" * 41, None],
        }  # fmt: skip
    for name, values in told.items():
        for i, value in enumerate(values):
            changed = {key: each for key, each in (said | {name: value}).items() if each is not None}
            made[f"{name}-{i}"] = dict(arrays) | {state: _bytes(json.dumps(changed))}
    for i, text in enumerate(
        () if "nested_offset" in said else ("", "[]", "{", "3", "[" * 3000, "{}", '"x"', "\u00ff")
    ):
        made[f"json-{i}"] = dict(arrays) | {state: _bytes(text)}
    return made


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("latin-1"), np.uint8)


def _rows() -> Iterator[Case]:
    algorithm = "checkpoint.bitsandbytes-int8"
    codes = np.random.default_rng(8).integers(-127, 128, (3, 5), dtype=np.int8)
    codes[0, 0] = -128
    absmax = np.float32([1 / 3, 2.5, 0])
    records = {
        "rows": {"codes": codes, "absmax": absmax},
        "infinite": {"codes": codes, "absmax": np.float32([np.inf, np.nan, 3e38])},
        "unsigned": {"codes": codes.view(np.uint8), "absmax": absmax},
        "deep": {"codes": codes[None], "absmax": absmax[:1]},
        "flat": {"codes": codes[0], "absmax": np.ones(5, np.float32)},
        "few-maxima": {"codes": codes, "absmax": absmax[:2]},
        "maxima-of-two-axes": {"codes": codes, "absmax": absmax[:, None]},
        "float16-maxima": {"codes": codes, "absmax": absmax.astype(np.float16)},
        "empty": {"codes": codes[:, :0], "absmax": absmax},
    }
    for label, parts in records.items():
        case, arrays = judged(algorithm, "write", label, "write", parts, {}, "Record", "Damaged")
        yield case
        if arrays:
            yield from _read(algorithm, "read", label, arrays)
    arrays = judged(algorithm, "write", "rows", "write", records["rows"], {}, "Record")[1]
    for name in arrays:
        yield from _read(algorithm, "damaged", f"{name}-missing", {k: v for k, v in arrays.items() if k != name})
        yield from _read(algorithm, "damaged", f"{name}-float64", arrays | {name: arrays[name].astype(np.float64)})
        yield from _read(algorithm, "damaged", f"{name}-deep", arrays | {name: arrays[name][None]}, decoded=False)
    for label, kind in {
        "column": np.uint8(1), "int8": np.int8(0), "int64": np.int64(0), "int32": np.int32(0), "two": np.uint8([0, 0]),
        "minus": np.int8(-1), "none": np.zeros(0, np.uint8),
    }.items():  # fmt: skip
        yield from _read(algorithm, "damaged", f"format-{label}", arrays | {"weight_format": np.asarray(kind)}, False)
    yield from _read(algorithm, "damaged", "SCB-short", arrays | {"SCB": absmax[:2]}, decoded=False)
    yield from _read(algorithm, "damaged", "flat", arrays | {"weight": codes[0], "SCB": np.ones(5, np.float32)}, False)
