"""safetensors files: a header that is checked, tensors that stay in the file, and a writer that streams.

    8 bytes   N, little-endian u64
    N bytes   JSON {"name": {"dtype": "F16", "shape": [..], "data_offsets": [begin, end]}, ..., "__metadata__": {..}},
              padded with spaces
    the rest  the tensors without gaps, offsets counted from here

Read here and not through the `safetensors` package, whose NumPy side knows neither BF16 nor the eight-bit floats: BF16
is uint16 here, F8_* uint8, everything else the NumPy dtype of the same name. Data are read-only views of the mapped
file.
Whatever is malformed, cut off or hostile raises QuantError with the file and the tensor: a header beyond 100 MiB or the
file, JSON that is none, a name twice, an unknown dtype, offsets that overlap, leave gaps or do not match the shape.
Source    huggingface/safetensors README, "Format", and its validation rules.
"""

import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant.errors import QuantError

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
    "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1",
}  # fmt: skip
NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64", "int32": "I32"}
NAMES |= {"int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint8": "U8"}
MAX_HEADER = 100 << 20  # as in the safetensors library


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor: the dtype as the file names it, and a read-only array."""

    dtype: str
    data: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """The tensors of one file by name, and its metadata (strings)."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read(path: str | os.PathLike) -> File:
    """Open a file and check its header; nothing of the tensors is read. Raises QuantError."""
    path = Path(path)
    buffer = _mapped(path)
    length = int.from_bytes(buffer[:8].tobytes(), "little")
    if len(buffer) < 8 or length > min(MAX_HEADER, len(buffer) - 8):
        wanted = f"at most {min(MAX_HEADER, max(0, len(buffer) - 8))}"
        raise QuantError(f"{path}: length of the header = {length}, expected {wanted}: cut off, or no safetensors file")
    try:
        header = json.loads(buffer[8 : 8 + length].tobytes().decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise QuantError(f"{path}: header is no JSON ({str(error)[:120]}), expected an object") from error
    if not isinstance(header, dict):
        raise QuantError(f"{path}: header = {type(header).__name__}, expected an object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise QuantError(f"{path}: __metadata__ expected an object of strings")
    data, tensors, covered = buffer[8 + length :], {}, []
    for name, entry in header.items():
        tensors[name], span = _tensor(path, name, entry, data)
        covered.append(span)
    at = 0
    for begin, end in sorted(covered):
        if begin != at:
            raise QuantError(
                f"{path}: data of a tensor begins at {begin}, expected {at}: tensors overlap or leave a gap"
            )
        at = end
    if at != len(data):
        raise QuantError(f"{path}: the tensors end at {at}, expected {len(data)}, the end of the file")
    return File(path, tensors, metadata)


def write(
    path: str | os.PathLike,
    tensors: Iterable[tuple[str, str, np.ndarray]],
    metadata: Mapping[str, str] | None = None,
    header_room: int = 1 << 16,
) -> None:
    """Write (name, dtype, array) one after the other; the file appears whole or not at all.

    `header_room` bytes are kept free for the header, which is not known before the last tensor; `room` bounds it.
    Raises QuantError (a name twice, a header that outgrows its room, a dtype that is not the array's); OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.safetensors.tmp")
    header_room += -header_room % 8
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    try:
        with temporary.open("xb") as file:
            file.seek(8 + header_room)
            for name, dtype, array in tensors:
                if name in header or np.dtype(DTYPES.get(dtype, "V1")) != array.dtype:
                    raise QuantError(f"{path}: {name}: {array.dtype} as {dtype}, expected a new name and its dtype")
                flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                file.write(memoryview(flat))
                header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + flat.size]}
                at += flat.size
            text = json.dumps(header, separators=(",", ":")).encode()
            if len(text) > header_room:
                raise QuantError(f"{path}: header of {len(text)} bytes, expected at most the room of {header_room}")
            file.seek(0)
            file.write(header_room.to_bytes(8, "little") + text.ljust(header_room))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already unless something failed


def room(names: Iterable[str], metadata: Mapping[str, str] | None = None) -> int:
    """Bytes that are enough for a header of tensors of up to eight axes with these names."""
    entry = len('"":{"dtype":"F8_E4M3FNUZ","shape":[],"data_offsets":[,]},') + 10 * 21
    return 64 + len(json.dumps(dict(metadata or {}))) + sum(len(json.dumps(name)) + entry for name in names)


def _mapped(path: Path) -> np.ndarray:
    """All bytes of a regular file, uint8, read-only."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a named pipe would block for ever
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not status.st_size:
                raise QuantError(f"{path}: {status.st_size} bytes, expected a regular file that is not empty")
            return np.memmap(file, np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        if isinstance(error, QuantError):
            raise
        raise QuantError(f"{path}: cannot be opened: {error}") from error


def _tensor(path: Path, name: str, entry: object, data: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    where = f"{path}: tensor {name[:200]!r}"
    dtype, shape, span = (entry.get(k) if isinstance(entry, dict) else None for k in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise QuantError(f"{where}: dtype = {str(dtype)[:40]!r}, expected one of {', '.join(DTYPES)}")
    for what, numbers in (("shape", shape), ("data_offsets", span)):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
            raise QuantError(f"{where}: {what} = {str(numbers)[:80]}, expected a list of numbers from 0 on")
    kind = np.dtype(DTYPES[dtype])
    nbytes = math.prod(shape) * kind.itemsize
    if len(shape) > 32 or len(span) != 2 or span[1] - span[0] != nbytes or span[1] > len(data):
        wanted = f"{nbytes} bytes for {dtype} {shape[:32]} within {len(data)}"
        raise QuantError(f"{where}: data_offsets = {span[:4]}, expected {wanted}")
    array = data[span[0] : span[1]]
    if array.ctypes.data % kind.itemsize:
        array = array.copy()  # a header of odd length: NumPy wants its numbers aligned
    array = array.view(kind).reshape(shape)
    array.flags.writeable = False
    return Tensor(dtype, array), (span[0], span[1])


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return table
