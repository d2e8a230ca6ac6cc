"""Zeros that begin on a cache line: a vector that lies on two of them takes two reads, and matrix products slow down by
a tenth.

Large ones are pages of their own that the system hands out when they are first written, and takes back at the end. The
C library would hand out memory that was in use before, and write zeros to all of it.
"""

import mmap

import numpy as np

ALIGNMENT = 64  # bytes
LARGE = 1 << 20  # bytes from which memory is mapped


def zeros(shape: int | tuple[int, ...], dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """As np.zeros, its first byte at a multiple of ALIGNMENT."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size >= LARGE:
        return pages(size).view(dtype).reshape(shape)
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % ALIGNMENT
    return memory[skip : skip + size].view(dtype).reshape(shape)


def pages(size: int, huge: bool = False) -> np.ndarray:
    """`size` bytes of zeros, uint8, none of which has memory yet; `huge`: by 2 MB at a time where the system can."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, size, **private)
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
