"""Packing the matrices of a model: all in one program for the threads that will multiply them, with no Python between.

    file, mapped  ->  interleave (runtime.kernels.pack)  ->  arena      after every 8 MB those pages are let go

The interpreter is free meanwhile: the tokenizer is made and compiled kernels are read at the same time. Threads that
came back to it after every matrix would wait for it each time.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from mmap import PAGESIZE

import numpy as np

from refquant.gguf import FORMATS, Tensor
from runtime.arena import Arena
from runtime.kernels import PRODUCTS
from runtime.kernels.pack import GROUP, interleave, plan, release
from runtime.program import Program
from runtime.step import DONE, TICKET
from runtime.workers import Crew

KERNELS = (interleave, release)
RELEASE = 8 << 20  # bytes of the file between two releases: what loading holds beyond the packed weights
LOOK = 0.05  # seconds between two looks at how far it is


class Packing:
    """Matrices to be packed into `arena` by the threads of `crew`: `add` all of them, then `run`, or work beside it."""

    def __init__(self, crew: Crew, arena: Arena):
        self._crew, self._arena = crew, arena
        self._begin()

    def _begin(self) -> None:
        self._program = Program()
        self._matrices: list[int] = []  # the rows of the program that end them
        self._last = 0
        self._unreleased = 0
        self._spans: list[tuple[int, int]] = []

    def add(self, data: np.ndarray, type_name: str, tensor: Tensor | None = None) -> np.ndarray:
        """Where the packed form of (rows, bytes of a row) uint8 will stand; `tensor`: whose pages these are.

        Bytes that are no pages of a file are packed at once, so that nobody need keep them.
        """
        rows, row_bytes = data.shape
        out = self._arena.take(-(-rows // GROUP) * GROUP * row_bytes)
        packing = self if tensor else Packing(self._crew, self._arena)
        step = max(GROUP, RELEASE // row_bytes // GROUP * GROUP)  # an output matrix is larger than all else at a time
        for first in range(0, rows, step):
            part = data[first : first + step]
            packing._interleave(part, type_name, out[first * row_bytes : (first + step) * row_bytes])
            if tensor is not None:
                self._spans.append(_pages(part, *tensor.pages))
                self._unreleased += part.nbytes
            if self._unreleased >= RELEASE:
                self._release()
        if tensor is None:
            packing.run()
        else:
            self._matrices.append(self._last)
        return out

    def _interleave(self, data: np.ndarray, type_name: str, out: np.ndarray) -> None:
        rows, row_bytes = data.shape
        steps, block_bytes = plan(PRODUCTS[type_name].fields, row_bytes, FORMATS[type_name].block_bytes)
        self._last = len(self._program)
        numbers = [rows, row_bytes, block_bytes, len(steps)]
        self._program.add(interleave, [data, steps, out], numbers, fixed=-(-rows // GROUP), beside=True)

    def _release(self) -> None:
        if self._spans:
            self._program.wait()
            spans = np.array(self._spans, np.int64)
            self._program.add(release, [spans], [], fixed=len(spans), beside=True)
        self._spans, self._unreleased = [], 0

    def run(self, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Pack what was added, calling progress("load", matrices, all of them)."""
        with self.beside(progress):
            pass

    @contextmanager
    def beside(self, progress: Callable[[str, int, int], None] | None = None) -> Iterator[None]:
        """Pack what was added while the block runs, and wait for it at its end; an exception ends the packing too."""
        self._release()
        table, total = self._program.table(), len(self._matrices)
        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(self._crew.run, table, 0, len(table), 1, 0)
            try:
                yield
                while not wait([job], LOOK).done:
                    if progress is not None:
                        progress("load", np.count_nonzero(table[self._matrices, DONE // 8]), total)
            except BaseException:
                while not job.done():
                    table[:, TICKET // 8] = 0  # the number of no job: the threads leave this one
                    wait([job], LOOK)
                self._crew.leave()
                raise
        job.result()
        if progress is not None:
            progress("load", total, total)
        self._begin()


def _pages(part: np.ndarray, first: int, length: int) -> tuple[int, int]:
    """Address and bytes of the pages that lie in `part` altogether, of those that may be let go."""
    begin, end = part.ctypes.data, part.ctypes.data + part.nbytes
    begin, end = max(first, -(-begin // PAGESIZE) * PAGESIZE), min(first + length, end // PAGESIZE * PAGESIZE)
    return begin, max(0, end - begin)


def pack(data: np.ndarray, type_name: str, crew: Crew) -> np.ndarray:
    """The packed form of (rows, bytes of a row) uint8."""
    return Packing(crew, Arena()).add(data, type_name)
