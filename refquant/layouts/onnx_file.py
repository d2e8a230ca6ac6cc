"""MatMulNBits in ONNX files: just enough of the protobuf format to find the nodes and their initializers.

    ModelProto      7 graph
    GraphProto      1 node*, 5 initializer*
    NodeProto       1 input*, 4 op_type, 5 attribute*, 3 name       inputs of MatMulNBits: A, B, scales, zero_points
    AttributeProto  1 name, 3 i                                     K, N, bits, block_size
    TensorProto     1 dims*, 2 data_type, 8 name, 9 raw_data, 13 external_data* (key, value), 14 data_location = 1

A field is a varint (number << 3 | wire type) and a varint, 8 bytes, 4 bytes or a length with that many bytes. Lengths
are checked against the message around them, so that a broken file is a QuantError; data in other files are looked for
beside the model and nowhere else.
Source    onnx/onnx.proto; protobuf.dev, "Encoding".
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refquant.errors import QuantError

DTYPES = {1: "<f4", 2: "u1", 3: "i1", 10: "<f2", 16: "<u2"}  # FLOAT, UINT8, INT8, FLOAT16, BFLOAT16
INPUTS = {1: "B", 2: "scales", 3: "zero_points"}
MAX_FILE = 1 << 31  # protobuf's own limit


def matmuls(path: str | os.PathLike) -> dict[str, tuple[dict[str, np.ndarray], dict[str, int]]]:
    """{name of the node: (arrays, options)}, as onnx.unpack_matmul takes them. Raises QuantError."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise QuantError(
                f"{path}: size = {path.stat().st_size}, expected at most 2 GiB: large tensors are external"
            )
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise QuantError(f"{path}: cannot be opened: {error.strerror or error}") from error
    nodes, tensors = [], {}
    for number, graph in _fields(path, data):
        if number != 7 or isinstance(graph, int):
            continue
        for inner, message in _fields(path, graph):
            if inner == 1 and not isinstance(message, int):
                nodes.append(_node(path, message))
            elif inner == 5 and not isinstance(message, int):
                tensor = _grouped(path, message)
                tensors[_text(path, tensor, 8)] = tensor
    found = {}
    for index, (op, name, inputs, attributes) in enumerate(nodes):
        if op != "MatMulNBits":
            continue
        arrays = {}
        for place, field in INPUTS.items():
            if place < len(inputs) and inputs[place] in tensors:
                arrays[field] = _array(path, inputs[place], tensors[inputs[place]])
        if "B" in arrays and "scales" in arrays:
            options = {"bits": attributes.get("bits", 4)}
            found[name or f"node {index}"] = arrays, options | ({"ins": attributes["K"]} if "K" in attributes else {})
    return found


def _node(path: Path, message: memoryview) -> tuple[str, str, list[str], dict[str, int]]:
    """(op_type, name, inputs, attributes that are numbers)."""
    fields = _grouped(path, message)
    inputs = [bytes(v).decode("utf-8", "replace") for v in fields.get(1, []) if not isinstance(v, int)]
    attributes = [_grouped(path, entry) for entry in fields.get(5, []) if not isinstance(entry, int)]
    numbers = {_text(path, a, 1): a[3][-1] for a in attributes if isinstance(a.get(3, [b""])[-1], int)}
    return _text(path, fields, 4), _text(path, fields, 3), inputs, numbers


def _array(path: Path, name: str, fields: dict[int, list]) -> np.ndarray:
    """One initializer; the data stand in it or in a file beside the model."""
    where = f"{path}: initializer {name[:200]!r}"
    dims = _dims(path, fields.get(1, []))
    kind = DTYPES.get(fields.get(2, [0])[-1])
    if kind is None or math.prod(dims) > MAX_FILE:
        raise QuantError(f"{where}: data_type, dims = {fields.get(2)}, {dims[:8]}, expected one of {sorted(DTYPES)}")
    nbytes = math.prod(dims) * np.dtype(kind).itemsize
    raw = _external(path, where, fields, nbytes) if fields.get(14, [0])[-1] == 1 else fields.get(9, [b""])[-1]
    if isinstance(raw, int) or len(raw) != nbytes:
        raise QuantError(f"{where}: {'no' if isinstance(raw, int) else len(raw)} bytes, expected {nbytes} for {dims}")
    return np.frombuffer(bytes(raw), kind).reshape(dims)


def _external(path: Path, where: str, fields: dict[int, list], nbytes: int) -> bytes:
    entries = [_grouped(path, entry) for entry in fields.get(13, []) if not isinstance(entry, int)]
    said = {_text(path, entry, 1): _text(path, entry, 2) for entry in entries}
    location, offset = said.get("location", ""), said.get("offset", "0")
    if Path(location).name != location or not location or not offset.isdecimal() or len(offset) > 18:
        raise QuantError(
            f"{where}: external data in {location[:80]!r} at {offset[:20]}, expected a file beside the model"
        )
    try:
        with (path.parent / location).open("rb") as file:
            file.seek(int(offset))
            return file.read(nbytes)
    except OSError as error:
        raise QuantError(f"{where}: external data {location!r} cannot be read: {error.strerror or error}") from error


def _dims(path: Path, values: list) -> list[int]:
    """Packed (bytes of varints) or one by one."""
    dims = []
    for value in values:
        if isinstance(value, int):
            dims.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(path, value, at)
            dims.append(number)
    return dims


def _grouped(path: Path, message: memoryview) -> dict[int, list]:
    fields: dict[int, list] = {}
    for number, value in _fields(path, message):
        fields.setdefault(number, []).append(value)
    return fields


def _text(path: Path, fields: dict[int, list], number: int) -> str:
    value = fields.get(number, [b""])[-1]
    if isinstance(value, int):
        raise QuantError(f"{path}: field {number} is a number, expected text")
    return bytes(value).decode("utf-8", "replace")


def _fields(path: Path, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of one message; a value is an int or the bytes of its length."""
    at = 0
    while at < len(message):
        key, at = _varint(path, message, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(path, message, at)
        else:
            if wire == 2:
                length, at = _varint(path, message, at)
            else:
                length = {1: 8, 5: 4}.get(wire, len(message))
            if length > len(message) - at or wire not in (1, 2, 5):
                raise QuantError(f"{path}: field {key >> 3} of wire type {wire} has {length} bytes, expected the rest")
            value, at = message[at : at + length], at + length
        yield key >> 3, value


def _varint(path: Path, message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise QuantError(f"{path}: a number breaks off, expected a protobuf message: is it an ONNX file?")
