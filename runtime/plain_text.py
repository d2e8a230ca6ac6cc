"""Text that comes from outside as bytes: UTF-8 with whatever else made visible, and never more than makes sense."""

from pathlib import Path
from typing import BinaryIO

from refquant.errors import RangeError

MAX_BYTES = 16 << 20  # four bytes for each of the 4,194,304 characters that a tokenizer takes at a time


def decoded(data: bytes) -> str:
    """UTF-8 text; every byte that is none becomes U+FFFD, as does a lone surrogate. A byte order mark is dropped."""
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def read(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file, or of a device that ends. Raises RangeError beyond `limit`, OSError."""
    with path.open("rb") as file:
        return bounded(file.read(limit + 1), str(path), limit)


def read_stream(stream: BinaryIO) -> bytes:
    """All that is left of a stream. Raises RangeError beyond MAX_BYTES."""
    return bounded(stream.read(MAX_BYTES + 1), "standard input", MAX_BYTES)


def read_line(stream: BinaryIO) -> bytes:
    """The next line, b"" at the end. Raises RangeError beyond MAX_BYTES."""
    return bounded(stream.readline(MAX_BYTES + 1), "standard input", MAX_BYTES)


def bounded(data: bytes, where: str, limit: int) -> bytes:
    """`data` if it is no longer than `limit`, else RangeError."""
    if len(data) > limit:
        raise RangeError(f"{where}: more than {limit} bytes of text, expected at most that")
    return data
