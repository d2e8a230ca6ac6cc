"""refquant on whole records of checkpoints, on codes in words, and on tensors of ONNX. Imported by the adapter."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from conformance.protocol import Arrays, Unsupported

NESTED = "nested_"  # fields of a record within a record


def write(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """codes, scale, zero_point ... -> the arrays of the layout, and their names."""
    from refquant.layouts import LAYOUTS, pack
    from refquant.layouts.bitsandbytes import FourBit, Nested

    settings = _settings(params)
    options, target = settings.pop("options", {}), LAYOUTS[member]
    fields = {name: array[()] if array.ndim == 0 else array for name, array in inputs.items()} | settings
    inner = {name.removeprefix(NESTED): fields.pop(name) for name in list(fields) if name.startswith(NESTED)}
    if target.record is FourBit and inner:
        fields["absmax"] = Nested(**inner)
    record = target.record(**fields)
    made = dict(target.pack(record, **options) if options else pack(record, member))
    return made | {"names": _array(" ".join(sorted(made)))}


def read(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """The arrays of the layout -> every number of the record; words as their UTF-8 bytes; `symmetric`."""
    record = _record(member, params, inputs)
    found = {name: _array(value) for name, value in _fields(record).items()}
    symmetric = {"symmetric": np.asarray(record.symmetric)} if hasattr(record, "symmetric") else {}
    return found | {"fields": _array(" ".join(found))} | symmetric


def weight(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """The arrays of the layout -> values, float32 (out, in)."""
    return {"values": _record(member, params, inputs).dequantize()}


def pack_words(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """codes -> words."""
    from refquant.layouts import words

    pack = {"dense": words.pack, "aligned": words.pack_aligned, "planar": words.pack_planar}[member]
    return {"words": pack(inputs["codes"], params["bits"])}


def unpack_words(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """words -> codes."""
    from refquant.layouts import words

    unpack = {"dense": words.unpack, "aligned": words.unpack_aligned, "planar": words.unpack_planar}[member]
    return {"codes": unpack(inputs["words"], params["bits"], params["count"])}


def pack_tensor(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """codes -> the raw data of a tensor of 2 or 4 bits."""
    from refquant.layouts import onnx

    _only("onnx", member)
    return {"bytes": onnx.pack_tensor(inputs["codes"], **params)}


def unpack_tensor(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """The raw data of a tensor -> codes."""
    from refquant.layouts import onnx

    _only("onnx", member)
    return {"codes": onnx.unpack_tensor(inputs["bytes"], **_settings(params))}


def _only(known: str, member: str) -> None:
    if member != known:
        raise Unsupported(f"tensor.{member}")


def _record(member: str, params: Mapping[str, object], inputs: Arrays):
    from refquant.layouts import unpack

    return unpack(dict(inputs), member, **_settings(params))


def _settings(params: Mapping[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}


def _fields(record: object) -> dict[str, object]:
    """Name -> value of what is there, fields of a record within it too."""
    found: dict[str, object] = {}
    for each in dataclasses.fields(record):
        value = getattr(record, each.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{NESTED}{name}": inner for name, inner in _fields(value).items()}
        elif value is not None:
            found[each.name] = value
    return found


def _array(value: object) -> np.ndarray:
    if isinstance(value, str):
        return np.frombuffer(value.encode(), np.uint8)
    if isinstance(value, tuple | int) and not isinstance(value, np.generic):
        return np.asarray(value, np.int64)
    return np.asarray(value)
