"""Running one kernel as the step function would: a record made from arrays and numbers, and a range of units."""

import numpy as np

from runtime.jit import Compiled
from runtime.overruns import overruns
from runtime.program import Program
from runtime.workers import Crew


def run(kernel: Compiled, buffers: list, numbers: list, units: int, tokens: int = 1, start: int = 0, threads: int = 1):
    """Run `units` units of `kernel`; in checked mode any access outside of the buffers fails."""
    program = Program()
    program.add(kernel, buffers, numbers, fixed=units)
    crew = Crew(threads)
    try:
        crew.run(program.table(), 0, 1, tokens, start)
    finally:
        crew.close()
    assert overruns.value == 0


def assert_same_bits(got: np.ndarray, ref: np.ndarray) -> None:
    """dtype, shape, bits."""
    assert got.dtype == ref.dtype
    assert got.shape == ref.shape
    np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), ref.view(f"u{ref.itemsize}"))
