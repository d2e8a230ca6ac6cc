"""Packing the matrices of a model: many in one program for the threads that will multiply them, with no Python between.

    file, mapped  ->  interleave (runtime.kernels.pack)  ->  arena      after every 32 MB those pages are let go

The tokenizer is made at the same time and needs the interpreter; threads that came back to it after every matrix would
wait for it each time.
"""

from collections.abc import Callable

import numpy as np

from refquant.gguf import FORMATS, Tensor
from runtime.arena import Arena
from runtime.kernels import PRODUCTS
from runtime.kernels.pack import GROUP, interleave, plan, release
from runtime.program import Program
from runtime.workers import Crew

RELEASE = 32 << 20  # bytes of the file between two releases: what loading holds beyond the packed weights
RUN = 256 << 20  # bytes between two looks at the interpreter: progress is shown, Ctrl-C acts


class Packing:
    """Matrices to be packed into `arena` by the threads of `crew`: `add` all of them, then `run`."""

    def __init__(self, crew: Crew, arena: Arena):
        self._crew, self._arena = crew, arena
        self._begin()

    def _begin(self) -> None:
        self._program = Program()
        self._runs: list[tuple[int, int]] = []  # (rows of the program, matrices) up to which each run goes
        self._matrices = self._bytes = self._unreleased = 0
        self._spans: list[tuple[int, int]] = []

    def add(self, data: np.ndarray, type_name: str, tensor: Tensor | None = None) -> np.ndarray:
        """Where the packed form of (rows, bytes of a row) uint8 will stand; `tensor`: whose pages these are.

        Bytes that are no pages of a file are packed at once, so that nobody need keep them.
        """
        rows, row_bytes = data.shape
        groups = -(-rows // GROUP)
        out = self._arena.take(groups * GROUP * row_bytes)
        steps, block_bytes = plan(PRODUCTS[type_name].fields, row_bytes, FORMATS[type_name].block_bytes)
        packing = self if tensor else Packing(self._crew, self._arena)
        numbers = [rows, row_bytes, block_bytes, len(steps)]
        packing._program.add(interleave, [data, steps, out], numbers, fixed=groups, beside=True)
        if tensor is None:
            packing.run()
            return out
        self._matrices += 1
        self._bytes += data.nbytes
        self._unreleased += data.nbytes
        self._spans.append(tensor.pages)
        if self._unreleased >= RELEASE:
            self._release()
        if self._bytes >= RUN:
            self._runs.append((len(self._program), self._matrices))
            self._bytes = 0
        return out

    def _release(self) -> None:
        if self._spans:
            self._program.wait()
            spans = np.array(self._spans, np.int64)
            self._program.add(release, [spans], [], fixed=len(spans), beside=True)
        self._spans, self._unreleased = [], 0

    def run(self, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Pack what was added, calling progress("load", matrices done, matrices)."""
        self._release()
        self._runs.append((len(self._program), self._matrices))
        table, total, first = self._program.table(), self._matrices, 0
        for end, done in self._runs:
            self._crew.run(table, first, end, 1, 0)
            first = end
            if progress is not None:
                progress("load", done, total)
        self._begin()


def pack(data: np.ndarray, type_name: str, crew: Crew) -> np.ndarray:
    """The packed form of (rows, bytes of a row) uint8."""
    return Packing(crew, Arena()).add(data, type_name)
