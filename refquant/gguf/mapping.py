"""A file mapped read-only: its bytes without a copy, and checks that keep an ordinary mistake from being a crash."""

import mmap
import os
import stat
from pathlib import Path

import numpy as np

from refquant.errors import GGUFError


class Mapping:
    """The bytes of one file. Arrays from `view` keep the memory mapped for as long as they live, also after `close`."""

    __slots__ = ("_buffer", "path")

    def __init__(self, path: str | os.PathLike):
        """Raises GGUFError where the file is missing, unreadable, empty or not a regular file."""
        self.path = Path(path)
        if "\0" in str(self.path):
            raise GGUFError(f"{str(self.path)!r}: expected a path without zeros")
        try:
            # a named pipe without a writer would block an ordinary open for ever
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            try:
                self._buffer = _map(descriptor, self.path)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise GGUFError(f"{self.path}: cannot be opened: {error.strerror or error}") from error

    @property
    def buffer(self) -> mmap.mmap:
        if self._buffer is None:
            raise GGUFError(f"{self.path}: the file is closed, expected an open one")
        return self._buffer

    def view(self, dtype: np.dtype, shape: tuple[int, ...], offset: int, nbytes: int) -> np.ndarray:
        """A read-only array over the bytes `offset .. offset + nbytes`, which were inside the file when it was opened.

        A page that another program has cut off since then cannot be read without killing the process, so the size is
        looked up again: GGUFError. (Nothing helps when the file shrinks under an array that is already in use.)
        """
        if not nbytes:
            array = np.empty(shape, dtype)
            array.flags.writeable = False
            return array
        size = self.buffer.size()
        if offset + nbytes > size:
            raise GGUFError(f"{self.path}: size = {size} bytes, expected {len(self.buffer)} as when it was opened")
        return np.ndarray(shape, dtype, self.buffer, offset)

    def release(self, offset: int, nbytes: int) -> None:
        """Let the system take back the whole pages of `offset .. offset + nbytes`; reading them brings them back."""
        first, length = _whole_pages(offset, nbytes)
        if length and hasattr(mmap, "MADV_DONTNEED"):
            self.buffer.madvise(mmap.MADV_DONTNEED, first, length)

    def pages(self, offset: int, nbytes: int) -> tuple[int, int]:
        """Address and bytes of what `release` lets go, for code that does so itself."""
        first, length = _whole_pages(offset, nbytes)
        return np.frombuffer(self.buffer, np.uint8).ctypes.data + first, length

    def close(self) -> None:
        """Give up the mapping. mmap.close is not for us: it unmaps pages that NumPy arrays still point to."""
        self._buffer = None


def _whole_pages(offset: int, nbytes: int) -> tuple[int, int]:
    """Offset and bytes of the pages that lie inside of `offset .. offset + nbytes` altogether."""
    first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
    return first, max(0, (offset + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first)


def _map(descriptor: int, path: Path) -> mmap.mmap:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise GGUFError(f"{path}: is {kind}, expected a GGUF file")
    if status.st_size == 0:
        raise GGUFError(f"{path}: size = 0 bytes, expected a GGUF file: the download or the copy did not work")
    try:
        return mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
    except ValueError as error:  # raised where the file has become shorter than its size of a moment ago
        raise GGUFError(f"{path}: size of {status.st_size} bytes cannot be mapped: {error}") from error
