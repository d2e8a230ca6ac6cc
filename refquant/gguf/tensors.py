"""The table of tensors in a GGUF file: what an entry says, what must hold, and the array that it stands for.

    entry   name (str), n_dims u32, dims i64[n_dims], type u32, offset u64 (from the start of the data section)

The file lists dimensions from the contiguous one outwards; `shape` is NumPy's order, the reverse. Data lie in the order
of the table without holes: an offset is the sum of the sizes before it, each padded to the alignment. So tensors can
neither overlap nor reach outside the file.
Source   ggml/docs/gguf.md, ggml/src/gguf.cpp; a size of 0 is legal.
"""

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from refquant.gguf.cursor import U32, Cursor, quoted
from refquant.gguf.formats import FORMATS, FORMATS_BY_ID, REJECTED_IDS
from refquant.gguf.mapping import Mapping

MAX_NAME = 63  # bytes: GGML_MAX_NAME counts a terminating zero
MAX_DIMS = 4
MAX_TENSORS = 1 << 12  # some three times what the largest models hold; bounds the time that a hostile table takes
SMALLEST_ENTRY = 25  # bytes: a name of one byte and no dimensions
_INT64_MAX = 2**63 - 1
_TAILS = tuple(struct.Struct(f"<{n}qiQ") for n in range(MAX_DIMS + 1))  # dims, type, offset


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of an open file."""

    name: str
    shape: tuple[int, ...]  # NumPy order: (..., rows, n_in)
    type: str  # ggml's name: a key of FORMATS
    offset: int  # of the first byte, in the file `path`
    nbytes: int
    path: Path  # of the shard that holds it
    _mapping: Mapping = field(repr=False, compare=False)

    def release(self, first: int = 0, nbytes: int | None = None) -> None:
        """Say that the data (`nbytes` from byte `first` of them on) will not be read soon: their pages stop counting
        as memory of this process."""
        self._mapping.release(self.offset + first, self.nbytes if nbytes is None else nbytes)

    @property
    def pages(self) -> tuple[int, int]:
        """Address and bytes of the pages that `release` lets go."""
        return self._mapping.pages(self.offset, self.nbytes)

    @property
    def data(self) -> np.ndarray:
        """A read-only view of the file: `shape` in the dtype of a scalar type (BF16 as uint16); for blocks uint8
        (..., rows, bytes of a row). Raises GGUFError after the file was closed or cut short.

        The view is aligned to the file's alignment and no more: 32 bytes by default, 1 byte in a file that says so.
        """
        format = FORMATS[self.type]
        if format.is_scalar:
            return self._mapping.view(format.layout, self.shape, self.offset, self.nbytes)
        row = self.shape[-1] // format.values * format.block_bytes
        return self._mapping.view(np.dtype(np.uint8), (*self.shape[:-1], row), self.offset, self.nbytes)


def pad(size: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-size // alignment) * alignment


def read(cursor: Cursor, count: int, alignment: int, mapping: Mapping) -> dict[str, Tensor]:
    """The table of `count` entries at the cursor. Raises GGUFError."""
    entries: dict[str, tuple] = {}
    running = 0  # the offset that the next entry must have
    for i in range(count):
        cursor.enter("tensor", i)
        at = cursor.at
        name = cursor.text("name", MAX_NAME)
        if not name or "\0" in name or name in entries:
            expected = "a name not used before" if name in entries else f"1 to {MAX_NAME} bytes, none of them 0"
            raise cursor.error("name", quoted(name), expected, at)
        cursor.name = name
        shape, type, nbytes, offset = _entry(cursor)
        if offset != running:
            expected = f"{running}: data lie in order, without holes or overlaps"
            raise cursor.error("offset", offset, expected, cursor.at - 8)
        entries[name] = shape, type, offset, nbytes, cursor.at - 8
        running += pad(nbytes, alignment)
    start = pad(cursor.at, alignment)
    table = {}
    for name, (shape, type, offset, nbytes, offset_at) in entries.items():
        end = start + offset + nbytes
        if end > cursor.end and nbytes:
            cursor.enter("tensor", len(table), name)
            expected = f"no more than the {cursor.end} bytes of the file: it is cut off, or its download not complete"
            raise cursor.error("end of data", end, expected, offset_at)
        table[name] = Tensor(name, shape, type, start + offset, nbytes, mapping.path, mapping)
    return table


def _entry(cursor: Cursor) -> tuple[tuple[int, ...], str, int, int]:
    """What follows the name: (shape, type, bytes, offset)."""
    (n_dims,) = cursor.take(U32, "n_dims")
    if n_dims > MAX_DIMS:
        raise cursor.error("n_dims", n_dims, f"at most {MAX_DIMS}", cursor.at - 4)
    at = cursor.at
    *dims, id, offset = cursor.take(_TAILS[n_dims], "dims, type and offset")
    format = FORMATS_BY_ID.get(id)
    if format is None:
        got = f"{id} ({REJECTED_IDS[id]})" if id in REJECTED_IDS else id
        raise cursor.error("type", got, "a tensor type that ggml has", at + 8 * n_dims)
    for j, dim in enumerate(dims):
        if dim < 0:
            raise cursor.error(f"dims[{j}]", dim, "0 or more", at + 8 * j)
    row = dims[0] if dims else 1
    if row % format.values:
        raise cursor.error("dims[0]", row, f"a multiple of {format.values}, the block of {format.name}", at)
    elements = math.prod(dims)
    # NumPy refuses a shape whose other axes overflow although it holds nothing, so zeros count as ones for the limit.
    bound = elements or math.prod(dim or 1 for dim in dims)
    if max(bound, bound // format.values * format.block_bytes) > _INT64_MAX:
        raise cursor.error("dims", " x ".join(map(str, dims)), "fewer than 2**63 elements and bytes", at)
    return tuple(dims[::-1]), format.name, elements // format.values * format.block_bytes, offset
