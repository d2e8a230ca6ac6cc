"""A place in the bytes of a file: reads that never pass the end, refusals that say where they stood.

Numbers are little-endian. A string is a u64 length in bytes and then the bytes, with no terminating zero. No length is
believed, and nothing is allocated for it, before it has been compared with the bytes that remain.
"""

import mmap
import struct
from pathlib import Path

from refquant.errors import GGUFError

U32 = struct.Struct("<I")
I64 = struct.Struct("<q")
U64 = struct.Struct("<Q")

_SHOWN = 80  # characters of a name that a message repeats: the name comes from the file and may be very long


def quoted(name: str) -> str:
    """A name out of a file for a message: escaped, so that it cannot drive a terminal, and cut."""
    return repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "...")


class Cursor:
    """Reads `buffer` from byte `at` on. Messages call the entry being read by its `kind` and its `name`, or `index`."""

    __slots__ = ("at", "buffer", "end", "index", "kind", "name", "path")

    def __init__(self, buffer: mmap.mmap | bytes, path: Path):
        self.buffer, self.path = buffer, path
        self.at, self.end = 0, len(buffer)
        self.kind, self.index, self.name = "", 0, ""

    def enter(self, kind: str, index: int, name: str = "") -> None:
        """Name the entry that the next reads belong to; no text is built unless one of them fails."""
        self.kind, self.index, self.name = kind, index, name

    def error(self, field: str, got: object, expected: str, at: int) -> GGUFError:
        """The exception to raise: `file: entry field = got at byte at, expected ...`."""
        entry = f"{self.kind} {quoted(self.name) if self.name else self.index} " if self.kind else ""
        return GGUFError(f"{self.path}: {entry}{field} = {got} at byte {at}, expected {expected}")

    def require(self, field: str, size: int) -> None:
        """Raise GGUFError unless `size` more bytes are there."""
        left = self.end - self.at
        if size > left:
            expected = f"{size} bytes: the file is cut off or a length in it is wrong"
            raise self.error(field, f"{left} bytes before the end of the file", expected, self.at)

    def take(self, layout: struct.Struct, field: str) -> tuple:
        """The numbers of `layout`, which names the byte order."""
        at = self.at
        after = at + layout.size
        if after > self.end:
            self.require(field, layout.size)
        self.at = after
        return layout.unpack_from(self.buffer, at)

    def text(self, field: str, limit: int, errors: str = "strict") -> str:
        """A string of at most `limit` bytes. UTF-8; `errors` as in bytes.decode."""
        at = self.at
        (length,) = self.take(U64, field)
        start = self.at
        if length > limit:
            raise self.error(field, f"{length} bytes long", f"at most {limit}", at)
        if start + length > self.end:
            self.require(field, length)
        self.at = start + length
        raw = self.buffer[start : self.at]
        try:
            return raw.decode("utf-8", errors)
        except UnicodeDecodeError as bad:
            raise self.error(field, repr(raw[:_SHOWN]), f"UTF-8 ({bad.reason})", start + bad.start) from None
