"""Metadata values: a u32 type id, then the value; how each is read.

    id    0  1  2   3   4   5   6   7    8   9   10  11  12
    name  u8 i8 u16 i16 u32 i32 f32 bool str arr u64 i64 f64

A bool is one byte: 0 is False, any other byte is True (and is written as 1). A str is a u64 length in bytes and UTF-8;
vocabularies hold pieces of characters, so bytes that are not UTF-8 become lone surrogates ("surrogateescape") and are
written back as they were. An arr is the u32 id of its elements, a u64 count and the elements; arrays do not nest.

In Python: int, float, bool, str; Strings, a sequence of str (strings.py); a read-only array of the file's dtype,
np.bool_ for bools. An f32 is the float of the same value. The spelling of a type is its name, or "arr[name]".
Source   ggml/docs/gguf.md; the limits on strings and arrays are those of ggml/src/gguf.cpp.
"""

import mmap
import struct
from array import array
from dataclasses import dataclass

import numpy as np

from refquant.gguf.cursor import U32, U64, Cursor
from refquant.gguf.strings import LENGTH, Strings

Value = bool | int | float | str | Strings | np.ndarray

MAX_STRING = 1 << 30  # bytes, as in ggml
MAX_ELEMENTS = 1 << 30
MAX_TOKENS = 1 << 22  # entries of a vocabulary or of a list of merges
MAX_TOKEN = 1 << 16  # bytes of one of them: tokenizers copy lengths into narrow integers
MANY, GUESS = 1000, 64  # strings that are worth a guess at all their lengths; bytes of one with its length, or fewer


@dataclass(frozen=True, slots=True)
class ScalarType:
    """A metadata type of fixed size."""

    id: int
    name: str
    dtype: np.dtype  # little-endian; a bool is read as the byte it is
    layout: struct.Struct


SCALARS = tuple(
    ScalarType(id, name, np.dtype(dtype), struct.Struct(layout))
    for id, name, dtype, layout in (
        (0, "u8", "u1", "<B"),
        (1, "i8", "i1", "<b"),
        (2, "u16", "<u2", "<H"),
        (3, "i16", "<i2", "<h"),
        (4, "u32", "<u4", "<I"),
        (5, "i32", "<i4", "<i"),
        (6, "f32", "<f4", "<f"),
        (7, "bool", "u1", "<B"),
        (10, "u64", "<u8", "<Q"),
        (11, "i64", "<i8", "<q"),
        (12, "f64", "<f8", "<d"),
    )
)
STR, ARR = 8, 9
BY_NAME = {s.name: s for s in SCALARS}
_BY_ID = {s.id: s for s in SCALARS}
_ARRAY_NAMES = {s.id: f"arr[{s.name}]" for s in SCALARS}
_KNOWN = "a metadata type, 0 to 12"


@dataclass(frozen=True, slots=True, eq=False)
class Unread:
    """An array of strings whose first length is at byte `start`; the lengths, int64, have been found sound."""

    start: int
    lengths: np.ndarray

    def read(self, buffer: mmap.mmap | bytes) -> Strings:
        """All of them."""
        return Strings.read(buffer, self.start, self.lengths)


def read(cursor: Cursor) -> tuple[str, Value | Unread]:
    """Read a type and its value; return (spelling of the type, value). Raises GGUFError.

    Arrays of strings come as `Unread`, to be copied when the rest of the file has been found sound: most of the time
    and memory of opening a file goes there, and a malformed file is not worth it.
    """
    at = cursor.at
    (id,) = cursor.take(U32, "type")
    if id == STR:
        return "str", cursor.text("value", MAX_STRING, "surrogateescape")
    if id == ARR:
        return _read_array(cursor)
    scalar = _BY_ID.get(id)
    if scalar is None:
        raise cursor.error("type", id, _KNOWN, at)
    (value,) = cursor.take(scalar.layout, "value")
    return scalar.name, value != 0 if scalar.name == "bool" else value


def _read_array(cursor: Cursor) -> tuple[str, Unread | np.ndarray]:
    at = cursor.at
    (id,) = cursor.take(U32, "element type")
    if id == ARR:
        raise cursor.error("element type", "arr", "a scalar type or str: arrays do not nest", at)
    scalar = _BY_ID.get(id)
    if scalar is None and id != STR:
        raise cursor.error("element type", id, _KNOWN, at)
    (count,) = cursor.take(U64, "array length")
    if count > MAX_ELEMENTS:
        raise cursor.error("array length", count, f"at most {MAX_ELEMENTS}", at + 4)
    size = 8 if scalar is None else scalar.dtype.itemsize  # a string takes at least the 8 bytes of its length
    if cursor.at + count * size > cursor.end:
        cursor.require(f"array of {count}", count * size)
    if scalar is None:
        return "arr[str]", _walk_strings(cursor, count)
    start = cursor.at
    cursor.at = start + count * size
    values = np.frombuffer(cursor.buffer[start : cursor.at], scalar.dtype)  # a slice of a mapping is a copy: aligned
    if scalar.name == "bool":
        values = values != 0
        values.flags.writeable = False
    return _ARRAY_NAMES[id], values


def _walk_strings(cursor: Cursor, count: int) -> Unread:
    """Pass over `count` strings. No function of ours in the loop: a vocabulary and its merges are 400,000 strings."""
    limit = MAX_STRING
    if cursor.name.startswith("tokenizer."):
        limit = MAX_TOKEN
        if count > MAX_TOKENS:
            raise cursor.error("array length", count, f"at most {MAX_TOKENS}", cursor.at - 8)
    start = at = cursor.at
    lengths = _short_lengths(cursor, count)
    if lengths is not None:
        cursor.at = start + int(lengths.sum()) + LENGTH * count
        return Unread(start, lengths)
    found = array("q")
    last, buffer, unpack = cursor.end - LENGTH, cursor.buffer, U64.unpack_from  # no length can begin after `last`
    for i in range(count):
        if at <= last:
            (length,) = unpack(buffer, at)
            if length <= limit and length <= last - at:
                at += LENGTH + length
                found.append(length)
                continue
        cursor.at = at
        cursor.text(f"string {i} of {count}", limit)  # raises: it meets what the loop met
    cursor.at = at
    return Unread(start, np.array(found, np.int64))


def _short_lengths(cursor: Cursor, count: int) -> np.ndarray | None:
    """The lengths of `count` strings of 1 to 255 bytes, none of them zero, at the cursor; None if they may be others.

    Such a length is a byte and seven zeros, and nothing else is: where those stand is a guess at all lengths at once,
    and right if each leads to the next.
    """
    if count < MANY:
        return None
    end = min(cursor.end, cursor.at + count * GUESS)
    data = np.frombuffer(cursor.buffer, np.uint8, end - cursor.at, cursor.at)
    zero = data == 0
    seven = zero[1 : len(zero) - LENGTH + 2].copy()
    for i in range(2, LENGTH):
        seven &= zero[i : len(zero) - LENGTH + 1 + i]
    at = np.flatnonzero(seven)[:count]
    if len(at) < count or at[0] != 0:
        return None
    lengths = data[at].astype(np.int64)
    if not lengths.all() or (np.diff(at) != lengths[:-1] + LENGTH).any() or at[-1] + LENGTH + lengths[-1] > len(data):
        return None
    return lengths
