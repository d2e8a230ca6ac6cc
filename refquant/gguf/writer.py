"""Writing GGUF: version 3, little-endian, one file, all at once or not at all.

    magic, version, counts | metadata | table of tensors | zeros up to the alignment | data of the tensors, each padded

The entries keep the order of the dicts. The table and the data are those that `container.open` accepts, and what it
returns can be handed back: `write(path, g.metadata, g.tensors, g.types)` repeats a file. `create` is for tensors that
are too large to have at once: shapes and types first, then the bytes in any order, from any thread.
"""

import math
import os
import secrets
import struct
import threading
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
    arrays = {
        name: (tensor.data, tensor.type) if isinstance(tensor, Tensor) else tensor for name, tensor in tensors.items()
    }
    shapes = {name: (_shape(name, data, type), type) for name, (data, type) in arrays.items()}
    with create(path, metadata, shapes, types, alignment) as file:
        for name, (data, _) in arrays.items():
            file.put(name, 0, np.ascontiguousarray(data).reshape(-1).view(np.uint8))


class GGUFWriter:
    """A file that is being written. Leaving the `with` block without an exception makes it the file of that name, all
    at once; with one, nothing is left of it, unless it has a place of its own until then (`unfinished`). Bytes that
    nobody put are zeros."""

    def __init__(
        self,
        path: Path,
        header: bytes,
        places: dict[str, tuple[int, int]],
        nbytes: int,
        unfinished: Path | None = None,
    ):
        self.path, self.nbytes = path, nbytes  # of the whole file
        self._places = places  # {name: (where its data begin in the file, how many bytes they are)}
        self._temporary = unfinished or path.with_name(f".{secrets.token_hex(8)}.gguf.tmp")
        self._kept = unfinished is not None
        self._lock = threading.Lock()
        self.resumed = self._kept and self._temporary.is_file() and self._temporary.stat().st_size == nbytes
        mode = "r+b" if self.resumed else "wb" if self._kept else "xb"
        self._file = self._temporary.open(mode, buffering=0)
        try:
            self._file.truncate(nbytes)
            self._write(0, header)
        except BaseException:
            self._discard()
            raise

    def put(self, name: str, first: int, data: np.ndarray | bytes) -> None:
        """Write bytes `first` and following of a tensor: bytes or flat uint8. Threads may call it at the same time."""
        start, size = self._places[name]
        if first < 0 or first + len(data) > size:
            expected = f"bytes within the {size} of the tensor"
            raise RangeError(f"{_where(name)}: bytes {first} to {first + len(data)}, expected {expected}")
        self._write(start + first, data)

    def sync(self) -> None:
        """Return when everything that was put is on the disk."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> "GGUFWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self._file.fileno())
                self._file.close()
                os.replace(self._temporary, self.path)
        finally:
            self._discard()

    def _write(self, at: int, data: np.ndarray | bytes) -> None:
        rest = memoryview(data)
        while rest:
            if hasattr(os, "pwrite"):
                count = os.pwrite(self._file.fileno(), rest, at)
            else:
                with self._lock:  # a position that all threads share
                    self._file.seek(at)
                    count = self._file.write(rest)
            at, rest = at + count, rest[count:]

    def _discard(self) -> None:
        self._file.close()
        if self._kept:
            return
        self._temporary.unlink(missing_ok=True)  # gone already unless something failed


def create(
    path: str | os.PathLike,
    metadata: Mapping[str, Value],
    tensors: Mapping[str, tuple[tuple[int, ...], str]],
    types: Mapping[str, str] | None = None,
    alignment: int | None = None,
    unfinished: str | os.PathLike | None = None,
) -> GGUFWriter:
    """Begin a file with `tensors` {name: (shape in weights, NumPy order, type name)}; the rest is as for `write`.

    with create(path, metadata, {"w": ((2, 32), "Q4_0")}) as file:
        file.put("w", 0, first_row)
        file.put("w", 18, second_row)

    unfinished   where the bytes are until the file is complete. It stays after a failure, and a file of the right size
                 that is there is gone on with: for who knows, from elsewhere, which tensors it holds. None: a name of
                 its own, of which nothing stays.
    """
    metadata = dict(metadata)
    alignment = _alignment(metadata, alignment)
    for what, count, limit in (("tensors", len(tensors), MAX_TENSORS), ("metadata entries", len(metadata), MAX_KEYS)):
        if count > limit:
            raise RangeError(f"gguf.write: number of {what} = {count}, expected at most {limit}")
    header = [MAGIC, struct.pack("<Iqq", VERSION, len(tensors), len(metadata)), *_pairs(metadata, types or {})]
    offset, offsets = 0, {}
    for name, (shape, type) in tensors.items():
        header.append(_entry(name, shape, type, offset))
        size = _nbytes(shape, type)
        offsets[name] = offset, size
        offset += pad(size, alignment)
    packed = b"".join(header)
    start = pad(len(packed), alignment)
    places = {name: (start + first, size) for name, (first, size) in offsets.items()}
    return GGUFWriter(Path(path), packed, places, start + offset, None if unfinished is None else Path(unfinished))


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


def _where(name: str) -> str:
    return f"gguf.write: tensor {quoted(str(name))}"


def _entry(name: str, shape: tuple[int, ...], type: str, offset: int) -> bytes:
    head = _name(name, "tensor name", MAX_NAME)
    format = _format(name, type)
    if len(shape) > MAX_DIMS:
        raise ShapeError(f"{_where(name)}: ndim = {len(shape)}, expected at most {MAX_DIMS}")
    if not format.is_scalar and (not shape or shape[-1] % format.values):
        row = shape[-1] if shape else "none"
        raise ShapeError(f"{_where(name)}: shape[-1] = {row}, expected a multiple of {format.values}")
    return head + struct.pack(f"<I{len(shape)}qiQ", len(shape), *shape[::-1], format.ggml_id, offset)


def _format(name: str, type: str) -> BlockFormat:
    if type not in FORMATS:
        near = get_close_matches(str(type), FORMATS, n=3, cutoff=0.5) or list(FORMATS)
        raise SchemeError(f"{_where(name)}: type = {type!r}, expected a ggml type such as {', '.join(near)}")
    return FORMATS[type]


def _nbytes(shape: tuple[int, ...], type: str) -> int:
    format = FORMATS[type]
    return math.prod(shape) // format.values * format.block_bytes


def _shape(name: str, data: np.ndarray, type: str) -> tuple[int, ...]:
    """Shape in weights of data that are as `Tensor.data` has them."""
    where, format = _where(name), _format(name, type)
    expected = format.layout if format.is_scalar else np.dtype(np.uint8)
    if not isinstance(data, np.ndarray) or data.dtype != expected:
        got = data.dtype if isinstance(data, np.ndarray) else data.__class__.__name__
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
