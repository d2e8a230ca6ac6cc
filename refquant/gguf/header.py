"""The header of a GGUF file: how many entries follow, and the metadata.

    magic "GGUF", version u32, n_tensors i64, n_kv i64, then n_kv times: key (str), value

Read are versions 2 and 3 in little-endian order; between them nothing differs but the permission to be big-endian.
Version 1 had 32-bit counts and is refused here as in llama.cpp.
Source   ggml/docs/gguf.md, ggml/src/gguf.cpp. The caps on the counts are ours.
"""

from dataclasses import dataclass

from refquant.gguf import foreign, values
from refquant.gguf.cursor import I64, U32, Cursor, quoted
from refquant.gguf.tensors import MAX_TENSORS, SMALLEST_ENTRY

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # where general.alignment says nothing
MAX_KEY = 65535  # bytes
MAX_KEYS = 1 << 10  # models have some 50; bounds the time that a hostile header takes
_SMALLEST_PAIR = 14  # bytes: a key of one byte, a type and a value of one byte


@dataclass(frozen=True, slots=True)
class Header:
    """Everything of a file but its tensors; `metadata` holds long string arrays unread (values.Unread)."""

    version: int
    n_tensors: int
    metadata: dict[str, values.Value | values.Unread]
    types: dict[str, str]  # spelling of each value's type
    offsets: dict[str, int]  # where each value's type id stands
    alignment: int


def read(cursor: Cursor) -> Header:
    """Read from byte 0 up to the table of tensors. Raises GGUFError."""
    version = _version(cursor)
    n_tensors = _count(cursor, "n_tensors", MAX_TENSORS, SMALLEST_ENTRY)
    n_kv = _count(cursor, "n_kv", MAX_KEYS, _SMALLEST_PAIR)
    metadata, types, offsets = {}, {}, {}
    alignment = ALIGNMENT
    for i in range(n_kv):
        cursor.enter("metadata", i)
        at = cursor.at
        key = cursor.text("key", MAX_KEY)
        if not key or "\0" in key or key in metadata:
            expected = "a key not used before" if key in metadata else f"1 to {MAX_KEY} bytes, none of them 0"
            raise cursor.error("key", quoted(key), expected, at)
        cursor.name = key
        offsets[key] = at = cursor.at
        types[key], metadata[key] = values.read(cursor)
        if key == "general.alignment":
            alignment = _alignment(cursor, types[key], metadata[key], at)
    return Header(version, n_tensors, metadata, types, offsets, alignment)


def _version(cursor: Cursor) -> int:
    magic = cursor.buffer[:4]
    if magic != MAGIC and not MAGIC.startswith(magic):
        words = foreign.kind(cursor.buffer[:64])
        raise cursor.error("magic", repr(magic), f"{MAGIC!r}: this is {words}", 0)
    cursor.require("magic", 4)
    cursor.at = 4
    (version,) = cursor.take(U32, "version")
    if version in VERSIONS:
        return version
    if version == 1:
        raise cursor.error("version", 1, "2 or 3: files of August 2023 must be converted again", 4)
    if version and version % 65536 == 0:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        advice = "convert it with gguf-py's gguf-convert-endian"
        raise cursor.error("version", f"{swapped} in big-endian order", f"a little-endian file: {advice}", 4)
    raise cursor.error("version", version, "2 or 3: the file is newer than this reader" if version else "2 or 3", 4)


def _count(cursor: Cursor, field: str, limit: int, smallest: int) -> int:
    at = cursor.at
    (count,) = cursor.take(I64, field)
    left = cursor.end - at - 8
    if not 0 <= count <= limit:
        raise cursor.error(field, count, f"0 to {limit}", at)
    if count * smallest > left:
        raise cursor.error(field, count, f"at most {left // smallest}: only {left} bytes follow", at)
    return count


def _alignment(cursor: Cursor, type: str, value: values.Value | values.Unread, at: int) -> int:
    if type != "u32":
        raise cursor.error("type", type, "u32", at)
    if value & (value - 1) or not value:
        raise cursor.error("value", value, "a power of two", at + 4)
    return value
