"""Freed memory goes back to the system."""

import ctypes
import sys

import pytest

from runtime import heap
from runtime.resident_memory import resident_memory

MIB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="a word of glibc")
def test_what_was_freed_is_given_back():
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    blocks = [library.malloc(60_000) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    for block in blocks[:-1]:  # the last one keeps the C library from giving the others back by itself
        library.free(block)
    before = resident_memory().anonymous
    heap.trim()
    assert before - resident_memory().anonymous > 40 * MIB
    library.free(blocks[-1])
