"""Arrays in vector files: little-endian bytes as hexadecimal, or a tensor of a safetensors file beside the JSON.

    {"dtype": "float32", "shape": [2], "hex": "0000803f000000c0"}
    {"file": "w4.safetensors", "tensor": "W", "dtype": "float32", "shape": [256, 256]}

dtypes are NumPy's names of little-endian types: bool, int8 .. int64, uint8 .. uint64, float16, float32, float64.
bfloat16 and the small floats are stored as the unsigned integers that hold their bits.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from refquant.errors import QuantError
from refquant.layouts import safetensors_file

DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)

TAGS = {
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "float16": "F16", "float32": "F32",
    "float64": "F64",
}  # fmt: skip


def to_json(array: np.ndarray, shared: "Shared | None" = None) -> dict[str, object]:
    """The inline spelling, or that of a shared tensor with the same bits. Raises QuantError for other dtypes."""
    array = np.asarray(array)
    if shared is not None and (name := shared.find(array)) is not None:
        return {"file": shared.file, "tensor": name, "dtype": array.dtype.name, "shape": list(array.shape)}
    if array.dtype.name not in DTYPES:
        raise QuantError(f"conformance.arrays: dtype = {array.dtype}, expected one of {', '.join(DTYPES)}")
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "hex": data.hex()}


def from_json(record: Mapping[str, object], folder: Path) -> np.ndarray:
    """The array of either spelling; `folder` is where the vector file lies. Read-only."""
    dtype, shape = np.dtype(str(record["dtype"])).newbyteorder("<"), tuple(record["shape"])
    if "hex" in record:
        array = np.frombuffer(bytes.fromhex(str(record["hex"])), dtype).reshape(shape)
    else:
        array = _tensor(folder / str(record["file"]), str(record["tensor"]))
        if (array.dtype, array.shape) != (dtype, shape):
            raise QuantError(
                f"{record['file']}: {record['tensor']} = {array.dtype} {array.shape}, expected {dtype} {shape}"
            )
        array.flags.writeable = False
    return array.astype(array.dtype.newbyteorder("="), copy=False)


class Shared:
    """Arrays that many tests begin with, kept once: a safetensors file, and where it lies seen from a vector file."""

    def __init__(self, arrays: Mapping[str, np.ndarray], file: str):
        self.arrays, self.file = dict(arrays), file
        self._names = {self._key(array): name for name, array in self.arrays.items()}

    @staticmethod
    def _key(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
        return array.dtype.name, array.shape, array.tobytes()

    def find(self, array: np.ndarray) -> str | None:
        """The name of the tensor with this dtype, shape and bits."""
        return self._names.get(self._key(array))

    def to_bytes(self) -> bytes:
        """The file."""
        header, at = {}, 0
        for name, array in self.arrays.items():
            if array.dtype.name not in TAGS:
                raise QuantError(f"conformance.arrays: {name} = {array.dtype}, expected one of {', '.join(TAGS)}")
            header[name] = {
                "dtype": TAGS[array.dtype.name],
                "shape": list(array.shape),
                "data_offsets": [at, at + array.nbytes],
            }
            at += array.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        little = (array.astype(array.dtype.newbyteorder("<"), copy=False) for array in self.arrays.values())
        data = [np.ascontiguousarray(array).tobytes() for array in little]
        return b"".join([len(text).to_bytes(8, "little"), text, *data])


@lru_cache(maxsize=8)
def _tensors(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.data for name, tensor in safetensors_file.read(path).tensors.items()}


def _tensor(path: Path, name: str) -> np.ndarray:
    tensors = _tensors(path.resolve())
    if name not in tensors:
        raise QuantError(f"{path}: tensor = {name!r}, expected one of {', '.join(tensors)}")
    return tensors[name].view()
