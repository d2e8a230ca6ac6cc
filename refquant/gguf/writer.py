"""Writing GGUF: version 3, little-endian, one file, all at once or not at all.

    magic, version, counts | metadata | table of tensors | zeros up to the alignment | data of the tensors, each padded

The entries keep the order of the dicts. The table and the data are those that `container.open` accepts, and what it
returns can be handed back: `write(path, g.metadata, g.tensors, g.types)` repeats a file.
"""

import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from refquant.errors import QuantError, RangeError, SchemeError, ShapeError, require_multiple
from refquant.gguf import value_encoding
from refquant.gguf.cursor import quoted
from refquant.gguf.formats import FORMATS, BlockFormat
from refquant.gguf.header import ALIGNMENT, MAGIC, MAX_KEY, MAX_KEYS
from refquant.gguf.tensors import MAX_DIMS, MAX_NAME, MAX_TENSORS, Tensor, pad
from refquant.gguf.values import Value

VERSION = 3


def write(
    path: str | os.PathLike,
    metadata: Mapping[str, Value],
    tensors: Mapping[str, tuple[np.ndarray, str] | Tensor],
    types: Mapping[str, str] | None = None,
    alignment: int | None = None,
) -> None:
    """Write a file, replacing one of that name.

    tensors    {name: a Tensor, or (data, type name) with data as `Tensor.data` has them}: an array in the shape of the
               tensor and the dtype of a scalar type (BF16: uint16), uint8 (..., rows, bytes of a row) for a block type.
    types      {key: "u32", "arr[str]" ...}, for keys whose type the value does not tell; others are ignored. Without an
               entry the type is that of `value_encoding.spelling_of`.
    alignment  a power of two; None means metadata["general.alignment"], or 32. It is noted in the metadata unless 32.

    The bytes go to a temporary file beside `path`, which is renamed when they are complete: readers see the old file or
    the new one, and a failure leaves the old one. Tensors may be views of the very file that is replaced.

    Raises RangeError (names, counts, numbers that do not fit), ShapeError, SchemeError (unknown types), QuantError
    (dtype of data); OSError where the disk refuses.
    """
    metadata = dict(metadata)
    alignment = _alignment(metadata, alignment)
    for what, count, limit in (("tensors", len(tensors), MAX_TENSORS), ("metadata entries", len(metadata), MAX_KEYS)):
        if count > limit:
            raise RangeError(f"gguf.write: number of {what} = {count}, expected at most {limit}")
    header = [MAGIC, struct.pack("<Iqq", VERSION, len(tensors), len(metadata)), *_pairs(metadata, types or {})]
    arrays = []
    offset = 0
    for name, tensor in tensors.items():
        data, type = (tensor.data, tensor.type) if isinstance(tensor, Tensor) else tensor
        header.append(_entry(name, data, type, offset))
        arrays.append(data)
        offset += pad(data.nbytes, alignment)
    _replace(Path(path), _padded([b"".join(header), *arrays], alignment))


def _alignment(metadata: dict[str, Value], alignment: int | None) -> int:
    """The alignment in force; `metadata` gets the entry that says so."""
    noted = metadata.get("general.alignment")
    if alignment is None:
        alignment = ALIGNMENT if noted is None else noted
    if not isinstance(alignment, int | np.integer) or not 0 < alignment < 2**32 or alignment & (alignment - 1):
        raise RangeError(f"gguf.write: alignment = {alignment!r}, expected a power of two below 2**32")
    if noted is not None and noted != alignment:
        raise RangeError(f"gguf.write: metadata 'general.alignment' = {noted}, expected the alignment, {alignment}")
    if alignment != ALIGNMENT:
        metadata["general.alignment"] = alignment
    return alignment


def _pairs(metadata: dict[str, Value], types: Mapping[str, str]) -> Iterator[bytes]:
    for key, value in metadata.items():
        yield _name(key, "metadata key", MAX_KEY)
        yield value_encoding.encode(key, value, "u32" if key == "general.alignment" else types.get(key))


def _entry(name: str, data: np.ndarray, type: str, offset: int) -> bytes:
    head = _name(name, "tensor name", MAX_NAME)
    where = f"gguf.write: tensor {quoted(name)}"
    format = FORMATS.get(type)
    if format is None:
        near = get_close_matches(str(type), FORMATS, n=3, cutoff=0.5) or list(FORMATS)
        raise SchemeError(f"{where}: type = {type!r}, expected a ggml type such as {', '.join(near)}")
    dims = _shape(where, data, format)[::-1]
    if len(dims) > MAX_DIMS:
        raise ShapeError(f"{where}: ndim = {len(dims)}, expected at most {MAX_DIMS}")
    return head + struct.pack(f"<I{len(dims)}qiQ", len(dims), *dims, format.ggml_id, offset)


def _shape(where: str, data: np.ndarray, format: BlockFormat) -> tuple[int, ...]:
    """Shape in weights of data that are as `Tensor.data` has them."""
    expected = format.layout if format.is_scalar else np.dtype(np.uint8)
    if not isinstance(data, np.ndarray) or data.dtype != expected:
        got = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
        raise QuantError(f"{where}: data = {got}, expected an array of {expected} for {format.name}")
    if format.is_scalar:
        return data.shape
    if data.ndim == 0:
        raise ShapeError(f"{where}: data.ndim = 0, expected rows of {format.name} blocks")
    if data.shape[-1]:
        require_multiple(where, "data.shape[-1]", data.shape[-1], format.block_bytes)
    return *data.shape[:-1], data.shape[-1] // format.block_bytes * format.values


def _name(name: str, what: str, limit: int) -> bytes:
    if not isinstance(name, str):
        raise SchemeError(f"gguf.write: {what} = {name!r}, expected str")
    if not name or "\0" in name:
        raise RangeError(f"gguf.write: {what} = {quoted(name)}, expected 1 to {limit} bytes, none of them 0")
    return value_encoding.string(name, f"gguf.write: {what} {quoted(name)}", limit, "strict")


def _padded(parts: list[bytes | np.ndarray], alignment: int) -> Iterator[bytes | memoryview]:
    for part in parts:
        flat = part if isinstance(part, bytes) else np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        yield memoryview(flat)
        yield bytes(pad(len(flat), alignment) - len(flat))


def _replace(path: Path, pieces: Iterator[bytes | memoryview]) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}.gguf.tmp")
    try:
        with temporary.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already unless something failed
