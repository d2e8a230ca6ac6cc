"""GGUF files byte by byte, right or wrong: knows nothing of `refquant`, and any field can be given any value.

A file is a list of fields (bytes), so that a test can change one of them; `join` makes the bytes of it.
"""

import struct
from collections.abc import Iterable

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}

Fields = list[bytes]


def number(type: int, value: float) -> bytes:
    return struct.pack("<" + CODES[type], value)


def unsigned(value: int, size: int = 8) -> bytes:
    """Any integer, wrapped to `size` bytes."""
    return (value % (1 << 8 * size)).to_bytes(size, "little")


def string(text: str | bytes, length: int | None = None) -> Fields:
    """`length` is what the file claims."""
    raw = text.encode() if isinstance(text, str) else text
    return [unsigned(len(raw) if length is None else length), raw]


def pair(key: str | bytes, type: int, value: float | str | bytes) -> Fields:
    """A metadata entry; `value` as bytes stands for itself."""
    if isinstance(value, bytes):
        return [*string(key), unsigned(type, 4), value]
    return [*string(key), unsigned(type, 4), *(string(value) if type == STR else [number(type, value)])]


def array(key: str, element: int, values: Iterable, count: int | None = None) -> Fields:
    """A metadata entry that is an array; `count` is what the file claims."""
    values = list(values)
    body = [f for v in values for f in (string(v) if element == STR else [number(element, v)])]
    claimed = unsigned(len(values) if count is None else count)
    return [*string(key), unsigned(ARR, 4), unsigned(element, 4), claimed, *body]


def tensor(name: str | bytes, dims: Iterable[int], type: int, offset: int, n_dims: int | None = None) -> Fields:
    """An entry of the table of tensors; `dims` in the order of the file, `n_dims` what the file claims."""
    dims = list(dims)
    claimed = unsigned(len(dims) if n_dims is None else n_dims, 4)
    return [*string(name), claimed, *(unsigned(d) for d in dims), unsigned(type, 4), unsigned(offset)]


def gguf(
    pairs: Iterable[Fields] = (),
    tensors: Iterable[Fields] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_kv: int | None = None,
    alignment: int = 32,
) -> Fields:
    """A whole file; `n_tensors` and `n_kv` are what the file claims. The header is padded where data follow."""
    pairs, tensors = list(pairs), list(tensors)
    fields = [
        magic,
        unsigned(version, 4),
        unsigned(len(tensors) if n_tensors is None else n_tensors),
        unsigned(len(pairs) if n_kv is None else n_kv),
        *(f for entry in (*pairs, *tensors) for f in entry),
    ]
    if data:
        fields += [bytes(-sum(map(len, fields)) % alignment), data]
    return fields


def join(fields: Fields) -> bytes:
    return b"".join(fields)
